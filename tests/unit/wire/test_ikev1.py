"""The payloads of IKEv1, byte for byte."""

import pytest

from vpnd.wire.attributes import Attribute
from vpnd.wire.chain import RawPayload
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import Payload1, Payload2
from vpnd.wire.ikev1 import (
    PAYLOADS,
    Cert,
    CertReq,
    Delete,
    Fragment,
    Hash,
    Id,
    KeyExchange,
    NatD,
    NatOa,
    Nonce,
    Notify,
    Plain,
    ProposalPart,
    Sa,
    Signature,
    TransformPart,
    Unknown,
    VendorId,
    decode_payload,
    decode_payloads,
    encode_payloads,
)
from vpnd.wire.ikev1.proposals import MAX_PROPOSALS

# aes-128, sha1, pre-shared key, DH 14, 86400 s: the SA payload of a Main Mode request.
MAIN_MODE_OFFER = bytes.fromhex(
    "00000001 00000001"
    "00 00 0030 01 01 00 01"
    "   00 00 0028 01 01 0000"
    "      8001 0007  8002 0002  8003 0001  8004 000e  800b 0001  000c 0004 00015180  800e 0080"
)
MAIN_MODE_OFFER_VALUE = Sa(
    1,
    1,
    (
        ProposalPart(
            1,
            1,
            b"",
            (
                TransformPart(
                    1,
                    1,
                    (
                        Attribute(1, 7),
                        Attribute(2, 2),
                        Attribute(3, 1),
                        Attribute(4, 14),
                        Attribute(11, 1),
                        Attribute(12, bytes.fromhex("00015180")),
                        Attribute(14, 128),
                    ),
                ),
            ),
        ),
    ),
)
COOKIES = bytes(range(16))

BODIES: list[tuple[Plain | NatD | NatOa, bytes]] = [
    (MAIN_MODE_OFFER_VALUE, MAIN_MODE_OFFER),
    (KeyExchange(b"\x99" * 128), b"\x99" * 128),
    (Id(1, bytes([192, 0, 2, 1]), 17, 500), bytes.fromhex("01 11 01f4 c0000201")),
    (Id(4, bytes([10, 0, 1, 0, 255, 255, 255, 0])), bytes.fromhex("04 00 0000 0a000100 ffffff00")),
    (Cert(4, b"\x30"), b"\x04\x30"),
    (CertReq(4, b"\x30"), b"\x04\x30"),
    (Hash(b"\xaa" * 20), b"\xaa" * 20),
    (Signature(b"\xbb" * 64), b"\xbb" * 64),
    (Nonce(b"\xcc" * 16), b"\xcc" * 16),
    (
        Notify(36136, bytes.fromhex("00000001"), 1, COOKIES),
        bytes.fromhex("00000001 01 10 8d28") + COOKIES + bytes.fromhex("00000001"),
    ),
    (Notify(14), bytes.fromhex("00000001 01 00 000e")),
    (Notify(14, doi=0), bytes.fromhex("00000000 01 00 000e")),
    (Delete(1, (COOKIES,)), bytes.fromhex("00000001 01 10 0001") + COOKIES),
    (Delete(3, (b"aaaa", b"bbbb")), bytes.fromhex("00000001 03 04 0002") + b"aaaabbbb"),
    (Delete(3, ()), bytes.fromhex("00000001 03 04 0000")),
    (Delete(1, ()), bytes.fromhex("00000001 01 10 0000")),
    (
        VendorId(bytes.fromhex("afcad71368a1f1c96b8696fc77570100")),
        bytes.fromhex("afcad71368a1f1c96b8696fc77570100"),
    ),
    (Fragment(1, 2, True, b"piece"), bytes.fromhex("0001 02 01") + b"piece"),
    (Fragment(1, 1, False, b""), bytes.fromhex("0001 01 00")),
    (NatD(b"\xdd" * 20), b"\xdd" * 20),
    (NatOa(1, bytes([10, 0, 1, 2])), bytes.fromhex("01 000000 0a000102")),
    (NatOa(5, bytes(16)), bytes.fromhex("05 000000") + bytes(16)),
]


