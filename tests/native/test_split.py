"""What the kernel hands over in one read is the packets that it would have handed over one by one."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engines import NativeModule
from tests.native.packets import FEW, any_bytes
from tests.unit.datapath.parts import CBC, EVERYTHING, GCM, child, tcp_packet
from vpnd.datapath.interface import PolicyRow
from vpnd.model.proposals import Suite
from vpnd.wire.ip import adjust_checksum, checksum, encode_packet, pseudo_header

vpnd_engine = NativeModule()

PAIRS = (("10.1.0.1", "10.2.0.1"), ("fd01::1", "fd02::1"))
NONE, TCPV4, TCPV6, UDP_L4, ECN = 0, 1, 4, 5, 0x80


def vnet(kind: int, size: int, flags: int = 1, start: int = 0, offset: int = 0) -> bytes:
    """`struct virtio_net_hdr`; its `hdr_len` is a hint that nobody may rely on."""
    return struct.pack("=BBHHHH", flags, kind, 7, size, start, offset)


def identified(packet: bytes, number: int) -> bytes:
    """An IPv4 packet with that identification; one of IPv6 as it is."""
    if packet[0] >> 4 == 6:
        return packet
    before = int.from_bytes(packet[4:6])
    mended = adjust_checksum(int.from_bytes(packet[10:12]), before, number)
    return packet[:4] + number.to_bytes(2) + packet[6:10] + mended.to_bytes(2) + packet[12:]


def udp(hosts: tuple[str, str], data: bytes) -> bytes:
    source, destination = map(ip_address, hosts)
    head = (5000).to_bytes(2) + (53).to_bytes(2) + (8 + len(data)).to_bytes(2)
    value = checksum(pseudo_header(source, destination, 17, 8 + len(data)) + head + bytes(2) + data) or 0xFFFF
    return encode_packet(source, destination, 17, head + value.to_bytes(2) + data)


pairs = st.sampled_from(PAIRS)
lengths = st.integers(1, 6000)


@FEW
@given(
    pairs,
    lengths,
    st.integers(1, 3000),
    st.sampled_from([0x10, 0x18, 0x11, 0x19, 0x90, 0x98]),
    st.sampled_from([1, (1 << 32) - 700]),
    st.sampled_from([b"", b"\x01\x01\x08\x0a" + bytes(range(8))]),
    st.sampled_from([0, 0xFFFE]),
    st.randoms(use_true_random=False),
)
def test_tcp_is_cut_into_segments(
    hosts: tuple[str, str],
    length: int,
    size: int,
    flags: int,
    sequence: int,
    options: bytes,
    number: int,
    rng: Random,
) -> None:
    data = rng.randbytes(length)
    whole = identified(tcp_packet(*hosts, sequence, data, flags, options), number)
    # What the kernel leaves in the checksum's place is of no use to anybody.
    kind = TCPV4 if whole[0] >> 4 == 4 else TCPV6
    if flags & 0x80:
        kind |= ECN
    wanted = []
    for index, at in enumerate(range(0, length, size)):
        kept = flags & ~(0x80 if index else 0) & ~(0 if at + size >= length else 0x09)
        piece = tcp_packet(*hosts, sequence + at, data[at : at + size], kept, options)
        wanted.append(identified(piece, (number + index) & 0xFFFF))
    assert vpnd_engine.split_read(vnet(kind, size) + whole) == wanted


@FEW
@given(pairs, lengths, st.integers(1, 3000), st.randoms(use_true_random=False))
def test_udp_is_cut_into_datagrams(hosts: tuple[str, str], length: int, size: int, rng: Random) -> None:
    data = rng.randbytes(length)
    wanted = [
        identified(udp(hosts, data[at : at + size]), index) for index, at in enumerate(range(0, length, size))
    ]
    assert vpnd_engine.split_read(vnet(UDP_L4, size) + udp(hosts, data)) == wanted


@FEW
@given(any_bytes)
def test_a_packet_that_stands_for_itself_stays_as_it_is(packet: bytes) -> None:
    assert vpnd_engine.split_read(vnet(NONE, 0, flags=0) + packet) == [packet]


@FEW
@given(pairs, lengths, st.booleans())
def test_a_checksum_that_was_left_to_us_is_made(hosts: tuple[str, str], length: int, tcp: bool) -> None:
    packet = tcp_packet(*hosts, 1, bytes(length)) if tcp else udp(hosts, bytes(length))
    start, offset = (20 if packet[0] >> 4 == 4 else 40), (16 if tcp else 6)
    source, destination = map(ip_address, hosts)
    partial = ~checksum(pseudo_header(source, destination, 6 if tcp else 17, len(packet) - start)) & 0xFFFF
    at = start + offset
    unfinished = packet[:at] + partial.to_bytes(2) + packet[at + 2 :]
    made = vpnd_engine.split_read(vnet(NONE, 0, 1, start, offset) + unfinished)
    assert made == [packet] or made[0][at : at + 2] == b"\xff\xff"


@FEW
@given(st.binary(min_size=10, max_size=10), any_bytes)
def test_any_header_and_bytes_are_packets_or_refused(header: bytes, packet: bytes) -> None:
    try:
        pieces = vpnd_engine.split_read(header + packet)
    except ValueError:
        return
    assert pieces
    assert sum(map(len, pieces)) >= len(packet)


reads = st.one_of(
    st.builds(
        lambda hosts, length, size: (
            vnet(TCPV4 if hosts == PAIRS[0] else TCPV6, size)
            + tcp_packet(hosts[0], hosts[1], 1, bytes(length))
        ),
        pairs,
        lengths,
        st.sampled_from([63, 500, 1000, 1360, 2900]),
    ),
    st.builds(
        lambda hosts, length, size: vnet(UDP_L4, size) + udp(hosts, bytes(length)),
        pairs,
        lengths,
        st.sampled_from([22, 500, 1000, 1360, 2900]),
    ),
    st.builds(lambda packet: vnet(NONE, 0, flags=0) + packet, any_bytes),
    st.builds(lambda header, packet: header + packet, st.binary(min_size=10, max_size=10), any_bytes),
)


@settings(max_examples=200)
@given(
    st.lists(reads, max_size=8),
    st.sampled_from([GCM, CBC]),
    st.sampled_from([None, 600, 1400]),
    st.sampled_from([None, 2, 8]),
)
def test_large_reads_leave_as_their_packets_would(
    read: list[bytes], suite: Suite, most: int | None, kilobytes: int | None
) -> None:
    """What is sealed where it lies is what is sealed packet by packet, down to notices and counters."""
    outcomes = []
    hard = kilobytes and kilobytes * 1024
    for whole in (True, False):
        engine: Any = vpnd_engine.Engine()
        engine.add_tunnel("t", True)
        engine.replace_policies("t", [PolicyRow(0, EVERYTHING, EVERYTHING)])
        engine.set_limits("t", most, None)
        engine.install(0.0, child(suite=suite), (hard and hard // 2, hard), bytes(32), True)
        if whole:
            sent = engine.send_reads(1.0, "t", read)
        else:
            packets, malformed = [], 0
            for one in read:
                try:
                    packets += vpnd_engine.split_read(one)
                except ValueError:
                    malformed += 1
            sent = engine.send(1.0, "t", packets)
        drops = engine.drops("t")
        drops[0] += 0 if whole else malformed
        outcomes.append((sent, engine.take_notices(), drops, engine.stats(0x1001)))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("kind", [TCPV6, UDP_L4, 3, 2, 0x7F])
def test_a_type_that_is_not_the_packets_is_refused(kind: int) -> None:
    with pytest.raises(ValueError, match="malformed"):
        vpnd_engine.split_read(vnet(kind, 500) + tcp_packet(*PAIRS[0], 1, bytes(1200)))


def test_fragments_and_no_size_are_refused() -> None:
    whole = tcp_packet(*PAIRS[0], 1, bytes(1200))
    fragment = whole[:6] + b"\x20\x00" + whole[8:]
    for read in (
        vnet(TCPV4, 0) + whole,
        vnet(TCPV4, 500) + fragment,
        vnet(TCPV4, 500) + whole[:-1],
        b"\0" * 9,
    ):
        with pytest.raises(ValueError, match="malformed"):
            vpnd_engine.split_read(read)
