"""How ISAKMP SAs and quick modes follow one another and end, move by move."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.bounds import DELETED_KEPT, REPLACED_AT_MOST, REPLACED_FOR_NOW, SURPLUS_KEPT
from tests.simulation.policies import ADDRESS_A, ADDRESS_B, Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, MODES, TWO_MAPPINGS, pair_of, policy_of
from tests.simulation.v1.puppet import Puppet, esp_sa
from tests.simulation.v1.stage import RECIPE, Stage
from tests.simulation.world import EPOCH
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildRetired,
    Established,
    Failed,
    IkeDown,
    IkeReplaced,
    Keepalive,
    PathMoved,
    PeerDead,
)
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code
from vpnd.model.identity import Identity
from vpnd.model.policy import Encapsulation, NegotiationMode
from vpnd.model.unreachable import Unreachable
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange1, IdType, Notify1, Protocol
from vpnd.wire.ikev1 import Delete, Id, Nonce, Notify, Payload, VendorId


def keep_alive(stage: Stage, puppet: Puppet, seconds: float) -> None:
    """The puppet answers every question for so long, and no other message."""
    end = stage.world.now + seconds
    while stage.world.now < end:
        before = len(stage.heard)
        stage.world.run_for(1)
        for data in stage.heard[before:]:
            header = Header.decode(data)
            if header.exchange == Exchange1.INFORMATIONAL and header.spi_i == puppet.cky_i:
                for payload in puppet.open_informational(data).payloads:
                    if isinstance(payload, Notify) and payload.type == Notify1.R_U_THERE:
                        cookies = puppet.cky_i + puppet.cky_r
                        ack = Notify(Notify1.R_U_THERE_ACK, payload.data, Protocol.IKE, cookies)
                        stage.say(puppet.informational(ack))


# ------------------------------------------------------------------------------------- proofs, twice


@pytest.mark.parametrize("mode", MODES)
def test_the_proof_in_other_bytes_moves_the_chain_to_where_the_peer_has_it(mode: NegotiationMode) -> None:
    """What no hash covers was damaged the first time; the message that the peer has really sent counts."""
    stage = Stage(mode)
    puppet = stage.puppet()
    right = stage.last_of_phase1(puppet)
    after, puppet.iv = puppet.iv, session_iv(stage)
    damaged = puppet.seal_phase1([*proof(puppet), VendorId(b"damaged")])
    stage.say(damaged)
    assert stage.gateway.of(Established)
    answers = stage.say(right)
    puppet.iv = after
    if not puppet.aggressive:
        puppet.take_phase1(*answers)
    stage.answered_quick(puppet)
    assert len(stage.gateway.of(Established)) == 1
    assert stage.say(damaged) == [], "the chain is settled once the peer has used it"


def test_another_identity_in_the_second_proof_is_not_believed() -> None:
    stage = Stage()
    puppet = stage.puppet()
    right = stage.last_of_phase1(puppet)
    iv = session_iv(stage)
    stage.say(right)
    puppet.iv = iv
    puppet.identity = Id(IdType.FQDN, b"somebody.example")
    assert stage.say(puppet.seal_phase1(puppet.proof_payloads())) == []
    assert stage.endpoint.counters["another identity"] == 1


def proof(puppet: Puppet) -> list[Payload]:
    """What its last message of phase 1 has to carry."""
    return puppet.proof_payloads()[1:] if puppet.aggressive else puppet.proof_payloads()


def session_iv(stage: Stage) -> bytes:
    """Where the IV chain of phase 1 stands."""
    (sa,) = stage.endpoint.snapshot().sas
    return sa.ivs[0]


# ------------------------------------------------------------------------------------- both sides at once


def test_isakmp_sas_beside_one_that_the_peer_never_confirms_are_bounded() -> None:
    """Each of them crosses ours for as long as nothing says that the peer knew of ours."""
    stage = Stage(AGGRESSIVE)
    policy = policy_of(RECIPE, AGGRESSIVE)
    stage.gateway.set_peer("a", replace(policy, local_id=Identity.of("192.0.2.0")))
    stage.established_from_here(stage.puppet(initiator=False))
    for seed in range(1, 31):
        stage.say(stage.last_of_phase1(stage.puppet(seed=seed)))
    sessions = stage.endpoint.snapshot().sas
    assert len(stage.gateway.of(Established)) == 1
    assert len(sessions) == 1 + REPLACED_FOR_NOW
    stage.world.run_for(Limits().closing + 1)
    assert len(stage.endpoint.snapshot().sas) == 1 + REPLACED_AT_MOST


def test_a_late_quick2_makes_only_the_pair_that_it_crossed_redundant() -> None:
    """The pair of the other mapping, made in the same moment, stays, and so does the last pair."""
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    ours = stage.established_from_here(puppet)
    for mapping in (1, 0):
        theirs = stage.answered_quick(puppet, 0xC0FFEE10 + mapping, mapping)
        stage.say(puppet.quick3(theirs))
    stage.say(puppet.quick2(ours, 0xC0FFEE20))
    stage.world.run_for(SURPLUS_KEPT + 1)
    assert len(stage.gateway.of(ChildRetired)) == 1
    assert {child.spi_out for child in stage.gateway.children()} == {0xC0FFEE10, 0xC0FFEE11, 0xC0FFEE20}
    stage.world.run_for(DELETED_KEPT)
    assert {child.spi_out for child in stage.gateway.children()} == {0xC0FFEE11, 0xC0FFEE20}


# ------------------------------------------------------------------------------------- DELETE and successors


def test_a_delete_of_the_successor_takes_the_predecessor_up_again() -> None:
    stage = Stage()
    old = stage.puppet()
    stage.with_child(old)
    new = stage.puppet(seed=99)
    stage.establish(new)
    assert stage.gateway.ike_sas()[0].spi_i == new.cky_i
    stage.say(new.informational(new.delete_ike()))
    assert stage.gateway.ike_sas()[0].spi_i == old.cky_i
    assert len(stage.gateway.installed) == 1
    assert not stage.gateway.of(ChildDown)
    assert len(stage.gateway.of(IkeReplaced)) == 2
    assert len(stage.say(old.informational(old.are_you_there()))) == 1


def test_what_is_taken_up_again_is_renewed_and_kept_alive_as_before() -> None:
    """Else it would end with its lifetime, its children with it, and the NAT would forget it."""
    stage = Stage()
    old = stage.puppet()
    old.nat = True
    stage.establish(old)
    new = stage.puppet(seed=99)
    stage.establish(new)
    stage.say(new.informational(new.delete_ike()))
    (taken_up,) = stage.gateway.ike_sas()
    assert taken_up.rekey_at is not None
    assert stage.world.now < taken_up.rekey_at < taken_up.expires_at
    stage.world.run_for(25)
    assert stage.gateway.of(Keepalive)


def test_children_wait_for_a_successor_that_is_being_made() -> None:
    """The DELETE of the old ISAKMP SA overtakes the last message of the new one."""
    stage = Stage()
    old = stage.puppet()
    stage.with_child(old)
    new = stage.puppet(seed=99)
    last = stage.last_of_phase1(new)
    stage.say(old.informational(old.delete_ike()))
    assert stage.gateway.ike_sas() == ()
    assert len(stage.gateway.installed) == 1
    stage.say(last)
    assert stage.gateway.ike_sas()[0].spi_i == new.cky_i
    assert len(stage.gateway.installed) == 1
    assert not stage.gateway.of(ChildDown)
    assert not stage.gateway.of(IkeDown)


def test_children_do_not_wait_for_ever() -> None:
    stage = Stage()
    old = stage.puppet()
    stage.with_child(old)
    stage.last_of_phase1(stage.puppet(seed=99))
    stage.say(old.informational(old.delete_ike()))
    stage.world.run_for(31)
    assert len(stage.gateway.of(ChildDown)) == len(stage.gateway.of(IkeDown)) == 1
    assert not stage.endpoint.snapshot().esp_spis


def test_what_is_said_under_the_predecessor_concerns_the_successors_children() -> None:
    stage = Stage()
    old = stage.puppet()
    stage.with_child(old)
    stage.establish(stage.puppet(seed=99))
    stage.say(old.quick3(stage.answered_quick(old, 0xC0FFEE02, 1)))
    assert sorted(child.mapping for child in stage.gateway.children()) == [0, 1]
    stage.say(old.informational(Delete(Protocol.ESP, ((0xC0FFEE01).to_bytes(4, "big"),))))
    assert [child.mapping for child in stage.gateway.children()] == [1]
    stage.say(old.informational(old.delete_ike()))
    assert len(stage.gateway.installed) == 1


def test_predecessors_do_not_add_up() -> None:
    pair = pair_of()
    pair.establish()
    for _ in range(5):
        pair.a.rekey_ike()
        pair.world.settle()
    assert not [step for step in pair.world.ladder().steps if "{HASH, D}" in step], "not at once"
    pair.world.run_for(6)
    for endpoint in (pair.endpoint_a, pair.endpoint_b):
        assert len(endpoint.snapshot().sas) == 2
    pair.assert_one_tunnel()


def test_initial_contact_in_an_informational_ends_the_older_sa() -> None:
    stage = Stage()
    old = stage.puppet()
    stage.with_child(old)
    new = stage.puppet(seed=99)
    stage.establish(new)
    stage.say(new.informational(Notify(Notify1.INITIAL_CONTACT, spi=new.cky_i + new.cky_r)))
    assert len(stage.endpoint.snapshot().sas) == 1


# ------------------------------------------------------------------------------------- quick modes that fail


def test_an_unanswered_quick_mode_costs_nothing_else_if_the_peer_lives() -> None:
    """Some peers are silent about what they refuse."""
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    stage.established_from_here(puppet)
    keep_alive(stage, puppet, 45)
    (failed,) = stage.gateway.of(ChildFailed)
    assert failed.diagnosis.code is Code.SILENT
    assert not stage.gateway.of(PeerDead)
    assert len(stage.gateway.ike_sas()) == 1
    assert not stage.endpoint.snapshot().esp_spis


def test_an_unanswered_quick_mode_is_the_sign_of_death_without_dpd() -> None:
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    puppet.proposal = lambda: Puppet.proposal(puppet)[:1]  # type: ignore[method-assign]  # stands in its place for this test
    stage.established_from_here(puppet)
    stage.world.run_for(31)
    assert stage.gateway.of(PeerDead)
    assert stage.gateway.ike_sas() == ()
    stage.gateway.do("probe", "to-a")


def test_a_quick_mode_never_acknowledged_is_taken_back() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    quick = stage.answered_quick(puppet)
    keep_alive(stage, puppet, 29)
    assert len(stage.endpoint.snapshot().esp_spis) == 1
    before = len(stage.heard)
    keep_alive(stage, puppet, 12)
    deletes = 0
    for data in stage.heard[before:]:
        if Header.decode(data).exchange == Exchange1.INFORMATIONAL:
            deletes += sum(isinstance(p, Delete) for p in puppet.open_informational(data).payloads)
    assert deletes >= 3
    stage.say(puppet.quick3(quick))
    assert not stage.gateway.installed
    keep_alive(stage, puppet, 5)
    assert not stage.endpoint.snapshot().esp_spis
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is Code.SILENT


def test_a_peer_has_eight_quick_modes_at_once() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    for number in range(12):
        quick = puppet.begin_quick()
        stage.say(puppet.seal_quick(quick, puppet.quick1_payloads(quick, 0xC0FFEE00 + number)))
    assert stage.endpoint.counters["too many quick modes"] == 4
    assert len(stage.endpoint.snapshot().esp_spis) == 8


@pytest.mark.parametrize("identity", [Id(IdType.FQDN, b"x"), Id(IdType.IPV4_ADDR_SUBNET, bytes(5))])
def test_identities_that_name_no_range_are_refused(identity: Id) -> None:
    """V21."""
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    quick = puppet.begin_quick()
    payloads: list[Payload] = [esp_sa(0xC0FFEE01), Nonce(quick.nonce_i), identity, identity]
    (answer,) = stage.say(puppet.seal_quick(quick, payloads))
    refusal = puppet.open_informational(answer).one(Notify)
    assert isinstance(refusal, Notify)
    assert refusal.type == Notify1.INVALID_ID_INFORMATION


def test_without_identities_it_is_host_to_host() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    quick = puppet.begin_quick()
    payloads: list[Payload] = [esp_sa(0xC0FFEE01), Nonce(quick.nonce_i)]
    stage.say(puppet.seal_quick(quick, payloads))
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.fact("theirs") == f"{ADDRESS_B}/32 - {ADDRESS_A}/32"


def test_a_responder_that_changes_the_ranges_is_refused() -> None:
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    quick = stage.established_from_here(puppet)
    stage.say(puppet.quick2(quick, mapping=1))
    (failed,) = stage.gateway.of(ChildFailed)
    assert failed.diagnosis.code is Code.TRAFFIC_SELECTORS
    assert not stage.gateway.installed
    assert not stage.endpoint.snapshot().esp_spis


def test_an_error_that_is_not_about_a_quick_mode_ends_none() -> None:
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    quick = stage.established_from_here(puppet)
    for error in (Notify1.INVALID_SPI, Notify1.INVALID_COOKIE, Notify1.CERT_TYPE_UNSUPPORTED):
        stage.say(puppet.informational(Notify(error)))
    assert not stage.gateway.of(ChildFailed)
    stage.say(puppet.quick2(quick))
    stage.say(puppet.informational(Notify(Notify1.NO_PROPOSAL_CHOSEN)))
    assert not stage.gateway.of(ChildFailed)
    assert len(stage.gateway.installed) == 1


# ------------------------------------------------------------------------------------- attempts that fail


@pytest.mark.parametrize("udp", [False, True])
def test_silence_after_main5_is_a_key_or_port_4500(udp: bool) -> None:
    recipe = Recipe(encapsulation=Encapsulation.UDP if udp else Encapsulation.AUTO)
    pair = pair_of(recipe=recipe)
    pair.world.interceptors.append(lambda d: [] if d.data[19] else None)
    pair.a.initiate()
    pair.world.run_for(60)
    (failed,) = pair.a.of(Failed)
    assert failed.diagnosis.code is (Code.UDP_4500 if udp else Code.PSK)
    assert failed.diagnosis.fact("received") == "2"


@pytest.mark.parametrize(
    ("reason", "code"), [(Unreachable.PORT, Code.PORT_CLOSED), (Unreachable.HOST, Code.UNREACHABLE)]
)
@pytest.mark.parametrize("mode", [MAIN, AGGRESSIVE], ids=["main", "aggressive"])
def test_icmp_explains_silence_and_ends_nothing(
    reason: Unreachable, code: Code, mode: NegotiationMode
) -> None:
    """Anyone can forge it: the attempt has all its repeats, and an answer that comes late is welcome."""
    stage = Stage(mode)
    path = Path(ADDRESS_B, 500, ADDRESS_A, 500)
    stage.gateway.initiate()
    first = stage.heard[0]
    for _ in range(27):
        stage.gateway.do("handle_unreachable", path, reason)
        stage.world.run_for(1)
    assert not stage.gateway.of(Failed)
    assert stage.heard.count(first) >= 10
    stage.world.run_for(4)
    assert [failed.diagnosis.code for failed in stage.gateway.of(Failed)] == [code]


def test_icmp_touches_nothing_established() -> None:
    """Nor does it hasten the end of a peer that is asked whether it lives."""
    stage = Stage()
    stage.establish(stage.puppet())
    for _ in range(20):
        for reason in Unreachable:
            stage.gateway.do("handle_unreachable", Path(ADDRESS_B, 500, ADDRESS_A, 500), reason)
        stage.gateway.probe()
        stage.world.run_for(1)
    assert len(stage.gateway.ike_sas()) == 1
    assert not stage.gateway.of(PeerDead)


def test_an_error_after_aggressive_mode_explains_the_silence_that_follows() -> None:
    """We have seen the peer's proof, it has refused ours."""
    stage = Stage(AGGRESSIVE)
    puppet = stage.puppet(initiator=False)
    stage.established_from_here(puppet)
    stage.say(puppet.clear(Exchange1.INFORMATIONAL, [Notify(Notify1.INVALID_ID_INFORMATION)], 5))
    stage.world.run_for(40)
    (dead,) = stage.gateway.of(PeerDead)
    assert dead.diagnosis.code is Code.IDENTITY


