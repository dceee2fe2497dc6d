"""Data attributes of transforms: a type with a short value (TV) or with a length and a value (TLV)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

from vpnd.wire.cursor import Cursor

TV = 0x8000
MAX_TV_VALUE = 0xFFFF
MAX_NUMBER = 2**64 - 1

# Ours: a phase-1 transform has six or seven attributes; nothing known has more than ten.
MAX_ATTRIBUTES = 64

# The type with its form, and the value or its length.
_WORDS = Struct("!HH")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: an int travelled as TV, bytes travelled as TLV (RFC 2408 section 3.3, RFC 7296 3.3.5).

    Peers send the same number in either form; `number` reads both.
    """

    type: int
    value: int | bytes

    @property
    def number(self) -> int:
        """The value as a number, whichever form it came in: a TLV value of no bytes is 0.

        What is beyond 64 bits, as no real value is, reads as the largest 64-bit number, so that a peer
        cannot make anyone print or multiply a number of 65535 bytes.
        """
        if isinstance(self.value, int):
            return self.value
        return min(int.from_bytes(self.value, "big"), MAX_NUMBER)


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |A|       Attribute Type        |    AF=0  Attribute Length     |
# |F|                             |    AF=1  Attribute Value      |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                   AF=0  Attribute Value                       |
# |                   AF=1  Not Transmitted                       |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def decode_attributes(data: bytes) -> tuple[Attribute, ...]:
    """All attributes of `data`, in order; both forms for any type. Raises DecodeError."""
    cursor = Cursor(data, "attribute")
    attributes: list[Attribute] = []
    while cursor.remaining:
        if len(attributes) == MAX_ATTRIBUTES:
            raise cursor.fault("count", f"more than {MAX_ATTRIBUTES} in one transform")
        word, value = cursor.unpack(_WORDS, "header")
        attributes.append(Attribute(word & ~TV, value if word & TV else cursor.take(value, "value")))
    return tuple(attributes)


def encode_attributes(attributes: Iterable[Attribute]) -> bytes:
    """The attributes one after the other: a number up to 65535 as TV, above as TLV of 4 bytes."""
    encoded = b""
    for attribute in attributes:
        value = attribute.value
        if isinstance(value, int) and value > MAX_TV_VALUE:
            value = value.to_bytes(4, "big")
        if isinstance(value, int):
            encoded += _WORDS.pack(TV | attribute.type, value)
        else:
            encoded += _WORDS.pack(attribute.type, len(value)) + value
    return encoded
