"""The anti-replay window (RFC 4303 section 3.4.3)."""

from __future__ import annotations

import random

import pytest

from vpnd.datapath.replay import ESN_END, MAXIMUM_WINDOW, ReplayWindow

W = 128


@pytest.mark.parametrize(
    "steps",
    [
        [(0, False), (1, True), (1, False), (9, True), (8, True), (7, True), (7, False)],
        [(W, True), (W - 1, True), (W - 1, False), (W - 2, True), (2, True), (2, False)],
        # The lowest number that the window holds, and the one below it.
        [(W + 16, True), (3, False), (W + 16, False), (17, True), (16, False)],
        [(10**9, True), (10**9 - W, False), (10**9 - W + 1, True), (1, False)],
        [(1, True), (1 + W, True), (1, False), (2, True), (1 + W, False)],
        [((1 << 32) - 1, True), ((1 << 32) - 2, True), ((1 << 32) - 1, False)],
    ],
)
def test_what_is_new_is_accepted_once(steps: list[tuple[int, bool]]) -> None:
    window = ReplayWindow(W)
    for number, (sequence, new) in enumerate(steps):
        assert window.check(sequence) is new, f"step {number}: {sequence}"
        assert window.accept(sequence) is new, f"step {number}: {sequence}"


def test_all_at_once_backwards_then_all_again() -> None:
    window = ReplayWindow(W)
    assert all(window.accept(sequence) for sequence in range(W, 0, -1))
    assert not any(window.accept(sequence) for sequence in range(W + 1))
    assert window.accept(W + 1)


def test_a_jump_of_a_whole_window_forgets_everything() -> None:
    window = ReplayWindow(W)
    for sequence in range(1, 50):
        assert window.accept(sequence)
    assert window.accept(49 + W)
    assert not window.check(49)
    assert window.check(50)


def test_check_changes_nothing() -> None:
    window = ReplayWindow()
    assert window.check(1000)
    assert window.highest == 0
    assert window.accept(1)


@pytest.mark.parametrize("count", [1, 5, W - 1, W, W + 1, 500])
def test_advancing_is_accepting_one_after_the_other(count: int) -> None:
    quick, slow = ReplayWindow(W), ReplayWindow(W)
    for window in (quick, slow):
        assert window.accept(3)
    quick.advance(count)
    for sequence in range(4, 4 + count):
        assert slow.accept(sequence)
    assert quick.highest == slow.highest
    for sequence in range(count + 10):
        assert quick.check(sequence) is slow.check(sequence), sequence


def test_ten_thousand_times_ten_reordered_packets_are_as_a_set_would_have_them() -> None:
    seed = 20261122
    rng = random.Random(seed)
    window, seen, highest = ReplayWindow(W), set[int](), 0
    for _ in range(100_000):
        sequence = max(0, highest + rng.randint(-W - 20, 20))
        expected = sequence > 0 and sequence > highest - W and sequence not in seen
        assert window.accept(sequence) is expected, f"seed {seed}, sequence {sequence}"
        if expected:
            seen.add(sequence)
            highest = max(highest, sequence)


@pytest.mark.parametrize("size", [0, 31, MAXIMUM_WINDOW + 1])
def test_sizes_beyond_the_bounds_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="replay window"):
        ReplayWindow(size)


@pytest.mark.parametrize(
    ("highest", "low", "number"),
    [
        (0, 1, 1),
        (0, 0xFFFFFFFF, 0xFFFFFFFF),
        ((5 << 32) + 1000, 1001, (5 << 32) + 1001),
        ((5 << 32) + 1000, 900, (5 << 32) + 900),
        # Below the window: only the next 2^32 can be meant.
        ((5 << 32) + 1000, 1000 - W, (6 << 32) + 1000 - W),
        # The window reaches back into the 2^32 before.
        ((5 << 32) + 10, 0xFFFFFFFF, (4 << 32) + 0xFFFFFFFF),
        ((5 << 32) + 10, 0x80000000, (5 << 32) + 0x80000000),
        ((1 << 32) - 1, 0, 1 << 32),
        # There is no next 2^32: the number is an old one.
        (ESN_END - 1, 0, ESN_END - (1 << 32)),
    ],
)
def test_the_high_half_of_an_extended_number_is_found(highest: int, low: int, number: int) -> None:
    window = ReplayWindow(W)
    if highest:
        assert window.accept(highest)
    assert window.extend(low) == number
