"""The payloads of IKEv2, byte for byte."""

import pytest

from vpnd.wire.attributes import Attribute
from vpnd.wire.chain import RawPayload
from vpnd.wire.errors import DecodeError, UnsupportedCriticalPayload
from vpnd.wire.header import Header
from vpnd.wire.iana import Payload1, Payload2
from vpnd.wire.ikev2 import (
    PAYLOADS,
    SEALED,
    Auth,
    Cert,
    CertReq,
    Configuration,
    ConfigurationAttribute,
    Delete,
    Eap,
    Encrypted,
    EncryptedFragment,
    IdI,
    IdR,
    KeyExchange,
    Nonce,
    Notify,
    Plain,
    ProposalPart,
    Sa,
    TrafficSelector,
    Transform,
    TsI,
    TsR,
    Unknown,
    VendorId,
    decode_payload,
    decode_payloads,
    encode_payloads,
)
from vpnd.wire.ikev2.informational import MAX_CONFIGURATION_ATTRIBUTES
from vpnd.wire.ikev2.proposals import MAX_PROPOSALS

# aes-128 and sha256 with DH 14, then aes-256-gcm without integrity: what an ESP offer looks like.
ESP_OFFER = bytes.fromhex(
    "02 00 0030 01 03 04 04 c1c2c3c4"
    "   03 00 000c 01 00 000c 800e 0080"
    "   03 00 0008 03 00 000c"
    "   03 00 0008 04 00 000e"
    "   00 00 0008 05 00 0000"
    "00 00 0020 02 03 04 02 c1c2c3c4"
    "   03 00 000c 01 00 0014 800e 0100"
    "   00 00 0008 05 00 0000"
)
ESP_OFFER_VALUE = Sa(
    (
        ProposalPart(
            1,
            3,
            bytes.fromhex("c1c2c3c4"),
            (Transform(1, 12, 128), Transform(3, 12), Transform(4, 14), Transform(5, 0)),
        ),
        ProposalPart(2, 3, bytes.fromhex("c1c2c3c4"), (Transform(1, 20, 256), Transform(5, 0))),
    )
)

BODIES: list[tuple[Plain, bytes]] = [
    (ESP_OFFER_VALUE, ESP_OFFER),
    (Sa(()), b""),
    (KeyExchange(31, bytes(range(32))), bytes.fromhex("001f 0000") + bytes(range(32))),
    (IdI(1, bytes([192, 0, 2, 1])), bytes.fromhex("01 000000 c0000201")),
    (IdR(2, b"gw.example.org"), b"\x02\0\0\0gw.example.org"),
    (Cert(4, b"\x30\x82"), b"\x04\x30\x82"),
    (CertReq(4, bytes(20)), b"\x04" + bytes(20)),
    (Auth(2, b"\xaa" * 32), b"\x02\0\0\0" + b"\xaa" * 32),
    (Nonce(bytes(range(32))), bytes(range(32))),
    (Notify(16390, b"cookie"), b"\x00\x00\x40\x06cookie"),
    (
        Notify(16393, b"", 3, bytes.fromhex("c1c2c3c4")),
        bytes.fromhex("03 04 4009 c1c2c3c4"),
    ),
    (Delete(1), bytes.fromhex("01 00 0000")),
    (Delete(3), bytes.fromhex("03 04 0000")),
    (Delete(3, (b"aaaa", b"bbbb")), b"\x03\x04\x00\x02aaaabbbb"),
    (VendorId(b"vendor"), b"vendor"),
    (
        TsI((TrafficSelector(7, 0, 0, 65535, bytes([10, 0, 1, 0]), bytes([10, 0, 1, 255])),)),
        bytes.fromhex("01 000000  07 00 0010 0000 ffff 0a000100 0a0001ff"),
    ),
    (
        TsR(
            (
                TrafficSelector(8, 6, 80, 80, bytes(16), b"\xff" * 16),
                TrafficSelector(10, 0, 0, 0, b"system_u", b""),
            )
        ),
        bytes.fromhex("02 000000  08 06 0028 0050 0050" + "00" * 16 + "ff" * 16 + "0a 00 000c") + b"system_u",
    ),
    (
        Configuration(1, (ConfigurationAttribute(1), ConfigurationAttribute(3, bytes(4)))),
        bytes.fromhex("01 000000  0001 0000  0003 0004 00000000"),
    ),
    (Eap(1, 7, b"\x01peer"), b"\x01\x07\x00\x09\x01peer"),
    (Eap(3, 7), b"\x03\x07\x00\x04"),
]


