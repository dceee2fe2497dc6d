"""IKEv1 where messages come late, twice, from elsewhere or out of turn, which few peers bring about."""

from __future__ import annotations

import pytest

from tests.simulation.bounds import SURPLUS_KEPT
from tests.simulation.policies import ADDRESS_A, STRANGER
from tests.simulation.v1.pairs import AGGRESSIVE
from tests.simulation.v1.puppet import ISAKMP_SA, Puppet
from tests.simulation.v1.stage import Stage, stage_in
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildReplaced,
    ChildUp,
    Established,
    IkeDown,
    PathMoved,
    PeerDead,
)
from vpnd.model.selectors import Address
from vpnd.wire.attributes import Attribute, encode_attributes
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange1, LifeType, Notify1, Phase1Attribute, Protocol
from vpnd.wire.ikev1 import Delete, Fragment, Hash, Nonce, Notify, Payload, VendorId

SECOND = 0xC0FFEE02
"""The SPI of a puppet's second pair."""


def pass_alive(stage: Stage, puppet: Puppet, seconds: int) -> None:
    """So much time in which the peer says once in 4 s that it lives."""
    for sequence in range(seconds // 4):
        stage.world.run_for(4.0)
        stage.say(puppet.informational(puppet.are_you_there(sequence)))


def waits_for(stage: Stage, what: str) -> bool:
    """Whether an ISAKMP SA has a deadline whose name begins so."""
    return any(name.startswith(what) for sa in stage.endpoint.snapshot().sas for name in sa.deadlines)


def with_nat(initiator: bool = True, stage: Stage | None = None, seed: int = 0) -> tuple[Stage, Puppet]:
    """An established ISAKMP SA with a puppet behind a NAT, on port 4500."""
    stage = stage or Stage()
    puppet = stage.puppet(initiator, seed=seed)
    puppet.nat = True
    stage.answered_key(puppet)
    (answer,) = stage.say(puppet.seal_phase1(puppet.proof_payloads()), port=4500)
    puppet.take_phase1(answer)
    return stage, puppet


def ike_lifetime(puppet: Puppet, seconds: int) -> Notify:
    """RESPONDER-LIFETIME of the ISAKMP SA."""
    attributes = (
        Attribute(Phase1Attribute.LIFE_TYPE, LifeType.SECONDS),
        Attribute(Phase1Attribute.LIFE_DURATION, seconds),
    )
    data = encode_attributes(attributes)
    return Notify(Notify1.RESPONDER_LIFETIME, data, Protocol.IKE, puppet.cky_i + puppet.cky_r)


# ------------------------------------------------------------------------------------- messages


def test_a_fragment_inside_of_fragments_is_dropped() -> None:
    stage, puppet = stage_in("established, main")
    inner = puppet.clear(Exchange1.INFORMATIONAL, [Fragment(2, 1, True, b"a piece")])
    assert stage.say(puppet.clear(Exchange1.INFORMATIONAL, [Fragment(1, 1, True, inner)])) == []
    assert stage.endpoint.counters["fragment of a fragment"] == 1


def test_a_proof_that_is_none_is_taken_for_another_key_and_the_right_one_counts() -> None:
    """It decrypts and reads like a chain of payloads, and nothing shows that it is the peer's."""
    stage = Stage()
    puppet = stage.puppet()
    stage.answered_key(puppet)
    iv = puppet.iv
    assert stage.say(puppet.seal_phase1([Nonce(bytes(32))])) == []
    assert not stage.gateway.of(Established)
    puppet.iv = iv
    assert len(stage.say(puppet.seal_phase1(puppet.proof_payloads()))) == 1
    assert stage.gateway.of(Established)


def test_another_proof_with_a_wrong_hash_changes_nothing() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.answered_key(puppet)
    iv = puppet.iv
    assert len(stage.say(puppet.seal_phase1(puppet.proof_payloads()))) == 1
    events = len(stage.gateway.events)
    puppet.iv = iv
    assert stage.say(puppet.seal_phase1([puppet.identity, Hash(bytes(32))])) == []
    assert stage.endpoint.counters["refused: E-PSK"] == 1
    assert not [one for one in stage.gateway.events[events:] if isinstance(one, IkeDown)]
    assert len(stage.gateway.ike_sas()) == 1


@pytest.mark.parametrize("told", [86_400, 28_801])
def test_a_longer_lifetime_of_the_responder_does_not_lengthen_ours(told: int) -> None:
    stage, puppet = stage_in("with a child from here")
    (before,) = stage.gateway.ike_sas()
    stage.say(puppet.informational(ike_lifetime(puppet, told)))
    (after,) = stage.gateway.ike_sas()
    assert (after.expires_at, after.rekey_at) == (before.expires_at, before.rekey_at)


def test_a_responder_may_limit_a_replaced_isakmp_sa_which_has_no_other_successor() -> None:
    stage, puppet = stage_in("with a child from here")
    stage.establish(stage.puppet(seed=99))
    stage.say(puppet.informational(ike_lifetime(puppet, 100)))
    old, _ = stage.endpoint.snapshot().sas
    assert old.deadlines["EXPIRE"] <= stage.world.now + 100
    assert "RENEW" not in old.deadlines


def test_a_status_beside_the_proof_of_the_responder_is_no_lifetime() -> None:
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    stage.begin_proof(puppet)
    contact = Notify(Notify1.INITIAL_CONTACT, spi=puppet.cky_i + puppet.cky_r)
    stage.say(puppet.seal_phase1([*puppet.proof_payloads(), contact]))
    (sa,) = stage.gateway.ike_sas()
    assert sa.expires_at == stage.world.now + 28_800


# ------------------------------------------------------------------------------------- from elsewhere


@pytest.mark.parametrize("source", [ADDRESS_A, STRANGER])
def test_a_proof_in_other_bytes_shows_where_the_peer_is(source: Address) -> None:
    """The first one was damaged on its way behind what the hash covers, and the NAT forgot its mapping."""
    stage = Stage(AGGRESSIVE)
    puppet = stage.puppet()
    puppet.nat = True
    stage.answered_first(puppet)
    iv = puppet.iv
    nat_d = puppet.key_payloads()[2:]
    stage.say(puppet.seal_phase1([Hash(puppet.proof()), *nat_d]), port=4500)
    assert len(stage.gateway.ike_sas()) == 1
    moved = len(stage.gateway.of(PathMoved))
    puppet.iv = iv
    again = puppet.seal_phase1([Hash(puppet.proof()), *nat_d, VendorId(b"undamaged")])
    stage.world.inject("b", again, source, 4501, 4500)
    assert len(stage.gateway.of(PathMoved)) == moved + 1
    path = stage.gateway.last(PathMoved).path
    assert (path.remote, path.remote_port) == (source, 4501)


def test_what_comes_under_a_predecessor_from_elsewhere_moves_no_pair() -> None:
    stage, puppet = with_nat()
    with_nat(stage=stage, seed=99)
    stage.world.inject("b", puppet.informational(puppet.are_you_there()), STRANGER, 4500, 4500)
    assert not stage.gateway.of(PathMoved)
    assert stage.gateway.ike_sas()[-1].path.remote == ADDRESS_A


def test_a_deleted_isakmp_sa_moves_its_pairs_and_asks_nothing() -> None:
    stage, puppet = with_nat()
    stage.answered_key(stage.puppet(seed=99))
    stage.say(puppet.informational(puppet.delete_ike()), port=4500)
    assert not stage.gateway.ike_sas()
    heard = len(stage.heard)
    stage.world.inject("b", puppet.informational(Notify(Notify1.CONNECTED)), STRANGER, 4500, 4500)
    assert stage.gateway.last(PathMoved).path.remote == STRANGER
    assert len(stage.heard) == heard


# ------------------------------------------------------------------------------------- pairs


def test_packets_on_the_pair_that_is_sent_on_change_nothing() -> None:
    stage, _ = stage_in("with a child")
    (spi_in,) = stage.gateway.installed
    events = list(stage.gateway.events)
    stage.gateway.do("peer_sends", stage.gateway.tunnel, spi_in)
    assert stage.gateway.events == events


def test_packets_confirm_the_pair_that_they_come_on_and_no_other() -> None:
    stage, puppet = stage_in("established, main")
    stage.answered_quick(puppet, mapping=0)
    stage.answered_quick(puppet, SECOND, mapping=1)
    second = stage.gateway.children(1)[0].spi_in
    stage.gateway.do("peer_sends", stage.gateway.tunnel, second)
    assert [up.child.spi_in for up in stage.gateway.of(ChildUp)] == [second]
    assert not stage.gateway.sends(0)


def test_of_two_first_pairs_the_one_that_the_peer_begins_last_is_sent_on() -> None:
    stage, puppet = stage_in("established, main")
    first = stage.answered_quick(puppet)
    second = stage.answered_quick(puppet, SECOND)
    stage.say(puppet.quick3(second))
    assert stage.gateway.child().spi_out == SECOND
    stage.say(puppet.quick3(first))
    assert stage.gateway.child().spi_out == SECOND
    assert len(stage.gateway.of(ChildUp)) == len(stage.gateway.of(ChildReplaced)) == 1
    assert stage.gateway.last(ChildReplaced).tunnel == stage.gateway.tunnel


def test_a_mapping_that_the_peer_is_bringing_up_is_not_asked_for() -> None:
    stage, puppet = stage_in("established, main")
    quick = stage.answered_quick(puppet)
    heard = len(stage.heard)
    stage.gateway.initiate()
    stage.say(puppet.quick3(quick))
    assert len(stage.heard) == heard
    assert stage.gateway.sends()


def test_a_mapping_that_is_up_is_not_asked_for() -> None:
    stage, _ = stage_in("with a child")
    heard = len(stage.heard)
    stage.gateway.initiate()
    assert len(stage.heard) == heard


def test_a_mapping_that_has_waited_and_is_up_by_now_is_not_asked_for() -> None:
    stage, puppet = stage_in("sent Quick1, main")
    ours = puppet.answer_quick(stage.heard[-1])
    stage.gateway.initiate(1)
    stage.say(puppet.quick3(stage.answered_quick(puppet, SECOND, mapping=1)))
    assert stage.gateway.sends(1)
    heard = stage.say(puppet.quick2(ours))
    assert len(heard) == 1
    assert Header.decode(heard[0]).message_id == ours.message_id


def test_a_pair_is_rekeyed_once_at_a_time() -> None:
    stage, _ = stage_in("with a child from here")
    stage.world.run_until(stage.gateway.sends)
    stage.gateway.rekey_child()
    heard = len(stage.heard)
    stage.gateway.rekey_child()
    assert len(stage.heard) == heard


def test_what_both_began_and_the_peer_answers_badly_is_no_failure() -> None:
    """Its own quick mode counts, which is up: nobody is waiting for ours."""
    stage, puppet = stage_in("sent Quick1, main")
    ours = puppet.answer_quick(stage.heard[-1])
    stage.say(puppet.quick3(stage.answered_quick(puppet, SECOND)))
    assert stage.gateway.child().spi_out == SECOND
    stage.say(puppet.quick2(ours, mapping=1))
    assert not stage.gateway.of(ChildFailed)
    assert stage.gateway.child().spi_out == SECOND


def both_began() -> tuple[Stage, Puppet, int]:
    """Both had begun a quick mode and both came up: the inbound SPI of the one that is one too many."""
    stage, puppet = stage_in("sent Quick1, main")
    ours = puppet.answer_quick(stage.heard[-1])
    stage.say(puppet.quick3(stage.answered_quick(puppet, SECOND)))
    surplus = stage.gateway.child().spi_in
    stage.say(puppet.quick2(ours))
    assert len(stage.gateway.installed) == 2
    return stage, puppet, surplus


def test_the_delete_of_a_pair_that_is_one_too_many_is_repeated_and_then_no_more() -> None:
    stage, puppet, surplus = both_began()
    pass_alive(stage, puppet, 8)
    assert surplus not in stage.gateway.installed or not stage.gateway.installed[surplus].turn
    assert waits_for(stage, "DELETE")
    pass_alive(stage, puppet, 20)
    assert not waits_for(stage, "DELETE")
    assert list(stage.gateway.installed) != [surplus]


def test_a_pair_that_was_one_too_many_and_is_gone_is_not_deleted_again() -> None:
    stage, puppet, surplus = both_began()
    spi_out = next(one.spi_out for one in stage.gateway.children() if one.spi_in == surplus)
    stage.say(puppet.informational(Delete(Protocol.ESP, (spi_out.to_bytes(4, "big"),))))
    stage.gateway.do("close_child", stage.gateway.tunnel, surplus)
    assert surplus not in stage.gateway.installed
    down = len(stage.gateway.of(ChildDown))
    stage.world.run_for(SURPLUS_KEPT + 1)
    assert len(stage.gateway.of(ChildDown)) == down
    assert stage.gateway.sends()


@pytest.mark.parametrize("how", ["the pair", "the tunnel"])
def test_a_pair_that_the_peer_has_deleted_is_not_deleted_once_more(how: str) -> None:
    """It only receives what is on its way; the peer knows."""
    stage, puppet = stage_in("with a child")
    (old,) = stage.gateway.children()
    stage.say(puppet.quick3(stage.answered_quick(puppet, SECOND)))
    stage.say(puppet.informational(Delete(Protocol.ESP, (old.spi_out.to_bytes(4, "big"),))))
    assert old.spi_in in stage.gateway.installed
    heard = len(stage.heard)
    if how == "the pair":
        stage.gateway.do("close_child", stage.gateway.tunnel, old.spi_in)
        assert len(stage.heard) == heard
    else:
        stage.gateway.close()
        said = [puppet.open_informational(data).payloads[-1] for data in stage.heard[heard:]]
        assert [one.protocol for one in said if isinstance(one, Delete)] == [Protocol.ESP, Protocol.IKE]
    assert old.spi_in not in stage.gateway.installed


# ------------------------------------------------------------------------------------- no answer


def test_a_pair_that_the_peer_never_acknowledged_is_deleted_for_a_while() -> None:
    stage, puppet = stage_in("established, main")
    stage.answered_quick(puppet)
    pass_alive(stage, puppet, 32)
    assert not stage.gateway.installed
    heard = len(stage.heard)
    pass_alive(stage, puppet, 16)
    deletes = [data for data in stage.heard[heard:] if len(puppet.open_informational(data).payloads) == 2]
    assert any(isinstance(puppet.open_informational(one).payloads[1], Delete) for one in deletes)
    pass_alive(stage, puppet, 24)
    heard = len(stage.heard)
    pass_alive(stage, puppet, 40)
    last = [puppet.open_informational(data).payloads[1] for data in stage.heard[heard:]]
    assert not any(isinstance(one, Delete) for one in last)
    assert not stage.endpoint.snapshot().esp_spis


def test_an_unanswered_quick_mode_of_a_deleted_isakmp_sa_is_no_dead_peer() -> None:
    stage, puppet = stage_in("established, main")
    stage.gateway.initiate()
    pass_alive(stage, puppet, 20)
    stage.answered_key(stage.puppet(seed=99))
    stage.say(puppet.informational(puppet.delete_ike()))
    stage.world.run_for(15.0)
    assert len(stage.gateway.of(ChildFailed)) == 1
    assert not stage.gateway.of(PeerDead)


def test_a_peer_that_was_heard_since_and_does_not_speak_of_its_life_is_not_dead() -> None:
    stage = Stage()
    puppet = stage.puppet()
    proposal: list[Payload] = [ISAKMP_SA]
    puppet.proposal = lambda: proposal  # type: ignore[method-assign]  # a peer without RFC 3706
    stage.establish(puppet)
    stage.gateway.initiate()
    stage.world.run_for(5.0)
    stage.say(puppet.informational(Notify(Notify1.CONNECTED)))
    stage.world.run_for(30.0)
    assert len(stage.gateway.of(ChildFailed)) == 1
    assert not stage.gateway.of(PeerDead)
    assert len(stage.gateway.ike_sas()) == 1


def test_a_quick_mode_of_ours_begins_again_after_the_proof_in_other_bytes() -> None:
    """What the peer had before it could not read: its IV chain goes on from the proof that we have now."""
    stage = Stage(AGGRESSIVE)
    puppet = stage.puppet()
    stage.answered_first(puppet)
    iv = puppet.iv
    stage.say(puppet.seal_phase1([Hash(puppet.proof())]))
    stage.gateway.initiate()
    first = Header.decode(stage.heard[-1])
    assert first.exchange == Exchange1.QUICK_MODE
    puppet.iv = iv
    (again,) = stage.say(puppet.seal_phase1([Hash(puppet.proof()), VendorId(b"undamaged")]))
    assert Header.decode(again).exchange == Exchange1.QUICK_MODE
    assert Header.decode(again).message_id != first.message_id
    quick = puppet.answer_quick(again)
    assert len(stage.say(puppet.quick2(quick))) == 1
    assert len(stage.gateway.of(ChildUp)) == 1


@pytest.mark.parametrize("begins", [True, False], ids=["it begins", "it answers"])
def test_a_maker_that_says_so_with_its_public_value_is_known(begins: bool) -> None:
    """An ASA's first message has nothing of Cisco's, its second has."""
    stage = Stage()
    puppet = stage.puppet(initiator=begins)
    half = [*puppet.key_payloads(), VendorId(bytes.fromhex("1f07f70eaa6514d3b0fa96542a500100"))]
    if begins:
        stage.answered_first(puppet)
    else:
        stage.begin_key(puppet)
    stage.say(puppet.clear(puppet.exchange, half))
    assert stage.endpoint.vendor(stage.gateway.tunnel) == "Cisco"
