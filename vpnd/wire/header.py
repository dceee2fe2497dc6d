"""The header in front of every IKE message, the same in both versions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Self

from vpnd.wire.cursor import Cursor
from vpnd.wire.errors import UnsupportedMajorVersion
from vpnd.wire.iana import IkeVersion

HEADER_LENGTH = 28
SPI_LENGTH = 8
_FIELDS = Struct("!8s8sBBBBII")
_VERSION_AT, _LENGTH_AT = 17, 24
_MAJORS = (int(IkeVersion.V1), int(IkeVersion.V2))


class Flag(IntEnum):
    """The flags of both versions: three of ISAKMP, three of IKEv2 (RFC 2408 3.1, RFC 7296 3.1).

    Numbers, not IntFlag, whose operators cost as much as reading the header.
    """

    ENCRYPTION = 1
    COMMIT = 2
    AUTH_ONLY = 4
    INITIATOR = 8
    VERSION = 16
    RESPONSE = 32


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                       IKE SA Initiator's SPI                  |
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                       IKE SA Responder's SPI                  |
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                          Message ID                           |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                            Length                             |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Header:
    """RFC 7296 section 3.1; RFC 2408 section 3.1, where the SPIs are called cookies.

    SPIs are 8 bytes; `version` is major in the high and minor in the low four bits; `length` counts the
    whole message in bytes, this header included.
    """

    spi_i: bytes
    spi_r: bytes
    next_payload: int
    version: int
    exchange: int
    flags: int
    message_id: int
    length: int

    @property
    def major(self) -> int:
        """1 for IKEv1 (ISAKMP), 2 for IKEv2."""
        return self.version >> 4

    @property
    def minor(self) -> int:
        """0 in both versions; another value is no reason to refuse (RFC 7296 section 2.5)."""
        return self.version & 0x0F

    def has(self, flag: Flag) -> bool:
        """Whether this flag is set."""
        return self.flags & flag != 0

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The header of the message `data`, all of it: `length` must be what arrived.

        Raises UnsupportedMajorVersion for any version but 1 and 2, DecodeError for the rest.
        """
        header = cls.read(Cursor(data, "header"))
        if header.major not in _MAJORS:
            raise UnsupportedMajorVersion(header.major)
        if header.length != len(data):
            raise Cursor(data, "header").fault("length", f"says {header.length}, {len(data)} bytes arrived")
        return header

    @staticmethod
    def is_readable(data: bytes) -> bool:
        """Whether `decode` reads it; at a twentieth of what the exception costs that says why not."""
        return (
            len(data) >= HEADER_LENGTH
            and data[_VERSION_AT] >> 4 in _MAJORS
            and int.from_bytes(data[_LENGTH_AT:HEADER_LENGTH], "big") == len(data)
        )

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """The fields alone, of whatever version and length: what an INVALID_MAJOR_VERSION reply needs."""
        return cls(*cursor.unpack(_FIELDS, "length"))

    def encode(self) -> bytes:
        """28 bytes."""
        return self.encode_before(self.next_payload, self.length - HEADER_LENGTH)

    def encode_before(self, first: int, size: int) -> bytes:
        """28 bytes in front of payloads of `size` bytes, the first of which has type `first`."""
        return _FIELDS.pack(
            self.spi_i,
            self.spi_r,
            first,
            self.version,
            self.exchange,
            self.flags,
            self.message_id,
            HEADER_LENGTH + size,
        )
