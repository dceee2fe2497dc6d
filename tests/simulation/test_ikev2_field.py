"""What other implementations send and the RFCs allow: payloads in odd places, errors beside AUTH."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vpnd.ike.message import MAX_OF_A_KIND
from vpnd.ike.outputs import ChildFailed, ChildUp, Failed
from vpnd.model.diagnosis import Code
from vpnd.wire.iana import DhGroup, Exchange2, Notify2, Payload2, Protocol
from vpnd.wire.ikev2 import Delete, KeyExchange, Nonce, Notify, Payload, Sa, Unknown, VendorId

from .pair import Pair
from .puppet import IKE_SA, Puppet
from .stage import Stage

SPI = 0xC0FFEE77
VENDOR = VendorId(b"an implementation that says so everywhere")
NONCE = Nonce(bytes(range(32)))
CRITICAL = 200


def ike_rekey(puppet: Puppet) -> list[Payload]:
    """CREATE_CHILD_SA for a successor of the IKE SA."""
    part = replace(IKE_SA.proposals[0], spi=bytes(range(1, 9)))
    return [Sa((part,)), NONCE, KeyExchange(DhGroup.CURVE25519, puppet.public)]


def kinds(stage: Stage, puppet: Puppet, data: bytes) -> set[type]:
    """What the endpoint answers to one message."""
    (answer,) = stage.say(data)
    return {type(payload) for payload in puppet.open(answer).payloads}


def test_a_vendor_id_may_come_in_any_request() -> None:
    """RFC 7296 section 3.12."""
    stage = Stage()
    puppet = stage.puppet()
    (answer,) = stage.say(puppet.init_message(VENDOR))
    puppet.take_init(answer)
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, [*puppet.auth_payloads(), VENDOR]))
    assert len(stage.gateway.of(ChildUp)) == 1
    child = [*puppet.child_payloads(SPI), NONCE, VENDOR]
    assert Sa in kinds(stage, puppet, puppet.seal(Exchange2.CREATE_CHILD_SA, 2, child))
    rekey = Notify(Notify2.REKEY_SA, protocol=Protocol.ESP, spi=SPI.to_bytes(4, "big"))
    child = [rekey, *puppet.child_payloads(SPI + 1), NONCE, VENDOR]
    assert Sa in kinds(stage, puppet, puppet.seal(Exchange2.CREATE_CHILD_SA, 3, child))
    gone: list[Payload] = [VENDOR, Delete(Protocol.ESP, (SPI.to_bytes(4, "big"),))]
    assert kinds(stage, puppet, puppet.seal(Exchange2.INFORMATIONAL, 4, gone)) == {Delete}
    assert kinds(stage, puppet, puppet.seal(Exchange2.INFORMATIONAL, 5, [VENDOR])) == set()
    successor = [*ike_rekey(puppet), VENDOR]
    assert Sa in kinds(stage, puppet, puppet.seal(Exchange2.CREATE_CHILD_SA, 6, successor))
    assert not stage.gateway.of(Failed)


def test_a_vendor_id_may_come_in_any_answer() -> None:
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    stage.gateway.initiate()
    puppet.take_init(stage.heard[-1])
    stage.say(puppet.init_message(VENDOR))
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, [VENDOR, *puppet.auth_payloads()], response=True))
    stage.gateway.rekey_child()
    child = [VENDOR, *puppet.child_payloads(SPI), NONCE]
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, child, response=True))
    assert [sa.spi_out for sa in stage.gateway.children()][-1] == SPI
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 3, [VENDOR], response=True))
    refusal: list[Payload] = [VENDOR, Notify(Notify2.TS_UNACCEPTABLE)]
    stage.gateway.rekey_child()
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 4, refusal, response=True))
    assert [failed.diagnosis.fact("notify") for failed in stage.gateway.of(ChildFailed)] == [
        "TS_UNACCEPTABLE"
    ]


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("exchange", [Exchange2.CREATE_CHILD_SA, Exchange2.INFORMATIONAL])
def test_an_unknown_critical_payload_is_refused_inside_and_before_sk(exchange: int, inside: bool) -> None:
    """RFC 7296 section 2.5; both are authentic, and the same bit without meaning changes nothing."""
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    payloads: list[Payload] = [*puppet.child_payloads(SPI), NONCE]
    if exchange == Exchange2.INFORMATIONAL:
        payloads = []
    critical = Unknown(CRITICAL, b"new", critical=True)
    if inside:
        data = puppet.seal(exchange, 2, [critical, *payloads])
    else:
        data = puppet.seal(exchange, 2, payloads, before=[critical])
    (answer,) = stage.say(data)
    assert puppet.open(answer).payloads == (Notify(Notify2.UNSUPPORTED_CRITICAL_PAYLOAD, bytes((CRITICAL,))),)
    assert len(stage.gateway.installed) == 1
    assert stage.gateway.of(Failed)[-1].diagnosis.code is Code.SYNTAX
    harmless = puppet.seal(exchange, 3, payloads, before=[Unknown(CRITICAL, b"new"), VENDOR])
    assert Notify not in kinds(stage, puppet, harmless)


def test_an_unknown_critical_payload_in_fragments_is_refused() -> None:
    """RFC 7383: what is put together again is read as what came in one piece."""
    pair = Pair()
    pair.establish()
    payloads = (Unknown(CRITICAL, b"new", critical=True), Notify(40_000, bytes(3000)))
    number = 2
    fragments = pair.insider("a").seal_fragments(Exchange2.INFORMATIONAL, number, payloads)
    assert len(fragments) > 1
    before = len(pair.world.sent)
    for datagram in fragments:
        pair.world.inject("b", datagram, pair.a.address)
    assert pair.world.rungs[-1].text == f"INFORMATIONAL {number} {{N(UNSUPPORTED_CRITICAL_PAYLOAD)}}"
    assert len(pair.world.sent) == before + 1
    assert len(pair.b.ike_sas()) == 1


def test_payloads_of_ike_auth_may_stand_in_any_order() -> None:
    """RFC 7296 section 2.5; AUTH covers the body of IDi, wherever that is."""
    stage = Stage()
    puppet = stage.puppet()
    stage.half_open(puppet)
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads()[::-1]))
    assert len(stage.gateway.ike_sas()) == len(stage.gateway.installed) == 1


def test_an_unknown_critical_payload_before_fragments_is_refused() -> None:
    """It is authentic with its fragment; one without the bit changes nothing."""
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    long: list[Payload] = [Notify(40_000, bytes(2500))]
    critical = puppet.seal_fragments(
        Exchange2.INFORMATIONAL, 2, long, before=[Unknown(CRITICAL, b"new", critical=True)]
    )
    (answer,) = stage.say(critical[0])
    assert puppet.open(answer).payloads == (Notify(Notify2.UNSUPPORTED_CRITICAL_PAYLOAD, bytes((CRITICAL,))),)
    harmless = puppet.seal_fragments(Exchange2.INFORMATIONAL, 3, long, before=[Unknown(CRITICAL, b"new")])
    assert len(harmless) > 1
    answers = [answer for one in harmless for answer in stage.say(one)]
    assert [puppet.open(answer).payloads for answer in answers] == [()]


def test_an_unknown_critical_payload_before_sk_ends_an_attempt_in_ike_auth() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.half_open(puppet)
    critical = Unknown(CRITICAL, b"new", critical=True)
    (answer,) = stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads(), before=[critical]))
    (notify,) = puppet.open(answer).payloads
    assert notify == Notify(Notify2.UNSUPPORTED_CRITICAL_PAYLOAD, bytes((CRITICAL,)))
    assert not stage.gateway.ike_sas()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Notify2.AUTHENTICATION_FAILED, Code.PSK),
        (Notify2.INVALID_SYNTAX, Code.SYNTAX),
        (Notify2.UNSUPPORTED_CRITICAL_PAYLOAD, Code.PEER_REFUSED),
        (8191, Code.PEER_REFUSED),
    ],
)
def test_auth_and_an_error_that_is_not_the_childs_ends_the_ike_sa_at_once(error: int, code: Code) -> None:
    """RFC 7296 section 2.21.2: the peer has no IKE SA."""
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    puppet.open(stage.begin(puppet))
    answer = [puppet.identity, puppet.auth_payload(), Notify(error)]
    (delete,) = stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, answer, response=True))
    assert puppet.open(delete).payloads == (puppet.delete_ike(),)
    (failed,) = stage.gateway.of(Failed)
    assert (failed.initiator, failed.diagnosis.code) == (True, code)
    assert not stage.gateway.ike_sas()
    assert not stage.gateway.of(ChildFailed)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Notify2.TS_UNACCEPTABLE, Code.TRAFFIC_SELECTORS),
        (Notify2.NO_PROPOSAL_CHOSEN, Code.P2_PROPOSAL),
        (Notify2.FAILED_CP_REQUIRED, Code.PEER_REFUSED),
        (Notify2.NO_ADDITIONAL_SAS, Code.PEER_REFUSED),
    ],
)
def test_auth_and_an_error_of_the_child_leaves_the_ike_sa(error: int, code: Code) -> None:
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    puppet.open(stage.begin(puppet))
    answer = [puppet.identity, puppet.auth_payload(), Notify(error)]
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, answer, response=True))
    assert len(stage.gateway.ike_sas()) == 1
    assert [failed.diagnosis.code for failed in stage.gateway.of(ChildFailed)] == [code]


MANY = [Notify(40960 + number) for number in range(MAX_OF_A_KIND + 1)]
"""More than a message may have: status notifies for private use."""


def test_a_first_message_with_too_many_payloads_is_named() -> None:
    stage = Stage()
    assert not stage.say(stage.puppet().init_message(*MANY))
    (failed,) = stage.gateway.of(Failed)
    assert (failed.initiator, failed.diagnosis.code) == (False, Code.SYNTAX)
    assert failed.diagnosis.fact("exchange") == "IKE_SA_INIT"
    assert "Notify: 21 of them" in (failed.diagnosis.fact("detail") or "")


def test_a_first_message_that_cannot_be_read_is_named() -> None:
    stage = Stage()
    message = stage.puppet().clear(Exchange2.IKE_SA_INIT, 0, [Unknown(Payload2.SA, b"no proposal")])
    assert not stage.say(message)
    assert [failed.diagnosis.code for failed in stage.gateway.of(Failed)] == [Code.SYNTAX]


def test_an_answer_to_a_first_message_that_cannot_be_read_is_named_at_the_end_only() -> None:
    """Anyone may have sent it: a good answer still counts, and the attempt takes its time."""
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    stage.gateway.initiate()
    puppet.take_init(stage.heard[-1])
    stage.say(puppet.init_message(*MANY))
    stage.world.run_for(10)
    assert not stage.gateway.of(Failed)
    stage.world.run_for(50)
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is Code.SYNTAX
    assert "Notify: 21 of them" in (failed.diagnosis.fact("detail") or "")


def test_twenty_of_a_kind_and_any_number_of_what_nobody_reads_are_taken() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.half_open(puppet)
    more: list[Payload] = [*MANY[1:], *[VENDOR] * 30, *[Unknown(CRITICAL, b"")] * 30]
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, [*puppet.auth_payloads(), *more]))
    assert len(stage.gateway.installed) == 1
