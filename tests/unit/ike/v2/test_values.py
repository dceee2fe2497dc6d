"""Translation of proposals and selectors, protection, cookies, window, ladder: one value at a time."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.policies import ESP, IKE, mapping, policy
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.deadlines import Timers
from vpnd.ike.faults import Drop
from vpnd.ike.retransmit import Schedule
from vpnd.ike.v2 import diagnoses, ladder
from vpnd.ike.v2.cookies import SECRET_IN_USE, SECRET_LIFETIME, Cookies
from vpnd.ike.v2.keys import derive_ike_keys
from vpnd.ike.v2.messages import error_of, read
from vpnd.ike.v2.proposals import (
    answer_sa,
    decode_sa,
    encode_sa,
    read_answer,
    without_dh,
)
from vpnd.ike.v2.protect import Protection, header_of, plain
from vpnd.ike.v2.requests import Exchange, Outstanding, Reply, Requests
from vpnd.ike.v2.selectors import choose_mapping, decode_selectors, encode_selectors
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code
from vpnd.model.proposals import Attribute, Chosen, Mismatch, Proposal, Suite, choose, describe, describe_all
from vpnd.model.secret import Secret
from vpnd.model.selectors import Selector
from vpnd.wire.attributes import Attribute as WireAttribute
from vpnd.wire.chain import RawPayload
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import Flag, Header
from vpnd.wire.iana import Exchange2, Notify2, Payload2, Protocol, TransformType, TsType
from vpnd.wire.ikev2 import (
    Auth,
    Delete,
    Encrypted,
    IdI,
    IdR,
    KeyExchange,
    Nonce,
    Notify,
    ProposalPart,
    Sa,
    TrafficSelector,
    Transform,
    TsI,
    TsR,
    Unknown,
    VendorId,
)

PATH = Path(IPv4Address("192.0.2.1"), 500, IPv4Address("198.51.100.1"), 500)


# ------------------------------------------------------------------------------------- proposals


@pytest.mark.parametrize(
    "proposals",
    [
        IKE,
        (Proposal(Protocol.IKE, ("aes-256-gcm", "chacha20-poly1305"), ("sha512",), (), (19, 31)),),
        (Proposal(Protocol.ESP, ("aes-128", "3des"), (), ("sha1", "sha256"), (14,)), *ESP),
        (Proposal(Protocol.ESP, ("aes-128-gcm",), esn=(True, False)),),
    ],
)
def test_proposals_survive_the_wire(proposals: tuple[Proposal, ...]) -> None:
    sa = Sa.decode(encode_sa(proposals, b"spi!").encode())
    expected = tuple(replace(p, number=n, spi=b"spi!") for n, p in enumerate(proposals, start=1))
    assert decode_sa(sa) == expected


def part(*transforms: Transform, protocol: int = Protocol.ESP, number: int = 1) -> Sa:
    """An SA payload with one proposal."""
    return Sa((ProposalPart(number, protocol, b"\0\0\1\0", transforms),))


AES = Transform(TransformType.ENCR, 20, 128)


@pytest.mark.parametrize(
    ("transform", "word"),
    [
        pytest.param(Transform(TransformType.ENCR, 12, 100), "encr-12-100", id="odd key length"),
        pytest.param(Transform(TransformType.ENCR, 12), "encr-12", id="no key length"),
        pytest.param(Transform(TransformType.ENCR, 4242), "encr-4242", id="unknown number"),
        pytest.param(
            Transform(TransformType.ENCR, 20, 128, (WireAttribute(99, 1),)),
            "encr-20-128+attributes",
            id="unknown attribute",
        ),
        pytest.param(Transform(TransformType.PRF, 99), "prf-99", id="unknown PRF"),
        pytest.param(Transform(TransformType.INTEG, 99), "integ-99", id="unknown integrity"),
    ],
)
def test_what_we_do_not_know_is_a_word_that_nobody_has(transform: Transform, word: str) -> None:
    (proposal,) = decode_sa(part(transform))
    assert word in (*proposal.encryption, *proposal.prf, *proposal.integrity)
    assert isinstance(choose((proposal,), ESP), Mismatch)


def test_a_proposal_of_another_protocol_is_left_out() -> None:
    assert decode_sa(part(AES, protocol=Protocol.AH)) == ()


NO_ESN = Transform(TransformType.ESN, 0)
SHA256, NO_INTEG = Transform(TransformType.INTEG, 12), Transform(TransformType.INTEG, 0)
ADDITIONAL_KE_1, ADDITIONAL_KE_7 = 6, 12


@pytest.mark.parametrize("integrity", [(), (NO_INTEG,), (SHA256, NO_INTEG), (NO_INTEG, SHA256)])
def test_an_aead_cipher_takes_integrity_none_alone_and_beside_others(
    integrity: tuple[Transform, ...],
) -> None:
    chosen = choose(decode_sa(part(AES, *integrity, NO_ESN)), ESP)
    assert isinstance(chosen, Chosen)
    assert chosen.suite == Suite("aes-128-gcm", None, None, None)
    answer = answer_sa(chosen, Protocol.ESP).proposals[0].transforms
    assert set(answer) == {AES, NO_ESN} | {NO_INTEG for t in integrity if t is NO_INTEG}
    assert read_answer(answer_sa(chosen, Protocol.ESP, chosen.spi), ESP) == chosen


def test_an_aead_cipher_with_integrity_and_a_plain_one_without_are_no_suites() -> None:
    cbc = Transform(TransformType.ENCR, 12, 128)
    assert choose(decode_sa(part(AES, SHA256, NO_ESN)), ESP) == Mismatch(
        Attribute.INTEGRITY, ("sha256",), ("none",)
    )
    plain_esp = (Proposal(Protocol.ESP, ("aes-128",), (), ("sha256",)),)
    assert choose(decode_sa(part(cbc, NO_INTEG, NO_ESN)), plain_esp) == Mismatch(
        Attribute.INTEGRITY, ("none",), ("sha256",)
    )
    both = choose(decode_sa(part(AES, cbc, NO_INTEG, SHA256, NO_ESN)), (*plain_esp, *ESP))
    assert isinstance(both, Chosen)
    assert both.suite == Suite("aes-128", None, "sha256", None)
    assert NO_INTEG not in answer_sa(both, Protocol.ESP).proposals[0].transforms


@pytest.mark.parametrize("listed", [(), (NO_ESN,), (Transform(TransformType.ESN, 1), NO_ESN)])
def test_an_answer_has_a_sequence_number_transform_where_the_offer_lists_them(
    listed: tuple[Transform, ...],
) -> None:
    chosen = choose(decode_sa(part(AES, *listed)), ESP)
    assert isinstance(chosen, Chosen)
    answer = answer_sa(chosen, Protocol.ESP).proposals[0].transforms
    assert [t for t in answer if t.type == TransformType.ESN] == ([NO_ESN] if listed else [])


@pytest.mark.parametrize("listed", [(), (0,), (14, 0)])
def test_an_answer_without_key_exchange_says_none_where_the_offer_lists_it(listed: tuple[int, ...]) -> None:
    groups = (Transform(TransformType.DH, number) for number in listed)
    chosen = choose(decode_sa(part(AES, *groups, NO_ESN)), ESP)
    assert isinstance(chosen, Chosen)
    answer = answer_sa(chosen, Protocol.ESP).proposals[0].transforms
    assert [t.id for t in answer if t.type == TransformType.DH] == ([0] if listed else [])


@pytest.mark.parametrize("kind", [ADDITIONAL_KE_1, ADDITIONAL_KE_7])
def test_an_additional_key_exchange_is_declined_where_its_list_has_none(kind: int) -> None:
    chosen = choose(decode_sa(part(AES, NO_ESN, Transform(kind, 36), Transform(kind, 0))), ESP)
    assert isinstance(chosen, Chosen)
    answer = answer_sa(chosen, Protocol.ESP).proposals[0].transforms
    assert [t for t in answer if t.type == kind] == [Transform(kind, 0)]


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (Transform(ADDITIONAL_KE_1, 36), "additional key exchange ML_KEM_768"),
        (Transform(ADDITIONAL_KE_7, 31), "additional key exchange CURVE25519"),
        (Transform(ADDITIONAL_KE_1, 4711), "additional key exchange 4711"),
        (Transform(99, 0), "transform type 99"),
        (Transform(TransformType.ESN, 2), "sequence numbers of kind 2"),
    ],
)
def test_a_transform_of_a_type_that_we_lack_is_a_demand_and_said_to_be_one(
    transform: Transform, words: str
) -> None:
    mismatch = choose(decode_sa(part(AES, transform)), ESP)
    assert mismatch == Mismatch(Attribute.ADDITION, (words,), ("none",))
    diagnosis = diagnoses.of_mismatch(mismatch, "CREATE_CHILD_SA", mapping())
    assert (diagnosis.code, diagnosis.fact("theirs")) == (Code.ADDITION, words)
    assert diagnoses.of_mismatch(mismatch, "IKE_SA_INIT").code is Code.ADDITION


def test_a_proposal_without_the_demand_is_taken_before_one_with_it() -> None:
    offer = (
        *part(AES, NO_ESN, Transform(ADDITIONAL_KE_1, 36)).proposals,
        *part(AES, NO_ESN, number=2).proposals,
    )
    chosen = choose(decode_sa(Sa(offer)), ESP)
    assert isinstance(chosen, Chosen)
    assert chosen.number == 2


def test_an_answer_is_one_of_our_proposals_and_one_thing() -> None:
    chosen = Chosen(1, b"", Suite("aes-128", "sha256", "sha256", 31))
    assert read_answer(answer_sa(chosen, Protocol.IKE), IKE) == chosen
    wrong_number = Sa((replace(answer_sa(chosen, Protocol.IKE).proposals[0], number=7),))
    both = replace(IKE[0], encryption=("aes-128", "aes-256"))
    for sa in (wrong_number, Sa(()), encode_sa((*IKE, *IKE)), encode_sa((both,)), encode_sa(ESP)):
        assert isinstance(read_answer(sa, (both,)), Mismatch)


def test_without_dh_drops_groups_and_what_becomes_equal() -> None:
    grouped = (replace(ESP[0], dh=(14,)), replace(ESP[0], dh=(19,)))
    assert without_dh(grouped) == ESP


def test_a_word_that_ikev2_has_no_number_for_cannot_be_offered() -> None:
    with pytest.raises((KeyError, ValueError)):
        encode_sa((Proposal(Protocol.ESP, ("rot13",)),))


def test_proposals_are_described_in_configuration_words() -> None:
    assert describe(IKE[0]) == "aes-128/sha256/dh31"
    assert describe_all((*IKE, *ESP)) == "aes-128/sha256/dh31, aes-128-gcm"
    odd = Proposal(Protocol.ESP, ("aes-128", "aes-256"), ("sha512",), ("sha1",), (0, 14), (True,))
    assert describe(odd) == "aes-128+aes-256/sha1/prf-sha512/no-dh+dh14/esn"


# ------------------------------------------------------------------------------------- selectors


def selector(network: str, protocol: int = 0, port_start: int = 0, port_end: int = 65535) -> Selector:
    """A selector of a CIDR block."""
    kind = IPv6Network if ":" in network else IPv4Network
    whole = Selector.of(kind(network))
    return replace(whole, protocol=protocol, port_start=port_start, port_end=port_end)


def test_selectors_survive_the_wire() -> None:
    selectors = (
        selector("10.0.0.0/8"),
        selector("10.1.2.3/32", protocol=17, port_start=53, port_end=53),
        selector("fd00::/8"),
    )
    assert decode_selectors(TsI.decode(TsI(encode_selectors(selectors)).encode())) == selectors


@pytest.mark.parametrize(
    "ts",
    [
        TrafficSelector(241, 0, 0, 0, b"label", b""),
        TrafficSelector(TsType.IPV4_ADDR_RANGE, 0, 0, 65535, bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1])),
        TrafficSelector(TsType.IPV4_ADDR_RANGE, 0, 65535, 0, bytes(4), bytes([255] * 4)),
    ],
    ids=["label", "backwards", "opaque"],
)
def test_what_is_no_range_selects_nothing(ts: TrafficSelector) -> None:
    good = encode_selectors((selector("10.0.0.0/8"),))
    assert decode_selectors(TsR((ts, *good))) == (selector("10.0.0.0/8"),)


def test_the_mapping_of_the_packet_that_waits_is_chosen() -> None:
    """RFC 7296 section 2.9: the first selectors are those of the packet; the SA covers the mapping."""
    children = tuple(mapping(index) for index in range(3))
    local = (selector("10.1.2.7/32", protocol=1), selector("10.1.0.0/16"))
    remote = (selector("10.2.2.9/32", protocol=1), selector("10.2.0.0/16"))
    found = choose_mapping(children, local, remote)
    assert found is not None
    assert found[0].index == 2
    assert found[1:] == ((selector("10.1.2.0/24"),), (selector("10.2.2.0/24"),))


@pytest.mark.parametrize("sides", [("local", "remote"), ("local",), ("remote",)], ids="-".join)
def test_an_equal_mapping_is_preferred_to_a_wider_one(sides: tuple[str, ...]) -> None:
    narrow, all_of_it = mapping(1), IPv4Network("10.0.0.0/8")
    wide = replace(
        narrow,
        index=0,
        local=all_of_it if "local" in sides else narrow.local,
        remote=all_of_it if "remote" in sides else narrow.remote,
    )
    found = choose_mapping((wide, mapping(1)), (selector("10.1.1.0/24"),), (selector("10.2.1.0/24"),))
    assert found is not None
    assert found[0].index == 1


def test_selectors_of_another_family_have_nothing_in_common() -> None:
    assert choose_mapping((mapping(),), (selector("fd00::/8"),), (selector("fd00::/8"),)) is None


# ------------------------------------------------------------------------------------ protection


def protections(suite: Suite) -> tuple[Protection, Protection]:
    """Both ends of one IKE SA."""
    keys = derive_ike_keys(suite, Secret(b"seed"), b"i" * 32, b"r" * 32, b"I" * 8, b"R" * 8)
    entropy = SeededEntropy(1)
    return Protection(suite, keys, True, entropy), Protection(suite, keys, False, entropy)


HEADER = header_of(b"I" * 8, b"R" * 8, Exchange2.INFORMATIONAL, Flag.INITIATOR, 5)
SUITES = [
    Suite("aes-128", "sha256", "sha256", 31),
    Suite("aes-256-gcm", "sha384", None, 31),
    Suite("chacha20-poly1305", "sha256", None, 31),
]


@pytest.mark.parametrize("suite", SUITES, ids=str)
@given(data=st.binary(max_size=4000), limit=st.integers(256, 1300))
def test_what_is_sealed_is_opened_whole_or_in_fragments(suite: Suite, data: bytes, limit: int) -> None:
    sender, receiver = protections(suite)
    datagrams = sender.seal(HEADER, (VendorId(data),), limit)
    assert all(len(datagram) <= limit for datagram in datagrams)
    opened = [receiver.open(Header.decode(datagram), datagram) for datagram in datagrams]
    assert [o.inside for o in opened[:-1]] == [None] * (len(datagrams) - 1)
    assert opened[-1].chain() == (RawPayload(Payload2.VENDOR, data),)
    assert [o.fragment for o in opened] == (
        [None] if len(datagrams) == 1 else list(range(1, len(datagrams) + 1))
    )


@pytest.mark.parametrize(
    "other",
    [replace(HEADER, message_id=6), replace(HEADER, flags=HEADER.flags | Flag.RESPONSE)],
    ids=["another message", "request and response"],
)
def test_fragments_of_two_messages_are_not_put_together(other: Header) -> None:
    """RFC 7383 section 2.6: a message is known by its ID and by whether it is a request."""
    sender, receiver = protections(SUITES[0])
    ours, theirs = (
        sender.seal(envelope, (VendorId(bytes((fill,)) * 900),), 600)
        for fill, envelope in enumerate((HEADER, other))
    )
    assert len(ours) == len(theirs) == 2
    assert receiver.open(Header.decode(ours[0]), ours[0]).inside is None
    assert receiver.open(Header.decode(theirs[1]), theirs[1]).inside is None
    opened = receiver.open(Header.decode(theirs[0]), theirs[0])
    assert opened.chain() == (RawPayload(Payload2.VENDOR, bytes((1,)) * 900),)


@pytest.mark.parametrize("suite", SUITES, ids=str)
def test_fragments_use_the_room_they_have(suite: Suite) -> None:
    sender, _ = protections(suite)
    datagrams = sender.seal(HEADER, (VendorId(bytes(3000)),), 1000)
    assert all(1000 - len(datagram) < 32 for datagram in datagrams[:-1])


def test_one_s_own_message_does_not_open() -> None:
    sender, _ = protections(SUITES[0])
    (datagram,) = sender.seal(HEADER, (), None)
    with pytest.raises(Drop, match="integrity"):
        sender.open(Header.decode(datagram), datagram)


def test_a_message_without_sk_is_not_protected() -> None:
    _, receiver = protections(SUITES[0])

    datagram = plain(HEADER, (Delete(Protocol.IKE),))
    with pytest.raises(Drop, match="not protected"):
        receiver.open(Header.decode(datagram), datagram)


# --------------------------------------------------------------------------------------- cookies


def test_a_cookie_is_good_for_its_request_alone() -> None:
    cookies = Cookies(SeededEntropy(3))
    cookie = cookies.make(0, PATH, b"i" * 8, b"n" * 32)
    other_path = replace(PATH, remote=IPv6Address("2001:db8::1"))
    assert cookies.verify(1, cookie, PATH, b"i" * 8, b"n" * 32)
    assert not cookies.verify(1, cookie, other_path, b"i" * 8, b"n" * 32)
    assert not cookies.verify(1, cookie, PATH, b"j" * 8, b"n" * 32)
    assert not cookies.verify(1, cookie, PATH, b"i" * 8, b"m" * 32)
    assert not cookies.verify(1, b"", PATH, b"i" * 8, b"n" * 32)
    assert not Cookies(SeededEntropy(4)).verify(1, cookie, PATH, b"i" * 8, b"n" * 32)


def good_for(made_at: float, drawn_at: float = 0.0) -> float:
    """Until when a cookie is good that was made then, in whole seconds, where the secret is of `drawn_at`."""
    cookies = Cookies(SeededEntropy(3))
    cookies.make(drawn_at, PATH, b"i" * 8, b"n" * 32)
    cookie = cookies.make(made_at, PATH, b"i" * 8, b"n" * 32)
    # Each second a peer asks, so that the secret is replaced as soon as it is due.
    seconds = int(made_at)
    while cookies.verify(seconds, cookie, PATH, b"i" * 8, b"n" * 32):
        seconds += 1
    return seconds


@pytest.mark.parametrize("made_at", [0, 30, SECRET_IN_USE - 1])
def test_a_secret_is_good_for_two_minutes_in_all(made_at: float) -> None:
    """V13: with the time that a cookie of the secret before is still taken."""
    assert good_for(made_at) == SECRET_LIFETIME == 120


def test_a_cookie_that_is_made_last_is_good_for_a_retransmission() -> None:
    assert good_for(SECRET_IN_USE - 1) >= SECRET_IN_USE - 1 + 30


@pytest.mark.parametrize("silence", [SECRET_LIFETIME, 10 * SECRET_LIFETIME])
def test_a_cookie_does_not_outlive_a_long_silence(silence: float) -> None:
    cookies = Cookies(SeededEntropy(3))
    cookie = cookies.make(0, PATH, b"i" * 8, b"n" * 32)
    assert not cookies.verify(silence, cookie, PATH, b"i" * 8, b"n" * 32)


# ---------------------------------------------------------------------------------------- window


def test_the_window_knows_the_next_and_the_last_request() -> None:
    window = Requests(Timers())
    assert not window.is_repeat(0)
    window.answered(Reply(0, (b"answer",), "text"))
    assert window.is_repeat(0)
    assert not window.is_repeat(1)
    window.answered(Reply(1, (b"answer",), "text"))
    with pytest.raises(Drop, match="old"):
        window.is_repeat(0)
    with pytest.raises(Drop, match="ahead"):
        window.is_repeat(3)


def test_repeats_are_bounded() -> None:
    window = Requests(Timers())
    with pytest.raises(Drop, match="often enough"):
        window.repeat(2)
    window.answered(Reply(0, (b"answer",), "text"))
    assert window.repeat(2).datagrams == window.repeat(2).datagrams == (b"answer",)
    with pytest.raises(Drop, match="often enough"):
        window.repeat(2)


def test_one_request_at_a_time_until_the_numbers_end() -> None:
    window = Requests(Timers())
    schedule = Schedule(0, SeededEntropy(1))
    window.sent(Outstanding(0, cast(Exchange, object()), (b"",), schedule, "text"))
    free = [window.is_free]
    with pytest.raises(Drop, match="no request"):
        window.matches(1)
    assert window.matches(0).schedule is schedule
    window.settled()
    free.append(window.is_free)
    with pytest.raises(Drop, match="no request"):
        window.matches(0)
    window.next_id = 2**32
    free.append(window.is_free)
    assert free == [False, True, False]


# ------------------------------------------------------------------------------ ladder, messages


def test_every_payload_has_a_name_in_the_ladder() -> None:
    payloads = (
        encode_sa(ESP, b"\xc0\xff\xee\0"),
        KeyExchange(31, bytes(32)),
        Nonce(bytes(32)),
        IdI(2, b"hq.example"),
        IdR(1, bytes([192, 0, 2, 1])),
        Auth(2, bytes(32)),
        TsI(encode_selectors((selector("10.1.0.0/16"),))),
        TsR(()),
        Delete(Protocol.ESP, (b"\0\0\1\0",)),
        VendorId(b"\x1b[31m"),
        Encrypted(0, b""),
        Unknown(200, b""),
        Notify(Notify2.REKEY_SA, protocol=Protocol.ESP, spi=b"\0\0\1\0"),
        Notify(Notify2.INVALID_KE_PAYLOAD, b"\0\x13"),
        Notify(Notify2.UNSUPPORTED_CRITICAL_PAYLOAD, b"\xc8"),
        Notify(Notify2.COOKIE, bytes(17)),
        Notify(4242),
    )
    text = ladder.text_of(Exchange2.IKE_AUTH, 1, payloads, response=False)
    assert text == (
        "IKE_AUTH 1 {SA, KEi, Ni, IDi, IDr, AUTH, TSi, TSr, D, V, SK, payload 200, N(REKEY_SA), "
        "N(INVALID_KE_PAYLOAD), N(UNSUPPORTED_CRITICAL_PAYLOAD), N(COOKIE), N(4242)}"
    )
    assert ladder.text_of(99, 7, payloads[1:3], response=True) == "99 7 {KEr, Nr}"
    assert tuple(ladder.detail_of(payloads)) == (
        "SA 1: ESP aes-128-gcm spi c0ffee00",
        "KE: group 31 (curve25519), 32 bytes",
        "IDi: hq.example (FQDN)",
        "IDr: 192.0.2.1 (IPV4_ADDR)",
        "AUTH: SHARED_KEY_MIC",
        "TSi: 10.1.0.0/16",
        "TSr: nothing",
        "D: ESP 00000100",
        "V: 1b5b33316d",
        "N(REKEY_SA): ESP 00000100",
        "N(INVALID_KE_PAYLOAD): group 19 wanted",
        "N(UNSUPPORTED_CRITICAL_PAYLOAD): payload type c8",
        "N(COOKIE): 17 bytes",
    )


def test_a_message_of_no_known_exchange_is_a_decode_error() -> None:
    header = Header(bytes(8), bytes(8), 0, 0x20, 99, 0, 0, 28)
    with pytest.raises(DecodeError, match="not spoken"):
        read(header, PATH, b"", ())


def test_errors_are_told_from_status() -> None:
    status, error = Notify(Notify2.COOKIE), Notify(Notify2.TS_UNACCEPTABLE)
    assert error_of((status, error)) is error
    assert error_of((status,)) is None


# ------------------------------------------------------------------------------------- diagnoses


def received(kind: int, data: bytes = b"") -> Notify:
    """As it comes in a message, where the type is a number."""
    return Notify.decode(Notify(kind, data).encode())


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Notify2.NO_PROPOSAL_CHOSEN, Code.P1_PROPOSAL),
        (Notify2.INVALID_KE_PAYLOAD, Code.P1_DH),
        (Notify2.INVALID_MAJOR_VERSION, Code.VERSION),
        (Notify2.INVALID_SYNTAX, Code.SYNTAX),
        (Notify2.UNSUPPORTED_CRITICAL_PAYLOAD, Code.SYNTAX),
        (Notify2.NO_ADDITIONAL_SAS, Code.PEER_REFUSED),
        (99, Code.PEER_REFUSED),
    ],
)
def test_errors_of_ike_sa_init(kind: int, code: Code) -> None:
    diagnosis = diagnoses.of_init_error(received(kind, b"\0\x13"), policy())
    assert diagnosis.code is code
    assert diagnosis.fact("exchange") == "IKE_SA_INIT"


@pytest.mark.parametrize("data", [b"", b"\x0e", b"\0\x0e\0"])
def test_a_group_that_is_not_two_bytes_is_none(data: bytes) -> None:
    notify = received(Notify2.INVALID_KE_PAYLOAD, data)
    assert diagnoses.of_init_error(notify, policy()).fact("theirs") is None
    child = diagnoses.of_child_error(notify, "CREATE_CHILD_SA", policy().children[0], True)
    assert child.fact("theirs") is None
    assert tuple(ladder.detail_of((notify,))) == ("N(INVALID_KE_PAYLOAD): names no group",)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Notify2.AUTHENTICATION_FAILED, Code.PSK),
        (Notify2.INVALID_SYNTAX, Code.SYNTAX),
        (Notify2.TEMPORARY_FAILURE, Code.PEER_REFUSED),
    ],
)
def test_errors_of_ike_auth(kind: int, code: Code) -> None:
    assert diagnoses.of_auth_error(received(kind), policy()).code is code


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Notify2.NO_PROPOSAL_CHOSEN, Code.P2_PROPOSAL),
        (Notify2.INVALID_KE_PAYLOAD, Code.PFS),
        (Notify2.TS_UNACCEPTABLE, Code.TRAFFIC_SELECTORS),
        (Notify2.SINGLE_PAIR_REQUIRED, Code.TRAFFIC_SELECTORS),
        (Notify2.TEMPORARY_FAILURE, Code.PEER_BUSY),
        (Notify2.INVALID_SYNTAX, Code.SYNTAX),
        (Notify2.NO_ADDITIONAL_SAS, Code.PEER_REFUSED),
    ],
)
def test_errors_of_a_child(kind: int, code: Code) -> None:
    diagnosis = diagnoses.of_child_error(received(kind, b"\0\x13"), "CREATE_CHILD_SA", mapping(), pfs=False)
    assert diagnosis.code is code
    assert diagnosis.fact("mapping") == "10.1.0.0/24 - 10.2.0.0/24"
    if kind == Notify2.INVALID_KE_PAYLOAD:
        assert (diagnosis.fact("theirs"), diagnosis.fact("ours")) == ("19", "none")


@pytest.mark.parametrize(
    ("attribute", "code"),
    [
        (Attribute.ENCRYPTION, Code.P2_ENCRYPTION),
        (Attribute.INTEGRITY, Code.P2_INTEGRITY),
        (Attribute.DH_GROUP, Code.PFS),
        (Attribute.ESN, Code.P2_ESN),
        (Attribute.PROTOCOL, Code.P2_PROPOSAL),
    ],
)
def test_mismatches_of_a_child(attribute: Attribute, code: Code) -> None:
    diagnosis = diagnoses.of_mismatch(Mismatch(attribute, ("0",), ()), "IKE_AUTH", mapping())
    assert diagnosis.code is code
    assert diagnosis.fact("theirs") == ("none" if attribute is Attribute.DH_GROUP else "0")
    assert diagnosis.fact("ours") == "nothing"
