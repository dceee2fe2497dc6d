"""A peer that holds the keys and answers or asks wrongly: every fault is named, and nothing else falls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import pytest

from tests.simulation.footprint import footprint
from tests.simulation.policies import ESP, IKE, NAME, mapping, mirrored, policy, with_pfs
from tests.simulation.puppet import in_clear, subnet
from tests.simulation.wire import WirePair
from vpnd.crypto.dh import KeyPair
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildReplaced,
    ChildUp,
    Established,
    Failed,
    IkeDown,
    IkeReplaced,
    LadderLine,
)
from vpnd.ike.v2.proposals import encode_sa
from vpnd.model.diagnosis import Code
from vpnd.model.policy import PeerPolicy
from vpnd.model.proposals import Proposal
from vpnd.wire.header import Flag, Header
from vpnd.wire.iana import Exchange2, Notify2, Protocol
from vpnd.wire.ikev2 import (
    Auth,
    Delete,
    IdI,
    IdR,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    Sa,
    TsI,
    TsR,
    Unknown,
    VendorId,
)

SPI = b"\xc0\xff\xee\0"
NONCE = Nonce(bytes(32))
TS = (TsI(subnet(1)), TsR(subnet(2)))
ESP_ANSWER = encode_sa(ESP, SPI)


def answer(pair: WirePair, *payloads: Payload) -> None:
    """One who has the keys of b answers a's request with these payloads; then both go on.

    For b it was another request: its message ID is used.
    """
    request = pair.take("a")
    header = Header.decode(request.data)
    if pair.b.ike_sas():
        pair.deliver(pair.insider("a").instead(request, (), Exchange2.INFORMATIONAL))
        pair.take("b")
    pair.inject("a", pair.insider("b").seal(header.exchange, header.message_id, payloads, response=True))


def ask(pair: WirePair, exchange: int, message_id: int, *payloads: Payload) -> str:
    """One who has the keys of a sends b a request; b's answer as the ladder has it."""
    pair.inject("b", pair.insider("a").seal(exchange, message_id, payloads))
    return pair.texts[-1]


def half_way(pair: WirePair | None = None) -> WirePair:
    """a has sent IKE_AUTH, b has the keys."""
    pair = pair or WirePair()
    pair.a.initiate()
    for _ in range(2):
        pair.deliver(pair.wire.pop(0))
    return pair


def proof(pair: WirePair, name: str, identity: IdI | IdR) -> Auth:
    """The AUTH of a side for an identity, with the right key."""
    insider = pair.insider(name)
    insider.identity = identity
    return insider.auth_payload()


def assert_gone(pair: WirePair) -> None:
    """The attempt has left nothing with a."""
    pair.advance(60)
    assert not pair.a.of(Established)
    assert not pair.a.installed
    assert pair.a.endpoint.next_timeout() is None
    assert not session_spis(pair)


def session_spis(pair: WirePair) -> frozenset[int]:
    """Inbound SPIs that a still holds beyond those of its children."""
    return pair.a.endpoint.snapshot().esp_spis - set(pair.a.installed)


# -------------------------------------------------------------------------- IKE_AUTH as initiator


def test_a_responder_with_another_identity_is_refused_though_its_proof_is_good() -> None:
    pair = half_way()
    id_r = IdR(2, b"mallory.example")
    answer(pair, id_r, proof(pair, "b", id_r), ESP_ANSWER, *TS)
    diagnosis = pair.a.diagnosis(Failed)
    assert diagnosis.code is Code.IDENTITY
    assert (diagnosis.fact("theirs"), diagnosis.fact("ours")) == (
        "mallory.example (FQDN)",
        "b.example (FQDN)",
    )
    assert pair.lines[-1][1] == "INFORMATIONAL 2 {N(AUTHENTICATION_FAILED), D}"
    assert_gone(pair)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda proof: Auth(2, bytes(len(proof.data))), Code.PSK),
        (lambda proof: Auth(2, proof.data[:-1]), Code.PSK),
        (lambda proof: Auth(2, b""), Code.PSK),
        (lambda proof: Auth(1, proof.data), Code.P1_AUTH_METHOD),
        (lambda proof: Auth(13, proof.data), Code.P1_AUTH_METHOD),
    ],
)
def test_a_wrong_proof_of_the_responder(change: Callable[[Auth], Auth], code: Code) -> None:
    pair = half_way()
    id_r = IdR(2, b"b.example")
    answer(pair, id_r, change(proof(pair, "b", id_r)), ESP_ANSWER, *TS)
    assert pair.a.diagnosis(Failed).code is code
    assert_gone(pair)


