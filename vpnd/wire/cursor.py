"""Reads and writes of big-endian fields: the one place that indexes bytes."""

from __future__ import annotations

from struct import Struct
from typing import Any

from vpnd.wire.errors import DecodeError


class Cursor:
    """Reads a run of bytes from front to back; every read past the end is a DecodeError.

    `where` is what the bytes are ("SA proposal"); together with a read's `field` it names the place in
    the RFC's drawing that could not be read.
    """

    __slots__ = ("_data", "_offset", "_where")

    def __init__(self, data: bytes, where: str = "") -> None:
        self._data = data
        self._offset = 0
        self._where = where

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._offset

    def u8(self, field: str = "octet") -> int:
        """One byte."""
        at = self._offset
        if at >= len(self._data):
            raise self.fault(field, "1 bytes are announced, 0 are there")
        self._offset = at + 1
        return self._data[at]

    def u16(self, field: str = "16-bit number") -> int:
        """Two bytes, most significant first."""
        return int.from_bytes(self.take(2, field), "big")

    def u32(self, field: str = "32-bit number") -> int:
        """Four bytes, most significant first."""
        return int.from_bytes(self.take(4, field), "big")

    def u64(self, field: str = "64-bit number") -> int:
        """Eight bytes, most significant first."""
        return int.from_bytes(self.take(8, field), "big")

    def unpack(self, layout: Struct, field: str = "fields") -> tuple[Any, ...]:
        """Neighbouring fields at once, several times as fast as one by one: what a message has most of."""
        start = self._offset
        end = start + layout.size
        if end > len(self._data):
            raise self.fault(field, f"{layout.size} bytes are announced, {self.remaining} are there")
        self._offset = end
        return layout.unpack_from(self._data, start)

    def take(self, length: int, field: str = "data") -> bytes:
        """The next `length` bytes. A negative length, as a peer's length field may yield, is a fault."""
        start = self._offset
        end = start + length
        if not start <= end <= len(self._data):
            raise self.fault(field, f"{length} bytes are announced, {self.remaining} are there")
        self._offset = end
        return bytes(self._data[start:end])

    def run(self, count: int, size: int, field: str = "data") -> tuple[bytes, ...]:
        """The next `count` pieces of `size` bytes each, taken at once: there may be thousands.

        Pieces of no length are none, however many are announced; only bytes may make us store things.
        """
        if not size:
            return ()
        data = self.take(count * size, field)
        return tuple([data[at : at + size] for at in range(0, len(data), size)])

    def rest(self) -> bytes:
        """All that is left, which may be nothing."""
        start, self._offset = self._offset, len(self._data)
        return bytes(self._data[start:])

    def within(self, length: int, where: str) -> Cursor:
        """A cursor over the next `length` bytes alone, so that a substructure cannot read past itself."""
        return Cursor(self.take(length, f"{where} length"), where)

    def expect_end(self) -> None:
        """Refuse bytes that no field explains."""
        if self.remaining:
            raise self.fault("end", f"{self.remaining} bytes too many")

    def fault(self, field: str, reason: str) -> DecodeError:
        """The exception to raise for `field` here."""
        return DecodeError(f"{self._where} {field}".strip(), reason)


class Builder:
    """Writes fields one after the other. A number that its field cannot hold raises OverflowError."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def u8(self, value: int) -> Builder:
        """One byte."""
        return self.raw(value.to_bytes(1, "big"))

    def u16(self, value: int) -> Builder:
        """Two bytes, most significant first."""
        return self.raw(value.to_bytes(2, "big"))

    def u32(self, value: int) -> Builder:
        """Four bytes, most significant first."""
        return self.raw(value.to_bytes(4, "big"))

    def u64(self, value: int) -> Builder:
        """Eight bytes, most significant first."""
        return self.raw(value.to_bytes(8, "big"))

    def raw(self, data: bytes) -> Builder:
        """`data` as it is."""
        self._data += data
        return self

    def bytes(self) -> bytes:
        """What was written."""
        return bytes(self._data)
