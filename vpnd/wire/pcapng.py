"""Captures as files that Wireshark opens: pcapng (draft-ietf-opsawg-pcapng), little endian, raw IP packets.

section header, a description of each interface, then a block for each packet, which is padded to 4 bytes:

0      4       8            12          16          20        24         28
| type | bytes | interface  | time high | time low  | caught  | length  | packet | options | bytes |
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
BYTE_ORDER = 0x1A2B3C4D
RAW_IP = 101
"""LINKTYPE_RAW: a packet begins with its IPv4 or IPv6 header."""
LONGEST_PACKET = 65535
"""Bytes of an IP packet (RFC 791 section 3.1)."""
MICROSECONDS = 1_000_000

END, NAME, APPLICATION, FLAGS, DROPPED = 0, 2, 4, 2, 5
INBOUND, OUTBOUND = 1, 2

_HEAD = Struct("<II")
_PACKET = Struct("<IIIII")


def file_header(interfaces: Iterable[str], application: str) -> bytes:
    """The beginning of a file whose packets name one of these interfaces, by its number from 0 on."""
    section = Struct("<IHHq").pack(BYTE_ORDER, 1, 0, -1) + _options((APPLICATION, application.encode()))
    described = (
        _block(INTERFACE, Struct("<HHI").pack(RAW_IP, 0, LONGEST_PACKET) + _options((NAME, name.encode())))
        for name in interfaces
    )
    return _block(SECTION, section) + b"".join(described)


def packet_block(interface: int, at: float, packet: bytes, outbound: bool) -> bytes:
    """One packet, seen at `at` (seconds since 1970)."""
    ticks = int(at * MICROSECONDS)
    head = _PACKET.pack(interface, ticks >> 32, ticks & 0xFFFFFFFF, len(packet), len(packet))
    flags = (OUTBOUND if outbound else INBOUND).to_bytes(4, "little")
    return _block(PACKET, head + _padded(packet) + _options((FLAGS, flags)))


def statistics_block(interface: int, at: float, dropped: int) -> bytes:
    """How many packets of an interface are not in the file."""
    ticks = int(at * MICROSECONDS)
    head = Struct("<III").pack(interface, ticks >> 32, ticks & 0xFFFFFFFF)
    return _block(STATISTICS, head + _options((DROPPED, dropped.to_bytes(8, "little"))))


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return _HEAD.pack(kind, length) + body + length.to_bytes(4, "little")


def _options(*options: tuple[int, bytes]) -> bytes:
    written = (Struct("<HH").pack(code, len(value)) + _padded(value) for code, value in options)
    return b"".join(written) + bytes(4)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
