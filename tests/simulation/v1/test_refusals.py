"""What a peer refuses without words for it, and what it limits: the operator hears why, nothing is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.bounds import RIGHT_AFTER, SETTLING, SETTLING_BESIDE, UNREAD_RENEWED
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN
from tests.simulation.v1.puppet import Puppet
from tests.simulation.v1.stage import Stage, stage_in
from vpnd.control.diagnoses import explain
from vpnd.ike.outputs import ChildFailed, ChildLimited, ChildUp, Failed, IkeDown, PeerDead
from vpnd.model.diagnosis import Code
from vpnd.model.policy import NegotiationMode
from vpnd.wire.attributes import Attribute, encode_attributes
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange1, Notify1, Protocol
from vpnd.wire.ikev1 import Notify, Payload

# ----------------------------------------------------------------------- a DELETE in answer to our identity


def refusal_of(stage: Stage) -> Code:
    """What the operator hears of the only failure."""
    codes = {failed.diagnosis.code for failed in stage.gateway.of(Failed)}
    codes |= {down.diagnosis.code for down in stage.gateway.of(IkeDown)}
    (code,) = codes
    return code


def test_a_delete_right_after_main_6_is_about_our_identity() -> None:
    """As strongSwan does that finds another identity than it looks for."""
    stage, puppet = stage_in("established, main")
    stage.say(puppet.informational(puppet.delete_ike()))
    assert refusal_of(stage) is Code.IDENTITY
    (failed,) = stage.gateway.of(Failed)
    assert not failed.initiator
    assert failed.diagnosis.fact("ours") == "192.0.2.2 (IPV4_ADDR)"
    assert explain(failed.diagnosis).peer_said == "DELETE in main mode"
    assert not stage.gateway.ike_sas()


def test_a_delete_right_after_aggressive_3_is_about_our_identity() -> None:
    stage = Stage(AGGRESSIVE)
    puppet = stage.puppet(initiator=False)
    stage.established_from_here(puppet)
    stage.say(puppet.informational(puppet.delete_ike()))
    assert [down.diagnosis.code for down in stage.gateway.of(IkeDown)] == [Code.IDENTITY]


@pytest.mark.parametrize("protected", [True, False], ids=["protected", "in clear"])
def test_a_delete_in_answer_to_main_5(protected: bool) -> None:
    """Under the same keys the identity is left; in clear it may as well be that the peer has another key."""
    stage, puppet = stage_in("sent Main5")
    delete = puppet.delete_ike()
    clear = puppet.clear(Exchange1.INFORMATIONAL, [delete], 9)
    stage.say(puppet.informational(delete) if protected else clear)
    stage.world.run_for(5)
    assert refusal_of(stage) is (Code.IDENTITY if protected else Code.PSK)


@pytest.mark.parametrize("state", ["sent Main5", "answered Aggressive1"])
@pytest.mark.parametrize("error", [Notify1.INVALID_PAYLOAD_TYPE, Notify1.PAYLOAD_MALFORMED])
@pytest.mark.parametrize("protected", [True, False], ids=["protected", "in clear"])
def test_an_error_under_the_keys_is_not_about_the_key(protected: bool, error: int, state: str) -> None:
    """strongSwan has ended a main mode so, after a late copy of its first message: both keys are the same."""
    stage, puppet = stage_in(state)
    notify = Notify(error)
    stage.say(
        puppet.informational(notify) if protected else puppet.clear(Exchange1.INFORMATIONAL, [notify], 9)
    )
    stage.world.run_for(5)
    assert refusal_of(stage) is (Code.PEER_REFUSED if protected else Code.PSK)


def test_a_delete_in_answer_to_aggressive_2() -> None:
    stage, puppet = stage_in("answered Aggressive1")
    stage.say(puppet.informational(puppet.delete_ike()))
    stage.world.run_for(5)
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is Code.IDENTITY


def test_what_spoke_against_an_sa_that_the_peer_has_is_not_why_it_dies() -> None:
    """A notify in clear may be anybody's; after the last message of aggressive mode it counts for a while."""
    stage = Stage(AGGRESSIVE)
    puppet = stage.puppet(initiator=False)
    quick = stage.established_from_here(puppet)
    stage.say(puppet.clear(Exchange1.INFORMATIONAL, [Notify(Notify1.AUTHENTICATION_FAILED)], 9))
    stage.say(puppet.quick2(quick))
    stage.world.run_until(lambda: stage.gateway.of(PeerDead), within=120)
    (dead,) = stage.gateway.of(PeerDead)
    assert dead.diagnosis.code is Code.PEER_DEAD
    assert {down.diagnosis.code for down in stage.gateway.of(IkeDown)} == {Code.PEER_DEAD}


