"""Whatever a peer says to an endpoint, in whatever state: nothing is raised, nothing unproven is believed.

`Stage` checks the rules of the outputs at every step (`tests.simulation.gateway.Broken`).
"""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation.policies import ADDRESS_A, STRANGER
from tests.simulation.puppet import IKE_SA, Puppet, esp_sa, subnet
from tests.simulation.stage import Stage
from tests.simulation.states import STATES, stage_in
from vpnd.ike.outputs import ChildUp, Established, LadderLine
from vpnd.model.selectors import Address
from vpnd.wire.iana import DhGroup, Exchange2, Notify2, Protocol
from vpnd.wire.ikev2 import Delete, KeyExchange, Nonce, Notify, TsI, TsR

from .ike_strategies import Saying, clear_sayings, fixed, sayings
from .mutations import Mutation, mutations

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
states = st.sampled_from(sorted(STATES))

AFTERWARDS = 200.0
"""Seconds in which every retransmission, half-open SA and lingering answer has come to its end."""


def counted(stage: Stage) -> tuple[int, int, int]:
    """What a message leaves behind: drops counted, outputs recorded, datagrams sent."""
    return sum(stage.endpoint.counters.values()), len(stage.gateway.events), len(stage.heard)


@pytest.mark.slow
@QUICK
@given(state=states, script=st.lists(sayings, min_size=1, max_size=4))
def test_any_message_in_any_state_has_a_row_or_is_a_counted_drop(state: str, script: list[Saying]) -> None:
    stage, puppet = stage_in(state)
    for saying in script:
        before = counted(stage)
        stage.say(saying.data(puppet))
        assert counted(stage) != before, f"{saying} in {state} was neither answered, acted on nor counted"
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
    data = mutation.of(saying.data(puppet))
    before = counted(stage)
    stage.say(data)
    assert counted(stage) != before
    stage.world.run_for(AFTERWARDS)


@pytest.mark.slow
@QUICK
@given(
    state=st.sampled_from(["established", "established_by_us", "asked_for_a_child", "probing"]),
    script=st.lists(clear_sayings, min_size=1, max_size=4),
    strange_spis=st.booleans(),
)
def test_nothing_said_in_the_clear_changes_what_is_established(
    state: str, script: list[Saying], strange_spis: bool
) -> None:
    stage, puppet = stage_in(state)
    held = stage.gateway.ike_sas(), dict(stage.gateway.installed)
    events = [event for event in stage.gateway.events if not isinstance(event, LadderLine)]
    if strange_spis:
        puppet.spi_i = bytes(8)
    for saying in script:
        stage.say(saying.data(puppet))
    assert (stage.gateway.ike_sas(), dict(stage.gateway.installed)) == held
    ups = [event for event in stage.gateway.events if isinstance(event, ChildUp | Established)]
    assert ups == [event for event in events if isinstance(event, ChildUp | Established)]


@pytest.mark.slow
@QUICK
@given(
    state=st.sampled_from(["no_session", "half_open", "sent_init", "sent_init_with_cookie", "sent_auth"]),
    script=st.lists(sayings, min_size=1, max_size=6),
)
def test_no_words_establish_anything_without_the_key(state: str, script: list[Saying]) -> None:
    """V8: a peer that finishes the key exchange but lacks the pre-shared key gets nowhere."""
    stage, puppet = stage_in(state)
    puppet.psk = b"a guess"
    for saying in script:
        stage.say(saying.data(puppet))
        assert not stage.gateway.of(Established)
        assert not stage.gateway.installed


# ------------------------------------------------------------------------------- the whole table


def typical(puppet: Puppet) -> dict[str, Saying]:
    """One well-formed message of every kind that IKEv2 has, and a few that it does not have."""
    nonce, ke = Nonce(puppet.nonce), KeyExchange(DhGroup.CURVE25519, puppet.public)
    child = [esp_sa(0xC0FFEE02), nonce, TsI(subnet(1, 1)), TsR(subnet(2, 1))]
    bodies: dict[str, tuple[int, list[object]]] = {
        "init": (Exchange2.IKE_SA_INIT, [IKE_SA, ke, nonce]),
        "cookie": (Exchange2.IKE_SA_INIT, [Notify(Notify2.COOKIE, b"c")]),
        "invalid ke": (Exchange2.IKE_SA_INIT, [Notify(Notify2.INVALID_KE_PAYLOAD, b"\x00\x13")]),
        "no proposal": (Exchange2.IKE_SA_INIT, [Notify(Notify2.NO_PROPOSAL_CHOSEN)]),
        "auth": (Exchange2.IKE_AUTH, list(puppet.auth_payloads())),
        "auth without AUTH": (Exchange2.IKE_AUTH, [puppet.identity, *puppet.child_payloads(0xC0FFEE03)]),
        "auth failed": (Exchange2.IKE_AUTH, [Notify(Notify2.AUTHENTICATION_FAILED)]),
        "new child": (Exchange2.CREATE_CHILD_SA, child),
        "rekey child": (
            Exchange2.CREATE_CHILD_SA,
            [Notify(Notify2.REKEY_SA, b"", Protocol.ESP, b"\xc0\xff\xee\x01"), *child],
        ),
        "rekey IKE": (Exchange2.CREATE_CHILD_SA, [IKE_SA, nonce, ke]),
        "temporary failure": (Exchange2.CREATE_CHILD_SA, [Notify(Notify2.TEMPORARY_FAILURE)]),
        "liveness": (Exchange2.INFORMATIONAL, []),
        "delete IKE": (Exchange2.INFORMATIONAL, [Delete(Protocol.IKE, ())]),
        "delete child": (Exchange2.INFORMATIONAL, [Delete(Protocol.ESP, (b"\xc0\xff\xee\x01",))]),
        "intermediate": (Exchange2.IKE_INTERMEDIATE, []),
        "unassigned exchange": (99, []),
    }
    found = {}
    for name, (exchange, payloads) in bodies.items():
        spoken = tuple(map(fixed, payloads))  # type: ignore[arg-type]  # the lists above are of several kinds of payload
        for sealed, response, number in product((False, True), (False, True), range(3)):
            manner = f"{'sealed' if sealed else 'clear'} {'response' if response else 'request'} {number}"
            found[f"{name}, {manner}"] = Saying(exchange, number, response, sealed, spoken)
    return found


@pytest.mark.parametrize("state", sorted(STATES))
def test_the_table_is_complete(state: str) -> None:
    """Each kind of message in each state: an effect or a counted drop, and every timer then runs out."""
    stage, puppet = stage_in(state)
    for name, saying in typical(puppet).items():
        before = counted(stage)
        stage.say(saying.data(puppet))
        after = counted(stage)
        assert after != before, f"{name} in {state} left no trace"
        if after[1:] != before[1:]:
            # More than a counted drop: live it to its end, and begin again.
            stage.world.run_for(AFTERWARDS)
            stage, puppet = stage_in(state)