@pytest.mark.parametrize(
    "payloads",
    [
        pytest.param((), id="nothing"),
        pytest.param((Notify(Notify2.INITIAL_CONTACT),), id="a status alone"),
        pytest.param((IdR(2, b"b.example"), ESP_ANSWER, *TS), id="no AUTH"),
        pytest.param((Auth(2, bytes(32)), ESP_ANSWER, *TS), id="no IDr"),
    ],
)
def test_an_answer_without_proof_ends_the_attempt(payloads: tuple[Payload, ...]) -> None:
    pair = half_way()
    answer(pair, *payloads)
    assert pair.a.diagnosis(Failed).code is Code.SYNTAX
    assert_gone(pair)


@pytest.mark.parametrize(
    ("payloads", "code"),
    [
        pytest.param((), Code.PEER_REFUSED, id="no child and no reason"),
        pytest.param((Notify(Notify2.NO_ADDITIONAL_SAS),), Code.PEER_REFUSED, id="refused"),
        pytest.param(
            (encode_sa((replace(ESP[0], encryption=("aes-256-gcm",)),), SPI), *TS),
            Code.P2_ENCRYPTION,
            id="not our algorithm",
        ),
        pytest.param((encode_sa((*ESP, *ESP), SPI), *TS), Code.P2_PROPOSAL, id="two proposals"),
        pytest.param((encode_sa(ESP, b"\0\0\0\1"), *TS), Code.SYNTAX, id="a reserved SPI"),
        pytest.param((encode_sa(ESP, b"\0\0\0\xff"), *TS), Code.SYNTAX, id="the last reserved SPI"),
        pytest.param((encode_sa(ESP, b"\1\2"), *TS), Code.SYNTAX, id="a short SPI"),
        pytest.param((ESP_ANSWER, TsI(subnet(2)), TS[1]), Code.TRAFFIC_SELECTORS, id="wider"),
        pytest.param((ESP_ANSWER, TsI(()), TS[1]), Code.TRAFFIC_SELECTORS, id="no selectors"),
    ],
)
def test_a_wrong_first_child_is_deleted_and_the_ike_sa_stays(
    payloads: tuple[Payload, ...], code: Code
) -> None:
    pair = half_way()
    id_r = IdR(2, b"b.example")
    answer(pair, id_r, proof(pair, "b", id_r), *payloads)
    assert pair.a.diagnosis(ChildFailed).code is code
    assert pair.a.ike_sas()
    assert not pair.a.of(ChildUp)
    assert not session_spis(pair)
    has_sa = any(isinstance(payload, Sa) for payload in payloads)
    assert (pair.lines[-1][1] == "INFORMATIONAL 2 {D}") is has_sa


def test_an_unprotected_error_in_ike_auth_does_not_end_the_attempt() -> None:
    pair = half_way()
    request = Header.decode(pair.wire[0].data)
    spis, refusal = (request.spi_i, request.spi_r), Notify(Notify2.AUTHENTICATION_FAILED)
    pair.inject("a", in_clear(*spis, Exchange2.IKE_AUTH, Flag.RESPONSE, 1, [refusal]))
    assert pair.a.endpoint.counters["not protected"] == 1
    pair.run()
    pair.assert_agreed()
    assert pair.a.ike_sas()


# ------------------------------------------------------------------------- IKE_AUTH as responder


@pytest.mark.parametrize("method", [1, 3, 9, 13, 14])
def test_another_method_than_the_shared_key_is_refused(method: int) -> None:
    pair = half_way()
    pair.wire.clear()
    id_i = IdI(2, b"a.example")
    good = proof(pair, "a", id_i).data
    answered = ask(pair, Exchange2.IKE_AUTH, 1, id_i, Auth(method, good))
    assert answered == "IKE_AUTH 1 {N(AUTHENTICATION_FAILED)}"
    diagnosis = pair.b.diagnosis(Failed)
    assert (diagnosis.code, diagnosis.fact("ours")) == (Code.P1_AUTH_METHOD, "SHARED_KEY_MIC")
    assert not pair.b.of(Established)


