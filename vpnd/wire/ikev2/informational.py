"""The payloads by which IKEv2 peers tell each other things: NOTIFY, DELETE, vendor ID, configuration."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from vpnd.wire.cursor import Builder, Cursor
from vpnd.wire.iana import Payload2, Protocol

ESP_SPI_LENGTH = 4

# Ours: far more than any client asks for (some tens), and few enough that reading them costs nothing.
MAX_CONFIGURATION_ATTRIBUTES = 256
CONFIGURATION_TYPE_MASK = 0x7FFF

# Of a notify and of a delete: the protocol, the SPI size, and the type or the number of SPIs.
_HEADER = Struct("!BBH")


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |  Protocol ID  |   SPI Size    |      Notify Message Type      |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                Security Parameter Index (SPI)                 ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                       Notification Data                       ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Notify:
    """An error (type below 16384) or a status (RFC 7296 section 3.10).

    `protocol` is ignored on receipt where `spi` is empty.
    """

    payload_type: ClassVar[int] = Payload2.NOTIFY

    type: int
    data: bytes = b""
    protocol: int = 0
    spi: bytes = b""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "notify")
        protocol, spi_size, notify_type = cursor.unpack(_HEADER, "header")
        spi = cursor.take(spi_size, "SPI")
        return cls(notify_type, cursor.rest(), protocol, spi)

    def encode(self) -> bytes:
        """The payload's body."""
        return _HEADER.pack(self.protocol, len(self.spi), self.type) + self.spi + self.data


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Protocol ID   |   SPI Size    |          Num of SPIs          |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~               Security Parameter Index(es) (SPI)              ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Delete:
    """The sender has removed these SAs (RFC 7296 section 3.11): its inbound SPIs, all of one length.

    For the IKE SA itself `spis` is empty. How many there may be is bounded by the bytes that hold them.
    """

    payload_type: ClassVar[int] = Payload2.DELETE

    protocol: int
    spis: tuple[bytes, ...] = ()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "delete")
        protocol, spi_size, count = cursor.unpack(_HEADER, "header")
        spis = cursor.run(count, spi_size, "SPI")
        cursor.expect_end()
        return cls(protocol, spis)

    def encode(self) -> bytes:
        """The payload's body."""
        spi_size = 0 if self.protocol == Protocol.IKE else ESP_SPI_LENGTH
        for spi in self.spis:
            spi_size = len(spi)
        return _HEADER.pack(self.protocol, spi_size, len(self.spis)) + b"".join(self.spis)


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                        Vendor ID (VID)                        ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class VendorId:
    """A constant by which an implementation knows its like (RFC 7296 section 3.12)."""

    payload_type: ClassVar[int] = Payload2.VENDOR

    data: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body; any will do."""
        return cls(body)

    def encode(self) -> bytes:
        """The payload's body."""
        return self.data


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |R|         Attribute Type      |            Length             |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                             Value                             ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class ConfigurationAttribute:
    """One value asked for or given (RFC 7296 section 3.15.1), 0 to 65535 bytes; the R bit is reserved."""

    type: int
    value: bytes = b""


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |   CFG Type    |                    RESERVED                   |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                   Configuration Attributes                    ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Configuration:
    """Addresses and the like for a remote client (RFC 7296 section 3.15); gateways read over it."""

    payload_type: ClassVar[int] = Payload2.CP

    type: int
    attributes: tuple[ConfigurationAttribute, ...] = ()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "configuration")
        cfg_type = cursor.u8("type")
        cursor.take(3, "reserved")
        attributes: list[ConfigurationAttribute] = []
        while cursor.remaining:
            if len(attributes) == MAX_CONFIGURATION_ATTRIBUTES:
                raise cursor.fault("count", f"more than {MAX_CONFIGURATION_ATTRIBUTES} attributes")
            attribute_type = cursor.u16("attribute type") & CONFIGURATION_TYPE_MASK
            value = cursor.take(cursor.u16("attribute length"), "attribute value")
            attributes.append(ConfigurationAttribute(attribute_type, value))
        return cls(cfg_type, tuple(attributes))

    def encode(self) -> bytes:
        """The payload's body."""
        builder = Builder().u8(self.type).raw(bytes(3))
        for attribute in self.attributes:
            builder.u16(attribute.type).u16(len(attribute.value)).raw(attribute.value)
        return builder.bytes()
