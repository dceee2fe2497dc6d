"""Joining TCP segments, checked by an unjoiner that knows only the virtio_net_hdr."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from tests.unit.datapath.parts import tcp_packet, udp_packet
from vpnd.datapath.coalesce import (
    MAXIMUM_TRAINS,
    NEEDS_CSUM,
    PLAIN,
    VNET_HEADER,
    VNET_HEADER_LENGTH,
    Coalescer,
)
from vpnd.wire.ip import checksum, decode_packet, ones_complement_sum, pseudo_header

TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
HOSTS = {4: ("10.1.0.1", "10.2.0.1"), 6: ("fd01::1", "fd02::1")}
TAIL = b"\x01\x02\x02\x04"


class Tun:
    """Takes writes as the kernel would."""

    def __init__(self, local: bool = False, joins: bool = True) -> None:
        self.writes: list[bytes] = []
        self.joins = joins
        self.coalescer = Coalescer(self.write, lambda address: local, joins)

    def write(self, buffers: Sequence[bytes]) -> None:
        self.writes.append(b"".join(buffers))

    def deliver(
        self, packets: list[bytes], refuse: frozenset[int] = frozenset(), by_address: bool = False
    ) -> tuple[int, int]:
        """Each packet alone with a trailer, as runs of one length; the batch ends after the last."""
        admitted = [0, 0]
        at = 0
        while at < len(packets):
            run = [packets[at]]
            while at + len(run) < len(packets) and len(packets[at + len(run)]) == len(run[0]):
                run.append(packets[at + len(run)])
            taken = self.coalescer.deliver(
                [packet + TAIL for packet in run],
                lambda plaintext: None if hash(plaintext) in refuse else plaintext[: -len(TAIL)],
                by_address,
            )
            admitted[0] += taken[0]
            admitted[1] += taken[1]
            at += len(run)
        self.coalescer.flush()
        return admitted[0], admitted[1]

    def packets(self) -> list[bytes]:
        """What the network stack sees: each write cut into segments again."""
        return [packet for write in self.writes for packet in unjoined(write)]


def unjoined(write: bytes) -> list[bytes]:
    """Segment a write as `virtio_net_hdr` says, with good checksums (include/uapi/linux/virtio_net.h)."""
    flags, gso_type, header, size, csum_start, csum_offset = VNET_HEADER.unpack_from(write)
    packet = write[VNET_HEADER_LENGTH:]
    if gso_type == 0:
        assert write[:VNET_HEADER_LENGTH] == PLAIN
        return [packet]
    ip = 20 if packet[0] >> 4 == 4 else 40
    assert gso_type == (1 if ip == 20 else 4)
    read = decode_packet(packet)
    assert read.total_length == len(packet)
    if ip == 20:
        assert checksum(packet[:20]) == 0
    pseudo = pseudo_header(read.source, read.destination, 6, len(packet) - ip)
    if flags == NEEDS_CSUM:
        assert (csum_start, csum_offset) == (ip, 16)
        # The kernel goes on from the pseudo-header's sum.
        assert int.from_bytes(packet[ip + 16 : ip + 18]) % 65535 == ones_complement_sum(pseudo) % 65535
    else:
        assert flags == 0
        if ones_complement_sum(pseudo + packet[ip:]) != 65535:
            return []  # The kernel finds the damage and drops the packet.
    segments = []
    data = packet[header:]
    for at in range(0, len(data), size):
        part = IP(packet[:header]) if ip == 20 else IPv6(packet[:header])
        tcp = part[TCP]
        tcp.seq = (tcp.seq + at) % (1 << 32)
        if at + size < len(data):
            tcp.flags = str(tcp.flags).replace("P", "")
        del tcp.chksum
        if ip == 20:
            del part.len, part.chksum
        else:
            del part.plen
        segments.append(bytes(part / data[at : at + size]))
    return segments


def flow(
    version: int,
    count: int,
    size: int = 1200,
    start: int = 1000,
    options: bytes = TIMESTAMPS,
    port: int = 4000,
) -> list[bytes]:
    rng = random.Random(count * size)
    return [
        tcp_packet(*HOSTS[version], start + i * size, rng.randbytes(size), options=options, ports=(port, 80))
        for i in range(count)
    ]


def with_data_offset(packet: bytes, value: int) -> bytes:
    return packet[:32] + bytes((value,)) + packet[33:]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("options", [b"", TIMESTAMPS])
@pytest.mark.parametrize("size", [1200, 1201, 64])
def test_segments_in_order_are_one_write_and_the_same_again(
    version: int, local: bool, options: bytes, size: int
) -> None:
    tun = Tun(local)
    segments = flow(version, 20, size, options=options)
    assert tun.deliver(segments) == (20, sum(map(len, segments)))
    assert len(tun.writes) == 1
    assert tun.writes[0][0] == (0 if local and size % 2 == 0 else NEEDS_CSUM)
    assert tun.packets() == segments


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("last", [1, 63, 1199, 600])
@pytest.mark.parametrize("size", [1200, 1203])
def test_a_shorter_segment_ends_the_train(version: int, local: bool, last: int, size: int) -> None:
    tun = Tun(local)
    segments = flow(version, 5, size)
    segments.append(
        tcp_packet(*HOSTS[version], 1000 + 5 * size, b"e" * last, options=TIMESTAMPS, ports=(4000, 80))
    )
    after = 1000 + 5 * size + last
    segments += flow(version, 2, size, start=after)
    assert tun.deliver(segments) == (8, sum(map(len, segments)))
    assert len(tun.writes) == 2
    assert tun.packets() == segments


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("size", [1200, 700])
def test_push_ends_the_train_and_is_set_on_its_last_segment(local: bool, size: int) -> None:
    tun = Tun(local)
    segments = flow(4, 4)
    segments.append(
        tcp_packet(*HOSTS[4], 1000 + 4 * 1200, b"p" * size, flags=0x18, options=TIMESTAMPS, ports=(4000, 80))
    )
    segments += flow(4, 1, start=1000 + 4 * 1200 + size)
    tun.deliver(segments)
    assert [len(unjoined(write)) for write in tun.writes] == [5, 1]
    assert tun.packets() == segments


@pytest.mark.parametrize(
    "other",
    [
        {"acknowledged": 8},
        {"window": 501},
        {"options": bytes.fromhex("0101080a0000000100000003")},
        {"options": b""},
        {"flags": 0x11},
        {"flags": 0x30},
        {"flags": 0x02},
        {"flags": 0x14},
        {"sequence": 5000},
        {"sequence": 1000},
    ],
)
def test_whatever_differs_is_not_joined_and_keeps_its_place(other: dict[str, object]) -> None:
    tun = Tun()
    segments = flow(4, 3)
    fourth: dict[str, object] = {"sequence": 1000 + 3600, "options": TIMESTAMPS} | other
    segments.append(tcp_packet(*HOSTS[4], data=b"x" * 1200, ports=(4000, 80), **fourth))  # type: ignore[arg-type]  # fields by their names
    tun.deliver(segments)
    assert [len(unjoined(write)) for write in tun.writes] == [3, 1]
    assert tun.packets() == segments


@pytest.mark.parametrize("change", ["tos", "ttl", "df"])
def test_ip_headers_that_differ_are_not_joined(change: str) -> None:
    tun = Tun()
    segments = flow(4, 3)
    changed = IP(segments[1])
    if change == "tos":
        changed.tos = 3
    elif change == "ttl":
        changed.ttl = 7
    else:
        changed.flags = 0
    del changed.chksum
    segments[1] = bytes(changed)
    tun.deliver(segments)
    assert len(tun.writes) == 3
    assert tun.packets() == segments


def test_flows_are_joined_side_by_side() -> None:
    tun = Tun()
    flows = [flow(4, 6, port=4000 + i) for i in range(3)]
    mixed = [segment for together in zip(*flows, strict=True) for segment in together]
    tun.deliver(mixed)
    assert sorted(len(unjoined(write)) for write in tun.writes) == [6, 6, 6]
    for port, segments in enumerate(flows, 4000):
        assert [p for p in tun.packets() if IP(p).sport == port] == segments


def test_as_many_trains_as_there_is_room_for() -> None:
    tun = Tun()
    segments = [flow(4, 1, port=1000 + i)[0] for i in range(MAXIMUM_TRAINS + 3)]
    tun.deliver(segments)
    assert sorted(tun.packets()) == sorted(segments)


def test_a_pure_acknowledgement_does_not_overtake_the_data_before_it() -> None:
    tun = Tun()
    segments = flow(4, 2)
    segments.append(tcp_packet(*HOSTS[4], 3400, b"", options=TIMESTAMPS, ports=(4000, 80), acknowledged=9))
    segments += flow(4, 2, start=3400)
    tun.deliver(segments)
    assert tun.packets() == segments


def test_a_train_is_never_longer_than_an_ip_packet() -> None:
    tun = Tun(local=True)
    segments = flow(4, 100, 1360)
    tun.deliver(segments)
    assert tun.packets() == segments
    assert len(tun.writes) == 3
    assert max(map(len, tun.writes)) <= 65535 + VNET_HEADER_LENGTH


def test_the_sequence_number_wraps() -> None:
    tun = Tun()
    segments = flow(4, 6, start=(1 << 32) - 2500)
    tun.deliver(segments)
    assert tun.packets() == segments


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 3])
def test_the_flow_to_the_next_port_does_not_go_on_where_a_sequence_number_wraps(
    version: int, before: int, count: int
) -> None:
    """The number that would follow, with its carry, is that of a segment to the next port."""
    tun, size = Tun(local=True), 1000
    ours = flow(version, before, size, start=(1 << 32) - before * size)
    other = [
        tcp_packet(*HOSTS[version], i * size, bytes(size), options=TIMESTAMPS, ports=(4000, 81))
        for i in range(count)
    ]
    admitted = tun.deliver([*ours, *other])
    assert admitted == (before + count, sum(map(len, [*ours, *other])))
    assert tun.packets() == [*ours, *other]


@pytest.mark.parametrize(
    "packet",
    [
        udp_packet("10.1.0.1", "10.2.0.1", 1000),
        udp_packet("fd01::1", "fd02::1", 1000),
        bytes(IP(src="10.1.0.1", dst="10.2.0.1", options=b"\x01\x01\x01\x01") / TCP() / (b"x" * 100)),
        bytes(IP(src="10.1.0.1", dst="10.2.0.1", frag=3, proto=6) / (b"x" * 100)),
        tcp_packet("10.1.0.1", "10.2.0.1", 5, b"x" * 63),
        tcp_packet("10.1.0.1", "10.2.0.1", 5, b"x" * 100)[:35],
        # A data offset that points beyond the packet, and one into the TCP header.
        with_data_offset(tcp_packet("10.1.0.1", "10.2.0.1"), 0xF0),
        with_data_offset(tcp_packet("10.1.0.1", "10.2.0.1", 1, b"y" * 99), 0x40),
    ],
)
def test_what_cannot_be_joined_is_written_as_it_is(packet: bytes) -> None:
    tun = Tun()
    tun.deliver([packet, packet])
    assert tun.writes == [PLAIN + packet, PLAIN + packet]


@pytest.mark.parametrize("damaged", [0, 1, 3])
@pytest.mark.parametrize("version", [4, 6])
def test_damage_is_never_given_a_good_checksum_when_forwarded(version: int, damaged: int) -> None:
    tun = Tun(local=False)
    segments = flow(version, 4)
    hurt = bytearray(segments[damaged])
    hurt[-100] ^= 0x40
    segments[damaged] = bytes(hurt)
    tun.deliver(segments)
    assert tun.packets() == segments
    assert len(tun.writes) == 4


@pytest.mark.parametrize("damaged", [0, 1, 3])
@pytest.mark.parametrize("version", [4, 6])
def test_damage_shows_in_the_joined_checksum_when_local(version: int, damaged: int) -> None:
    tun = Tun(local=True)
    segments = flow(version, 4)
    hurt = bytearray(segments[damaged])
    hurt[-100] ^= 0x40
    segments[damaged] = bytes(hurt)
    tun.deliver(segments)
    assert len(tun.writes) == 1
    assert tun.packets() == []


@pytest.mark.parametrize("local", [True, False])
def test_a_damaged_ip_header_stays_visibly_so(local: bool) -> None:
    tun = Tun(local)
    segments = flow(4, 4)
    hurt = bytearray(segments[0])
    hurt[11] ^= 1
    segments[0] = bytes(hurt)
    tun.deliver(segments)
    if local:
        with pytest.raises(AssertionError):
            tun.packets()
    else:
        assert tun.packets() == segments


def test_refused_packets_are_gone_and_not_counted() -> None:
    tun = Tun()
    segments = flow(4, 3)
    refused = frozenset({hash(segments[0] + TAIL)})
    assert tun.deliver(segments, refused) == (2, sum(map(len, segments[1:])))
    assert tun.packets() == segments[1:]


def test_a_segment_with_another_trailer_is_checked_again() -> None:
    tun = Tun()
    segments = flow(4, 2)
    asked: list[bytes] = []

    def admit(plaintext: bytes) -> bytes | None:
        asked.append(plaintext)
        return plaintext[: -len(TAIL)] if plaintext.endswith(TAIL) else None

    tun.coalescer.deliver([segments[0] + TAIL, segments[1] + b"\x09\x09\x09\x09"], admit)
    tun.coalescer.flush()
    assert len(asked) == 2
    assert tun.packets() == segments[:1]


def test_without_a_virtio_header_each_packet_is_its_own_write() -> None:
    tun = Tun(joins=False)
    segments = flow(4, 3)
    tun.deliver(segments)
    assert tun.writes == segments