@pytest.mark.parametrize(("value", "body"), BODIES, ids=lambda item: type(item).__name__)
def test_each_payload_has_the_bytes_of_its_drawing(value: Plain, body: bytes) -> None:
    assert value.encode() == body
    assert type(value).decode(body) == value
    assert decode_payload(RawPayload(value.payload_type, body)) == value


def test_every_payload_type_is_in_the_list_above() -> None:
    assert {type(value) for value, _ in BODIES} == set(PAYLOADS.values())
    assert set(PAYLOADS) | SEALED == {int(p) for p in Payload2} - {0}


RESERVED_SET = [
    (KeyExchange(14, b"x"), "000e ffff 78"),
    (IdI(2, b"x"), "02 ffffff 78"),
    (Auth(2, b"x"), "02 ffffff 78"),
    (TsI(()), "00 ffffff"),
    (Configuration(1), "01 ffffff"),
    (Configuration(1, (ConfigurationAttribute(1),)), "01 000000 8001 0000"),
    (Sa((ProposalPart(1, 1, b"", (Transform(4, 14),)),)), "00 ff 0010 01 01 00 01  00 ff 0008 04 ff 000e"),
]


@pytest.mark.parametrize(("value", "body"), RESERVED_SET, ids=lambda item: type(item).__name__)
def test_reserved_fields_are_ignored_and_sent_as_zero(value: Plain, body: str) -> None:
    octets = bytes.fromhex(body)
    assert type(value).decode(octets) == value
    assert value.encode() != octets
    assert type(value).decode(value.encode()) == value


def test_a_whole_message_survives() -> None:
    payloads = (
        ESP_OFFER_VALUE,
        KeyExchange(14, bytes(256)),
        Nonce(bytes(32)),
        Notify(16388, bytes(20)),
        Unknown(200, b"from the future"),
    )
    first, chain = encode_payloads(payloads)
    header = Header(bytes(8), bytes(8), first, 0x20, 34, 8, 0, 28 + len(chain))
    message = header.encode() + chain
    assert Header.decode(message).next_payload == 33
    assert decode_payloads(first, message[28:]) == payloads


# ------------------------------------------------------------------------- unknown and critical


def test_an_unknown_payload_survives() -> None:
    assert decode_payload(RawPayload(99, b"body")) == Unknown(99, b"body")
    assert encode_payloads([Unknown(99, b"body", critical=True)]) == (99, b"\x00\x80\x00\x08body")


def test_an_unknown_critical_payload_is_refused_with_its_number() -> None:
    with pytest.raises(UnsupportedCriticalPayload) as caught:
        decode_payload(RawPayload(99, b"", critical=True))
    assert caught.value.payload_type == 99


def test_the_critical_bit_of_a_known_payload_is_ignored() -> None:
    assert decode_payload(RawPayload(Payload2.VENDOR, b"v", critical=True)) == VendorId(b"v")


@pytest.mark.parametrize("payload_type", [p for p in Payload1 if p])
def test_payloads_of_the_other_version_are_unknown(payload_type: Payload1) -> None:
    assert decode_payload(RawPayload(payload_type, b"x")) == Unknown(payload_type, b"x")


# --------------------------------------------------------------------------------- SA payloads


def test_unknown_transforms_and_attributes_survive() -> None:
    body = bytes.fromhex("00 00 0018 01 01 00 01  00 00 0010 f0 00 ffff 8063 0001 0064 0000")
    value = Sa.decode(body)
    assert value.proposals[0].transforms == (
        Transform(0xF0, 0xFFFF, None, (Attribute(99, 1), Attribute(100, b""))),
    )
    assert value.encode() == body


