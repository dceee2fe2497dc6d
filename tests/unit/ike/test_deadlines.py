"""Many deadlines in one heap."""

from __future__ import annotations

import gc
import weakref
from typing import TypeVar

import pytest

from vpnd.ike.deadlines import OUTDATED, Deadlines

T = TypeVar("T")


class Key:
    """Something that must not be kept alive."""


def expired(deadlines: Deadlines[T], now: float) -> tuple[T, ...]:
    """What is served at this time."""
    served: list[T] = []
    deadlines.serve(now, served.append)
    return tuple(served)


def test_the_earliest_is_next_and_the_due_come_in_order() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for key, at in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("also b", 2.0)):
        deadlines.arm(key, at)
    assert deadlines.next_timeout() == 1.0
    assert expired(deadlines, 0.9) == ()
    assert expired(deadlines, 2.0) == ("a", "b", "also b")
    assert deadlines.next_timeout() == 3.0
    assert expired(deadlines, 3.0) == ("c",)
    assert deadlines.next_timeout() is None


def test_a_deadline_moves_both_ways_and_goes() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.arm("a", 5.0)
    deadlines.arm("a", 9.0)
    assert expired(deadlines, 8.0) == ()
    deadlines.arm("a", 4.0)
    assert deadlines.next_timeout() == 4.0
    assert expired(deadlines, 9.0) == ("a",)
    deadlines.arm("a", 1.0)
    deadlines.arm("a", None)
    deadlines.disarm("never armed")
    assert deadlines.next_timeout() is None
    assert expired(deadlines, 9.0) == ()


def test_the_same_deadline_again_keeps_its_place() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.arm("a", 1.0)
    deadlines.arm("b", 1.0)
    deadlines.arm("a", 1.0)
    assert expired(deadlines, 1.0) == ("a", "b")


def test_an_outdated_entry_keeps_nothing_alive() -> None:
    deadlines: Deadlines[Key] = Deadlines()
    key = Key()
    gone = weakref.ref(key)
    deadlines.arm(key, 1000.0)
    deadlines.disarm(key)
    del key
    gc.collect()
    assert gone() is None


def test_outdated_entries_are_removed_in_time() -> None:
    deadlines: Deadlines[int] = Deadlines()
    deadlines.arm(-1, 0.5)
    for at in range(4 * OUTDATED):
        deadlines.arm(0, 1000.0 + at)
    # What is kept is bounded: a small factor of what waits, and a constant.
    assert deadlines.entries <= OUTDATED + 8
    assert expired(deadlines, 1000.0 + 4 * OUTDATED) == (-1, 0)


def test_after_a_bug_in_one_it_and_the_others_are_due_still() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for at, key in enumerate("abcd"):
        deadlines.arm(key, float(at))
    served: list[str] = []

    def serve(key: str) -> None:
        served.append(key)
        if served == ["a", "b"]:
            raise RuntimeError(key)

    with pytest.raises(RuntimeError):
        deadlines.serve(2.0, serve)
    assert deadlines.next_timeout() == 2.0
    deadlines.serve(2.0, serve)
    assert served == ["a", "b", "b", "c"]
    assert expired(deadlines, 3.0) == ("d",)
