"""Losses that come with the renewal of the SAs, and losses that do not."""

from __future__ import annotations

import pytest

from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import Lifetimes
from vpnd.tunnel.flaps import HEALED, Flaps

DEAD = Diagnosis.of(Code.PEER_DEAD, exchange="CREATE_CHILD_SA")
PFS = Diagnosis.of(Code.PFS, theirs=14, ours=2)
HOUR = Lifetimes(3600)


def losses(flaps: Flaps, *times: tuple[float, float], why: Diagnosis = DEAD) -> list[Diagnosis | None]:
    """A loss at each time, after so many seconds up."""
    return [flaps.lost(at, at - after, after, HOUR, why) for at, after in times]


def test_three_losses_when_a_rekey_is_due_are_one_fault() -> None:
    first, second, third = losses(Flaps(), (3300, 3290), (6700, 3300), (10000, 3250))
    assert (first, second) == (None, None)
    assert third is not None
    assert third.code is Code.FLAPPING
    facts = ("seconds", "count", "reason", "exchange")
    assert [third.fact(name) for name in facts] == ["3350", "3", "E-DPD", "CREATE_CHILD_SA"]


def test_what_a_rekey_was_refused_with_is_behind_it() -> None:
    flaps = Flaps()
    for at in (600.0, 1200.0, 1800.0):
        flaps.renewal_failed(PFS)
        found = flaps.lost(at, at - 590, 590, HOUR, Diagnosis.of(Code.PEER_DELETED))
    assert found is not None
    assert [found.fact(name) for name in ("reason", "theirs", "ours")] == ["E-PFS", "14", "2"]


def test_a_timer_of_the_peers_is_known_by_its_regularity() -> None:
    found = losses(Flaps(), (310, 300), (620, 301), (930, 300), why=Diagnosis.of(Code.PEER_DELETED))
    assert found[-1] is not None


@pytest.mark.parametrize(
    "times",
    [
        ((300, 290), (900, 500), (1000, 90)),
        ((3300, 3290), (6700, 3300), (20000, 3250)),
        ((10, 2), (20, 2), (30, 2)),
        ((3300, 3290), (3301, 3290), (3302, 3290)),
    ],
    ids=["at any time", "seldom", "at once", "of several mappings"],
)
def test_other_losses_are_none(times: tuple[tuple[float, float], ...]) -> None:
    assert losses(Flaps(), *times) == [None] * len(times)


def test_a_tunnel_that_stays_up_longer_than_before_is_steady_again() -> None:
    flaps = Flaps()
    losses(flaps, (310, 300), (620, 301), (930, 300))
    assert not flaps.renewed(1200, 940)
    assert not flaps.renewed(1200, None)
    assert flaps.renewed(940 + HEALED * 310, 940)
    assert flaps.every is None
    assert not flaps.renewed(9999, 940)
