"""IPv4 and IPv6 headers: what selectors, the path MTU and the copying of DSCP and ECN need of them.

`decode_packet` reads everything at once into a value. The functions on `bytearray` change a packet in
place; they are for packets that `decode_packet` has read or this module has built.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from vpnd.wire.cursor import Builder, Cursor
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import IpProtocol

IPV4_HEADER_LENGTH = 20
IPV6_HEADER_LENGTH = 40
IPV4_CHECKSUM_OFFSET = 10
MAX_PACKET_LENGTH = 65535

DEFAULT_TTL = 64

DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000
FRAGMENT_OFFSET_MASK = 0x1FFF
IPV6_MORE_FRAGMENTS = 0x0001
IPV6_FRAGMENT_OFFSET_MASK = 0xFFF8

ECN_MASK = 0x03
DSCP_MASK = 0xFC

# RFC 8200 section 4.1: the recommended order names seven extension headers before the payload.
MAX_EXTENSION_HEADERS = 8

HOP_BY_HOP = 0
ROUTING = 43
FRAGMENT = 44
AUTHENTICATION = 51
DESTINATION_OPTIONS = 60
MOBILITY = 135
HIP = 139
SHIM6 = 140

OPTION_HEADERS = frozenset({HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, MOBILITY, HIP, SHIM6})
"""Extension headers whose length counts 8-byte units beyond the first (RFC 8200 section 4, RFC 7045)."""

SCTP = 132
DCCP = 33
UDP_LITE = 136
PORT_PROTOCOLS = frozenset({IpProtocol.TCP, IpProtocol.UDP, SCTP, DCCP, UDP_LITE})
"""Protocols whose header begins with source and destination port."""

_U16 = struct.Struct("!H")
_U16_PAIR = struct.Struct("!HH")


@dataclass(frozen=True, slots=True)
class IpPacket:
    """What an IP packet says about itself.

    `protocol` is the transport protocol, behind any IPv6 extension headers; `header_length` counts the
    bytes before it, `total_length` the whole packet, which may be followed by link padding. `traffic_class`
    is DSCP and ECN as one byte. `fragment_offset` is in bytes. The ports are None where the protocol has
    none, or where a fragment does not show them. For ICMP, `icmp` holds type and code.
    """

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    protocol: int
    header_length: int
    total_length: int
    traffic_class: int
    hop_limit: int
    dont_fragment: bool
    more_fragments: bool
    fragment_offset: int
    source_port: int | None
    destination_port: int | None
    icmp: tuple[int, int] | None

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.source.version

    @property
    def ecn(self) -> int:
        """The two ECN bits (RFC 3168 section 5): 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE."""
        return self.traffic_class & ECN_MASK

    @property
    def dscp(self) -> int:
        """The six bits of the differentiated services code point (RFC 2474)."""
        return self.traffic_class >> 2

    @property
    def is_fragment(self) -> bool:
        """Whether this is a part of a larger packet."""
        return self.more_fragments or self.fragment_offset > 0


def ip_version(packet: bytes) -> int:
    """The version in the first four bits: 4 or 6. Raises DecodeError for any other, and for no bytes."""
    version = Cursor(packet, "IP").u8("version") >> 4
    if version not in (4, 6):
        raise DecodeError("IP version", str(version))
    return version


def decode_packet(packet: bytes) -> IpPacket:
    """Read an IPv4 (RFC 791) or IPv6 (RFC 8200) packet up to its ports.

    The IPv4 checksum is not verified: the kernel did that, and inside a tunnel the ICV has. Raises
    DecodeError where a length does not fit the bytes that are there.
    """
    if ip_version(packet) == 4:
        return _decode_ipv4(packet)
    return _decode_ipv6(packet)


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |Version|  IHL  |Type of Service|          Total Length         |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |         Identification        |Flags|      Fragment Offset    |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |  Time to Live |    Protocol   |         Header Checksum       |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                       Source Address                          |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                    Destination Address                        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                    Options                    |    Padding    |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def _decode_ipv4(packet: bytes) -> IpPacket:
    cursor = Cursor(packet, "IPv4")
    header_length = (cursor.u8("IHL") & 0x0F) * 4
    if header_length < IPV4_HEADER_LENGTH:
        raise cursor.fault("IHL", f"{header_length} bytes")
    traffic_class = cursor.u8("type of service")
    total_length = cursor.u16("total length")
    if not header_length <= total_length <= len(packet):
        raise cursor.fault("total length", f"{total_length}, {len(packet)} bytes arrived")
    cursor.u16("identification")
    flags = cursor.u16("flags")
    hop_limit = cursor.u8("time to live")
    protocol = cursor.u8("protocol")
    cursor.u16("checksum")
    source = IPv4Address(cursor.take(4, "source address"))
    destination = IPv4Address(cursor.take(4, "destination address"))
    cursor.take(header_length - IPV4_HEADER_LENGTH, "options")
    offset = (flags & FRAGMENT_OFFSET_MASK) * 8
    upper = Cursor(cursor.take(total_length - header_length, "payload"), "transport")
    ports, icmp = _transport(upper, protocol, offset)
    return IpPacket(
        source=source,
        destination=destination,
        protocol=protocol,
        header_length=header_length,
        total_length=total_length,
        traffic_class=traffic_class,
        hop_limit=hop_limit,
        dont_fragment=bool(flags & DONT_FRAGMENT),
        more_fragments=bool(flags & MORE_FRAGMENTS),
        fragment_offset=offset,
        source_port=ports[0],
        destination_port=ports[1],
        icmp=icmp,
    )


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |Version| Traffic Class |           Flow Label                  |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |         Payload Length        |  Next Header  |   Hop Limit   |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                         Source Address                        ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                      Destination Address                      ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def _decode_ipv6(packet: bytes) -> IpPacket:
    cursor = Cursor(packet, "IPv6")
    word = cursor.u32("traffic class")
    payload_length = cursor.u16("payload length")
    next_header = cursor.u8("next header")
    hop_limit = cursor.u8("hop limit")
    source = IPv6Address(cursor.take(16, "source address"))
    destination = IPv6Address(cursor.take(16, "destination address"))
    upper = cursor.within(payload_length, "IPv6 payload")
    protocol, fragment = _skip_extension_headers(upper, next_header)
    header_length = IPV6_HEADER_LENGTH + payload_length - upper.remaining
    offset = fragment & IPV6_FRAGMENT_OFFSET_MASK
    ports, icmp = _transport(upper, protocol, offset)
    return IpPacket(
        source=source,
        destination=destination,
        protocol=protocol,
        header_length=header_length,
        total_length=IPV6_HEADER_LENGTH + payload_length,
        traffic_class=word >> 20 & 0xFF,
        hop_limit=hop_limit,
        dont_fragment=True,
        more_fragments=bool(fragment & IPV6_MORE_FRAGMENTS),
        fragment_offset=offset,
        source_port=ports[0],
        destination_port=ports[1],
        icmp=icmp,
    )


def _skip_extension_headers(cursor: Cursor, next_header: int) -> tuple[int, int]:
    """The transport protocol, and the offset field of a fragment header, 0 without one (RFC 8200 section 4).

    Behind a fragment header that is not the first fragment's there is only data, so reading ends there.
    """
    fragment = 0
    for _ in range(MAX_EXTENSION_HEADERS):
        header = next_header
        if header == FRAGMENT:
            next_header = cursor.u8("next header")
            cursor.u8("reserved")
            fragment = cursor.u16("fragment offset")
            cursor.u32("identification")
            if fragment & IPV6_FRAGMENT_OFFSET_MASK:
                return next_header, fragment
        elif header in OPTION_HEADERS:
            next_header = cursor.u8("next header")
            cursor.take(cursor.u8("extension length") * 8 + 6, "extension header")
        elif header == AUTHENTICATION:
            # Its length counts 4-byte units, less two (RFC 4302 section 2.2).
            next_header = cursor.u8("next header")
            cursor.take(cursor.u8("extension length") * 4 + 6, "extension header")
        else:
            return header, fragment
    raise cursor.fault("extension headers", f"{MAX_EXTENSION_HEADERS} and no end")


def _transport(
    cursor: Cursor, protocol: int, fragment_offset: int
) -> tuple[tuple[int | None, int | None], tuple[int, int] | None]:
    """The ports, or the ICMP type and code, where this packet shows them."""
    if fragment_offset == 0:
        if protocol in PORT_PROTOCOLS and cursor.remaining >= 4:
            return (cursor.u16(), cursor.u16()), None
        if protocol in (IpProtocol.ICMP, IpProtocol.ICMPV6) and cursor.remaining >= 2:
            return (None, None), (cursor.u8(), cursor.u8())
    return (None, None), None


# ------------------------------------------------------------------------------------ building


def encode_ipv4(
    source: IPv4Address,
    destination: IPv4Address,
    protocol: int,
    payload: bytes,
    *,
    traffic_class: int = 0,
    ttl: int = DEFAULT_TTL,
    identification: int = 0,
    dont_fragment: bool = True,
) -> bytes:
    """An IPv4 packet without options, checksum included. Raises OverflowError beyond 65535 bytes."""
    builder = Builder().u8(0x45).u8(traffic_class).u16(IPV4_HEADER_LENGTH + len(payload))
    builder.u16(identification).u16(DONT_FRAGMENT if dont_fragment else 0).u8(ttl).u8(protocol)
    builder.u16(0).raw(source.packed).raw(destination.packed)
    header = bytearray(builder.bytes())
    _U16.pack_into(header, IPV4_CHECKSUM_OFFSET, checksum(bytes(header)))
    return bytes(header) + payload


def encode_ipv6(
    source: IPv6Address,
    destination: IPv6Address,
    protocol: int,
    payload: bytes,
    *,
    traffic_class: int = 0,
    hop_limit: int = DEFAULT_TTL,
    flow_label: int = 0,
) -> bytes:
    """An IPv6 packet without extension headers. Raises OverflowError beyond 65535 bytes of payload."""
    builder = Builder().u32(6 << 28 | traffic_class << 20 | flow_label).u16(len(payload))
    builder.u8(protocol).u8(hop_limit).raw(source.packed).raw(destination.packed)
    return builder.raw(payload).bytes()


def encode_packet(
    source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, protocol: int, payload: bytes
) -> bytes:
    """A packet of the addresses' family. Raises ValueError if they are of two."""
    if isinstance(source, IPv4Address) and isinstance(destination, IPv4Address):
        return encode_ipv4(source, destination, protocol, payload)
    if isinstance(source, IPv6Address) and isinstance(destination, IPv6Address):
        return encode_ipv6(source, destination, protocol, payload)
    raise ValueError(f"{source} and {destination} are of two address families")


