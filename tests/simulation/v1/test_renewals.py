"""Renewals of IPsec SAs that come to nothing at first, and pairs that go while one is under way."""

from __future__ import annotations

import pytest

from tests.simulation.bounds import REKEY_AGAIN, REPLACED_AT_MOST, REPLACED_FOR_NOW, SETTLING_BESIDE
from tests.simulation.pair import Pair
from tests.simulation.renewing import closes_nothing
from tests.simulation.v1.pairs import MODES, TWO_MAPPINGS, pair_of
from tests.simulation.v1.puppet import Puppet
from tests.simulation.v1.stage import Stage, stage_in
from tests.simulation.weather import Datagram
from vpnd.ike.outputs import ChildReplaced, PeerRenews
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


def test_a_pair_that_goes_before_its_renewal_has_its_turn_is_made_again() -> None:
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


def test_a_pair_that_goes_during_its_renewal_is_made_again() -> None:
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
def test_a_peer_that_begins_again_what_is_closed_comes_to_rest_and_is_told(
    mode: NegotiationMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """strongSwan with close_action = start: another ISAKMP SA for each that we close as one too many."""
    pair = pair_of(mode)
    pair.establish()
    closes_nothing(pair.b, monkeypatch)
    made = 0

    def begin() -> None:
        nonlocal made
        made += 1
        pair.b.do("reinitiate", pair.b.tunnel)
        pair.world.run_for(1.0)

    for _ in range(2):
        begin()
    wanted = len(pair.endpoint_b.snapshot().sas)
    for _ in range(120):
        pair.world.run_for(1.0)
        while len(pair.endpoint_b.snapshot().sas) < wanted:
            begin()
    assert made == 3
    assert len(pair.a.of(PeerRenews)) == 1
    assert len(pair.endpoint_a.snapshot().sas) == wanted == 3


def storm(stage: Stage, count: int, seed: int = 100) -> Puppet:
    """The peer brings up `count` ISAKMP SAs, one right after the other; the last."""
    for number in range(count):
        puppet = stage.puppet(seed=seed + number)
        puppet.take_phase1(stage.say(stage.last_of_phase1(puppet))[0])
    return puppet


def begun(stage: Stage, puppet: Puppet, since: int) -> list[bytes]:
    """Quick modes that the endpoint has begun under the puppet's ISAKMP SA."""
    return [
        data
        for data in stage.heard[since:]
        if data[:16] == puppet.cky_i + puppet.cky_r and data[18] == Exchange1.QUICK_MODE
    ]


def test_after_a_storm_of_new_isakmp_sas_each_mapping_gets_a_pair_that_is_there() -> None:
    """A DELETE for the one that had the IPsec SAs at the peer takes them along there, and nothing says so."""
    stage, _ = stage_in("with a child")
    before = len(stage.heard)
    last = storm(stage, REPLACED_FOR_NOW + 4)
    stage.world.run_for(10)
    quick = last.answer_quick(begun(stage, last, before)[0])
    stage.say(last.quick2(quick, 0x2001))
    stage.world.run_for(SETTLING_BESIDE)
    assert stage.gateway.child().spi_out == 0x2001


def test_the_storm_may_go_on_while_it_waits() -> None:
    stage, _ = stage_in("with a child")
    before = len(stage.heard)
    storm(stage, REPLACED_FOR_NOW + 1)
    stage.world.run_for(3)
    last = stage.puppet(seed=999)
    last.take_phase1(stage.say(stage.last_of_phase1(last))[0])
    stage.world.run_for(10)
    assert begun(stage, last, before)


def test_a_renewal_or_two_make_no_new_pair() -> None:
    stage, _ = stage_in("with a child")
    before = len(stage.heard)
    last = storm(stage, 3)
    stage.world.run_for(20)
    assert not begun(stage, last, before)


def test_what_was_about_to_be_closed_stays_once_the_peer_is_known() -> None:
    """The first of several is closed and begun again: the next in turn is not closed any more."""
    stage, _ = stage_in("with a child")
    for number in range(3):
        stage.world.run_for(2)
        storm(stage, 1, 200 + number)
    before = len(stage.endpoint.snapshot().sas)
    while len(stage.endpoint.snapshot().sas) == before:
        stage.world.run_for(0.5)
    storm(stage, 1, 300)
    assert len(stage.gateway.of(PeerRenews)) == 1
    held = len(stage.endpoint.snapshot().sas)
    stage.world.run_for(10)
    assert len(stage.endpoint.snapshot().sas) == held == 4


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("gap", [6.0, 7.0, 10.0])
@pytest.mark.parametrize(("first", "lead"), [("a", 0.0), ("a", 0.012), ("b", 0.012)])
def test_isakmp_sas_that_both_ends_renew_again_and_again_leave_the_ipsec_sas_as_they_are(
    first: str, lead: float, gap: float, mode: NegotiationMode
) -> None:
    """What is too many of one round is closed shortly before the next: that is no reason of the peer's."""
    pair = pair_of(mode)
    pair.establish()
    children = pair.a.child(), pair.b.child()
    sides = (pair.a, pair.b) if first == "a" else (pair.b, pair.a)
    for _ in range(REPLACED_FOR_NOW + 2):
        for gateway in sides:
            gateway.rekey_ike()
            pair.world.run_for(lead)
        pair.world.run_for(gap - lead)
    pair.world.run_for(30)
    assert (pair.a.child(), pair.b.child()) == children
    assert len(pair.a.ike_sas()) == len(pair.b.ike_sas()) == 1
    for gateway, endpoint in ((pair.a, pair.endpoint_a), (pair.b, pair.endpoint_b)):
        assert not gateway.of(PeerRenews) + gateway.of(ChildReplaced)
        assert len(endpoint.snapshot().sas) <= 1 + REPLACED_AT_MOST
