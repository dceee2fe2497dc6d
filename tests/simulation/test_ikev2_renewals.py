"""A peer that begins again whatever is closed here (strongSwan: close_action = start): both come to rest."""

from __future__ import annotations

import pytest

from tests.simulation.bounds import DUPLICATE_KEPT_BY_PEER
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import ChildUp, PeerRenews
from vpnd.wire.header import Flag
from vpnd.wire.iana import Exchange2, Notify2
from vpnd.wire.ikev2 import Delete, Nonce, Notify, Sa

from .puppet import Puppet
from .stage import Stage

NONCE = Nonce(bytes(range(32)))


class Renewing:
    """A peer as a family of puppets, one for each IKE SA: of each that is closed it begins another."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.live: list[Puppet] = []
        self.made = 0
        self.childless = 0
        self._read = 0

    def begin(self) -> None:
        """One more IKE SA from the peer's side, with mapping 0 if it gets it."""
        self.made += 1
        puppet = self.stage.puppet(seed=100 + self.made)
        self.stage.half_open(puppet)
        spi = 0xC0FFEE00 + self.made
        (answer, *_) = self.stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads(spi)))
        payloads = puppet.open(answer).payloads
        self.live.append(puppet)
        if Notify(Notify2.NO_ADDITIONAL_SAS) in payloads:
            self.childless += 1
            self.live.remove(puppet)
        else:
            assert any(isinstance(p, Sa) for p in payloads)

    def run(self, seconds: float) -> None:
        """Answer everything, and begin another IKE SA for each that is closed."""
        end = self.stage.world.now + seconds
        while self.stage.world.now < end:
            self.stage.world.run_for(0.25)
            heard, self._read = self.stage.heard[self._read :], len(self.stage.heard)
            for data in heard:
                self._hear(data)

    def _hear(self, data: bytes) -> None:
        for puppet in tuple(self.live):
            if not data.startswith(puppet.spi_i + puppet.spi_r):
                continue
            opened = puppet.open(data)
            if opened.header.flags & Flag.RESPONSE:
                return
            message_id = opened.header.message_id
            answer = puppet.seal(Exchange2.INFORMATIONAL, message_id, [], response=True)
            self.stage.say(answer)
            if puppet.delete_ike() in opened.payloads:
                self.live.remove(puppet)
                self.begin()
            return


def crossing(limits: Limits | None = None) -> tuple[Stage, Renewing]:
    """Both ends have begun: the endpoint has two IKE SAs, each with mapping 0."""
    stage = Stage(limits=limits)
    peer = Renewing(stage)
    first = stage.puppet(initiator=False)
    stage.establish_from_here(first)
    peer.live.append(first)
    peer.begin()
    return stage, peer


def test_after_one_that_was_begun_again_both_stay_and_that_is_told() -> None:
    stage, peer = crossing()
    peer.run(120)
    assert (peer.made, len(peer.live), peer.childless) == (2, 2, 0)
    assert len(stage.gateway.ike_sas()) == 2
    assert len(stage.gateway.of(PeerRenews)) == 1
    assert len(stage.gateway.of(ChildUp)) == 3


def test_a_peer_that_does_not_is_left_with_one() -> None:
    stage, peer = crossing()
    peer.begin = lambda: None  # type: ignore[method-assign]  # stands in its place for this test
    peer.run(120)
    assert (len(peer.live), len(stage.gateway.ike_sas())) == (1, 1)
    assert not stage.gateway.of(PeerRenews)


def test_an_attempt_much_later_is_no_answer_to_the_delete() -> None:
    stage, peer = crossing()
    begin = peer.begin
    peer.begin = lambda: None  # type: ignore[method-assign]  # stands in its place for this test
    peer.run(60)
    begin()
    assert not stage.gateway.of(PeerRenews)
    peer.run(DUPLICATE_KEPT_BY_PEER + 2)
    assert len(stage.gateway.ike_sas()) == 1


@pytest.mark.parametrize("limit", [3, 4])
def test_closing_all_of_them_again_and_again_makes_no_more_than_there_were(limit: int) -> None:
    """The peer begins as many as are closed, and we another: what is too many gets no CHILD_SA and goes."""
    stage, peer = crossing(Limits(ike_sas_per_tunnel=limit))
    peer.run(60)
    for turn in range(4):
        stage.gateway.close()
        ours = stage.puppet(initiator=False, seed=len(stage.heard))
        stage.gateway.initiate()
        ours.take_init(stage.heard[-1])
        (request,) = stage.say(ours.init_message())
        ours.open(request)
        stage.say(ours.seal(Exchange2.IKE_AUTH, 1, ours.auth_payloads(0xC0FFEEF0 + turn), response=True))
        peer.live.append(ours)
        peer.run(60)
        assert len(stage.gateway.ike_sas()) == 2
        before = peer.made
        peer.run(60)
        assert peer.made == before


@pytest.mark.parametrize(("limit", "refused"), [(3, 1), (4, 0)])
def test_one_more_much_later_is_taken_unless_we_hold_all_that_we_can(limit: int, refused: int) -> None:
    stage, peer = crossing(Limits(ike_sas_per_tunnel=limit))
    peer.run(60)
    assert len(stage.gateway.ike_sas()) == 2
    peer.begin()
    peer.run(10)
    assert peer.childless == refused
    assert len(stage.gateway.ike_sas()) == 3 - refused


def test_a_child_that_is_begun_again_stays_beside_the_other() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    spi, number = 0xC0FFEE40, 2

    def another() -> None:
        nonlocal spi, number
        spi, number = spi + 1, number + 1
        stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, number, [*puppet.child_payloads(spi), NONCE]))

    number -= 1
    another()
    for message_id in range(3):
        heard = len(stage.heard)
        stage.world.run_for(DUPLICATE_KEPT_BY_PEER + 1)
        deletes = [p for data in stage.heard[heard:] for p in puppet.open(data).payloads]
        if not any(isinstance(p, Delete) for p in deletes):
            break
        stage.say(puppet.seal(Exchange2.INFORMATIONAL, message_id, [], response=True))
        another()
    assert len(stage.gateway.of(ChildUp)) == 3
    assert len(stage.gateway.of(PeerRenews)) == 1
    assert len(stage.gateway.children()) == 2


def test_what_was_about_to_be_closed_stays_once_the_peer_is_known() -> None:
    """Three crossed: the first is closed and begun again, and the second must not be closed as well."""
    stage, peer = crossing()
    peer.begin()
    peer.run(60)
    assert peer.made == 3
    assert len(peer.live) == len(stage.gateway.ike_sas()) == 3
    assert len(stage.gateway.of(PeerRenews)) == 1
