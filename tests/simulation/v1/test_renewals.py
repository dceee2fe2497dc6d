"""Renewals of IPsec SAs that come to nothing at first, and pairs that go while one is under way."""

from __future__ import annotations

import pytest

from tests.simulation.pair import Pair
from tests.simulation.v1.pairs import MODES, TWO_MAPPINGS, pair_of
from tests.simulation.weather import Datagram
from vpnd.ike.outputs import PeerRenews
from vpnd.ike.v1.children import REKEY_AGAIN
from vpnd.model.policy import NegotiationMode
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


@pytest.mark.parametrize("mode", MODES)
def test_a_peer_that_begins_again_what_is_closed_comes_to_rest_and_is_told(mode: NegotiationMode) -> None:
    """strongSwan with close_action = start: another ISAKMP SA for each that we close as one too many."""
    pair = pair_of(mode)
    pair.establish()
    sessions = pair.endpoint_b._registry.sessions
    pair.endpoint_b._registry.renewals._known.add(pair.b.tunnel)  # so that b itself closes nothing
    made = 0

    def begin() -> None:
        nonlocal made
        made += 1
        pair.b.do("begin_anew", pair.b.tunnel)
        pair.world.run_for(1.0)

    for _ in range(2):
        begin()
    wanted = len(list(sessions()))
    for _ in range(120):
        pair.world.run_for(1.0)
        while len(list(sessions())) < wanted:
            begin()
    assert made == 3
    assert len(pair.a.of(PeerRenews)) == 1
    assert len(list(pair.endpoint_a._registry.sessions())) == wanted == 3