def test_a_delete_before_there_are_keys_is_a_refusal() -> None:
    stage, puppet = stage_in("sent Main3")
    stage.say(puppet.clear(Exchange1.INFORMATIONAL, [puppet.delete_ike()], 9))
    stage.world.run_for(5)
    assert refusal_of(stage) is Code.PEER_REFUSED


def test_a_delete_of_other_cookies_says_nothing() -> None:
    stage, puppet = stage_in("sent Main5")
    other = stage.puppet(seed=5)
    stage.say(puppet.informational(other.delete_ike()))
    assert stage.endpoint.counters["informational before the proofs"] == 1


def later(stage: Stage, puppet: Puppet) -> None:
    """The peer lets some time pass."""
    stage.world.run_for(RIGHT_AFTER)


def alive(stage: Stage, puppet: Puppet) -> None:
    """The peer asks whether we live."""
    stage.say(puppet.informational(puppet.are_you_there()))


@pytest.mark.parametrize("meanwhile", [later, alive])
def test_a_delete_of_a_peer_that_has_taken_our_identity_is_its_will(
    meanwhile: Callable[[Stage, Puppet], None],
) -> None:
    stage, puppet = stage_in("established, main")
    meanwhile(stage, puppet)
    stage.say(puppet.informational(puppet.delete_ike()))
    assert not stage.gateway.of(Failed)
    assert refusal_of(stage) is Code.PEER_DELETED


def test_what_the_peer_has_answered_it_has_taken() -> None:
    """Main6 comes after our proof, Aggressive3 after ours."""
    stage, puppet = stage_in("sent Quick1, main")
    stage.say(puppet.informational(puppet.delete_ike()))
    assert refusal_of(stage) is Code.PEER_DELETED
    stage, puppet = stage_in("established, aggressive")
    stage.say(puppet.informational(puppet.delete_ike()))
    assert refusal_of(stage) is Code.PEER_DELETED


# ------------------------------------------------------------------------------------ a refusal of our Quick2


@pytest.mark.parametrize("named", ["nothing", "our SPI", "its SPI"])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Notify1.NO_PROPOSAL_CHOSEN, Code.P2_PROPOSAL),
        (Notify1.INVALID_ID_INFORMATION, Code.TRAFFIC_SELECTORS),
        (Notify1.INVALID_KEY_INFORMATION, Code.PFS),
    ],
)
def test_a_refusal_of_our_quick2_is_named_and_leaves_nothing(error: int, code: Code, named: str) -> None:
    stage, puppet = stage_in("established, main")
    stage.answered_quick(puppet, spi=0xC0FFEE01)
    (sa,) = stage.endpoint.snapshot().sas
    (ours,) = sa.children
    spis = {"nothing": b"", "our SPI": ours.to_bytes(4, "big"), "its SPI": b"\xc0\xff\xee\x01"}
    stage.say(puppet.informational(Notify(error, protocol=Protocol.ESP, spi=spis[named])))
    (failed,) = stage.gateway.of(Failed)
    assert (failed.initiator, failed.diagnosis.code) == (False, code)
    assert failed.diagnosis.fact("notify") == Notify1(error).name
    stage.world.run_for(60)
    assert not stage.gateway.of(ChildUp)
    assert not any(sa.children for sa in stage.endpoint.snapshot().sas)


