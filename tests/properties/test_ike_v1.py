"""Whatever a peer says to an IKEv1 endpoint, in any state: nothing is raised, nothing unproven is believed.

`Stage` checks the rules of the outputs at every step (`tests.simulation.gateway.Broken`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.policies import ADDRESS_A, STRANGER
from tests.simulation.v1.pairs import AGGRESSIVE, MODES
from tests.simulation.v1.puppet import DPD, ISAKMP_SA, Puppet, Quick, esp_sa, subnet
from tests.simulation.v1.stage import STATES, Stage, stage_in
from vpnd.ike.outputs import ChildDown, ChildUp, Established, IkeDown
from vpnd.model.policy import NegotiationMode
from vpnd.model.selectors import Address
from vpnd.wire.iana import Exchange1, Notify1, Protocol
from vpnd.wire.ikev1 import (
    Cert,
    Delete,
    Fragment,
    Hash,
    Id,
    KeyExchange,
    NatD,
    NatOa,
    Nonce,
    Notify,
    Payload,
    ProposalPart,
    Sa,
    TransformPart,
    Unknown,
    VendorId,
)

from .mutations import Mutation, mutations

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ESTABLISHED = ["established, main", "established, aggressive", "with a child", "with a child from here"]
UNPROVEN = sorted(
    set(STATES) - {*ESTABLISHED, "replaced"} - {s for s in STATES if "Quick1" in s or "deleted" in s}
)

AFTERWARDS = 200.0
"""Seconds in which every retransmission, half-open SA and lingering answer has come to its end."""

states = st.sampled_from(sorted(STATES))
short = st.binary(max_size=40)
attributes = st.sampled_from(ISAKMP_SA.proposals[0].transforms[0].attributes)
transforms = st.builds(
    TransformPart, st.integers(0, 3), st.integers(0, 25), st.lists(attributes, max_size=8).map(tuple)
)
proposals = st.builds(
    ProposalPart,
    st.integers(0, 3),
    st.sampled_from([0, 1, 2, 3, 4, 255]),
    st.sampled_from([b"", b"\0\0\0\1", b"\xc0\xff\xee\1", bytes(8)]),
    st.lists(transforms, max_size=3).map(tuple),
)
payloads: st.SearchStrategy[Payload] = st.one_of(
    st.sampled_from([ISAKMP_SA, esp_sa(0xC0FFEE09), subnet(1), subnet(2), VendorId(DPD), Hash(bytes(32))]),
    st.builds(
        Sa, st.sampled_from([0, 1]), st.sampled_from([0, 1]), st.lists(proposals, max_size=3).map(tuple)
    ),
    st.builds(KeyExchange, st.one_of(st.binary(min_size=32, max_size=32), short)),
    st.builds(Nonce, st.binary(min_size=8, max_size=64)),
    st.builds(Id, st.integers(0, 12), short, st.sampled_from([0, 17]), st.sampled_from([0, 500])),
    st.builds(Hash, short),
    st.builds(NatD, short),
    st.builds(NatOa, st.just(1), st.binary(min_size=4, max_size=4)),
    st.builds(
        Notify, st.sampled_from([int(n) for n in Notify1]), short, st.integers(0, 4), st.binary(max_size=16)
    ),
    st.builds(Delete, st.integers(0, 4), st.lists(st.binary(min_size=4, max_size=4), max_size=3).map(tuple)),
    st.builds(Delete, st.just(1), st.lists(st.binary(min_size=16, max_size=16), max_size=2).map(tuple)),
    st.builds(Fragment, st.integers(0, 3), st.integers(1, 40), st.booleans(), short),
    st.builds(VendorId, short),
    st.builds(Cert, st.integers(0, 5), short),
    st.builds(Unknown, st.integers(30, 127), short),
)


@dataclass(frozen=True)
class Saying:
    """One message: in clear, or under the puppet's keys with a hash that is right or wrong."""

    exchange: int
    message_id: int
    manner: str
    chain: tuple[Payload, ...]

    def data(self, puppet: Puppet) -> bytes:
        """Its bytes."""
        if self.manner == "clear":
            return puppet.clear(self.exchange, self.chain, self.message_id)
        if self.manner == "phase 1":
            return puppet.seal(self.exchange, self.message_id, self.chain, puppet.iv)
        quick = Quick(self.message_id, puppet.phase2_iv(self.message_id))
        if self.exchange == Exchange1.INFORMATIONAL:
            return puppet.informational(*self.chain, message_id=self.message_id)
        return puppet.seal_quick(quick, self.chain, proof=bytes(32) if self.manner == "forged" else None)


sayings = st.builds(
    Saying,
    st.sampled_from([0, 1, 2, 3, 4, 5, 6, 32, 33, 35, 243]),
    st.sampled_from([0, 1, 2, 0xFFFFFFFF]),
    st.sampled_from(["clear", "phase 1", "protected", "forged"]),
    st.lists(payloads, max_size=6).map(tuple),
)
clear_sayings = st.builds(
    Saying,
    st.sampled_from([2, 4, 5, 6, 32]),
    st.sampled_from([0, 1]),
    st.just("clear"),
    st.lists(payloads, max_size=6).map(tuple),
)


def counted(stage: Stage) -> tuple[int, int, int]:
    """What a message leaves behind: drops counted, outputs recorded, datagrams sent."""
    return sum(stage.endpoint.counters.values()), len(stage.gateway.events), len(stage.heard)


def is_fragment(saying: Saying) -> bool:
    """A piece of a message may be kept without a word."""
    return bool(saying.chain) and isinstance(saying.chain[0], Fragment) and saying.manner == "clear"


