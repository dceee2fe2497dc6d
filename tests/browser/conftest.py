"""Run by `make browser` alone, which installs what it takes."""

from __future__ import annotations

import os

from tests.unit.control.conftest import remote

__all__ = ["remote"]

collect_ignore = [] if os.environ.get("VPND_BROWSER") else ["test_console.py"]