def test_a_refusal_is_of_the_quick_mode_whose_spi_it_names() -> None:
    stage, puppet = stage_in("established, main")
    stage.answered_quick(puppet, spi=0xC0FFEE01, mapping=0)
    second = stage.answered_quick(puppet, spi=0xC0FFEE02, mapping=1)
    refusal = Notify(Notify1.NO_PROPOSAL_CHOSEN, protocol=Protocol.ESP, spi=b"\xc0\xff\xee\x01")
    stage.say(puppet.informational(refusal))
    stage.say(puppet.quick3(second))
    assert [up.child.mapping for up in stage.gateway.of(ChildUp)] == [1]


def test_a_refused_successor_leaves_what_it_was_to_succeed() -> None:
    stage, puppet = stage_in("with a child")
    before = sorted(stage.gateway.installed)
    stage.answered_quick(puppet, spi=0xC0FFEE02)
    stage.say(puppet.informational(Notify(Notify1.NO_PROPOSAL_CHOSEN, protocol=Protocol.ESP)))
    assert sorted(stage.gateway.installed) == before
    assert stage.gateway.of(Failed)


# ------------------------------------------------------------------------------ a Quick3 that was not read

UNREAD = [Notify1.PAYLOAD_MALFORMED, Notify1.INVALID_HASH_INFORMATION, Notify1.INVALID_PAYLOAD_TYPE]


def next_heard(stage: Stage) -> list[bytes]:
    """What the endpoint sends in the time that copies of an unread Quick3's exchange are given, and then."""
    before = len(stage.heard)
    stage.world.run_for(UNREAD_RENEWED - 0.1)
    assert stage.heard[before:] == []
    stage.world.run_for(0.2)
    return stage.heard[before:]


@pytest.mark.parametrize("error", UNREAD)
@pytest.mark.parametrize("next_one", ["none", "another mapping"])
def test_a_quick3_that_the_peer_could_not_read_is_followed_by_another_pair(error: int, next_one: str) -> None:
    """Both ends had to be asked: the mapping was up here and carried nothing, until its rekey."""
    stage = Stage(MAIN)
    puppet = stage.puppet(initiator=False)
    quick = stage.established_from_here(puppet)
    stage.say(puppet.quick2(quick))
    if next_one == "another mapping":
        stage.gateway.initiate(1)
        waiting = puppet.answer_quick(stage.heard[-1])
    assert stage.say(puppet.informational(Notify(error, protocol=Protocol.ESP))) == []
    if next_one == "another mapping":
        # The other one is not what was refused.
        assert not stage.gateway.of(Failed)
        stage.say(puppet.quick2(waiting, spi=0xC0FFEE03, mapping=1))
    (again,) = next_heard(stage)
    second = puppet.answer_quick(again)
    stage.say(puppet.quick2(second, spi=0xC0FFEE02))
    stage.world.run_for(SETTLING + 0.1)
    assert stage.gateway.child().spi_out == 0xC0FFEE02
    assert stage.gateway.sends(1) is (next_one == "another mapping")


def test_a_peer_that_reads_no_quick3_at_all_is_asked_twice() -> None:
    stage = Stage(MAIN)
    puppet = stage.puppet(initiator=False)
    quick = stage.established_from_here(puppet)
    stage.say(puppet.quick2(quick))
    error = Notify(Notify1.PAYLOAD_MALFORMED, protocol=Protocol.ESP)
    stage.say(puppet.informational(error))
    (second,) = next_heard(stage)
    stage.say(puppet.quick2(puppet.answer_quick(second), spi=0xC0FFEE02))
    stage.say(puppet.informational(error))
    before = len(stage.heard)
    stage.world.run_for(UNREAD_RENEWED + 1)
    assert stage.heard[before:] == []
    assert stage.gateway.child().spi_out == 0xC0FFEE02