@pytest.mark.parametrize(("value", "body"), BODIES, ids=lambda item: type(item).__name__)
def test_each_payload_has_the_bytes_of_its_drawing(value: Plain | NatD | NatOa, body: bytes) -> None:
    assert value.encode() == body
    assert type(value).decode(body) == value
    assert decode_payload(RawPayload(value.payload_type, body)) == value


def test_every_payload_type_is_in_the_list_above() -> None:
    assert {type(value) for value, _ in BODIES} == {*PAYLOADS.values(), NatD, NatOa}
    inside_others_or_drafts = {0, 2, 3, 130, 131}
    assert {value.payload_type for value, _ in BODIES} == {int(p) for p in Payload1} - inside_others_or_drafts


def test_reserved_fields_are_ignored_and_sent_as_zero() -> None:
    body = bytes.fromhex("00000001 00000001 00 ff 0010 01 01 00 01  00 ff 0008 01 01 ffff")
    value = Sa.decode(body)
    assert value == Sa(1, 1, (ProposalPart(1, 1, b"", (TransformPart(1, 1),)),))
    assert value.encode() == bytes.fromhex("00000001 00000001 00 00 0010 01 01 00 01  00 00 0008 01 01 0000")
    assert NatOa.decode(bytes.fromhex("01 ffffff 0a000102")) == NatOa(1, bytes([10, 0, 1, 2]))


def test_the_numbers_of_the_nat_t_drafts_are_read_and_written() -> None:
    payloads = (NatD(b"hash", draft=True), NatOa(1, bytes(4), draft=True))
    first, chain = encode_payloads(payloads)
    assert (first, chain) == (130, bytes.fromhex("83 00 0008 68617368  00 00 000c 01 000000 00000000"))
    assert decode_payloads(first, chain) == payloads


def test_a_decrypted_message_may_be_padded() -> None:
    """Peers fill the last block with zeroes, or with random bytes and a count."""
    first, chain = encode_payloads([Hash(bytes(20)), Nonce(bytes(16))])
    for padding in (b"", bytes(4), b"\x8a\x03\x03"):
        assert decode_payloads(first, chain + padding, padded=True) == (Hash(bytes(20)), Nonce(bytes(16)))
    with pytest.raises(DecodeError):
        decode_payloads(first, chain + bytes(4))


def test_an_unknown_payload_survives_whatever_its_reserved_byte() -> None:
    assert decode_payload(RawPayload(99, b"body", critical=True)) == Unknown(99, b"body")
    assert encode_payloads([Unknown(99, b"body")]) == (99, b"\x00\x00\x00\x08body")


@pytest.mark.parametrize("payload_type", [p for p in Payload2 if p])
def test_payloads_of_the_other_version_are_unknown(payload_type: Payload2) -> None:
    assert decode_payload(RawPayload(payload_type, b"x")) == Unknown(payload_type, b"x")


def test_the_spi_of_a_phase_1_proposal_may_be_the_cookie() -> None:
    body = bytes.fromhex("00000001 00000001 00 00 0010 01 01 08 00 a1a2a3a4a5a6a7a8")
    assert Sa.decode(body).proposals[0].spi == bytes.fromhex("a1a2a3a4a5a6a7a8")


