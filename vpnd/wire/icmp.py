"""ICMP and ICMPv6 messages that vpnd sends and reads: echo, and "the packet is too big"."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from vpnd.wire.cursor import Builder, Cursor
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import IpProtocol
from vpnd.wire.ip import (
    IpPacket,
    checksum,
    decode_packet,
    encode_packet,
    ones_complement_sum,
    pseudo_header,
)

ECHO_REQUEST = 8
ECHO_REPLY = 0
ECHO_REQUEST_V6 = 128
ECHO_REPLY_V6 = 129

DESTINATION_UNREACHABLE = 3
FRAGMENTATION_NEEDED = 4
PACKET_TOO_BIG_V6 = 2

ICMP_HEADER_LENGTH = 8

# RFC 1812 section 4.3.2.3: as much of the offending packet as fits in 576 bytes, the size that every host
# takes. RFC 4443 section 3.2: as much as fits in IPv6's minimum MTU.
MAX_ERROR_V4 = 576
MAX_ERROR_V6 = 1280

# RFC 792 and RFC 1122 section 3.2.2: types that report an error; RFC 4443 section 2.1: types below 128.
ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
FIRST_INFORMATIONAL_V6 = 128


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |     Type      |     Code      |          Checksum             |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |           Identifier          |        Sequence Number        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |     Data ...
# +-+-+-+-+-
@dataclass(frozen=True, slots=True)
class Echo:
    """An echo request or reply of either family, with its addresses (RFC 792, RFC 4443 section 4)."""

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    reply: bool
    identifier: int
    sequence: int
    data: bytes = b""

    @classmethod
    def decode(cls, packet: bytes) -> Echo | None:
        """The echo message that an IP packet holds; None if it holds something else or a fragment.

        Raises DecodeError for a malformed packet or a wrong ICMP checksum.
        """
        ip = decode_packet(packet)
        kinds = _echo_types(ip.version)
        if ip.protocol != _protocol(ip.version) or ip.is_fragment or ip.icmp is None:
            return None
        icmp_type, code = ip.icmp
        if icmp_type not in kinds or code != 0:
            return None
        message = _message(packet, ip)
        if ones_complement_sum(_covered(ip.source, ip.destination, len(message)) + message) != 0xFFFF:
            raise DecodeError("ICMP checksum", "does not verify")
        cursor = Cursor(message, "ICMP")
        cursor.take(4, "type, code and checksum")
        return cls(
            ip.source,
            ip.destination,
            reply=icmp_type == kinds[1],
            identifier=cursor.u16("identifier"),
            sequence=cursor.u16("sequence number"),
            data=cursor.rest(),
        )

    def encode(self) -> bytes:
        """The whole IP packet. Raises ValueError if the addresses are of two families."""
        body = Builder().u16(self.identifier).u16(self.sequence).raw(self.data).bytes()
        request, reply = _echo_types(self.source.version)
        return _encode(self.source, self.destination, reply if self.reply else request, 0, body)

    def answer(self) -> Echo:
        """The reply to this request: addresses swapped, all else the same."""
        return Echo(self.destination, self.source, True, self.identifier, self.sequence, self.data)


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |     Type      |     Code      |          Checksum             |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |       unused = 0  (v6: MTU)   |         Next-Hop MTU          |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |      IP header and the first bytes of the offending packet    |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
def too_big(offending: bytes, mtu: int, source: IPv4Address | IPv6Address | None = None) -> bytes | None:
    """The IP packet that tells the sender of `offending` to send at most `mtu` bytes, IP header included.

    IPv4: destination unreachable, fragmentation needed (RFC 1191 section 4). IPv6: packet too big (RFC 4443
    section 3.2). `source` is who says it; by default the packet's own destination, which is always of the
    right family and passes any filter that the packet's answer would pass. None where no error may be
    sent: see `may_report`, and a group cannot be the source of one. Raises DecodeError for a malformed
    packet.
    """
    ip = decode_packet(offending)
    speaker = ip.destination if source is None else source
    if speaker.is_multicast or not may_report(ip):
        return None
    if ip.version == 4:
        quote = Cursor(offending).take(min(ip.total_length, MAX_ERROR_V4 - 20 - ICMP_HEADER_LENGTH))
        body = Builder().u16(0).u16(mtu).raw(quote).bytes()
        return _encode(speaker, ip.source, DESTINATION_UNREACHABLE, FRAGMENTATION_NEEDED, body)
    quote = Cursor(offending).take(min(ip.total_length, MAX_ERROR_V6 - 40 - ICMP_HEADER_LENGTH))
    body = Builder().u32(mtu).raw(quote).bytes()
    return _encode(speaker, ip.source, PACKET_TOO_BIG_V6, 0, body)


def may_report(ip: IpPacket) -> bool:
    """Whether an ICMP error may answer this packet (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)).

    Never to an ICMP error, to a fragment but the first, or to a source that is not one host. IPv6 lets
    packet too big answer a multicast destination, IPv4 does not.
    """
    if ip.fragment_offset:
        return False
    if ip.source.is_multicast or ip.source.is_unspecified or ip.source == IPv4Address("255.255.255.255"):
        return False
    if ip.version == 4:
        broadcast = ip.destination == IPv4Address("255.255.255.255")
        error = ip.protocol == IpProtocol.ICMP and ip.icmp is not None and ip.icmp[0] in ICMP_ERRORS
        return not (error or broadcast or ip.destination.is_multicast)
    return not (
        ip.protocol == IpProtocol.ICMPV6 and ip.icmp is not None and ip.icmp[0] < FIRST_INFORMATIONAL_V6
    )


def _encode(
    source: IPv4Address | IPv6Address,
    destination: IPv4Address | IPv6Address,
    icmp_type: int,
    code: int,
    body: bytes,
) -> bytes:
    """An ICMP message of the addresses' family in its IP packet; `body` begins behind the checksum."""
    message = Builder().u8(icmp_type).u8(code).u16(0).raw(body).bytes()
    value = checksum(_covered(source, destination, len(message)) + message)
    message = Builder().u8(icmp_type).u8(code).u16(value).raw(body).bytes()
    return encode_packet(source, destination, _protocol(source.version), message)


def _covered(source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, length: int) -> bytes:
    """What the checksum covers besides the message: in IPv6 the pseudo-header, in IPv4 nothing."""
    if source.version == 4:
        return b""
    return pseudo_header(source, destination, IpProtocol.ICMPV6, length)


def _message(packet: bytes, ip: IpPacket) -> bytes:
    cursor = Cursor(packet, "ICMP")
    cursor.take(ip.header_length, "IP header")
    return cursor.take(ip.total_length - ip.header_length, "message")


def _protocol(version: int) -> int:
    return IpProtocol.ICMP if version == 4 else IpProtocol.ICMPV6


def _echo_types(version: int) -> tuple[int, int]:
    """The types of request and reply."""
    return (ECHO_REQUEST, ECHO_REPLY) if version == 4 else (ECHO_REQUEST_V6, ECHO_REPLY_V6)
