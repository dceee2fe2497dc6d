"""The chain of payloads."""

import pytest

from vpnd.wire.chain import MAX_PAYLOADS, RawPayload, decode_chain, encode_chain
from vpnd.wire.errors import DecodeError

SK = 46
SEALED = frozenset({46, 53})


def test_each_payload_names_the_type_of_the_next() -> None:
    data = bytes.fromhex("28 00 0006 aaaa  2b 80 0005 bb  00 7f 0004")
    assert decode_chain(33, data) == (
        RawPayload(33, b"\xaa\xaa"),
        RawPayload(40, b"\xbb", critical=True),
        RawPayload(43, b""),
    )


def test_reserved_bits_are_sent_as_zero() -> None:
    data = bytes.fromhex("28 00 0006 aaaa  2b 80 0005 bb  00 7f 0004")
    assert encode_chain(decode_chain(33, data)) == (
        33,
        bytes.fromhex("28 00 0006 aaaa  2b 80 0005 bb  00 00 0004"),
    )


def test_no_payload_at_all() -> None:
    assert decode_chain(0, b"") == ()
    assert encode_chain(()) == (0, b"")


def test_bytes_without_a_payload_are_refused() -> None:
    with pytest.raises(DecodeError):
        decode_chain(0, b"\0")


def test_a_payload_that_is_announced_and_missing_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode_chain(33, b"")
    with pytest.raises(DecodeError):
        decode_chain(33, bytes.fromhex("28 00 0004"))


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_a_length_that_makes_no_progress_is_refused(length: int) -> None:
    with pytest.raises(DecodeError, match="payload length"):
        decode_chain(33, b"\x21\0" + length.to_bytes(2, "big") + bytes(8))


@pytest.mark.parametrize("length", [7, 9, 65535])
def test_a_length_that_is_off_by_one_is_refused(length: int) -> None:
    with pytest.raises(DecodeError):
        decode_chain(33, b"\0\0" + length.to_bytes(2, "big") + b"abcd")


def test_sk_ends_the_chain_and_keeps_the_type_inside() -> None:
    data = bytes.fromhex("2e 00 0004  21 00 0006 c1c2")
    chain = decode_chain(41, data, SEALED)
    assert chain == (RawPayload(41, b""), RawPayload(SK, b"\xc1\xc2", next_payload=33))
    assert encode_chain(chain) == (41, data)


def test_nothing_may_follow_sk() -> None:
    with pytest.raises(DecodeError, match="payload end"):
        decode_chain(SK, bytes.fromhex("21 00 0004  00 00 0004"), SEALED)


def test_padding_behind_a_decrypted_isakmp_message_is_ignored_when_asked_for() -> None:
    data = bytes.fromhex("00 00 0005 aa  0000000003")
    assert decode_chain(8, data, padded=True) == (RawPayload(8, b"\xaa"),)
    with pytest.raises(DecodeError, match="5 bytes too many"):
        decode_chain(8, data)


def test_the_number_of_payloads_is_bounded() -> None:
    def chain(count: int) -> tuple[int, bytes]:
        return encode_chain([RawPayload(43, b"")] * count)

    assert len(decode_chain(*chain(MAX_PAYLOADS))) == MAX_PAYLOADS
    with pytest.raises(DecodeError, match="payload count"):
        decode_chain(*chain(MAX_PAYLOADS + 1))