@pytest.mark.parametrize("error", UNREAD)
@pytest.mark.parametrize("mode", [MAIN, AGGRESSIVE])
def test_an_error_for_each_copy_of_a_quick3_refuses_no_other_quick_mode(
    mode: NegotiationMode, error: int
) -> None:
    """strongSwan reads the first copy, forgets the IV chain, and answers each further one so."""
    stage = Stage(mode)
    puppet = stage.puppet(initiator=False)
    stage.with_child_from_here(puppet)
    stage.gateway.initiate(1)
    waiting = puppet.answer_quick(stage.heard[-1])
    for _ in range(49):
        assert stage.say(puppet.informational(Notify(error, protocol=Protocol.ESP))) == []
    stage.say(puppet.quick2(waiting, spi=0xC0FFEE03, mapping=1))
    (again,) = next_heard(stage)
    second = puppet.answer_quick(again)
    for _ in range(49):
        assert stage.say(puppet.informational(Notify(error, protocol=Protocol.ESP))) == []
    stage.say(puppet.quick2(second, spi=0xC0FFEE02))
    stage.world.run_for(SETTLING_BESIDE + 0.1)
    assert stage.gateway.child().spi_out == 0xC0FFEE02
    assert stage.gateway.sends(1)
    assert not stage.gateway.of(ChildFailed)


def test_the_peers_own_quick_mode_is_not_refused_by_an_error_for_a_copy_of_quick3() -> None:
    stage = Stage(MAIN)
    puppet = stage.puppet(initiator=False)
    stage.with_child_from_here(puppet)
    error = Notify(Notify1.PAYLOAD_MALFORMED, protocol=Protocol.ESP)
    theirs = stage.answered_quick(puppet, spi=0xC0FFEE05, mapping=1)
    for _ in range(3):
        stage.say(puppet.informational(error))
    stage.say(puppet.quick3(theirs))
    assert not stage.gateway.of(Failed)
    assert stage.gateway.sends(1)


def test_an_error_that_names_another_quick_mode_is_about_that() -> None:
    """Also right after a Quick3: the SPI decides."""
    stage = Stage(MAIN)
    puppet = stage.puppet(initiator=False)
    stage.with_child_from_here(puppet)
    stage.answered_quick(puppet, spi=0xC0FFEE05, mapping=1)
    named = Notify(Notify1.PAYLOAD_MALFORMED, protocol=Protocol.ESP, spi=b"\xc0\xff\xee\x05")
    assert stage.say(puppet.informational(named)) == []
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is Code.PEER_REFUSED


def test_a_quick_mode_that_the_peer_cannot_read_at_all_fails_some_seconds_later() -> None:
    """The error for its repetition is not near a Quick3 any more."""
    stage = Stage(MAIN)
    puppet = stage.puppet(initiator=False)
    stage.with_child_from_here(puppet)
    error = Notify(Notify1.PAYLOAD_MALFORMED, protocol=Protocol.ESP)
    stage.say(puppet.informational(error))
    assert not stage.gateway.of(ChildFailed)
    stage.world.run_for(6)
    stage.say(puppet.informational(error))
    (failed,) = stage.gateway.of(ChildFailed)
    assert failed.diagnosis.code is Code.PEER_REFUSED


def test_an_error_long_after_quick3_is_not_about_it() -> None:
    stage = Stage(MAIN)
    puppet = stage.puppet(initiator=False)
    stage.with_child_from_here(puppet)
    stage.world.run_for(6)
    assert stage.say(puppet.informational(Notify(Notify1.PAYLOAD_MALFORMED, protocol=Protocol.ESP))) == []


# ---------------------------------------------------------------------------------------- RESPONDER-LIFETIME

