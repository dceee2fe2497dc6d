"""The chain of payloads behind the header, the same in both versions: each names the type of the next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

from vpnd.wire.cursor import Cursor

GENERIC_HEADER_LENGTH = 4
CRITICAL = 0x80
_GENERIC_HEADER = Struct("!BBH")

# Ours: twelve times what the longest ordinary message carries (about 20, mostly vendor IDs), and few
# enough that a 64 KiB datagram of empty payloads costs as little as any other.
MAX_PAYLOADS = 256


@dataclass(frozen=True, slots=True)
class RawPayload:
    """A payload whose body has not been looked at.

    `critical` is IKEv2's bit; the same bit is reserved in IKEv1. `next_payload` is kept only for the last
    payload of a chain, where SK and SKF use it for the first payload inside.
    """

    type: int
    body: bytes
    critical: bool = False
    next_payload: int = 0


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def decode_chain(
    first: int, data: bytes, last: frozenset[int] = frozenset(), padded: bool = False
) -> tuple[RawPayload, ...]:
    """The payloads of `data`, whose first has type `first` (RFC 7296 section 3.2, RFC 2408 section 3.2).

    A payload whose type is in `last` (SK, SKF) ends the chain, whatever its next payload field says.
    With `padded`, bytes behind the last payload are ignored: an ISAKMP message may be filled up, to the
    cipher's block (RFC 2409 appendix B) or, in clear, to a multiple of four bytes, which the header's length
    counts and no payload's does (RFC 2408 section 3.1). Raises DecodeError.
    """
    cursor = Cursor(data, "payload")
    payloads: list[RawPayload] = []
    payload_type = first
    while payload_type:
        if len(payloads) == MAX_PAYLOADS:
            raise cursor.fault("count", f"more than {MAX_PAYLOADS} in one message")
        next_payload, flags, length = cursor.unpack(_GENERIC_HEADER, "header")
        body = cursor.take(length - GENERIC_HEADER_LENGTH, "length")
        ends = payload_type in last or not next_payload
        critical = bool(flags & CRITICAL)
        payloads.append(RawPayload(payload_type, body, critical, next_payload if ends else 0))
        payload_type = 0 if ends else next_payload
    if not padded:
        cursor.expect_end()
    return tuple(payloads)


def generic_header(following: int, size: int, critical: bool = False) -> bytes:
    """4 bytes in front of a payload's body of `size` bytes; `following` is the type of the next payload."""
    return _GENERIC_HEADER.pack(following, CRITICAL if critical else 0, GENERIC_HEADER_LENGTH + size)


def encode_chain(payloads: Iterable[RawPayload]) -> tuple[int, bytes]:
    """The type of the first payload, for the header, and the bytes of all of them."""
    encoded: list[bytes] = []
    first = 0
    # From the back, where the type that a payload has to name is already known.
    for payload in reversed(tuple(payloads)):
        following = first if encoded else payload.next_payload
        encoded.append(payload.body)
        encoded.append(generic_header(following, len(payload.body), payload.critical))
        first = payload.type
    return first, b"".join(reversed(encoded))
