"""The layout of an ESP packet around its ciphertext (RFC 4303 section 2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Self

from vpnd.wire.cursor import Builder, Cursor
from vpnd.wire.errors import DecodeError

ESP_HEADER = struct.Struct("!II")
"""SPI, sequence number: for the datapath, which writes many packets into one buffer."""

ESP_TRAILER = struct.Struct("!BB")
"""Pad length, next header: the last two bytes of the plaintext."""

ESP_HEADER_LENGTH = ESP_HEADER.size
ESP_TRAILER_LENGTH = ESP_TRAILER.size

# RFC 4303 section 2.1: 0 never travels and 1 to 255 are reserved.
MIN_SPI = 256
MAX_SPI = 0xFFFFFFFF

# RFC 4303 section 2.4: the pad length is one byte.
MAX_PADDING = 255

# RFC 4303 section 2.6: a next header of 59 marks a dummy packet, which the receiver discards.
DUMMY_PACKET = 59

PADDING = bytes(range(1, MAX_PADDING + 1))
"""1, 2, 3, ...: the first n bytes of it are the default padding of length n (RFC 4303 section 2.4)."""


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |               Security Parameters Index (SPI)                 |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                      Sequence Number                          |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                    IV and payload data                        |
# ~                                                               ~
# |                                                               |
# +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |               |     Padding (0-255 bytes)                     |
# +-+-+-+-+-+-+-+-+               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                               |  Pad Length   | Next Header   |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                  Integrity Check Value (ICV)                  |
# ~                                                               ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class EspHeader:
    """The first 8 bytes; `sequence` is the low half where sequence numbers are 64 bits long."""

    spi: int
    sequence: int

    @classmethod
    def decode(cls, packet: bytes) -> Self:
        """From the front of an ESP packet. Raises DecodeError."""
        cursor = Cursor(packet, "ESP")
        return cls(cursor.u32("SPI"), cursor.u32("sequence number"))

    def encode(self) -> bytes:
        """8 bytes."""
        return Builder().u32(self.spi).u32(self.sequence).bytes()


def add_trailer(payload: bytes, next_header: int, alignment: int) -> bytes:
    """The plaintext: `payload`, padding, pad length and next header, in all a multiple of `alignment` bytes.

    `alignment` is the cipher's block and at least 4 (RFC 4303 section 2.4).
    """
    padding = -(len(payload) + ESP_TRAILER_LENGTH) % alignment
    builder = Builder().raw(payload).raw(PADDING[:padding])
    return builder.u8(padding).u8(next_header).bytes()


def strip_trailer(plaintext: bytes) -> tuple[bytes, int]:
    """The payload and the next header of a plaintext that has been authenticated.

    The padding must be 1, 2, 3, ... (RFC 4303 section 2.4). Raises DecodeError.
    """
    payload_end = len(plaintext) - ESP_TRAILER_LENGTH
    if payload_end < 0:
        raise DecodeError("ESP pad length", f"a plaintext of {len(plaintext)} bytes")
    cursor = Cursor(plaintext, "ESP")
    content = cursor.take(payload_end)
    pad_length = cursor.u8("pad length")
    next_header = cursor.u8("next header")
    inside = Cursor(content, "ESP")
    payload = inside.take(payload_end - pad_length, "pad length")
    if inside.rest() != PADDING[:pad_length]:
        raise DecodeError("ESP padding", "is not 1, 2, 3, ...")
    return payload, next_header