def test_another_group_in_the_answer_of_aggressive_mode_is_refused() -> None:
    proposal = replace(TWO_MAPPINGS.ike_proposal(), dh=(14, 31))
    stage = Stage(AGGRESSIVE)
    policy = stage.gateway.policies["to-a"]
    stage.gateway.set_peer("a", replace(policy, proposals=(proposal,)))
    puppet = stage.puppet(initiator=False)
    stage.gateway.initiate()
    header = Header.decode(stage.heard[-1])
    puppet.cky_i = header.spi_i
    stage.insist(puppet.clear(puppet.exchange, puppet.aggressive2_payloads()))
    stage.world.run_for(3)
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is Code.P1_DH
    assert (failed.diagnosis.fact("theirs"), failed.diagnosis.fact("ours")) == ("31", "14")


def test_a_tunnel_taken_down_while_it_comes_up_leaves_nothing() -> None:
    pair = pair_of(MAIN)
    pair.a.initiate()
    pair.world.run_for(0.025)
    pair.a.close()
    pair.world.run_for(120)
    pair.assert_nothing_left()
    assert not pair.endpoint_a.snapshot().sas
    assert not pair.endpoint_b.snapshot().sas


def test_an_authenticated_message_from_elsewhere_moves_the_peer() -> None:
    """F18: a NAT has given it another port."""
    stage = Stage()
    puppet = stage.puppet()
    puppet.nat = True
    stage.establish(puppet)
    forged = puppet.informational(puppet.are_you_there(), proof=bytes(32))
    stage.world.inject("b", forged, ADDRESS_A, 4501, 500)
    assert not stage.gateway.of(PathMoved)
    stage.world.inject("b", puppet.informational(puppet.are_you_there()), ADDRESS_A, 4501, 500)
    (moved,) = stage.gateway.of(PathMoved)
    assert moved.path.remote_port == 4501


