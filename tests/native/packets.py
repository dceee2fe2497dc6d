"""Packets for both engines: mostly right, so that what lies behind the first check is reached as well."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import settings
from hypothesis import strategies as st

from vpnd.wire.ip import PORT_PROTOCOLS, checksum, pseudo_header

FEW = settings(max_examples=30)
"""For what `make fuzz` looks at as well, as a part of the whole: `make test` has seconds for all of it."""

HOSTS4 = (
    "10.1.0.1",
    "10.1.0.2",
    "10.2.0.1",
    "192.0.2.1",
    "127.0.0.1",
    "224.0.0.5",
    "255.255.255.255",
    "0.0.0.0",
)
HOSTS6 = ("fd01::1", "fd01::2", "fd02::1", "2001:db8::1", "::1", "ff02::5", "::")

PROTOCOLS = (1, 6, 17, 33, 47, 58, 132, 136, 0, 43, 44, 50, 51, 59, 60, 135, 139, 140, 253)
TCP_OPTIONS = (b"\x00", b"\x01", b"\x02\x04\x05\xb4", b"\x02\x04\xff\xff", b"\x02\x03\x01", b"\x03\x03\x07")
IPV4_OPTIONS = (
    b"\x01",
    b"\x00",
    b"\x07\x07\x04\x01\x02\x03\x04",
    b"\x94\x04\x00\x00",
    b"\x83\x03\x04",
    b"\x44\x01",
)


@st.composite
def tcp(draw: st.DrawFn) -> bytes:
    """A TCP header with options, mostly a SYN, and a little data; without a checksum that is right."""
    options = b"".join(draw(st.lists(st.sampled_from(TCP_OPTIONS) | st.binary(max_size=3), max_size=4)))
    options += bytes(-len(options) % 4)
    words = draw(st.sampled_from([5 + len(options) // 4] * 4 + [0, 4, 15]))
    flags = draw(st.sampled_from([0x02, 0x12, 0x02, 0x10, 0x18]))
    head = draw(st.binary(min_size=12, max_size=12)) + bytes((words << 4 & 0xFF, flags))
    return head + draw(st.binary(min_size=6, max_size=6)) + options + draw(st.binary(max_size=30))


@st.composite
def icmp(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from([0, 3, 5, 8, 8, 8, 11, 128, 128, 128, 129, 2]))
    code = draw(st.sampled_from([0, 0, 0, 1]))
    return bytes((kind, code, 0, 0)) + draw(st.binary(max_size=40))


payloads = tcp() | icmp() | st.binary(max_size=80)


@st.composite
def ipv4(draw: st.DrawFn) -> bytes:
    payload = draw(payloads)
    options = b"".join(draw(st.lists(st.sampled_from(IPV4_OPTIONS), max_size=4)))[:40]
    options += bytes(-len(options) % 4)
    protocol = draw(st.sampled_from(PROTOCOLS[:8]) | st.sampled_from([1, 6, 17]))
    source, destination = (ip_address(draw(st.sampled_from(HOSTS4))) for _ in range(2))
    if protocol == 1 and len(payload) >= 4 and draw(st.booleans()):
        payload = payload[:2] + checksum(payload[:2] + bytes(2) + payload[4:]).to_bytes(2) + payload[4:]
    header_length = 20 + len(options)
    total = header_length + len(payload)
    words = header_length // 4
    if draw(st.integers(0, 9)) == 0:
        words, total = (
            draw(st.integers(0, 15)),
            draw(st.sampled_from([total, total + 1, total - 1, 19, 65535])),
        )
    flags = draw(st.sampled_from([0, 0x4000, 0x4000, 0x2000, 0x2005, 0x0005, 0x8000]))
    header = bytes((0x40 | words, draw(st.integers(0, 255)))) + max(total, 0).to_bytes(2) + b"\x12\x34"
    header += flags.to_bytes(2) + bytes((draw(st.integers(0, 255)), protocol)) + bytes(2)
    header += source.packed + destination.packed + options
    header = header[:10] + checksum(header).to_bytes(2) + header[12:]
    return header + payload + bytes(draw(st.sampled_from([0, 0, 0, 7])))


@st.composite
def extension(draw: st.DrawFn) -> tuple[int, bytes]:
    """An IPv6 extension header: its number, and all of it but the number of the next."""
    number = draw(st.sampled_from([0, 43, 44, 44, 51, 60, 135, 139, 140]))
    if number == 44:
        field = draw(st.sampled_from([0, 1, 8, 9, 0xFFF8]))
        return number, bytes(1) + field.to_bytes(2) + bytes(4)
    length = draw(st.sampled_from([0, 0, 1, 2, 255]))
    size = length * 4 + 8 if number == 51 else length * 8 + 8
    if length == 255:
        size = 16
    return number, bytes((length,)) + bytes(size - 2)


@st.composite
def ipv6(draw: st.DrawFn) -> bytes:
    payload = draw(payloads)
    protocol = draw(st.sampled_from(PROTOCOLS) | st.sampled_from([6, 17, 58]))
    source, destination = (ip_address(draw(st.sampled_from(HOSTS6))) for _ in range(2))
    if protocol == 58 and len(payload) >= 4 and draw(st.booleans()):
        covered = pseudo_header(source, destination, 58, len(payload))
        value = checksum(covered + payload[:2] + bytes(2) + payload[4:])
        payload = payload[:2] + value.to_bytes(2) + payload[4:]
    following, body = protocol, payload
    for number, rest in draw(st.lists(extension(), max_size=draw(st.sampled_from([0, 0, 1, 3, 9])))):
        body = bytes((following,)) + rest + body
        following = number
    length = len(body)
    if draw(st.integers(0, 9)) == 0:
        length = draw(st.sampled_from([length + 1, max(length - 1, 0), 0, 3, 65535]))
    word = 6 << 28 | draw(st.integers(0, 255)) << 20 | draw(st.integers(0, 0xFFFFF))
    header = (
        word.to_bytes(4) + length.to_bytes(2) + bytes((following, 64)) + source.packed + destination.packed
    )
    return header + body + bytes(draw(st.sampled_from([0, 0, 0, 7])))


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """A packet that has been cut short."""
    packet = draw(ipv4() | ipv6())
    return packet[: draw(st.integers(0, len(packet)))]


ip_packets = ipv4() | ipv6()
any_bytes = ip_packets | nearly() | st.binary(max_size=100)

assert {6, 17} < set(PORT_PROTOCOLS)
