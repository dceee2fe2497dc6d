"""The Traffic Selector payloads of IKEv2: which packets a CHILD_SA is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from types import MappingProxyType
from typing import ClassVar, Self

from vpnd.wire.cursor import Cursor
from vpnd.wire.iana import Payload2, TsType

SELECTOR_HEADER_LENGTH = 4
_HEADER = Struct("!BBH")
_PORTS = Struct("!HH")

ADDRESS_LENGTHS: Mapping[int, int] = MappingProxyType({TsType.IPV4_ADDR_RANGE: 4, TsType.IPV6_ADDR_RANGE: 16})


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |   TS Type     |IP Protocol ID*|       Selector Length         |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |           Start Port*         |           End Port*           |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                         Starting Address*                     ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                         Ending Address*                       ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class TrafficSelector:
    """A range of addresses and ports of one protocol, 0 being any (RFC 7296 section 3.13.1).

    Addresses are 4 or 16 bytes, as `ts_type` says. For every other type (RFC 4595, RFC 9478) `start` holds
    all that follows the length, and ports and `end` are zero and empty: `is_range` tells them apart.
    Whether a range runs backwards is the reader's business; ports 65535 to 0 mean OPAQUE.
    """

    ts_type: int
    protocol: int
    port_start: int
    port_end: int
    start: bytes
    end: bytes

    @property
    def is_range(self) -> bool:
        """Whether this is a range of IP addresses, the only kind that vpnd negotiates."""
        return self.ts_type in ADDRESS_LENGTHS

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """The next selector. Raises DecodeError."""
        ts_type, protocol, length = cursor.unpack(_HEADER, "header")
        part = cursor.within(length - SELECTOR_HEADER_LENGTH, "selector")
        address_length = ADDRESS_LENGTHS.get(ts_type)
        if address_length is None:
            return cls(ts_type, protocol, 0, 0, part.rest(), b"")
        port_start, port_end = part.unpack(_PORTS, "ports")
        start = part.take(address_length, "starting address")
        end = part.take(address_length, "ending address")
        part.expect_end()
        return cls(ts_type, protocol, port_start, port_end, start, end)

    def encode(self) -> bytes:
        """The selector's bytes, header included."""
        ports = _PORTS.pack(self.port_start, self.port_end) if self.is_range else b""
        body = ports + self.start + self.end
        return _HEADER.pack(self.ts_type, self.protocol, SELECTOR_HEADER_LENGTH + len(body)) + body


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Number of TSs |                 RESERVED                      |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                       <Traffic Selectors>                     ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Ts:
    """The selectors of one side (RFC 7296 section 3.13), at most 255; the payload is TsI or TsR."""

    selectors: tuple[TrafficSelector, ...]

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "TS")
        count = cursor.u8("number of TSs")
        cursor.take(3, "reserved")
        selectors = tuple(TrafficSelector.read(cursor) for _ in range(count))
        cursor.expect_end()
        return cls(selectors)

    def encode(self) -> bytes:
        """The payload's body."""
        count = len(self.selectors).to_bytes(1, "big")
        return count + bytes(3) + b"".join(selector.encode() for selector in self.selectors)


@dataclass(frozen=True, slots=True)
class TsI(Ts):
    """What the exchange's initiator protects: the source of its packets."""

    payload_type: ClassVar[int] = Payload2.TSI


@dataclass(frozen=True, slots=True)
class TsR(Ts):
    """What the exchange's responder protects: the destination of the initiator's packets."""

    payload_type: ClassVar[int] = Payload2.TSR