# ------------------------------------------------------------------------------------ checksums


def ones_complement_sum(data: bytes, initial: int = 0) -> int:
    """The 16-bit ones' complement sum of `data`, an odd last byte standing in front of a zero (RFC 1071).

    Adding 16-bit words with end-around carry is arithmetic modulo 65535, and 65536 is 1 there: the data as
    one large number has the same remainder, without a loop. A sum of 0 is 65535 unless all was zero.
    """
    number = int.from_bytes(data, "big") << (8 * (len(data) % 2))
    total = number + initial
    return total % 0xFFFF or (0xFFFF if total else 0)


def checksum(data: bytes, initial: int = 0) -> int:
    """The internet checksum of `data`, whose own checksum field is zero (RFC 1071)."""
    return ~ones_complement_sum(data, initial) & 0xFFFF


def adjust_checksum(old: int, before: int, after: int) -> int:
    """The checksum `old` after a 16-bit word of its data changed (RFC 1624 equation 3)."""
    total = (~old & 0xFFFF) + (~before & 0xFFFF) + after
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(
    source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, protocol: int, length: int
) -> bytes:
    """What the checksum of UDP, TCP and ICMPv6 covers of the IP header (RFC 768, RFC 8200 section 8.1)."""
    builder = Builder().raw(source.packed).raw(destination.packed)
    if source.version == 4:
        return builder.u16(protocol).u16(length).bytes()
    return builder.u32(length).u32(protocol).bytes()


# ------------------------------------------------------------------------------- DSCP and ECN


def traffic_class(packet: bytes) -> int:
    """DSCP and ECN of a packet as one byte. Raises DecodeError."""
    word = Cursor(packet, "IP").u16("traffic class")
    return word >> 4 & 0xFF if word >> 12 == 6 else word & 0xFF


def set_traffic_class(packet: bytearray, value: int) -> None:
    """Write DSCP and ECN (0 to 255) in place and mend the IPv4 checksum."""
    (before,) = _U16.unpack_from(packet)
    if before >> 12 == 6:
        _U16.pack_into(packet, 0, before & 0xF00F | value << 4)
        return
    after = before & 0xFF00 | value
    _U16.pack_into(packet, 0, after)
    (old,) = _U16.unpack_from(packet, IPV4_CHECKSUM_OFFSET)
    _U16.pack_into(packet, IPV4_CHECKSUM_OFFSET, adjust_checksum(old, before, after))
