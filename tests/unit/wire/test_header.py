"""The header of both versions."""

import pytest

from vpnd.wire.cursor import Cursor
from vpnd.wire.errors import DecodeError, UnsupportedMajorVersion
from vpnd.wire.header import HEADER_LENGTH, Flag, Header

# The header of an IKE_SA_INIT request without payloads.
REQUEST = bytes.fromhex("a1a2a3a4a5a6a7a8 0000000000000000 21 20 22 08 00000000 0000001c")


def test_each_field_is_where_the_drawing_has_it() -> None:
    header = Header.decode(bytes.fromhex("a1a2a3a4a5a6a7a8 b1b2b3b4b5b6b7b8 2e 20 25 28 01020304 0000001c"))
    assert header.spi_i == bytes.fromhex("a1a2a3a4a5a6a7a8")
    assert header.spi_r == bytes.fromhex("b1b2b3b4b5b6b7b8")
    assert header.next_payload == 46
    assert (header.version, header.major, header.minor) == (0x20, 2, 0)
    assert header.exchange == 37
    assert header.flags == Flag.INITIATOR | Flag.RESPONSE
    assert header.message_id == 0x01020304
    assert header.length == HEADER_LENGTH == 28


def test_encode_gives_the_bytes_back() -> None:
    assert Header.decode(REQUEST).encode() == REQUEST


@pytest.mark.parametrize("version", range(256))
def test_only_major_versions_1_and_2_are_read(version: int) -> None:
    message = REQUEST[:17] + bytes([version]) + REQUEST[18:]
    if version >> 4 in (1, 2):
        header = Header.decode(message)
        assert (header.major, header.minor) == (version >> 4, version & 15)
    else:
        with pytest.raises(UnsupportedMajorVersion) as caught:
            Header.decode(message)
        assert caught.value.major == version >> 4


def test_the_fields_of_an_unknown_version_can_be_read_for_the_reply() -> None:
    message = REQUEST[:17] + b"\x30" + REQUEST[18:]
    header = Header.read(Cursor(message))
    assert header.spi_i == REQUEST[:8]
    assert header.major == 3


@pytest.mark.parametrize("length", [0, 27, 29, 2**32 - 1])
def test_the_length_must_be_what_arrived(length: int) -> None:
    with pytest.raises(DecodeError) as caught:
        Header.decode(REQUEST[:24] + length.to_bytes(4, "big"))
    assert caught.value.field == "header length"


@pytest.mark.parametrize("length", range(28))
def test_a_short_header_is_refused(length: int) -> None:
    with pytest.raises(DecodeError):
        Header.decode(REQUEST[:length])


def test_a_message_longer_than_it_says_is_refused() -> None:
    with pytest.raises(DecodeError, match="says 28, 29 bytes arrived"):
        Header.decode(REQUEST + b"\0")


@pytest.mark.parametrize("flag", list(Flag))
def test_each_flag_is_told_from_the_others(flag: Flag) -> None:
    only = Header.decode(REQUEST[:19] + bytes([flag]) + REQUEST[20:])
    others = Header.decode(REQUEST[:19] + bytes([0xFF & ~flag]) + REQUEST[20:])
    assert [one for one in Flag if only.has(one)] == [flag]
    assert [one for one in Flag if not others.has(one)] == [flag]


@pytest.mark.parametrize(
    "message",
    [
        REQUEST,
        REQUEST[:27],
        REQUEST + b"x",
        b"",
        b"\xff",
        REQUEST[:24] + bytes(4),
        *(REQUEST[:17] + bytes([version]) + REQUEST[18:] for version in (0x00, 0x0F, 0x10, 0x2F, 0x30, 0xFF)),
        REQUEST[:27] + b"\x1e" + b"xy",
    ],
)
def test_whether_a_header_is_readable_is_what_reading_it_shows(message: bytes) -> None:
    try:
        Header.decode(message)
    except DecodeError:
        assert not Header.is_readable(message)
    else:
        assert Header.is_readable(message)
