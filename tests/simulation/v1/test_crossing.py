"""Both ends have begun, and the peer drops the ISAKMP SA that both should keep, without a word.

strongSwan does so when INITIAL_CONTACT comes on the other one. The one that answers is the one that stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.simulation.bounds import SETTLING
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, policy_of
from tests.simulation.v1.puppet import Puppet
from tests.simulation.v1.stage import RECIPE, Stage
from vpnd.ike.outputs import ChildFailed, Failed, PeerDead
from vpnd.model.identity import Identity
from vpnd.model.policy import NegotiationMode
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange1, Notify1, Protocol
from vpnd.wire.ikev1 import Delete, Id, Notify

PROOF_UNDER_WAY = "our proof is under way when the peer's attempt is done"
OURS_FIRST = "our attempt is done first"
SETTLED = 5.0
"""Seconds until the tunnel carries again: dead peer detection would need 30."""
MOMENT = 0.01
FQDN = 2

Begun = Callable[[Stage, Puppet], None]


class Forgetful:
    """The peer of two ISAKMP SAs: `kept` is begun by the endpoint; `dropped`, its own, it answers no more.

    `lower`: whether its identity is, so that both should keep `dropped`.
    """

    def __init__(self, mode: NegotiationMode, lower: bool) -> None:
        self.stage = Stage(mode)
        self.kept, self.dropped = self.stage.puppet(initiator=False), self.stage.puppet(seed=99)
        self.deletes: list[Delete] = []
        self.pairs = 0
        self._read = 0
        if not lower:
            name = b"a.example"
            self.kept.identity = self.dropped.identity = Id(FQDN, name)
            policy = replace(policy_of(RECIPE, mode), remote_id=Identity(FQDN, name))
            self.stage.gateway.set_peer("a", policy)

    def run(self, seconds: float, under: Puppet | None = None) -> None:
        """Answer under this one, and under no other: the one that is kept, unless another is named."""
        puppet = under or self.kept
        end = self.stage.world.now + seconds
        while self.stage.world.now < end:
            heard, self._read = self.stage.heard[self._read :], len(self.stage.heard)
            for data in heard:
                if data.startswith(puppet.cky_i + puppet.cky_r):
                    self._hear(data, puppet)
            self.stage.world.run_for(0.05)

    def _hear(self, data: bytes, puppet: Puppet) -> None:
        exchange = Header.decode(data).exchange
        if exchange == Exchange1.QUICK_MODE:
            try:
                quick = puppet.answer_quick(data)
            except (ValueError, LookupError):
                return
            self.pairs += 1
            self.stage.say(puppet.quick2(quick, 0x3000 + self.pairs))
        elif exchange == Exchange1.INFORMATIONAL:
            for payload in puppet.open_informational(data).payloads:
                if isinstance(payload, Delete):
                    self.deletes.append(payload)
                elif isinstance(payload, Notify) and payload.type == Notify1.R_U_THERE:
                    spi = puppet.cky_i + puppet.cky_r
                    ack = Notify(Notify1.R_U_THERE_ACK, payload.data, Protocol.IKE, spi)
                    self.stage.say(puppet.informational(ack))


def end_ours(stage: Stage, puppet: Puppet) -> None:
    """Main6 or Aggressive2: the endpoint has its ISAKMP SA."""
    if puppet.aggressive:
        (last, *_) = stage.say(puppet.clear(puppet.exchange, puppet.aggressive2_payloads()))
        puppet.take_phase1(last)
    else:
        stage.say(puppet.seal_phase1(puppet.proof_payloads()))


def establish(stage: Stage, puppet: Puppet) -> None:
    """The puppet brings up its ISAKMP SA. The endpoint begins a quick mode at once."""
    stage.world.run_for(MOMENT)
    heard = stage.say(stage.last_of_phase1(puppet))
    stage.world.run_for(MOMENT)
    if not puppet.aggressive:
        puppet.take_phase1(heard[0])


def crossed(peer: Forgetful, order: str) -> None:
    """Both have begun, and both attempts are done."""
    stage = peer.stage
    if stage.mode is AGGRESSIVE:
        stage.begin(peer.kept)
        end_ours(stage, peer.kept)
        establish(stage, peer.dropped)
        return
    stage.begin_proof(peer.kept)
    if order == OURS_FIRST:
        proof = stage.last_of_phase1(peer.dropped)
        stage.world.run_for(MOMENT)
        end_ours(stage, peer.kept)
        stage.say(proof)
    else:
        establish(stage, peer.dropped)
        end_ours(stage, peer.kept)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize(
    ("mode", "order"), [(MAIN, PROOF_UNDER_WAY), (MAIN, OURS_FIRST), (AGGRESSIVE, OURS_FIRST)]
)
def test_the_one_that_the_peer_has_dropped_is_the_one_that_goes(
    mode: NegotiationMode, order: str, lower: bool
) -> None:
    peer = Forgetful(mode, lower)
    crossed(peer, order)
    peer.run(SETTLED)
    gateway = peer.stage.gateway
    assert [one.spi_i for one in gateway.ike_sas()] == [peer.kept.cky_i]
    assert gateway.sends()
    assert peer.pairs
    peer.run(60)
    assert [one.spi_i for one in gateway.ike_sas()] == [peer.kept.cky_i]
    assert gateway.sends()
    assert not peer.deletes
    assert not gateway.of(PeerDead) + gateway.of(Failed) + gateway.of(ChildFailed)


def test_pairs_that_were_made_under_the_one_that_is_dropped_get_successors() -> None:
    """The peer has dropped them with it, and nothing says so."""
    peer = Forgetful(MAIN, lower=True)
    stage = peer.stage
    stage.begin_proof(peer.kept)
    establish(stage, peer.dropped)
    quick = stage.answered_quick(peer.dropped)
    stage.say(peer.dropped.quick3(quick))
    (old,) = stage.gateway.children()
    end_ours(stage, peer.kept)
    for _ in range(int(SETTLED / 0.05)):
        if not peer.pairs:
            peer.run(0.05)
    stage.world.run_for(SETTLING + MOMENT)
    assert stage.gateway.child().spi_out == 0x3001, "what was sent on is gone: it is not waited beside"
    assert stage.gateway.child() != old
    peer.run(SETTLED)
    assert peer.pairs == 1


def test_a_pair_that_was_made_under_the_one_that_is_closed_gets_a_successor() -> None:
    """To the peer it may belong to that one, and go with it: strongSwan moves only what it had before."""
    peer = Forgetful(AGGRESSIVE, lower=True)
    stage, ours, theirs = peer.stage, peer.kept, peer.dropped
    stage.begin(ours)
    proof = stage.last_of_phase1(theirs)
    stage.world.run_for(MOMENT)
    proved, quick1 = stage.say(ours.clear(ours.exchange, ours.aggressive2_payloads()))
    ours.take_phase1(proved)
    stage.say(ours.quick2(ours.answer_quick(quick1), 0x2001))
    stage.world.run_for(MOMENT)
    stage.say(proof)
    peer.run(2 * SETTLED, under=theirs)
    assert [one.spi_i for one in stage.gateway.ike_sas()] == [theirs.cky_i]
    assert len(stage.endpoint.snapshot().sas) == 1, "ours is closed"
    assert stage.gateway.child().spi_out == 0x3001
    assert peer.pairs == 1, "and no more than one"


def test_while_neither_answers_neither_goes() -> None:
    peer = Forgetful(MAIN, lower=True)
    crossed(peer, PROOF_UNDER_WAY)
    peer.stage.world.run_for(12)
    assert len(peer.stage.endpoint.snapshot().sas) == 2
    before = len(peer.stage.heard)
    peer.stage.world.run_for(8)
    assert len(peer.stage.heard) - before < 20, "no flood of questions"
    assert peer.stage.gateway.ike_sas()
    peer.run(SETTLED)
    assert [one.spi_i for one in peer.stage.gateway.ike_sas()] == [peer.kept.cky_i]


def test_a_peer_that_has_both_keeps_the_one_of_the_rule() -> None:
    """It answers under that: the other is closed as before."""
    peer = Forgetful(MAIN, lower=True)
    crossed(peer, PROOF_UNDER_WAY)
    stage = peer.stage
    stage.world.run_for(MOMENT)
    quick = stage.answered_quick(peer.dropped)
    stage.say(peer.dropped.quick3(quick))
    peer.run(2 * SETTLED)
    assert [one.spi_i for one in stage.gateway.ike_sas()] == [peer.dropped.cky_i]
    assert len(stage.endpoint.snapshot().sas) == 1
    assert [one.spis for one in peer.deletes] == [(peer.kept.cky_i + peer.kept.cky_r,)]


@pytest.mark.parametrize("begun", [Stage.begin, Stage.begin_key], ids=["first message", "key exchange"])
def test_our_attempt_ends_without_a_failure_once_the_peers_is_done(begun: Begun) -> None:
    """What it was begun for is asked for under the peer's, and nothing of it is sent again."""
    stage = Stage(MAIN)
    ours, theirs = stage.puppet(initiator=False), stage.puppet(seed=99)
    begun(stage, ours)
    establish(stage, theirs)
    quick = theirs.answer_quick(stage.heard[-1])
    stage.say(theirs.quick2(quick, 0x2001))
    assert [one.spi_i for one in stage.gateway.ike_sas()] == [theirs.cky_i]
    assert len(stage.endpoint.snapshot().sas) == 1
    before = len(stage.heard)
    stage.world.run_for(SETTLED)
    assert not [data for data in stage.heard[before:] if data.startswith(ours.cky_i)]
    assert stage.gateway.child().spi_out == 0x2001
    assert not stage.gateway.of(Failed)


def test_our_proof_that_is_never_answered_is_no_failure() -> None:
    """It was under way as the peer's attempt was done, which is the one that both keep."""
    peer = Forgetful(MAIN, lower=True)
    stage = peer.stage
    stage.begin_proof(peer.kept)
    establish(stage, peer.dropped)
    quick = stage.answered_quick(peer.dropped)
    stage.say(peer.dropped.quick3(quick))
    for _ in range(8):
        stage.world.run_for(5)
        stage.say(peer.dropped.informational(peer.dropped.are_you_there()))
    assert [one.spi_i for one in stage.gateway.ike_sas()] == [peer.dropped.cky_i]
    assert len(stage.endpoint.snapshot().sas) == 1
    assert not stage.gateway.of(Failed)