LIVES = {
    "by the attributes of phase 1": ((11, 1), (12, 600)),
    "by those of phase 2": ((1, 1), (2, 600)),
}


def responder_lifetime(puppet: Puppet, *attributes: tuple[int, int]) -> Notify:
    """For the ISAKMP SA."""
    data = encode_attributes([Attribute(*one) for one in attributes])
    return Notify(Notify1.RESPONDER_LIFETIME, data, Protocol.IKE, puppet.cky_i + puppet.cky_r)


@pytest.mark.parametrize("attributes", LIVES.values(), ids=LIVES.keys())
@pytest.mark.parametrize("where", ["in Main6", "afterwards"])
def test_responder_lifetime_shortens_the_isakmp_sa(
    attributes: tuple[tuple[int, int], ...], where: str
) -> None:
    """RFC 2407 section 4.6.3.1; Cisco sends it."""
    stage, puppet = stage_in("sent Main5")
    more: list[Payload] = [responder_lifetime(puppet, *attributes)]
    stage.say(puppet.seal_phase1([*puppet.proof_payloads(), *(more if where == "in Main6" else [])]))
    if where == "afterwards":
        stage.world.run_for(10)
        stage.say(puppet.informational(*more))
    (sa,) = stage.gateway.ike_sas()
    assert sa.expires_at == sa.established_at + 600
    assert sa.rekey_at is not None
    assert sa.rekey_at < sa.expires_at


@pytest.mark.parametrize(
    ("attributes", "agreed"),
    [(((11, 1), (12, 5)), 60), (((11, 1), (12, 999_999)), 28800), (((11, 2), (12, 600)), 28800), ((), 28800)],
)
def test_a_lifetime_that_is_none_of_ours_or_absurd(
    attributes: tuple[tuple[int, int], ...], agreed: int
) -> None:
    stage, puppet = stage_in("sent Main5")
    stage.say(puppet.seal_phase1([*puppet.proof_payloads(), responder_lifetime(puppet, *attributes)]))
    (sa,) = stage.gateway.ike_sas()
    assert sa.expires_at == sa.established_at + agreed


@pytest.mark.parametrize("mode", [MAIN, AGGRESSIVE], ids=lambda mode: mode.value)
def test_only_a_responder_limits(mode: NegotiationMode) -> None:
    stage = Stage(mode)
    puppet = stage.puppet()
    stage.establish(puppet)
    stage.say(puppet.informational(responder_lifetime(puppet, (11, 1), (12, 600))))
    (sa,) = stage.gateway.ike_sas()
    assert sa.expires_at > sa.established_at + 600


def for_the_pair(spi: int, *attributes: tuple[int, int]) -> Notify:
    """RESPONDER-LIFETIME for an IPsec SA."""
    data = encode_attributes([Attribute(*one) for one in attributes])
    return Notify(Notify1.RESPONDER_LIFETIME, data, Protocol.ESP, spi.to_bytes(4, "big"))


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_responder_lifetime_afterwards_shortens_the_pair(whose: str) -> None:
    """By either of its SPIs; the succession comes before, the end not before that."""
    stage, puppet = stage_in("with a child from here")
    child = stage.gateway.children()[0]
    stage.world.run_for(10)
    spi = child.spi_in if whose == "ours" else child.spi_out
    stage.say(puppet.informational(for_the_pair(spi, (1, 1), (2, 100))))
    (sa,) = stage.gateway.ike_sas()
    assert sa.expires_at > sa.established_at + 600, "the ISAKMP SA stays as it is"
    before = len(stage.heard)
    ends = stage.gateway.installed[child.spi_in].since + 100
    while stage.world.now < ends - 6:
        stage.world.run_for(5)
        stage.say(puppet.informational(for_the_pair(spi, (1, 1), (2, 200))))  # it lives
    stage.world.run_for(ends - 1 - stage.world.now)
    assert any(Header.decode(data).exchange == Exchange1.QUICK_MODE for data in stage.heard[before:])
    assert child.spi_in in stage.gateway.installed
    stage.world.run_for(2)
    assert child.spi_in not in stage.gateway.installed


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_responder_lifetime_afterwards_limits_what_the_pair_carries(whose: str) -> None:
    """Each time less than before, and never less than costs a negotiation; the seconds stay."""
    stage, puppet = stage_in("with a child from here")
    child = stage.gateway.children()[0]
    spi = child.spi_in if whose == "ours" else child.spi_out
    ends = stage.endpoint.child_sas(stage.gateway.tunnel)[child.spi_in].expires_at
    for kilobytes in (70_000, 80_000, 50_000, 50_000, 3):
        stage.say(puppet.informational(for_the_pair(spi, (1, 2), (2, kilobytes))))
    stage.say(puppet.informational(for_the_pair(spi, (1, 1), (2, 999_999), (1, 2), (2, 60_000))))
    limits = [(one.tunnel, one.spi_in, one.kilobytes) for one in stage.gateway.of(ChildLimited)]
    assert limits == [(stage.gateway.tunnel, child.spi_in, kb) for kb in (70_000, 50_000, 1024)]
    assert stage.endpoint.child_sas(stage.gateway.tunnel)[child.spi_in].expires_at == ends