def test_an_initiator_without_a_child_is_let_in() -> None:
    """RFC 6023."""
    pair = half_way()
    pair.wire.clear()
    id_i = IdI(2, b"a.example")
    assert ask(pair, Exchange2.IKE_AUTH, 1, id_i, proof(pair, "a", id_i)) == "IKE_AUTH 1 {IDr, AUTH}"
    assert pair.b.ike_sas()
    assert not pair.b.installed


def test_a_tunnel_that_is_removed_meanwhile_authenticates_nobody() -> None:
    pair = half_way()
    pair.b.set_peer("a", replace(pair.theirs, name="another", remote_id=pair.theirs.local_id))
    pair.b.do("remove_peer", NAME)
    pair.run()
    assert not pair.b.of(Established)
    assert pair.a.diagnosis(Failed).code is Code.PSK


@pytest.mark.parametrize("exchange", [Exchange2.CREATE_CHILD_SA, Exchange2.INFORMATIONAL])
def test_nothing_goes_before_authentication(exchange: Exchange2) -> None:
    """V8: no exchange but IKE_AUTH is answered on a half-open IKE SA."""
    pair = half_way()
    pair.wire.clear()
    lines = len(pair.lines)
    payloads = (ESP_ANSWER, NONCE, *TS) if exchange is Exchange2.CREATE_CHILD_SA else (Delete(Protocol.IKE),)
    ask(pair, exchange, 1, *payloads)
    assert len(pair.lines) == lines
    assert not pair.b.of(Established)
    assert any(reason.startswith("no step") for reason in pair.b.endpoint.counters)


# ------------------------------------------------------------------- CREATE_CHILD_SA, our request


def wanting(pfs: tuple[int, ...] = ()) -> WirePair:
    """An established tunnel whose side a has just asked for its second mapping."""
    second = with_pfs(mapping(1), *pfs) if pfs else mapping(1)
    pair = WirePair(policy(children=(mapping(0), second)))
    pair.establish()
    pair.a.do("initiate", NAME, 1)
    return pair


SECOND_TS = (
    TsI(subnet(1, 1)),
    TsR(subnet(2, 1)),
)


@pytest.mark.parametrize(
    ("payloads", "code"),
    [
        pytest.param((Notify(Notify2.NO_ADDITIONAL_SAS),), Code.PEER_REFUSED, id="no more"),
        pytest.param((Notify(Notify2.INVALID_KE_PAYLOAD, b"\0\x0e"),), Code.PFS, id="a group out of nowhere"),
        pytest.param((Notify(Notify2.INVALID_KE_PAYLOAD, b""),), Code.PFS, id="no group at all"),
        pytest.param((), Code.SYNTAX, id="nothing"),
        pytest.param((Notify(Notify2.INITIAL_CONTACT),), Code.SYNTAX, id="a status alone"),
        pytest.param((ESP_ANSWER, NONCE), Code.SYNTAX, id="no selectors"),
        pytest.param(
            (encode_sa(IKE, bytes(8)), NONCE, KeyExchange(31, bytes(32))), Code.SYNTAX, id="an IKE SA"
        ),
        pytest.param((ESP_ANSWER, NONCE, KeyExchange(31, bytes(32)), *SECOND_TS), Code.SYNTAX, id="odd KE"),
        pytest.param((ESP_ANSWER, NONCE, *TS), Code.TRAFFIC_SELECTORS, id="the other mapping's selectors"),
        pytest.param((encode_sa(IKE, SPI), NONCE, *SECOND_TS), Code.P2_PROPOSAL, id="a proposal for IKE"),
    ],
)
def test_a_wrong_answer_is_named_and_costs_one_mapping(payloads: tuple[Payload, ...], code: Code) -> None:
    pair = wanting()
    answer(pair, *payloads)
    failed = pair.a.last(ChildFailed)
    assert (failed.mapping, failed.diagnosis.code) == (1, code)
    assert [c.mapping for c in pair.a.children()] == [0]
    assert pair.a.ike_sas()
    assert not session_spis(pair)


