"""Quick modes that cross: of two for one mapping only one counts."""

from __future__ import annotations

import pytest

from tests.simulation.bounds import CROSSED
from vpnd.ike.faults import Drop
from vpnd.ike.v1.quick_modes import QuickModes


def test_a_quick_mode_that_crosses_ours_is_dropped_with_its_copies_and_answered_later() -> None:
    modes = QuickModes()
    modes.cross(9.0, 77, under_way=False)
    with pytest.raises(Drop, match="crossing"):
        modes.cross(10.0, 77, under_way=True)
    with pytest.raises(Drop, match="crossing"):
        modes.cross(10.0 + CROSSED - 0.1, 77, under_way=False)
    modes.cross(10.0 + CROSSED - 0.1, 78, under_way=False)
    modes.cross(10.0 + CROSSED, 77, under_way=False)
