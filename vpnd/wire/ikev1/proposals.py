"""The Security Association payload of IKEv1: proposals, and the transforms inside them."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from vpnd.wire.attributes import Attribute, decode_attributes, encode_attributes
from vpnd.wire.cursor import Cursor
from vpnd.wire.iana import Payload1
from vpnd.wire.substructures import (
    MORE_PROPOSALS,
    MORE_TRANSFORMS,
    decode_substructures,
    encode_substructures,
)

# RFC 2407 section 4.2: the IPsec DOI, and the only situation in use.
IPSEC_DOI = 1
SIT_IDENTITY_ONLY = 1

# RFC 2408 section 3.5: the SPI of a phase 1 proposal may have up to 16 bytes, and its content is ignored.
MAX_SPI = 16

# The proposal number is one byte; several proposals may share a number (RFC 2408 section 4.2). Ours: no
# more proposals than numbers.
MAX_PROPOSALS = 255

# Ours: of all proposals of a payload together. An honest one has some twenty; each costs us the same work.
MAX_TRANSFORMS = 255

_TRANSFORM = Struct("!BBxx")
_PROPOSAL = Struct("!BBBB")
_SA = Struct("!II")


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ! Next Payload  !   RESERVED    !         Payload Length        !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !  Transform #  !  Transform-Id !           RESERVED2           !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                        SA Attributes                          ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class TransformPart:
    """One complete choice of algorithms, given by its attributes (RFC 2408 section 3.6)."""

    number: int
    id: int
    attributes: tuple[Attribute, ...] = ()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From the bytes behind the transform's length. Raises DecodeError."""
        number, transform_id = Cursor(body, "transform").unpack(_TRANSFORM, "header")
        return cls(number, transform_id, decode_attributes(body[_TRANSFORM.size :]))

    def encode(self) -> bytes:
        """The bytes behind the transform's length."""
        return _TRANSFORM.pack(self.number, self.id) + encode_attributes(self.attributes)


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ! Next Payload  !   RESERVED    !         Payload Length        !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !  Proposal #   !  Protocol-Id  !    SPI Size   !# of Transforms!
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !                        SPI (variable)                         !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class ProposalPart:
    """The transforms for one protocol, of which the responder picks one (RFC 2408 section 3.5).

    `spi` is 4 bytes for ESP and AH; in phase 1 it is ignored, and peers send none or their 8-byte cookie.
    """

    number: int
    protocol: int
    spi: bytes
    transforms: tuple[TransformPart, ...]

    @classmethod
    def decode(cls, body: bytes, most: int = MAX_TRANSFORMS) -> Self:
        """From the bytes behind the proposal's length, with `most` transforms at most. Raises DecodeError."""
        cursor = Cursor(body, "proposal")
        number, protocol, spi_size, count = cursor.unpack(_PROPOSAL, "header")
        if count > most:
            raise cursor.fault("number of transforms", f"more than {MAX_TRANSFORMS} in all")
        if spi_size > MAX_SPI:
            raise cursor.fault("SPI size", f"{spi_size} bytes")
        spi = cursor.take(spi_size, "SPI")
        bodies = decode_substructures(cursor.rest(), "transform", MORE_TRANSFORMS, count)
        if len(bodies) != count:
            raise cursor.fault("number of transforms", f"says {count}, {len(bodies)} are there")
        return cls(number, protocol, spi, tuple(TransformPart.decode(part) for part in bodies))

    def encode(self) -> bytes:
        """The bytes behind the proposal's length."""
        header = _PROPOSAL.pack(self.number, self.protocol, len(self.spi), len(self.transforms))
        parts = tuple(transform.encode() for transform in self.transforms)
        return header + self.spi + encode_substructures(parts, MORE_TRANSFORMS)


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ! Next Payload  !   RESERVED    !         Payload Length        !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !              Domain of Interpretation  (DOI)                  !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !                           Situation                           !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                          <Proposals>                          ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Sa:
    """The proposals of the initiator, or the one that the responder chose (RFC 2408 3.4, RFC 2407 4.6.1).

    Phase 1 authenticates the initiator's body as it travelled: use `RawPayload.body` for that.
    """

    payload_type: ClassVar[int] = Payload1.SA

    doi: int
    situation: int
    proposals: tuple[ProposalPart, ...]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError.

        A situation with more than identities in it is followed by labels (RFC 2407 section 4.6.1), another
        DOI by something unknown; neither can be read.
        """
        cursor = Cursor(body, "SA")
        doi, situation = cursor.unpack(_SA, "header")
        if doi != IPSEC_DOI:
            raise cursor.fault("DOI", str(doi))
        if situation != SIT_IDENTITY_ONLY:
            raise cursor.fault("situation", str(situation))
        bodies = decode_substructures(cursor.rest(), "proposal", MORE_PROPOSALS, MAX_PROPOSALS)
        return cls(doi, situation, _decode_proposals(bodies))

    def encode(self) -> bytes:
        """The payload's body."""
        parts = tuple(part.encode() for part in self.proposals)
        return _SA.pack(self.doi, self.situation) + encode_substructures(parts, MORE_PROPOSALS)


def _decode_proposals(bodies: tuple[bytes, ...]) -> tuple[ProposalPart, ...]:
    """All proposals of a payload; no transform is looked at once there are too many. Raises DecodeError."""
    proposals: list[ProposalPart] = []
    left = MAX_TRANSFORMS
    for body in bodies:
        proposals.append(ProposalPart.decode(body, left))
        left -= len(proposals[-1].transforms)
    return tuple(proposals)