def test_only_the_responder_limits_what_the_pair_carries() -> None:
    stage, puppet = stage_in("with a child")
    child = stage.gateway.children()[0]
    stage.say(puppet.informational(for_the_pair(child.spi_out, (1, 2), (2, 70_000))))
    assert not stage.gateway.of(ChildLimited)


@pytest.mark.parametrize("of_the_pair", [True, False])
def test_what_the_responder_limits_is_rekeyed_when_status_says(of_the_pair: bool) -> None:
    """The moment moves with RESPONDER-LIFETIME, and the next message is the rekey then."""
    stage, puppet = stage_in("with a child from here")
    spi_in = stage.gateway.children()[0].spi_in

    def rekey_at() -> float | None:
        child = stage.endpoint.child_sas(stage.gateway.tunnel)[spi_in]
        return child.rekey_at if of_the_pair else stage.gateway.ike_sas()[0].rekey_at

    before = rekey_at()
    limit = for_the_pair if of_the_pair else lambda _, *lives: responder_lifetime(puppet, *lives)
    stage.say(puppet.informational(limit(spi_in, (1, 1), (2, 100))))
    due, rungs = rekey_at(), len(stage.world.rungs)
    assert before is not None
    assert due is not None
    assert stage.world.now < due < stage.world.now + 100 < before
    word = "QUICK_MODE" if of_the_pair else "MAIN_MODE"
    while stage.world.now + 5 < due:
        stage.world.run_for(5)
        stage.gateway.do("note_activity", stage.gateway.tunnel)
    stage.world.run_until(lambda: any(r.text.startswith(word) for r in stage.world.rungs[rungs:]), within=10)
    assert stage.world.now == due
    assert rekey_at() is None


@pytest.mark.parametrize(
    "what", ["a pair of the peer's", "another SPI", "a longer life", "kilobytes", "no attributes"]
)
def test_responder_lifetime_that_shortens_no_pair(what: str) -> None:
    stage, puppet = stage_in("with a child" if "peer" in what else "with a child from here")
    (child,) = stage.gateway.children()
    spi = child.spi_in ^ 1 if what == "another SPI" else child.spi_in
    attributes = {
        "a longer life": ((1, 1), (4, 1)),
        "kilobytes": ((1, 2), (2, 100)),
        "no attributes": (),
    }.get(what, ((1, 1), (2, 100)))
    (before,) = stage.endpoint.snapshot().sas
    stage.say(puppet.informational(for_the_pair(spi, *attributes)))
    (after,) = stage.endpoint.snapshot().sas
    assert after.deadlines == before.deadlines
    assert any(f"{child.spi_in:08x}" in what for what in before.deadlines)