def test_only_the_first_short_key_length_is_the_key_length() -> None:
    transform = Transform.decode(bytes.fromhex("01 00 000c  000e 0002 0080  800e 0100  800e 0080"))
    assert transform.key_length == 256
    assert transform.attributes == (Attribute(14, b"\x00\x80"), Attribute(14, 128))


def test_a_key_length_of_zero_is_not_an_absent_one() -> None:
    assert Transform.decode(bytes.fromhex("01 00 000c 800e 0000")).key_length == 0


BAD_SA = {
    "proposal length 0": "00 00 0000 01 01 00 00",
    "proposal length 3": "00 00 0003 01 01 00 00",
    "proposal too short for its header": "00 00 0007 01 01 00",
    "proposal longer than the payload": "00 00 0009 01 01 00 00",
    "more announced, none there": "02 00 0008 01 01 00 00",
    "last announced, one more there": "00 00 0008 01 01 00 00 00 00 0008 02 01 00 00",
    "a marker of its own": "01 00 0008 01 01 00 00",
    "SPI longer than the proposal": "00 00 0008 01 03 04 00",
    "fewer transforms than announced": "00 00 0010 01 01 00 02  00 00 0008 04 00 000e",
    "more transforms than announced": "00 00 0010 01 01 00 00  00 00 0008 04 00 000e",
    "transform length 0": "00 00 0010 01 01 00 01  00 00 0000 04 00 000e",
    "transform length 7": "00 00 0010 01 01 00 01  00 00 0007 04 00 000e",
    "transform longer than the proposal": "00 00 0010 01 01 00 01  00 00 0009 04 00 000e",
    "transform marked as a proposal": "00 00 0010 01 01 00 01  02 00 0008 04 00 000e",
    "attribute cut": "00 00 0012 01 01 00 01  00 00 000a 04 00 000e 800e",
}


@pytest.mark.parametrize("body", BAD_SA.values(), ids=BAD_SA.keys())
def test_a_malformed_sa_is_refused(body: str) -> None:
    with pytest.raises(DecodeError):
        Sa.decode(bytes.fromhex(body))


def test_the_number_of_transforms_is_bounded_over_all_proposals() -> None:
    two = bytes.fromhex("01 01 00 02  03 00 0008 04 00 000e  00 00 0008 04 00 000f")
    assert len(ProposalPart.decode(two, 2).transforms) == 2
    with pytest.raises(DecodeError, match="more than 255 in all"):
        ProposalPart.decode(two, 1)


def test_the_number_of_proposals_is_bounded() -> None:
    def sa(count: int) -> Sa:
        return Sa(tuple(ProposalPart(index % 256, 1, b"", ()) for index in range(count)))

    assert len(Sa.decode(sa(MAX_PROPOSALS).encode()).proposals) == MAX_PROPOSALS
    with pytest.raises(DecodeError, match="more than 255"):
        Sa.decode(sa(MAX_PROPOSALS + 1).encode())


# -------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("length", [16, 17, 255, 256])
def test_nonces_of_16_to_256_bytes_are_read(length: int) -> None:
    assert Nonce.decode(bytes(length)).data == bytes(length)


@pytest.mark.parametrize("length", [0, 15, 257])
def test_other_nonces_are_refused(length: int) -> None:
    with pytest.raises(DecodeError, match="nonce length"):
        Nonce.decode(bytes(length))


def test_spis_of_no_length_are_no_spis_however_many_are_announced() -> None:
    assert Delete.decode(bytes.fromhex("01 00 ffff")) == Delete(1)


def test_a_delete_may_fill_its_payload_with_spis() -> None:
    count = 16380
    body = b"\x03\x04" + count.to_bytes(2, "big") + bytes(4 * count)
    assert len(Delete.decode(body).spis) == count
    assert Delete.decode(body).encode() == body


def test_a_delete_with_spis_of_another_length_keeps_it() -> None:
    body = bytes.fromhex("01 08 0001 c1c2c3c4c5c6c7c8")
    assert Delete.decode(body).encode() == body