@QUICK
@given(state=states, script=st.lists(sayings, min_size=1, max_size=4))
def test_any_message_in_any_state_has_a_row_or_is_a_counted_drop(state: str, script: list[Saying]) -> None:
    stage, puppet = stage_in(state)
    for saying in script:
        before = counted(stage)
        stage.say(saying.data(puppet))
        assert counted(stage) != before or is_fragment(saying), f"{saying} in {state} left no trace"
    stage.world.run_for(AFTERWARDS)


@QUICK
@given(state=states, data=st.binary(max_size=600), source=st.sampled_from([ADDRESS_A, STRANGER]))
def test_any_bytes_are_a_counted_drop(state: str, data: bytes, source: Address) -> None:
    stage, _ = stage_in(state)
    before = sum(stage.endpoint.counters.values())
    stage.say(data, source)
    assert sum(stage.endpoint.counters.values()) > before


@QUICK
@given(state=states, saying=sayings, mutation=mutations)
def test_a_mutated_message_raises_nothing(state: str, saying: Saying, mutation: Mutation) -> None:
    stage, puppet = stage_in(state)
    stage.say(mutation.of(saying.data(puppet)))
    stage.world.run_for(AFTERWARDS)


@QUICK
@given(state=st.sampled_from(ESTABLISHED), script=st.lists(clear_sayings, min_size=1, max_size=4))
def test_nothing_said_in_clear_changes_what_is_established(state: str, script: list[Saying]) -> None:
    stage, puppet = stage_in(state)
    held = stage.gateway.ike_sas(), dict(stage.gateway.installed)
    for saying in script:
        stage.say(saying.data(puppet))
    assert (stage.gateway.ike_sas(), dict(stage.gateway.installed)) == held
    assert not stage.gateway.of(ChildDown)
    assert not stage.gateway.of(IkeDown)


@pytest.mark.slow
@QUICK
@given(state=st.sampled_from(UNPROVEN), script=st.lists(sayings, min_size=1, max_size=6))
def test_no_words_establish_anything_without_the_key(state: str, script: list[Saying]) -> None:
    """V8."""
    stage, puppet = stage_in(state)
    puppet.psk = b"a guess"
    if any(puppet.peer_public):
        puppet.derive()
    for saying in script:
        stage.say(saying.data(puppet))
        assert not stage.gateway.of(Established)
        assert not stage.gateway.installed


# ------------------------------------------------------------------------------- walks


def moves(puppet: Puppet) -> dict[str, Callable[[], bytes]]:
    """Every message of a peer that knows the rules but not the key."""
    quick = puppet.begin_quick()
    return {
        "first": puppet.first_message,
        "proposal": lambda: puppet.clear(puppet.exchange, puppet.proposal()),
        "key": lambda: puppet.clear(puppet.exchange, puppet.key_payloads()),
        "answer": lambda: puppet.clear(puppet.exchange, puppet.aggressive2_payloads()),
        "proof": lambda: puppet.seal_phase1(puppet.proof_payloads()),
        "proof alone": lambda: puppet.seal_phase1(puppet.proof_payloads()[1:]),
        "proof in clear": lambda: puppet.clear(puppet.exchange, puppet.proof_payloads()),
        "proof alone in clear": lambda: puppet.clear(puppet.exchange, puppet.proof_payloads()[1:]),
        "quick 1": lambda: puppet.seal_quick(quick, puppet.quick1_payloads(quick)),
        "quick 2": lambda: puppet.quick2(quick),
        "quick 3": lambda: puppet.quick3(quick),
        "probe": lambda: puppet.informational(puppet.are_you_there()),
        "delete": lambda: puppet.informational(puppet.delete_ike()),
        "contact": lambda: puppet.informational(Notify(Notify1.INITIAL_CONTACT)),
        "error": lambda: puppet.clear(Exchange1.INFORMATIONAL, [Notify(Notify1.AUTHENTICATION_FAILED)], 3),
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("begins", [True, False], ids=["the peer begins", "we begin"])
def test_no_walk_reaches_an_sa_without_the_key(mode: NegotiationMode, begins: bool) -> None:
    """V8: 150 random walks of 25 messages; the peer reads every answer and derives what it can."""
    for seed in range(150):
        dice = random.Random(seed)
        stage = Stage(mode, seed)
        puppet = stage.puppet(begins, b"a guess", seed)
        if not begins:
            stage.begin(puppet)
        said = []
        for _ in range(25):
            name = dice.choice(sorted(moves(puppet)))
            said.append(name)
            for answer in stage.say(moves(puppet)[name]()):
                if not answer[19]:
                    puppet.take(answer)
            # In aggressive mode the responder has proved itself to nobody, and an initiator believes none.
            assert not stage.gateway.of(Established), f"seed {seed}: {said}"
            assert not stage.gateway.of(ChildUp), f"seed {seed}: {said}"


@pytest.mark.parametrize("state", sorted(STATES))
def test_the_table_is_complete(state: str) -> None:
    """Each kind of message in each state: an effect or a counted drop, and every timer then runs out."""
    child = Delete(Protocol.ESP, (b"\xc0\xff\xee\x01",))
    stage, puppet = stage_in(state)
    for name in sorted(moves(puppet)):
        stage, puppet = stage_in(state)
        before = counted(stage)
        stage.say(moves(puppet)[name]())
        stage.say(puppet.informational(child))
        assert counted(stage) != before, f"{name} in {state} left no trace"
        stage.world.run_for(AFTERWARDS)


def test_both_modes_have_states() -> None:
    assert {mode for mode, _ in STATES.values()} == set(MODES)
    assert AGGRESSIVE in MODES