def test_an_sa_that_we_cannot_use_is_deleted_at_the_peer() -> None:
    pair = wanting()
    answer(pair, ESP_ANSWER, NONCE, *TS)
    assert pair.lines[-1][1] == "INFORMATIONAL 3 {D}"


@pytest.mark.parametrize("value", [bytes(32), b"\1".ljust(32, b"\0"), b"short"])
def test_a_worthless_public_value_is_refused(value: bytes) -> None:
    pair = wanting(pfs=(31,))
    answer(pair, encode_sa((replace(ESP[0], dh=(31,)),), SPI), NONCE, KeyExchange(31, value), *SECOND_TS)
    assert pair.a.diagnosis(ChildFailed).code is Code.SYNTAX
    assert len(pair.a.installed) == 1


def test_a_busy_peer_is_asked_again_and_not_for_ever() -> None:
    pair = wanting()
    for _ in range(5):
        assert not pair.a.of(ChildFailed)
        answer(pair, Notify(Notify2.TEMPORARY_FAILURE))
        pair.wait(16)
    assert pair.a.diagnosis(ChildFailed).code is Code.PEER_BUSY
    assert not session_spis(pair)


def test_a_busy_peer_that_has_time_later() -> None:
    """The mapping carries nothing meanwhile, so the peer is asked again soon, and then more rarely."""
    pair = wanting()
    answer(pair, Notify(Notify2.TEMPORARY_FAILURE))
    for shortest, longest in ((1, 2), (2, 4), (4, 8)):
        pair.wait(shortest - 0.01)
        assert not pair.wire
        pair.wait(longest - shortest + 0.02)
        answer(pair, Notify(Notify2.TEMPORARY_FAILURE))
    assert not pair.a.of(ChildFailed)
    pair.advance(16)
    pair.assert_agreed()
    assert len(pair.a.installed) == 2


def test_each_busy_mapping_waits_its_own_time() -> None:
    """One to two seconds: one that is refused later puts off none that was refused before."""
    pair = WirePair(policy(children=tuple(map(mapping, range(4)))))
    pair.establish()
    refused = {}
    for index in (1, 2, 3):
        pair.a.initiate(index)
        refused[index] = pair.world.now
        answer(pair, Notify(Notify2.TEMPORARY_FAILURE))
        pair.wait(0.3)
    pair.advance(2)
    up = {one.child.mapping: one.since for one in pair.a.installed.values()}
    assert set(up) == {0, 1, 2, 3}
    for index, at in refused.items():
        assert 1 <= up[index] - at <= 2.01


def test_groups_are_not_tried_for_ever() -> None:
    pair = wanting(pfs=(31, 19))
    for group in (19, 31, 19, 31):
        answer(pair, Notify(Notify2.INVALID_KE_PAYLOAD, group.to_bytes(2, "big")))
    assert pair.a.diagnosis(ChildFailed).code is Code.PFS
    assert not session_spis(pair)


def test_an_answer_of_another_exchange_is_none() -> None:
    pair = wanting()
    pair.inject("a", pair.insider("b").seal(Exchange2.INFORMATIONAL, 2, (), response=True))
    assert pair.a.endpoint.counters["response of another exchange"] == 1
    pair.run()
    pair.assert_agreed()


# ------------------------------------------------------------------ CREATE_CHILD_SA, their request


def pfs_pair() -> WirePair:
    """A tunnel whose children have PFS with group 31, or 19."""
    return established(policy(children=(with_pfs(mapping(), 31, 19),)))


def established(peer: PeerPolicy | None = None) -> WirePair:
    """A tunnel that is up."""
    pair = WirePair(peer)
    pair.establish()
    return pair


GROUP_31 = (replace(ESP[0], dh=(31,)),)


