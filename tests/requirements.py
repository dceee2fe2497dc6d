"""What a test needs of the machine, and what becomes of it where that is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.lab.strongswan import CHARON


def missing_for_root() -> str | None:
    """Why tests of the `root` kind cannot run here, or None."""
    if os.geteuid() != 0:
        return "needs root: run `sudo make test`"
    if not Path("/dev/net/tun").exists():
        return "needs a kernel with TUN: /dev/net/tun is missing"
    return None


def missing_for_strongswan() -> str | None:
    """Why tests of the `strongswan` kind cannot run here, or None."""
    if not Path(CHARON).exists() or shutil.which("swanctl") is None:
        return "needs Debian's strongSwan: run `sudo make setup`"
    return None


def require(missing: str | None) -> None:
    """Skip the test if something is missing; a build machine (CI=true) has everything, or says so in red."""
    if missing is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"not run, and with CI=true that is a failure: {missing}", pytrace=False)
    pytest.skip(missing)