# ---------------------------------------------------------------------------------- what a predecessor leaves


def test_what_was_not_acknowledged_is_taken_back_under_the_successor() -> None:
    """The peer has deleted the predecessor before its Quick3 came: it has the pair, and may send on it."""
    stage = Stage()
    old = stage.puppet()
    stage.establish(old)
    quick = stage.answered_quick(old)
    new = stage.puppet(seed=99)
    stage.establish(new)
    before = len(stage.heard)
    stage.say(old.informational(old.delete_ike()))
    assert stage.say(old.quick3(quick)) == []
    assert not stage.gateway.installed
    keep_alive(stage, new, 5)
    deleted = [
        payload
        for data in stage.heard[before:]
        for payload in new.open_informational(data).payloads
        if isinstance(payload, Delete)
    ]
    assert len(deleted) > 1, "nothing acknowledges a DELETE: it is said more than once"
    assert len({delete.spis for delete in deleted}) == 1


def test_a_predecessor_that_has_to_go_waits_for_its_quick_modes() -> None:
    stage = Stage()
    first = stage.puppet()
    stage.establish(first)
    for seed in (97, 98):
        stage.establish(stage.puppet(seed=seed))
    stage.world.run_for(4)
    quick = stage.answered_quick(first)
    stage.world.run_for(3)
    stage.say(first.quick3(quick))
    assert len(stage.gateway.installed) == 1
    stage.world.run_for(11)
    assert len(stage.endpoint.snapshot().sas) == 2


def test_predecessors_go_with_the_last_isakmp_sa() -> None:
    """What the peer would begin under one of them would belong to an ISAKMP SA that is no more."""
    stage = Stage()
    old = stage.puppet()
    stage.with_child(old)
    stage.establish(stage.puppet(seed=99))
    stage.world.run_until(lambda: stage.gateway.of(PeerDead), within=60)
    assert not stage.endpoint.snapshot().sas
    quick = old.begin_quick()
    assert stage.say(old.seal_quick(quick, old.quick1_payloads(quick))) == []


def test_a_peer_whose_first_quick_mode_may_be_lost_is_asked_seldom() -> None:
    """strongSwan keeps the IVs of three message IDs: more questions push out that of its quick mode, whose
    first message it repeats 4, 11 and 24 s after the first."""
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    before = len(stage.heard)
    stage.world.run_for(24.5)
    assert len(stage.heard) - before == 2
    stage.world.run_until(lambda: stage.gateway.of(PeerDead), within=7)
    assert 30 <= stage.world.now - EPOCH <= 31
    assert len(stage.heard) - before == 5
