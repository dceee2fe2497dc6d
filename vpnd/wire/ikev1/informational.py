"""The payloads by which IKEv1 peers tell each other things, see through NAT and cut messages up."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from vpnd.wire.cursor import Builder, Cursor
from vpnd.wire.iana import IdType, Payload1, Protocol
from vpnd.wire.ikev1.proposals import IPSEC_DOI, MAX_SPI

ISAKMP_SPI_LENGTH = 16
ESP_SPI_LENGTH = 4

# The lowest bit of the last byte in front of a fragment's data.
LAST_FRAGMENT = 1

# Of a notify and of a delete: the DOI, the protocol, the SPI size, and the type or the number of SPIs.
_HEADER = Struct("!IBBH")

ADDRESS_LENGTHS: dict[int, int] = {IdType.IPV4_ADDR: 4, IdType.IPV6_ADDR: 16}


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ! Next Payload  !   RESERVED    !         Payload Length        !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !              Domain of Interpretation  (DOI)                  !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !  Protocol-ID  !   SPI Size    !      Notify Message Type      !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                Security Parameter Index (SPI)                 ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                       Notification Data                       ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Notify:
    """An error (type below 16384) or a status (RFC 2408 section 3.14).

    `spi` has 0 to 16 bytes: both cookies where it speaks of the ISAKMP SA.
    """

    payload_type: ClassVar[int] = Payload1.NOTIFY

    type: int
    data: bytes = b""
    protocol: int = Protocol.IKE
    spi: bytes = b""
    doi: int = IPSEC_DOI

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "notify")
        doi, protocol, spi_size, notify_type = cursor.unpack(_HEADER, "header")
        if spi_size > MAX_SPI:
            raise cursor.fault("SPI size", f"{spi_size} bytes")
        spi = cursor.take(spi_size, "SPI")
        return cls(notify_type, cursor.rest(), protocol, spi, doi)

    def encode(self) -> bytes:
        """The payload's body."""
        header = _HEADER.pack(self.doi, self.protocol, len(self.spi), self.type)
        return header + self.spi + self.data


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ! Next Payload  !   RESERVED    !         Payload Length        !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !              Domain of Interpretation  (DOI)                  !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !  Protocol-Id  !   SPI Size    !           # of SPIs           !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~               Security Parameter Index(es) (SPI)              ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Delete:
    """The sender has removed these SAs (RFC 2408 section 3.15): its inbound SPIs, all of one length.

    For the ISAKMP SA the SPI is both cookies. How many SPIs there may be is bounded by the bytes that hold
    them.
    """

    payload_type: ClassVar[int] = Payload1.DELETE

    protocol: int
    spis: tuple[bytes, ...]
    doi: int = IPSEC_DOI

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "delete")
        doi, protocol, spi_size, count = cursor.unpack(_HEADER, "header")
        if spi_size > MAX_SPI:
            raise cursor.fault("SPI size", f"{spi_size} bytes")
        spis = cursor.run(count, spi_size, "SPI")
        cursor.expect_end()
        return cls(protocol, spis, doi)

    def encode(self) -> bytes:
        """The payload's body."""
        spi_size = ISAKMP_SPI_LENGTH if self.protocol == Protocol.IKE else ESP_SPI_LENGTH
        for spi in self.spis:
            spi_size = len(spi)
        return _HEADER.pack(self.doi, self.protocol, spi_size, len(self.spis)) + b"".join(self.spis)


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |   RESERVED    |        Payload length         |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                 HASH of the address and port                  ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class NatD:
    """HASH(CKY-I | CKY-R | IP | port), the other end's first, then one for each own (RFC 3947 section 3.2).

    `draft` is whether it has the number that the drafts before the RFC gave it.
    """

    payload_type: ClassVar[int] = Payload1.NAT_D

    data: bytes
    draft: bool = False

    @classmethod
    def decode(cls, body: bytes, draft: bool = False) -> Self:
        """From a payload's body; any will do."""
        return cls(body, draft)

    def encode(self) -> bytes:
        """The payload's body."""
        return self.data


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |   RESERVED    |        Payload length         |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |   ID Type     |  RESERVED     |            RESERVED           |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |           IPv4 (4 octets) or IPv6 address (16 octets)         |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class NatOa:
    """An address as its owner sees it (RFC 3947 section 5.2): `type` ID_IPV4_ADDR or ID_IPV6_ADDR."""

    payload_type: ClassVar[int] = Payload1.NAT_OA

    type: int
    address: bytes
    draft: bool = False

    @classmethod
    def decode(cls, body: bytes, draft: bool = False) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "NAT-OA")
        id_type = cursor.u8("ID type")
        cursor.take(3, "reserved")
        length = ADDRESS_LENGTHS.get(id_type)
        if length is None:
            raise cursor.fault("ID type", str(id_type))
        address = cursor.take(length, "address")
        cursor.expect_end()
        return cls(id_type, address, draft)

    def encode(self) -> bytes:
        """The payload's body."""
        return Builder().u8(self.type).raw(bytes(3)).raw(self.address).bytes()


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ! Next Payload  !   RESERVED    !         Payload Length        !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !          Fragment ID          ! Fragment Num  !     Flags     !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                         Fragment Data                         ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of a whole ISAKMP message, its header included, counted from 1 ([MS-IKEE] section 2.2.6).

    Nothing protects it: it is the only payload of an unencrypted message.
    """

    payload_type: ClassVar[int] = Payload1.FRAGMENT

    id: int
    number: int
    last: bool
    data: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "fragment")
        fragment_id = cursor.u16("ID")
        number = cursor.u8("number")
        last = bool(cursor.u8("flags") & LAST_FRAGMENT)
        if number == 0:
            raise cursor.fault("number", "0")
        return cls(fragment_id, number, last, cursor.rest())

    def encode(self) -> bytes:
        """The payload's body."""
        builder = Builder().u16(self.id).u8(self.number).u8(LAST_FRAGMENT if self.last else 0)
        return builder.raw(self.data).bytes()
