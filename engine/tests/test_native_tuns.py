"""The tests of the Python engine over real TUNs and sockets, run on the native one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.datapath import test_real_tuns as suite
from tests.datapath.test_real_tuns import *  # noqa: F403 - collected here

pytestmark = suite.pytestmark


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "ENGINE", Path(__file__).parents[1] / "benches" / "gateway.py")
