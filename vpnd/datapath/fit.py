"""Making inner packets fit: the MSS of a TCP SYN, and IPv4 fragmentation before ESP (RFC 4301 section 8)."""

from __future__ import annotations

from struct import Struct

from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import IpProtocol
from vpnd.wire.ip import (
    FRAGMENT_OFFSET_MASK,
    IPV4_CHECKSUM_OFFSET,
    IPV4_HEADER_LENGTH,
    IPV6_HEADER_LENGTH,
    MORE_FRAGMENTS,
    OPTION_HEADERS,
    adjust_checksum,
    checksum,
    decode_packet,
)

_WORD = Struct("!H")

TCP_HEADER = 20
TCP_FLAGS_OFFSET = 13
TCP_CHECKSUM_OFFSET = 16
TCP_SYN = 0x02

OPTION_END = 0
OPTION_NOP = 1
OPTION_MSS = 2
OPTION_MSS_LENGTH = 4

# RFC 791: the option goes into every fragment if its highest bit is set.
IPV4_OPTION_COPIED = 0x80


def may_be_syn(packet: bytes) -> bool:
    """A quick look, which spares most packets the long one: False only for what `clamp_mss` would not change.

    `packet` has at least a whole IP header.
    """
    if packet[0] >> 4 == 4:
        flags_at = (packet[0] & 0x0F) * 4 + TCP_FLAGS_OFFSET
        return packet[9] == IpProtocol.TCP and len(packet) > flags_at and bool(packet[flags_at] & TCP_SYN)
    if packet[6] == IpProtocol.TCP:
        return len(packet) > 53 and bool(packet[53] & TCP_SYN)
    return packet[6] in OPTION_HEADERS


def clamp_mss(packet: bytes, limit: int, most: int | None = None) -> bytes:
    """A TCP SYN whose MSS option promises no segment that makes a packet longer than `limit` bytes.

    Nor one of more than `most` bytes, where that is given. Anything else comes back as it is, and so does a
    SYN whose MSS is small enough or not stated: then 536 or 1220 bytes hold, which fit. Raises DecodeError
    for a malformed packet.
    """
    ip = decode_packet(packet)
    tcp = ip.header_length
    if ip.protocol != IpProtocol.TCP or ip.fragment_offset or ip.total_length < tcp + TCP_HEADER:
        return packet
    if not packet[tcp + TCP_FLAGS_OFFSET] & TCP_SYN:
        return packet
    at = _mss_offset(packet, tcp, ip.total_length)
    if at is None:
        return packet
    ip_header = IPV4_HEADER_LENGTH if ip.version == 4 else IPV6_HEADER_LENGTH
    (before,) = _WORD.unpack_from(packet, at)
    after = limit - ip_header - TCP_HEADER
    if most is not None:
        after = min(after, most)
    if before <= after:
        return packet
    changed = bytearray(packet)
    _WORD.pack_into(changed, at, after)
    (old,) = _WORD.unpack_from(packet, tcp + TCP_CHECKSUM_OFFSET)
    if (at - tcp) % 2:
        # An option may begin at an odd offset; the words that the checksum adds then are its bytes swapped.
        before, after = _swapped(before), _swapped(after)
    _WORD.pack_into(changed, tcp + TCP_CHECKSUM_OFFSET, adjust_checksum(old, before, after))
    return bytes(changed)


def _swapped(word: int) -> int:
    return (word & 0xFF) << 8 | word >> 8


def _mss_offset(packet: bytes, tcp: int, end: int) -> int | None:
    """Where the two bytes of the MSS option's value are, or None (RFC 9293 section 3.2)."""
    options_end = min(tcp + (packet[tcp + 12] >> 4) * 4, end)
    at = tcp + TCP_HEADER
    while at + 1 < options_end:
        kind, length = packet[at], packet[at + 1]
        if kind == OPTION_END:
            return None
        if kind == OPTION_NOP:
            at += 1
            continue
        if kind == OPTION_MSS:
            return at + 2 if length == OPTION_MSS_LENGTH and at + length <= options_end else None
        if length < 2:
            return None
        at += length
    return None


def fragment_ipv4(packet: bytes, limit: int) -> list[bytes]:
    """The fragments of an IPv4 packet without DF, none longer than `limit` bytes (RFC 791 section 3.2).

    A fragment may be fragmented again. Raises DecodeError if the packet is malformed.
    """
    ip = decode_packet(packet)
    header_length, total = ip.header_length, ip.total_length
    room = (limit - header_length) // 8 * 8
    if room <= 0:
        raise DecodeError("IPv4 options", f"leave no room for data in {limit} bytes")
    first_header = packet[:header_length]
    later_header = _header_of_later_fragments(first_header)
    (flags,) = _WORD.unpack_from(packet, 6)
    fragments = []
    for start in range(header_length, total, room):
        data = packet[start : min(start + room, total)]
        header = bytearray(first_header if start == header_length else later_header)
        last = start + room >= total
        more = flags & MORE_FRAGMENTS if last else MORE_FRAGMENTS
        offset = (flags & FRAGMENT_OFFSET_MASK) + (start - header_length) // 8
        _WORD.pack_into(header, 2, len(header) + len(data))
        _WORD.pack_into(header, 6, more | offset)
        _WORD.pack_into(header, IPV4_CHECKSUM_OFFSET, 0)
        _WORD.pack_into(header, IPV4_CHECKSUM_OFFSET, checksum(bytes(header)))
        fragments.append(bytes(header) + data)
    return fragments


def _header_of_later_fragments(header: bytes) -> bytes:
    """The same header without the options that only the first fragment carries."""
    kept = bytearray()
    at = IPV4_HEADER_LENGTH
    while at < len(header) and header[at] != OPTION_END:
        if header[at] == OPTION_NOP:
            at += 1
            continue
        length = header[at + 1] if at + 1 < len(header) else 0
        if length < 2 or at + length > len(header):
            break
        if header[at] & IPV4_OPTION_COPIED:
            kept += header[at : at + length]
        at += length
    kept += bytes(-len(kept) % 4)
    words = (IPV4_HEADER_LENGTH + len(kept)) // 4
    return bytes((0x40 | words,)) + header[1:IPV4_HEADER_LENGTH] + bytes(kept)