BAD_SA = {
    "no situation": "00000001",
    "another DOI": "00000002 00000001",
    "labels in the situation": "00000001 00000003",
    "proposal length 0": "00000001 00000001 00 00 0000 01 01 00 00",
    "proposal longer than the payload": "00000001 00000001 00 00 0009 01 01 00 00",
    "more announced, none there": "00000001 00000001 02 00 0008 01 01 00 00",
    "SPI longer than the proposal": "00000001 00000001 00 00 0008 01 03 04 00",
    "SPI of 17 bytes": "00000001 00000001 00 00 0019 01 03 11 00" + "00" * 17,
    "fewer transforms than announced": "00000001 00000001 00 00 0010 01 01 00 02  00 00 0008 01 01 0000",
    "more transforms than announced": "00000001 00000001 00 00 0010 01 01 00 00  00 00 0008 01 01 0000",
    "transform length 3": "00000001 00000001 00 00 0010 01 01 00 01  00 00 0003 01 01 0000",
    "attribute cut": "00000001 00000001 00 00 0012 01 01 00 01  00 00 000a 01 01 0000 8001",
}


@pytest.mark.parametrize("body", BAD_SA.values(), ids=BAD_SA.keys())
def test_a_malformed_sa_is_refused(body: str) -> None:
    with pytest.raises(DecodeError):
        Sa.decode(bytes.fromhex(body))


def test_the_number_of_transforms_is_bounded_over_all_proposals() -> None:
    two = bytes.fromhex("01 01 00 02  03 00 0008 01 01 0000  00 00 0008 02 01 0000")
    assert len(ProposalPart.decode(two, 2).transforms) == 2
    with pytest.raises(DecodeError, match="more than 255 in all"):
        ProposalPart.decode(two, 1)


def test_the_number_of_proposals_is_bounded() -> None:
    proposal = ProposalPart(1, 3, bytes(4), ())
    assert len(Sa.decode(Sa(1, 1, (proposal,) * MAX_PROPOSALS).encode()).proposals) == MAX_PROPOSALS
    with pytest.raises(DecodeError, match="more than 255"):
        Sa.decode(Sa(1, 1, (proposal,) * (MAX_PROPOSALS + 1)).encode())


@pytest.mark.parametrize("length", [0, 7, 257])
def test_nonces_outside_8_to_256_bytes_are_refused(length: int) -> None:
    with pytest.raises(DecodeError, match="nonce length"):
        Nonce.decode(bytes(length))


@pytest.mark.parametrize("length", [8, 256])
def test_nonces_of_8_to_256_bytes_are_read(length: int) -> None:
    assert Nonce.decode(bytes(length)).data == bytes(length)


@pytest.mark.parametrize("size", range(17))
def test_notify_and_delete_take_spis_of_0_to_16_bytes(size: int) -> None:
    spi = bytes(size)
    assert Notify.decode(Notify(24578, b"", 1, spi).encode()).spi == spi
    expected = (spi,) if spi else ()
    body = b"\0\0\0\x01\x01" + bytes([size]) + b"\0\x01" + spi
    assert Delete.decode(body).spis == expected


def test_longer_spis_are_refused() -> None:
    with pytest.raises(DecodeError, match="notify SPI size"):
        Notify.decode(Notify(24578, b"", 1, bytes(17)).encode())
    with pytest.raises(DecodeError, match="delete SPI size"):
        Delete.decode(Delete(1, (bytes(17),)).encode())


@pytest.mark.parametrize(
    "body", ["03 04 0001", "03 04 0001 c1c2c3", "03 04 0001 c1c2c3c4 00", "01 00 0000 00"]
)
def test_a_delete_whose_bytes_do_not_match_its_count_is_refused(body: str) -> None:
    with pytest.raises(DecodeError):
        Delete.decode(bytes.fromhex("00000001" + body))


@pytest.mark.parametrize(
    "body", ["02 000000 0a000102", "01 000000 0a0001", "01 000000 0a00010203", "05 000000", ""]
)
def test_a_malformed_nat_oa_is_refused(body: str) -> None:
    with pytest.raises(DecodeError):
        NatOa.decode(bytes.fromhex(body))


@pytest.mark.parametrize("body", ["", "0001", "0001 01", "0001 00 01"])
def test_a_short_fragment_or_number_zero_is_refused(body: str) -> None:
    with pytest.raises(DecodeError):
        Fragment.decode(bytes.fromhex(body))
