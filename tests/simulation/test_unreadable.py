"""What a configured peer sends and we cannot read: it counts as received, and the operator hears what it was.

And what only looks unreadable: bytes behind the last payload of an IKEv1 message in clear, as libreswan has
them, which fills such messages up to a multiple of four bytes.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.simulation.policies import ADDRESS_A, ADDRESS_B
from tests.simulation.stage import Stage as Stage2
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, policy_of
from tests.simulation.v1.puppet import Puppet, esp_sa, subnet
from tests.simulation.v1.stage import RECIPE, Stage, stage_in
from vpnd.control.diagnoses import message
from vpnd.ike.endpoint import NO_MESSAGE, UNREADABLE_AGAIN
from vpnd.ike.limits import UNREADABLE_BY_ADDRESS
from vpnd.ike.message import MAX_OF_A_KIND
from vpnd.ike.outputs import Established, Failed, LadderLine, UnknownPeer
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code
from vpnd.model.identity import Identity
from vpnd.model.policy import NegotiationMode
from vpnd.model.selectors import Address
from vpnd.wire.header import HEADER_LENGTH, Header
from vpnd.wire.iana import Exchange1, Exchange2, IdType, Notify1, Notify2
from vpnd.wire.ikev1 import Fragment, Id, Nonce, Notify, Payload, VendorId
from vpnd.wire.ikev2 import Notify as Notify2Payload
from vpnd.wire.ikev2 import VendorId as VendorId2

STRANGER = ip_address("203.0.113.77")
FQDN = b"gw17.east.example"


def padded(data: bytes, count: int = 3) -> bytes:
    """The message with bytes behind its last payload, which its header counts."""
    length = len(data) + count
    return data[:24] + length.to_bytes(4, "big") + data[28:] + bytes(count)


def cut(data: bytes) -> bytes:
    """The message without its last byte, which its last payload counts."""
    return padded(data, 0)[:24] + (len(data) - 1).to_bytes(4, "big") + data[28:-1]


def named(stage: Stage | Stage2) -> list[str]:
    """What the operator has heard of messages that could not be read."""
    return [
        str(failed.diagnosis.fact("detail"))
        for failed in stage.gateway.of(Failed)
        if failed.diagnosis.code is Code.SYNTAX
    ]


# ------------------------------------------------------------------------------ bytes behind the last payload


@pytest.mark.parametrize("mode", [MAIN, AGGRESSIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_peer_that_begins_may_fill_up_its_messages_in_clear(mode: NegotiationMode, count: int) -> None:
    stage = Stage(mode)
    puppet = stage.puppet()
    (answer,) = stage.say(padded(puppet.first_message(), count))
    puppet.take(answer)
    if not puppet.aggressive:
        (answer,) = stage.say(padded(puppet.clear(puppet.exchange, puppet.key_payloads()), count))
        puppet.take(answer)
        stage.say(puppet.seal_phase1(puppet.proof_payloads()))
    else:
        stage.say(padded(puppet.clear(puppet.exchange, puppet.proof_payloads()[1:]), count))
    assert stage.gateway.of(Established)


@pytest.mark.parametrize("mode", [MAIN, AGGRESSIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_peer_that_answers_may_fill_up_its_messages_in_clear(mode: NegotiationMode, count: int) -> None:
    stage = Stage(mode)
    puppet = stage.puppet(initiator=False)
    stage.begin(puppet)
    if puppet.aggressive:
        stage.say(padded(puppet.clear(puppet.exchange, puppet.aggressive2_payloads()), count))
    else:
        (answer,) = stage.say(padded(puppet.clear(puppet.exchange, puppet.proposal()), count))
        puppet.take(answer)
        (answer,) = stage.say(padded(puppet.clear(puppet.exchange, puppet.key_payloads()), count))
        puppet.take_phase1(answer)
        stage.say(puppet.seal_phase1(puppet.proof_payloads()))
    assert stage.gateway.of(Established)


@pytest.mark.parametrize("initiator", [True, False], ids=["it begins", "we begin"])
def test_aggressive_mode_with_libreswan_and_a_name_of_17_characters(initiator: bool) -> None:
    """Its messages then end three bytes before a multiple of four."""
    stage = Stage(AGGRESSIVE)
    stage.gateway.set_peer("a", replace(policy_of(RECIPE, AGGRESSIVE), remote_id=Identity(IdType.FQDN, FQDN)))
    puppet = stage.puppet(initiator)
    puppet.identity = Id(IdType.FQDN, FQDN)
    if initiator:
        said = puppet.first_message()
        (answer,) = stage.say(padded(said, -len(said) % 4))
        puppet.take(answer)
        stage.say(puppet.seal_phase1(puppet.proof_payloads()[1:]))
    else:
        stage.begin(puppet)
        said = puppet.clear(puppet.exchange, puppet.aggressive2_payloads())
        stage.say(padded(said, -len(said) % 4))
    assert len(said) % 4
    assert stage.gateway.of(Established)


def test_an_error_in_clear_may_be_filled_up() -> None:
    stage, puppet = stage_in("sent Main1")
    refusal = puppet.clear(Exchange1.INFORMATIONAL, [Notify(Notify1.NO_PROPOSAL_CHOSEN)], 9)
    stage.insist(padded(refusal))
    stage.world.run_for(5)
    assert [failed.diagnosis.code for failed in stage.gateway.of(Failed)] == [Code.P1_PROPOSAL]


def test_a_fragment_may_be_filled_up() -> None:
    stage, puppet = stage_in("sent Main1")
    whole = padded(puppet.clear(puppet.exchange, puppet.proposal()))
    pieces = (Fragment(1, 1, False, whole[:40]), Fragment(1, 2, True, whole[40:]))
    before = len(stage.heard)
    for piece in pieces:
        stage.say(padded(puppet.clear(puppet.exchange, [piece])))
    assert len(stage.heard) == before + 1


# ------------------------------------------------------------------------------ what really cannot be read


Make = type[Stage] | type[Stage2]


def first_of(stage: Stage | Stage2) -> bytes:
    """Main1, or IKE_SA_INIT."""
    return stage.puppet().first_message() if isinstance(stage, Stage) else stage.puppet().init_message()


@pytest.mark.parametrize(("make", "name"), [(Stage, "MAIN_MODE"), (Stage2, "IKE_SA_INIT")])
def test_a_first_message_that_cannot_be_read_is_named(make: Make, name: str) -> None:
    stage = make()
    whole = first_of(stage)
    assert stage.say(cut(whole)) == []
    (failed,) = stage.gateway.of(Failed)
    assert not failed.initiator
    assert failed.diagnosis.code is Code.SYNTAX
    assert failed.diagnosis.fact("peer") == str(ADDRESS_A)
    assert name in message(failed.diagnosis)
    assert "bytes are announced" in message(failed.diagnosis)
    (line,) = stage.gateway.of(LadderLine)
    assert (line.outbound, line.text) == (False, f"{name} that cannot be read")
    assert stage.say(whole), "and it stands in the way of nothing"


@pytest.mark.parametrize("make", [Stage, Stage2])
def test_it_is_named_once_a_minute_whatever_it_is(make: Make) -> None:
    stage = make()
    whole = first_of(stage)
    for number in range(20):
        stage.say(padded(whole, 0)[: HEADER_LENGTH + number])
    assert len(named(stage)) == 1
    stage.world.run_for(UNREADABLE_AGAIN)
    stage.say(whole[:-1])
    assert len(named(stage)) == 2


@pytest.mark.parametrize("make", [Stage, Stage2])
def test_of_an_address_that_is_no_peers_nothing_is_said(make: Make) -> None:
    """But that it begins IKE, where so much can be read."""
    stage = make()
    whole = first_of(stage)
    assert stage.say(cut(whole), source=STRANGER) == []
    assert all(isinstance(event, UnknownPeer) for event in stage.gateway.events)
    assert not named(stage)
    assert sum(stage.endpoint.counters.values()) == 1


@pytest.mark.parametrize("data", [b"", b"\0" * 27, bytes(16) + b"\x01\x30" + bytes(6) + b"\0\0\0\x1c"])
def test_what_is_no_ike_message_of_ours_is_named(data: bytes) -> None:
    """Too short for a header, and of a version that nobody speaks."""
    stage = Stage()
    assert stage.say(data) == []
    assert len(named(stage)) == 1


GARBAGE = (b"", b"\xff", bytes(27), bytes(28), bytes(17) + b"\x30" + bytes(9) + b"\x1c", b"\x2e" * 200)


def let_in(stage: Stage | Stage2, source: Address, count: int) -> int:
    """How many of so many datagrams that are no IKE message are handled, and not only counted."""
    path = Path(ADDRESS_B, 500, source, 500)
    endpoint, now = stage.endpoint, stage.world.now
    return sum(not endpoint.drop_unread(now, path, GARBAGE[number % len(GARBAGE)]) for number in range(count))


@pytest.mark.parametrize("make", [Stage, Stage2])
def test_of_a_flood_enough_is_named_and_the_rest_counted(make: Make) -> None:
    stage = make()
    most = int(UNREADABLE_BY_ADDRESS.most)
    assert let_in(stage, ADDRESS_A, 10_000) == most
    assert stage.endpoint.counters[NO_MESSAGE] == 10_000 - most
    assert not stage.endpoint.outputs, "nothing was made of it"
    stage.world.run_for(1)
    assert let_in(stage, ADDRESS_A, 10_000) == UNREADABLE_BY_ADDRESS.a_second, "named again while it lasts"


@pytest.mark.parametrize("make", [Stage, Stage2])
def test_no_message_is_dropped_unread_however_many_come(make: Make) -> None:
    """In a flood those that have a header are for their sessions, or wait for their turn."""
    stage = make()
    whole = first_of(stage)
    let_in(stage, ADDRESS_A, 10_000)
    path = Path(ADDRESS_B, 500, ADDRESS_A, 500)
    assert not any(stage.endpoint.drop_unread(stage.world.now, path, whole) for _ in range(1000))
    assert stage.say(whole)


@pytest.mark.parametrize("make", [Stage, Stage2])
def test_a_flood_of_a_stranger_takes_nothing_from_a_peer(make: Make) -> None:
    """Nothing is said of a stranger, so none of its datagrams is looked at."""
    stage = make()
    assert let_in(stage, STRANGER, 10_000) == 0
    assert let_in(stage, ADDRESS_A, 10_000) == UNREADABLE_BY_ADDRESS.most


def test_a_keepalive_on_port_500_is_no_message() -> None:
    stage = Stage()
    stage.say(b"\xff")
    assert not stage.gateway.events


@pytest.mark.parametrize("mode", [MAIN, AGGRESSIVE], ids=lambda mode: mode.value)
def test_an_attempt_whose_answer_cannot_be_read_ends_with_that(mode: NegotiationMode) -> None:
    stage = Stage(mode)
    puppet = stage.puppet(initiator=False)
    stage.begin(puppet)
    answer = puppet.aggressive2_payloads() if puppet.aggressive else puppet.proposal()
    stage.say(cut(puppet.clear(puppet.exchange, answer)))
    assert stage.endpoint.next_timeout() is not None, "another answer may come"
    stage.world.run_for(40)
    (ended,) = stage.gateway.of(Failed)
    assert ended.initiator
    assert ended.diagnosis.code is Code.SYNTAX


def test_an_ikev2_attempt_whose_answer_cannot_be_read_ends_with_that() -> None:
    stage = Stage2()
    puppet = stage.puppet(initiator=False)
    stage.gateway.initiate()
    puppet.take_init(stage.heard[-1])
    stage.say(cut(puppet.init_message()))
    stage.world.run_for(40)
    assert [failed.diagnosis.code for failed in stage.gateway.of(Failed)] == [Code.SYNTAX]


def test_a_message_that_does_not_fit_is_named_if_nothing_else_comes() -> None:
    """It may only be late; but a peer whose answers have no SA payload does not keep silent either."""
    stage, puppet = stage_in("sent Main1")
    stage.say(puppet.clear(puppet.exchange, [VendorId(b"x")]))
    assert not stage.gateway.of(Failed)
    stage.world.run_for(40)
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.fact("detail") == "Sa: missing in Main2"


def test_a_first_message_that_does_not_fit_is_named_at_once() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.say(puppet.clear(puppet.exchange, [VendorId(b"x")]))
    assert named(stage) == ["Sa: missing in Main1"]


def test_a_real_answer_afterwards_is_taken() -> None:
    stage, puppet = stage_in("sent Main1")
    answer = puppet.clear(puppet.exchange, puppet.proposal())
    assert stage.say(cut(answer)) == []
    assert len(stage.say(answer)) == 1


def test_every_message_that_comes_counts_as_received() -> None:
    """A peer that sends what is of no use does not keep silent."""
    stage, puppet = stage_in("sent Main1")
    for number in (7, 8):
        stage.say(puppet.clear(99, [VendorId(b"x")], number))
    stage.world.run_for(40)
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is Code.SILENT
    assert failed.diagnosis.fact("received") == "2"


def test_an_encrypted_answer_of_odd_length_is_named_if_nothing_else_comes() -> None:
    stage, puppet = stage_in("sent Main5")
    stage.say(cut(puppet.seal_phase1(puppet.proof_payloads())))
    assert named(stage) == [], "anyone on the way can cut it"
    stage.world.run_for(40)
    assert named(stage) == ["encrypted payloads: 47 bytes are no whole blocks"]


def test_a_damaged_message_under_keys_is_counted_and_no_more() -> None:
    stage, puppet = stage_in("with a child")
    sealed = puppet.informational(puppet.are_you_there())
    for damaged in (cut(sealed), sealed[:-1], sealed + b"x"):
        assert stage.say(damaged) == []
    assert named(stage) == []
    assert stage.say(sealed), "the next one is read"


# ------------------------------------------------------------------------------ more than 20 of a kind

MANY = MAX_OF_A_KIND + 1


def many_vendors(puppet: Puppet) -> bytes:
    """Main1 with more vendor IDs than are read."""
    return puppet.clear(puppet.exchange, [puppet.proposal()[0], *[VendorId(b"x")] * MANY])


def test_more_than_20_payloads_of_a_kind_are_named_in_clear() -> None:
    stage = Stage()
    stage.say(many_vendors(stage.puppet()))
    assert named(stage) == ["VendorId: 21 of them, more than 20"]


def test_more_than_20_payloads_of_a_kind_are_named_when_protected() -> None:
    stage, puppet = stage_in("with a child")
    stage.say(puppet.informational(*[Notify(40000)] * MANY))
    assert named(stage) == ["Notify: 21 of them, more than 20"]


def test_more_than_20_payloads_of_a_kind_are_named_in_an_answer() -> None:
    stage, puppet = stage_in("established, main")
    stage.gateway.initiate()
    quick = puppet.answer_quick(stage.heard[-1])
    quick.nonce_r = bytes(32)
    payloads: list[Payload] = [esp_sa(0xC0FFEE01), Nonce(quick.nonce_r), *[subnet(2)] * MANY]
    stage.say(puppet.seal_quick(quick, payloads, quick.nonce_i))
    assert named(stage) == ["Id: 21 of them, more than 20"]


def test_what_no_hash_proves_is_not_taken_for_the_peers() -> None:
    """Under an ISAKMP SA anyone on the way can damage a message."""
    stage, puppet = stage_in("with a child")
    stage.say(puppet.informational(*[Notify(40000)] * MANY, proof=bytes(32)))
    assert named(stage) == []
    assert stage.endpoint.counters["undecryptable"] == 1


def test_more_than_20_payloads_of_a_kind_are_named_in_ikev2() -> None:
    stage = Stage2()
    puppet = stage.puppet()
    stage.say(puppet.init_message(*[VendorId2(b"x")] * MANY))
    assert named(stage) == ["VendorId: 21 of them, more than 20"]


def test_more_than_20_payloads_of_a_kind_are_named_in_ikev2_when_protected() -> None:
    stage = Stage2()
    puppet = stage.puppet()
    stage.establish(puppet)
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 2, [Notify2Payload(Notify2.INITIAL_CONTACT)] * MANY))
    assert named(stage) == ["Notify: 21 of them, more than 20"]


def test_the_header_says_how_long_a_message_is() -> None:
    """RFC 2408 section 5.1 has other lengths refused; the message is named all the same."""
    stage = Stage()
    whole = stage.puppet().first_message()
    assert stage.say(whole + bytes(2)) == []
    assert named(stage) == [f"header length: says {len(whole)}, {len(whole) + 2} bytes arrived"]
    assert Header.decode(whole)
