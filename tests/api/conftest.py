"""A daemon with the API over TCP, for programs that are not ours; they run when asked for, by `make api`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Served:
    """Where it is, whom to trust, and its tokens."""

    url: str
    socket: str
    certificate: str
    admin: str = field(repr=False)
    read: str = field(repr=False)


@pytest.fixture(autouse=True)
def asked_for() -> None:
    if not os.environ.get("VPND_API"):
        pytest.skip("it takes npm, or schemathesis and ten minutes: make api")


@pytest.fixture
def served(asked_for: None, tmp_path: Path) -> Iterator[Served]:
    command = [sys.executable, "-m", "tests.api.served", str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as daemon:
        assert daemon.stdout is not None
        yield Served(**json.loads(daemon.stdout.readline()))
        assert daemon.poll() is None, "it has ended before it was told to"
        daemon.communicate("\n", timeout=60)
    assert daemon.returncode == 0
