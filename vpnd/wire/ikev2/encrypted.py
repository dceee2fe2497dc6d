"""The payloads that hold other payloads sealed: SK, and SKF for a fragment of a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from vpnd.wire.cursor import Builder, Cursor
from vpnd.wire.iana import Payload2


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                     Initialization Vector                     |
# |         (length is block size for encryption algorithm)       |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                    Encrypted IKE Payloads                     ~
# +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |               |             Padding (0-255 octets)            |
# +-+-+-+-+-+-+-+-+                               +-+-+-+-+-+-+-+-+
# |                                               |  Pad Length   |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                    Integrity Checksum Data                    ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Encrypted:
    """SK (RFC 7296 section 3.14): `body` is IV, ciphertext and checksum as the cipher lays them out.

    `next_payload` is the type of the first payload inside. It is always the last payload of its message.
    """

    payload_type: ClassVar[int] = Payload2.SK

    next_payload: int
    body: bytes

    @classmethod
    def decode(cls, body: bytes, next_payload: int = 0) -> Self:
        """From a payload's body and the next payload field in front of it; any will do."""
        return cls(next_payload, body)

    def encode(self) -> bytes:
        """The payload's body."""
        return self.body


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |        Fragment Number        |        Total Fragments        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                     Initialization Vector                     |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                      Encrypted content                        ~
# +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |               |             Padding (0-255 octets)            |
# +-+-+-+-+-+-+-+-+                               +-+-+-+-+-+-+-+-+
# |                                               |  Pad Length   |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                    Integrity Checksum Data                    ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class EncryptedFragment:
    """SKF (RFC 7383 section 2.5): fragment `number` of `total`, counted from 1.

    `next_payload` is the type of the first payload inside in fragment 1, and 0 in the others. `body` is IV,
    ciphertext and checksum.
    """

    payload_type: ClassVar[int] = Payload2.SKF

    next_payload: int
    number: int
    total: int
    body: bytes

    @classmethod
    def decode(cls, body: bytes, next_payload: int = 0) -> Self:
        """From a payload's body and the next payload field in front of it. Raises DecodeError."""
        cursor = Cursor(body, "SKF")
        number = cursor.u16("fragment number")
        total = cursor.u16("total fragments")
        if not 1 <= number <= total:
            raise cursor.fault("fragment number", f"{number} of {total}")
        return cls(next_payload, number, total, cursor.rest())

    def encode(self) -> bytes:
        """The payload's body."""
        return Builder().u16(self.number).u16(self.total).raw(self.body).bytes()
