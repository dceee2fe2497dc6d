"""The anti-replay window: any numbers in any order, with the same answers from both engines."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.engines import NativeModule
from tests.native.packets import FEW
from vpnd.datapath.replay import ReplayWindow

vpnd_engine = NativeModule()

sizes = st.sampled_from([32, 33, 63, 64, 65, 100, 127, 128, 129, 4095, 4096]) | st.integers(32, 4096)
starts = st.sampled_from([0, 1, (1 << 32) - 70, (1 << 32) + 5, (1 << 64) - 6000]) | st.integers(0, 1 << 63)
near = st.integers(-140, 140)
far = st.integers(-4200, 4200)
farther = st.integers(-(1 << 33), 1 << 33)


@FEW
@given(sizes, starts, st.lists(near | near | far | farther, max_size=200))
def test_windows_answer_alike(size: int, start: int, steps: list[int]) -> None:
    ours, theirs = vpnd_engine.ReplayWindow(size), ReplayWindow(size)
    if start:
        assert ours.accept(start) is theirs.accept(start) is True
    for step in steps:
        sequence = min(max(theirs.highest + step, 0), (1 << 64) - 1)
        assert ours.check(sequence) is theirs.check(sequence)
        if step % 3:
            assert ours.accept(sequence) is theirs.accept(sequence)
        assert ours.highest == theirs.highest
        low = sequence & 0xFFFFFFFF
        assert ours.extend(low) == theirs.extend(low)


@FEW
@given(sizes, starts, st.lists(st.integers(1, 5000), max_size=20))
def test_a_run_that_python_marks_at_once_is_marked(size: int, start: int, counts: list[int]) -> None:
    ours, theirs = vpnd_engine.ReplayWindow(size), ReplayWindow(size)
    start = min(start, (1 << 64) - (1 << 20))
    if start:
        assert ours.accept(start) is theirs.accept(start)
    for count in counts:
        first = theirs.highest + 1
        theirs.advance(count)
        for sequence in range(first, first + count):
            ours.accept(sequence)
        for behind in (0, 1, size - 1, size, size + 1, count, count + 1):
            sequence = max(theirs.highest - behind, 0)
            assert ours.check(sequence) is theirs.check(sequence)


@FEW
@given(sizes, starts, st.integers(0, (1 << 32) - 1))
@example(size=128, start=(1 << 32) - 1, low=0)
@example(size=128, start=1 << 32, low=(1 << 32) - 1)
def test_the_upper_half_is_guessed_alike(size: int, start: int, low: int) -> None:
    ours, theirs = vpnd_engine.ReplayWindow(size), ReplayWindow(size)
    if start:
        assert ours.accept(start) is theirs.accept(start)
    assert ours.extend(low) == theirs.extend(low)


@pytest.mark.parametrize("size", [0, 31, 4097])
def test_sizes_that_are_none_are_refused(size: int) -> None:
    for window in (vpnd_engine.ReplayWindow, ReplayWindow):
        with pytest.raises(ValueError, match="replay window"):
            window(size)
