"""Run by `make monitoring` alone, which installs Debian's Prometheus."""

from __future__ import annotations

import os
import shutil

import pytest

PROMTOOL = shutil.which("promtool")


def missing() -> str | None:
    """Why these tests cannot run, or None."""
    if not os.environ.get("VPND_MONITORING"):
        return "with Prometheus only by `make monitoring`"
    return None if PROMTOOL and shutil.which("prometheus") else "needs Debian's package prometheus"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A skip that says why; `make test` has no Prometheus."""
    reason = missing()
    if reason is None:
        return
    for item in items:
        if "tests/monitoring/" in item.nodeid:
            item.add_marker(pytest.mark.skip(reason=reason))