@pytest.mark.parametrize(
    "body", ["01 00 0000 00", "03 04 0001", "03 04 0001 c1c2c3", "03 04 0001 c1c2c3c4 00"]
)
def test_a_delete_whose_bytes_do_not_match_its_count_is_refused(body: str) -> None:
    with pytest.raises(DecodeError):
        Delete.decode(bytes.fromhex(body))


def test_a_notify_whose_spi_is_not_there_is_refused() -> None:
    with pytest.raises(DecodeError, match="notify SPI"):
        Notify.decode(bytes.fromhex("03 05 4009 c1c2c3c4"))


BAD_TS = {
    "fewer selectors than announced": "01 000000",
    "more selectors than announced": "00 000000  07 00 0010 0000 ffff 00000000 ffffffff",
    "selector length 0": "01 000000  07 00 0000 0000 ffff 00000000 ffffffff",
    "selector length 3": "01 000000  0a 00 0003",
    "IPv4 selector one byte short": "01 000000  07 00 000f 0000 ffff 00000000 ffffff",
    "IPv4 selector one byte long": "01 000000  07 00 0011 0000 ffff 00000000 ffffffff 00",
    "IPv6 type, IPv4 length": "01 000000  08 00 0010 0000 ffff 00000000 ffffffff",
    "selector longer than the payload": "01 000000  07 00 0011 0000 ffff 00000000 ffffffff",
}


@pytest.mark.parametrize("body", BAD_TS.values(), ids=BAD_TS.keys())
def test_malformed_selectors_are_refused(body: str) -> None:
    with pytest.raises(DecodeError):
        TsI.decode(bytes.fromhex(body))


def test_a_range_that_runs_backwards_is_left_to_the_reader() -> None:
    opaque = TrafficSelector(7, 17, 65535, 0, b"\xff" * 4, bytes(4))
    assert TsR.decode(TsR((opaque,)).encode()).selectors == (opaque,)


@pytest.mark.parametrize("body", ["01 07 0003", "01 07 0006 01", "01 07 0004 01", "01 07"])
def test_an_eap_message_of_another_length_is_refused(body: str) -> None:
    with pytest.raises(DecodeError):
        Eap.decode(bytes.fromhex(body))


def test_configuration_attributes_are_bounded() -> None:
    def body(count: int) -> bytes:
        return Configuration(2, (ConfigurationAttribute(1),) * count).encode()

    most = Configuration.decode(body(MAX_CONFIGURATION_ATTRIBUTES))
    assert len(most.attributes) == MAX_CONFIGURATION_ATTRIBUTES
    with pytest.raises(DecodeError, match="configuration count"):
        Configuration.decode(body(MAX_CONFIGURATION_ATTRIBUTES + 1))


# -------------------------------------------------------------------------------------- sealed


def test_sk_keeps_the_type_of_the_payload_inside() -> None:
    first, chain = encode_payloads([Encrypted(35, b"sealed")])
    assert (first, chain) == (46, b"\x23\x00\x00\x0asealed")
    assert decode_payloads(first, chain) == (Encrypted(35, b"sealed"),)


def test_skf_has_its_place_in_the_message_in_front() -> None:
    first, chain = encode_payloads([EncryptedFragment(35, 1, 3, b"sealed")])
    assert (first, chain) == (53, b"\x23\x00\x00\x0e\x00\x01\x00\x03sealed")
    assert decode_payloads(first, chain) == (EncryptedFragment(35, 1, 3, b"sealed"),)


@pytest.mark.parametrize("place", ["0000 0003", "0004 0003", "0000 0000", "0001 0000", "0001", ""])
def test_a_fragment_outside_its_message_is_refused(place: str) -> None:
    with pytest.raises(DecodeError):
        EncryptedFragment.decode(bytes.fromhex(place))


def test_an_id_as_it_travelled_can_differ_from_its_encoding() -> None:
    """AUTH covers the body with its reserved bytes as the peer sent them, so signing uses the raw body."""
    raw = RawPayload(Payload2.IDI, bytes.fromhex("01 000001 c0000201"))
    assert decode_payload(raw).encode() != raw.body
