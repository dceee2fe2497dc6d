"""The Security Association payload of IKEv2: proposals, and the transforms inside them."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from vpnd.wire.attributes import TV, Attribute, decode_attributes, encode_attributes
from vpnd.wire.cursor import Cursor
from vpnd.wire.iana import Payload2
from vpnd.wire.substructures import (
    MORE_PROPOSALS,
    MORE_TRANSFORMS,
    decode_substructures,
    encode_substructures,
)

KEY_LENGTH_ATTRIBUTE = 14

# The proposal number is one byte and counts up by one from 1 (RFC 7296 section 3.3.1).
MAX_PROPOSALS = 255

# Ours: of all proposals of a payload together. An honest one has some twenty; each costs us the same work.
MAX_TRANSFORMS = 255

_TRANSFORM = Struct("!BxH")
_KEY_LENGTH = Struct("!HH")
_PROPOSAL = Struct("!BBBB")


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Last Substruc |   RESERVED    |        Transform Length       |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |Transform Type |   RESERVED    |          Transform ID         |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                      Transform Attributes                     ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Transform:
    """One algorithm (RFC 7296 section 3.3.2).

    `key_length` is in bits, None if the attribute is absent. `attributes` holds all others, a second Key
    Length or one in the long form among them: a transform that has any is not understood (section 3.3.6).
    """

    type: int
    id: int
    key_length: int | None = None
    attributes: tuple[Attribute, ...] = ()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From the bytes behind the transform's length. Raises DecodeError."""
        cursor = Cursor(body, "transform")
        transform_type, transform_id = cursor.unpack(_TRANSFORM, "header")
        key_length: int | None = None
        others: list[Attribute] = []
        for attribute in decode_attributes(cursor.rest()):
            value = attribute.value
            if attribute.type == KEY_LENGTH_ATTRIBUTE and isinstance(value, int) and key_length is None:
                key_length = value
            else:
                others.append(attribute)
        return cls(transform_type, transform_id, key_length, tuple(others))

    def encode(self) -> bytes:
        """The bytes behind the transform's length."""
        attributes = encode_attributes(self.attributes)
        if self.key_length is not None:
            attributes = _KEY_LENGTH.pack(TV | KEY_LENGTH_ATTRIBUTE, self.key_length) + attributes
        return _TRANSFORM.pack(self.type, self.id) + attributes


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Last Substruc |   RESERVED    |         Proposal Length       |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Proposal Num  |  Protocol ID  |    SPI Size   |Num  Transforms|
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                        SPI (variable)                         ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                        <Transforms>                           ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class ProposalPart:
    """One set of algorithms for one protocol (RFC 7296 section 3.3.1).

    `spi` is empty in IKE_SA_INIT, 8 bytes where an IKE SA is rekeyed, 4 bytes for ESP and AH; the wire
    leaves it to the exchange to insist.
    """

    number: int
    protocol: int
    spi: bytes
    transforms: tuple[Transform, ...]

    @classmethod
    def decode(cls, body: bytes, most: int = MAX_TRANSFORMS) -> Self:
        """From the bytes behind the proposal's length, with `most` transforms at most. Raises DecodeError."""
        cursor = Cursor(body, "proposal")
        number, protocol, spi_size, count = cursor.unpack(_PROPOSAL, "header")
        if count > most:
            raise cursor.fault("number of transforms", f"more than {MAX_TRANSFORMS} in all")
        spi = cursor.take(spi_size, "SPI")
        bodies = decode_substructures(cursor.rest(), "transform", MORE_TRANSFORMS, count)
        if len(bodies) != count:
            raise cursor.fault("number of transforms", f"says {count}, {len(bodies)} are there")
        return cls(number, protocol, spi, tuple(Transform.decode(part) for part in bodies))

    def encode(self) -> bytes:
        """The bytes behind the proposal's length."""
        header = _PROPOSAL.pack(self.number, self.protocol, len(self.spi), len(self.transforms))
        parts = tuple(transform.encode() for transform in self.transforms)
        return header + self.spi + encode_substructures(parts, MORE_TRANSFORMS)


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                          <Proposals>                          ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Sa:
    """The proposals of the initiator, or the one that the responder chose (RFC 7296 section 3.3)."""

    payload_type: ClassVar[int] = Payload2.SA

    proposals: tuple[ProposalPart, ...]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        bodies = decode_substructures(body, "proposal", MORE_PROPOSALS, MAX_PROPOSALS)
        return cls(_decode_proposals(bodies))

    def encode(self) -> bytes:
        """The payload's body."""
        return encode_substructures(tuple(part.encode() for part in self.proposals), MORE_PROPOSALS)


def _decode_proposals(bodies: tuple[bytes, ...]) -> tuple[ProposalPart, ...]:
    """All proposals of a payload; no transform is looked at once there are too many. Raises DecodeError."""
    proposals: list[ProposalPart] = []
    left = MAX_TRANSFORMS
    for body in bodies:
        proposals.append(ProposalPart.decode(body, left))
        left -= len(proposals[-1].transforms)
    return tuple(proposals)