@pytest.mark.parametrize(
    ("payloads", "notify", "code"),
    [
        pytest.param((encode_sa(GROUP_31, SPI), NONCE, *TS), "NO_PROPOSAL_CHOSEN", Code.PFS, id="KE missing"),
        pytest.param((encode_sa(ESP, SPI), NONCE, *TS), "NO_PROPOSAL_CHOSEN", Code.PFS, id="no PFS"),
        pytest.param(
            (encode_sa(GROUP_31, SPI), NONCE, KeyExchange(19, bytes(64)), *TS),
            "INVALID_KE_PAYLOAD",
            None,
            id="another group",
        ),
        pytest.param(
            (encode_sa(GROUP_31, SPI), NONCE, KeyExchange(31, bytes(32)), *TS),
            "INVALID_SYNTAX",
            Code.SYNTAX,
            id="a worthless value",
        ),
        pytest.param(
            (encode_sa(GROUP_31, b"\0\0\0\2"), NONCE, KeyExchange(31, bytes(32)), *TS),
            "INVALID_SYNTAX",
            Code.SYNTAX,
            id="a reserved SPI",
        ),
        pytest.param(
            (encode_sa(GROUP_31, SPI), NONCE, TsI(()), TsR(())),
            "TS_UNACCEPTABLE",
            Code.TRAFFIC_SELECTORS,
            id="no selectors",
        ),
        pytest.param((encode_sa(GROUP_31, SPI), *TS), "INVALID_SYNTAX", Code.SYNTAX, id="no nonce"),
    ],
)
def test_a_wrong_request_is_answered_and_nothing_is_taken(
    payloads: tuple[Payload, ...], notify: str, code: Code | None
) -> None:
    pair = pfs_pair()
    assert ask(pair, Exchange2.CREATE_CHILD_SA, 2, *payloads) == f"CREATE_CHILD_SA 2 {{N({notify})}}"
    if code is None:
        assert not pair.b.of(Failed)
    else:
        assert pair.b.diagnosis(Failed).code is code
    assert len(pair.b.installed) == 1
    assert pair.b.endpoint.snapshot().esp_spis == set(pair.b.installed)


def test_a_peer_that_only_ever_asks_is_stopped() -> None:
    pair = established()
    answers = [
        ask(pair, Exchange2.CREATE_CHILD_SA, 2 + n, encode_sa(ESP, (4096 + n).to_bytes(4, "big")), NONCE, *TS)
        for n in range(30)
    ]
    assert answers[-1] == "CREATE_CHILD_SA 31 {N(NO_ADDITIONAL_SAS)}"
    assert len(pair.b.installed) <= 20


def calls_of_a_delete(pair: WirePair, message_id: int, spis: int) -> int:
    """How many functions of Python b enters to answer one DELETE of so many SPIs that it does not know."""
    names = tuple((0x70000000 + n).to_bytes(4, "big") for n in range(spis))
    data = pair.insider("a").seal(Exchange2.INFORMATIONAL, message_id, [Delete(Protocol.ESP, names)])
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        pair.inject("b", data)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.slow
def test_what_a_delete_costs_does_not_grow_with_the_spis_that_it_names() -> None:
    """64 KB of SPIs that nobody has: neither they nor the mappings are gone through one by one."""
    mappings = 200
    pair = WirePair(policy(children=tuple(map(mapping, range(mappings)))))
    pair.establish(mappings)
    few = calls_of_a_delete(pair, mappings + 1, 16)
    before = footprint(pair.b.endpoint)[1]
    assert calls_of_a_delete(pair, mappings + 2, 16_000) < few + 16
    assert pair.texts[-1] == f"INFORMATIONAL {mappings + 2} {{}}"
    assert len(pair.b.installed) == mappings
    assert footprint(pair.b.endpoint)[1] < before + 4096, "none of the SPIs is remembered"


