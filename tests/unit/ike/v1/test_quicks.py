"""Quick modes that cross: of two for one mapping only one counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import vpnd.ike.v1.version  # noqa: F401 - the modules of the package need each other
from tests.simulation.bounds import CROSSED
from vpnd.ike.faults import Drop
from vpnd.ike.v1.quicks import Quicks


def test_a_quick_mode_that_crosses_ours_is_dropped_with_its_copies_and_answered_later() -> None:
    session: Any = SimpleNamespace()
    quicks = Quicks(session)
    quicks.cross(9.0, 77, under_way=False)
    with pytest.raises(Drop, match="crossing"):
        quicks.cross(10.0, 77, under_way=True)
    with pytest.raises(Drop, match="crossing"):
        quicks.cross(10.0 + CROSSED - 0.1, 77, under_way=False)
    quicks.cross(10.0 + CROSSED - 0.1, 78, under_way=False)
    quicks.cross(10.0 + CROSSED, 77, under_way=False)
