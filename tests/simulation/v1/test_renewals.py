"""Renewals of IPsec SAs that come to nothing at first, and pairs that go while one is under way."""

from __future__ import annotations

from tests.simulation.pair import Pair
from tests.simulation.v1.pairs import TWO_MAPPINGS, pair_of
from tests.simulation.weather import Datagram
from vpnd.ike.v1.children import REKEY_AGAIN
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange1

ATTEMPT = 30.0
"""Seconds that a quick mode lasts which nobody answers."""


class Deaf:
    """While `lost`, no quick mode of `a` arrives at `b`."""

    def __init__(self, pair: Pair) -> None:
        self.lost = True
        pair.world.interceptors.append(self._fate)

    def _fate(self, datagram: Datagram) -> list[tuple[float, bytes]] | None:
        is_quick = Header.decode(datagram.data).exchange == Exchange1.QUICK_MODE
        return [] if self.lost and is_quick and datagram.sender == "a" else None


def test_a_pair_that_goes_before_its_renewal_has_its_turn_is_made_anew() -> None:
    """The wish for a successor waits behind another mapping's; that for a first pair takes its place."""
    pair = pair_of(recipe=TWO_MAPPINGS)
    pair.establish(2)
    deaf = Deaf(pair)
    pair.a.rekey_child(0)
    pair.a.rekey_child(1)
    pair.world.run_for(5)
    pair.b.close_child(1)
    pair.world.run_for(1)
    assert not pair.a.sends(1)
    pair.a.initiate(1)
    deaf.lost = False
    pair.world.run_for(ATTEMPT)
    assert pair.a.sends(1)
    assert pair.b.sends(1)


def test_a_pair_that_goes_during_its_renewal_is_made_anew() -> None:
    """Another mapping's pair comes up meanwhile: the one under way is not given up as not needed."""
    pair = pair_of(recipe=TWO_MAPPINGS)
    pair.establish(2)
    deaf = Deaf(pair)
    pair.a.rekey_child(0)
    pair.world.run_for(5)
    pair.b.close_child(0)
    pair.world.run_for(1)
    pair.a.initiate(0)
    pair.b.rekey_child(1)
    pair.world.run_for(3)
    assert not pair.a.sends(0)
    deaf.lost = False
    pair.world.run_for(ATTEMPT)
    assert pair.a.sends(0)
    assert pair.b.sends(0)


def test_a_renewal_that_was_asked_for_is_tried_again() -> None:
    """So is one by kilobytes: the next by time may be hours away, and the traffic would stop before."""
    pair = pair_of()
    pair.establish()
    deaf = Deaf(pair)
    old = pair.a.child().spi_in
    pair.a.rekey_child()
    pair.world.run_for(ATTEMPT + 1)
    deaf.lost = False
    pair.world.run_for(REKEY_AGAIN)
    assert pair.a.child().spi_in != old
