"""The layout of ESP around its ciphertext."""

import pytest

from vpnd.wire.errors import DecodeError
from vpnd.wire.esp import ESP_HEADER, ESP_TRAILER, EspHeader, add_trailer, strip_trailer


def test_header_is_spi_and_sequence_number() -> None:
    packet = bytes.fromhex("c1c2c3c4 00000007 ffff")
    header = EspHeader.decode(packet)
    assert header == EspHeader(0xC1C2C3C4, 7)
    assert header.encode() == packet[:8]
    assert ESP_HEADER.unpack_from(packet) == (0xC1C2C3C4, 7)


@pytest.mark.parametrize("length", range(8))
def test_a_short_packet_is_refused(length: int) -> None:
    with pytest.raises(DecodeError):
        EspHeader.decode(bytes(length))


def test_trailer_of_the_rfc_3602_example() -> None:
    """RFC 3602 section 4, case 5: an 80-byte ICMP echo in transport mode needs 14 bytes of padding."""
    plaintext = add_trailer(b"\x08" * 64, 1, 16)
    assert plaintext[64:] == bytes.fromhex("0102030405060708090a0b0c0d0e 0e 01")
    assert ESP_TRAILER.unpack(plaintext[-2:]) == (14, 1)


@pytest.mark.parametrize("alignment", [4, 8, 16])
@pytest.mark.parametrize("length", [0, 1, 2, 13, 14, 15, 16, 1400])
def test_the_trailer_aligns_and_comes_off_again(alignment: int, length: int) -> None:
    plaintext = add_trailer(bytes(length), 4, alignment)
    assert len(plaintext) % alignment == 0
    assert len(plaintext) - length - 2 < alignment
    assert strip_trailer(plaintext) == (bytes(length), 4)


def test_255_bytes_of_padding_come_off() -> None:
    assert strip_trailer(b"x" + bytes(range(1, 256)) + b"\xff\x29") == (b"x", 41)


@pytest.mark.parametrize(
    "plaintext",
    ["", "04", "0104", "01020304", "aa 010203 0404", "aa 0000 0204", "aa 0201 0204", "aa 0103 0204"],
)
def test_padding_that_is_not_counted_up_is_refused(plaintext: str) -> None:
    with pytest.raises(DecodeError):
        strip_trailer(bytes.fromhex(plaintext))