def test_one_of_many_spis_of_a_delete_is_ours() -> None:
    pair = established()
    (child,) = pair.b.children()
    names = tuple((0x70000000 + n).to_bytes(4, "big") for n in range(500))
    named = (*names, child.spi_out.to_bytes(4, "big"), *names)
    assert ask(pair, Exchange2.INFORMATIONAL, 2, Delete(Protocol.ESP, named)) == "INFORMATIONAL 2 {D}"
    assert not pair.b.installed
    drawn = pair.b.of(LadderLine)[-2]
    assert drawn.detail == (f"D: ESP {', '.join(name.hex() for name in names[:8])} and 993 more",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_rekeying_what_is_no_child_finds_nothing(protocol: int) -> None:
    """CVE-2023-38710: any protocol ID in N(REKEY_SA)."""
    pair = established()
    (child,) = pair.a.children()
    rekey = Notify(Notify2.REKEY_SA, b"", protocol, child.spi_in.to_bytes(4, "big"))
    answered = ask(pair, Exchange2.CREATE_CHILD_SA, 2, rekey, ESP_ANSWER, NONCE, *TS)
    assert answered == "CREATE_CHILD_SA 2 {N(CHILD_SA_NOT_FOUND)}"
    assert len(pair.b.installed) == 1


# ------------------------------------------------------------------------------- rekeying, answered


def rekeying(peer: PeerPolicy | None = None) -> WirePair:
    """A tunnel whose side a has just asked to rekey its CHILD_SA."""
    pair = established(peer)
    (spi_in,) = pair.a.installed
    pair.a.do("rekey_child", NAME, spi_in)
    return pair


@pytest.mark.parametrize(
    ("payloads", "code"),
    [
        pytest.param((), Code.SYNTAX, id="nothing"),
        pytest.param((Notify(Notify2.NO_ADDITIONAL_SAS),), Code.PEER_REFUSED, id="refused"),
        pytest.param(
            (encode_sa((replace(ESP[0], encryption=("aes-256-gcm",)),), SPI), NONCE, *TS),
            Code.P2_ENCRYPTION,
            id="not our algorithm",
        ),
        pytest.param(
            (encode_sa(IKE, bytes(8)), NONCE, KeyExchange(31, bytes(32))), Code.SYNTAX, id="an IKE SA"
        ),
    ],
)
def test_a_child_whose_succession_fails_stays(payloads: tuple[Payload, ...], code: Code) -> None:
    pair = rekeying()
    before = set(pair.a.installed)
    answer(pair, *payloads)
    assert pair.a.diagnosis(ChildFailed).code is code
    assert set(pair.a.installed) == before
    assert not pair.a.of(ChildReplaced)
    assert not pair.a.of(ChildDown)
    assert not session_spis(pair)


def ike_rekeying() -> WirePair:
    """A tunnel whose side a has just asked to rekey its IKE SA."""
    pair = established()
    pair.a.do("rekey_ike", NAME)
    return pair


def test_a_peer_that_is_busy_of_itself_is_not_asked_for_an_ike_sa_again_at_once() -> None:
    pair = ike_rekeying()
    answer(pair, Notify(Notify2.TEMPORARY_FAILURE))
    pair.wait(4.99)
    assert not pair.wire
    pair.wait(10.02)
    assert pair.wire


PUBLIC = KeyPair.generate(31, SeededEntropy(1)).public


@pytest.mark.parametrize(
    "payloads",
    [
        pytest.param((), id="nothing"),
        pytest.param((Notify(Notify2.NO_PROPOSAL_CHOSEN),), id="refused"),
        pytest.param((encode_sa(IKE, bytes(8)), NONCE, KeyExchange(31, PUBLIC)), id="SPI zero"),
        pytest.param((encode_sa(IKE, SPI), NONCE, KeyExchange(31, PUBLIC)), id="a short SPI"),
        pytest.param((encode_sa(IKE, b"12345678"), NONCE, KeyExchange(19, bytes(64))), id="another group"),
        pytest.param(
            (encode_sa(IKE, b"12345678"), NONCE, KeyExchange(31, bytes(32))), id="a worthless value"
        ),
        pytest.param(
            (encode_sa((replace(IKE[0], encryption=("des",)),), b"12345678"), NONCE, KeyExchange(31, PUBLIC)),
            id="not our algorithm",
        ),
        pytest.param((ESP_ANSWER, NONCE, *TS), id="a CHILD_SA"),
    ],
)
def test_an_ike_sa_whose_succession_fails_stays(payloads: tuple[Payload, ...]) -> None:
    pair = ike_rekeying()
    before = pair.a.ike_sas()[0].spi_i
    answer(pair, *payloads)
    assert [info.spi_i for info in pair.a.ike_sas()] == [before]
    assert not pair.a.of(IkeReplaced)
    assert not pair.a.of(IkeDown)
    assert pair.a.installed


@pytest.mark.parametrize(
    ("payloads", "answered"),
    [
        pytest.param(
            (encode_sa(IKE, bytes(8)), NONCE, KeyExchange(31, PUBLIC)), "INVALID_SYNTAX", id="SPI zero"
        ),
        pytest.param(
            (encode_sa(IKE, b"12345678"), NONCE, KeyExchange(31, bytes(32))), "INVALID_SYNTAX", id="KE"
        ),
        pytest.param(
            (encode_sa(IKE, b"12345678"), NONCE, KeyExchange(19, bytes(64))),
            "INVALID_KE_PAYLOAD",
            id="another group",
        ),
        pytest.param(
            (
                encode_sa((Proposal(Protocol.IKE, ("3des",), ("sha1",), ("sha1",), (31,)),), b"12345678"),
                NONCE,
                KeyExchange(31, PUBLIC),
            ),
            "NO_PROPOSAL_CHOSEN",
            id="not our algorithm",
        ),
    ],
)
def test_a_wrong_request_to_rekey_the_ike_sa(payloads: tuple[Payload, ...], answered: str) -> None:
    pair = established()
    assert ask(pair, Exchange2.CREATE_CHILD_SA, 2, *payloads) == f"CREATE_CHILD_SA 2 {{N({answered})}}"
    assert len(pair.b.ike_sas()) == 1
    assert not pair.b.of(IkeReplaced)


# ------------------------------------------------------------------------------------ IKE_SA_INIT


def init_answer(*payloads: Payload, again: bool = False) -> WirePair:
    """An attempt whose first message is answered with these payloads, and then with silence.

    With `again` the first repetition is answered alike.
    """
    pair = WirePair()
    pair.filter = lambda name, data: [data] if name == "a" else []
    pair.a.initiate()
    spi_i = Header.decode(pair.take("a").data).spi_i
    answered = in_clear(spi_i, b"R" * 8, Exchange2.IKE_SA_INIT, Flag.RESPONSE, 0, payloads)
    pair.inject("a", answered)
    if again:
        pair.advance(0.7)
        pair.inject("a", answered)
    return pair


@pytest.mark.parametrize(
    ("payloads", "code"),
    [
        pytest.param((encode_sa(IKE), KeyExchange(31, bytes(32)), NONCE), Code.SYNTAX, id="KE zero"),
        pytest.param((encode_sa(IKE), KeyExchange(31, b""), NONCE), Code.SYNTAX, id="KE empty"),
        pytest.param(
            (encode_sa(IKE), KeyExchange(19, bytes(64)), NONCE), Code.SYNTAX, id="KE of another group"
        ),
        pytest.param(
            (encode_sa((replace(IKE[0], encryption=("des",)),)), KeyExchange(31, PUBLIC), NONCE),
            Code.P1_ENCRYPTION,
            id="an algorithm that was not offered",
        ),
        pytest.param((encode_sa((*IKE, *IKE)), KeyExchange(31, PUBLIC), NONCE), Code.P1_PROPOSAL, id="two"),
        pytest.param((Notify(Notify2.NO_PROPOSAL_CHOSEN),), Code.P1_PROPOSAL, id="refused"),
    ],
)
def test_a_bad_first_answer_is_remembered_and_a_good_one_still_wins(
    payloads: tuple[Payload, ...], code: Code
) -> None:
    pair = init_answer(*payloads, again=True)
    pair.advance(1.2)
    assert not pair.a.of(Failed)
    pair.advance(0.2)
    assert pair.a.diagnosis(Failed).code is code
    pair = init_answer(*payloads)
    pair.advance(29)
    assert not pair.a.of(Failed), "anyone may have sent it"
    pair.advance(2)
    assert pair.a.diagnosis(Failed).code is code
    pair = init_answer(*payloads)
    pair.filter = lambda name, data: [data]
    pair.advance(5)
    pair.assert_agreed()
    assert pair.a.ike_sas()
    assert not pair.a.of(Failed)


@pytest.mark.parametrize(
    "payloads",
    [
        pytest.param((), id="nothing"),
        pytest.param((VendorId(b"x"),), id="a vendor ID"),
        pytest.param((Notify(Notify2.COOKIE, b""),), id="an empty cookie"),
        pytest.param((Notify(Notify2.COOKIE, bytes(65)),), id="a long cookie"),
    ],
)
def test_an_answer_without_meaning_is_dropped(payloads: tuple[Payload, ...]) -> None:
    pair = init_answer(*payloads)
    assert sum(pair.a.endpoint.counters.values()) == 1
    pair.advance(25)
    assert not pair.a.of(Failed)


def test_cookies_are_not_fetched_for_ever() -> None:
    def cookie(name: str, data: bytes) -> list[bytes]:
        if name == "a":
            return [data]
        header = Header.decode(data)
        asked = Notify(Notify2.COOKIE, b"again")
        return [in_clear(header.spi_i, bytes(8), header.exchange, Flag.RESPONSE, 0, [asked])]

    pair = WirePair()
    pair.filter = cookie
    pair.initiate()
    assert sum(name == "a" for name, _ in pair.lines) <= 4


def test_an_unknown_critical_payload_is_answered_with_its_type() -> None:
    pair = WirePair()
    payloads = (encode_sa(IKE), KeyExchange(31, PUBLIC), NONCE, Unknown(200, b"", critical=True))
    pair.inject("b", in_clear(b"I" * 8, bytes(8), Exchange2.IKE_SA_INIT, Flag.INITIATOR, 0, payloads))
    assert pair.lines[-1][1] == "IKE_SA_INIT 0 {N(UNSUPPORTED_CRITICAL_PAYLOAD)}"
    assert pair.b.endpoint.next_timeout() is None


def test_a_first_message_with_another_spi_or_number_is_dropped() -> None:
    pair = WirePair()
    payloads = (encode_sa(IKE), KeyExchange(31, PUBLIC), NONCE)
    for header in (
        (bytes(8), bytes(8), Exchange2.IKE_SA_INIT, Flag.INITIATOR, 0),
        (b"I" * 8, b"R" * 8, Exchange2.IKE_SA_INIT, Flag.INITIATOR, 0),
        (b"I" * 8, bytes(8), Exchange2.IKE_SA_INIT, Flag.INITIATOR, 1),
        (b"I" * 8, bytes(8), Exchange2.IKE_SA_INIT, 0, 0),
        (b"I" * 8, bytes(8), Exchange2.IKE_SA_INIT, Flag.INITIATOR | Flag.RESPONSE, 0),
        (b"I" * 8, bytes(8), Exchange2.IKE_AUTH, Flag.INITIATOR, 0),
    ):
        pair.inject("b", in_clear(*header, payloads))
    assert not pair.wire
    assert sum(pair.b.endpoint.counters.values()) == 6
    assert pair.b.endpoint.next_timeout() is None


def test_a_repeated_first_message_is_answered_alike_and_a_changed_one_begins_again() -> None:
    pair = WirePair()
    pair.a.do("initiate", NAME, 0)
    request = pair.take("a")
    for _ in range(20):
        pair.deliver(request)
    answers = {datagram.data for datagram in pair.wire}
    assert len(pair.wire) == 13
    assert len(answers) == 1
    changed = bytearray(request.data)
    changed[-40] ^= 1
    pair.deliver(replace(request, data=bytes(changed)))
    assert len({datagram.data for datagram in pair.wire}) == 2


def test_a_first_message_is_not_answered_twice_once_the_peer_is_in() -> None:
    pair = WirePair()
    pair.a.do("initiate", NAME, 0)
    request = pair.take("a")
    pair.deliver(request)
    pair.run()
    assert pair.b.ike_sas()
    pair.deliver(request)
    assert not pair.wire
    assert len(pair.b.ike_sas()) == 1


def test_a_mirror_establishes_nothing() -> None:
    """A gateway that gets its own messages back."""
    pair = WirePair(policy(), mirrored(policy()))
    pair.a.do("initiate", NAME, 0)
    request = pair.take("a")
    pair.inject("a", request.data)
    pair.wire.clear()
    pair.filter = lambda name, data: []
    pair.advance(120)
    assert not pair.a.of(Established)
    assert pair.a.endpoint.next_timeout() is None
