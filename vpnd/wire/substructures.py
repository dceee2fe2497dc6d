"""Proposals and transforms stand one after the other inside an SA payload, the same way in both versions."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from vpnd.wire.cursor import Cursor

LAST = 0
MORE_PROPOSALS = 2
MORE_TRANSFORMS = 3
SUBSTRUCTURE_HEADER_LENGTH = 4
_HEADER = Struct("!BxH")


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Last Substruc |   RESERVED    |             Length            |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def decode_substructures(data: bytes, where: str, more: int, limit: int) -> tuple[bytes, ...]:
    """The bodies of the substructures that fill `data`, without their 4-byte headers.

    `more` marks each but the last, which 0 marks; `limit` is how many there may be (RFC 7296 section 3.3.1,
    RFC 2408 section 3.5). Raises DecodeError.
    """
    cursor = Cursor(data, where)
    bodies: list[bytes] = []
    while cursor.remaining:
        if len(bodies) == limit:
            raise cursor.fault("count", f"more than {limit}")
        marker, length = cursor.unpack(_HEADER, "header")
        bodies.append(cursor.take(length - SUBSTRUCTURE_HEADER_LENGTH, "length"))
        if marker != (more if cursor.remaining else LAST):
            raise cursor.fault("last substructure", f"{marker} with {cursor.remaining} bytes left")
    return tuple(bodies)


def encode_substructures(bodies: Sequence[bytes], more: int) -> bytes:
    """`bodies` one after the other, each behind its 4-byte header."""
    last = len(bodies) - 1
    return b"".join(
        _HEADER.pack(more if index < last else LAST, SUBSTRUCTURE_HEADER_LENGTH + len(body)) + body
        for index, body in enumerate(bodies)
    )
