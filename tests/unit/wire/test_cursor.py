"""Cursor and Builder: the one place that indexes bytes."""

from struct import Struct
from typing import cast

import pytest

from vpnd.wire.cursor import Builder, Cursor
from vpnd.wire.errors import DecodeError


def test_numbers_are_big_endian_and_read_in_order() -> None:
    cursor = Cursor(bytes.fromhex("01 0203 04050607 08090a0b0c0d0e0f ff"))
    assert cursor.u8() == 0x01
    assert cursor.u16() == 0x0203
    assert cursor.u32() == 0x04050607
    assert cursor.u64() == 0x08090A0B0C0D0E0F
    assert cursor.remaining == 1
    assert cursor.rest() == b"\xff"
    assert cursor.rest() == b""
    cursor.expect_end()


@pytest.mark.parametrize(("width", "name"), [(1, "u8"), (2, "u16"), (4, "u32"), (8, "u64")])
def test_a_number_cut_short_is_a_decode_error(width: int, name: str) -> None:
    for length in range(width):
        with pytest.raises(DecodeError, match=f"{width} bytes are announced, {length} are there"):
            getattr(Cursor(bytes(length)), name)()


@pytest.mark.parametrize("length", [-(2**32), -1, 4, 2**32])
def test_take_refuses_lengths_that_are_not_there(length: int) -> None:
    cursor = Cursor(b"abc", "Nonce")
    with pytest.raises(DecodeError) as caught:
        cursor.take(length, "data")
    assert caught.value.field == "Nonce data"
    assert cursor.rest() == b"abc", "a refused read consumes nothing"


def test_take_gives_bytes_even_of_a_buffer_that_changes_later() -> None:
    buffer = bytearray(b"abcd")
    taken = Cursor(cast(bytes, buffer)).take(2)
    buffer[0] = 0
    assert taken == b"ab"
    assert type(taken) is bytes


def test_a_substructure_cannot_read_past_itself() -> None:
    cursor = Cursor(b"\x01\x02\x03\x04")
    inside = cursor.within(2, "selector")
    assert inside.u16() == 0x0102
    with pytest.raises(DecodeError, match="selector octet"):
        inside.u8()
    assert cursor.u16() == 0x0304


def test_a_substructure_longer_than_its_holder_is_refused() -> None:
    with pytest.raises(DecodeError, match="selector length"):
        Cursor(b"\x01").within(2, "selector")


def test_expect_end_counts_what_is_too_many() -> None:
    with pytest.raises(DecodeError, match="Delete end: 3 bytes too many"):
        Cursor(b"abc", "Delete").expect_end()


def test_builder_writes_what_cursor_reads() -> None:
    builder = Builder().u8(1).u16(0x0203).u32(0x04050607).u64(0x08090A0B0C0D0E0F).raw(b"\xff")
    assert builder.bytes() == bytes.fromhex("01 0203 04050607 08090a0b0c0d0e0f ff")


@pytest.mark.parametrize(("write", "value"), [("u8", 256), ("u16", 65536), ("u32", 2**32), ("u8", -1)])
def test_a_number_that_does_not_fit_is_the_callers_fault(write: str, value: int) -> None:
    with pytest.raises(OverflowError):
        getattr(Builder(), write)(value)


@pytest.mark.parametrize(
    ("count", "size", "pieces"),
    [(2, 2, (b"ab", b"cd")), (0, 4, ()), (1, 4, (b"abcd",)), (65535, 0, ())],
)
def test_a_run_of_pieces(count: int, size: int, pieces: tuple[bytes, ...]) -> None:
    cursor = Cursor(b"abcdef")
    assert cursor.run(count, size) == pieces
    assert cursor.remaining == 6 - len(b"".join(pieces))


def test_a_run_that_is_longer_than_its_bytes_is_a_fault_of_its_field() -> None:
    with pytest.raises(DecodeError, match="SPI"):
        Cursor(b"abcdef", "delete").run(2, 4, "SPI")


def test_neighbouring_fields_at_once() -> None:
    cursor = Cursor(bytes.fromhex("01 ff 0203 04"), "payload")
    assert cursor.unpack(Struct("!BxH")) == (1, 0x0203)
    assert cursor.rest() == b"\x04"


@pytest.mark.parametrize("length", range(4))
def test_fields_that_are_not_all_there_are_none(length: int) -> None:
    cursor = Cursor(bytes(length), "payload")
    with pytest.raises(DecodeError, match=f"payload header: 4 bytes are announced, {length} are there"):
        cursor.unpack(Struct("!BxH"), "header")
    assert cursor.remaining == length
