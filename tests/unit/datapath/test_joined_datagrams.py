"""Joining UDP datagrams, checked by an unjoiner that knows only the virtio_net_hdr."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from tests.unit.datapath.parts import tcp_packet
from tests.unit.datapath.test_coalesce import HOSTS, Tun, flow
from vpnd.datapath.coalesce import (
    GSO_UDP_L4,
    MAXIMUM_DATAGRAMS,
    NEEDS_CSUM,
    PLAIN,
    VNET_HEADER,
    VNET_HEADER_LENGTH,
)
from vpnd.wire.ip import checksum, encode_packet, ones_complement_sum, pseudo_header


def datagram(version: int, data: bytes, ports: tuple[int, int] = (4000, 80)) -> bytes:
    """With a good checksum, in an IP packet with DF."""
    source, destination = map(ip_address, HOSTS[version])
    head = b"".join(number.to_bytes(2) for number in (*ports, 8 + len(data)))
    covered = pseudo_header(source, destination, 17, 8 + len(data)) + head + bytes(2) + data
    body = head + (checksum(covered) or 0xFFFF).to_bytes(2) + data
    return encode_packet(source, destination, 17, body)


def talk(version: int, count: int, size: int, ports: tuple[int, int] = (4000, 80)) -> list[bytes]:
    rng = random.Random(count * size)
    return [datagram(version, rng.randbytes(size), ports) for _ in range(count)]


def unjoined(write: bytes) -> list[bytes]:
    """Segment a write of UDP as the kernel does, from the pseudo-header's sum on."""
    if write[:VNET_HEADER_LENGTH] == PLAIN:
        return [write[VNET_HEADER_LENGTH:]]
    flags, kind, header, size, start, offset = VNET_HEADER.unpack_from(write)
    packet = write[VNET_HEADER_LENGTH:]
    version = packet[0] >> 4
    ip = 20 if version == 4 else 40
    assert (flags, kind, header, start, offset) == (NEEDS_CSUM, GSO_UDP_L4, ip + 8, ip, 6)
    source, destination = map(ip_address, HOSTS[version])
    length = len(packet) - ip
    assert int.from_bytes(packet[ip + 4 : ip + 6]) == length
    expected = ones_complement_sum(pseudo_header(source, destination, 17, length))
    assert int.from_bytes(packet[ip + 6 : ip + 8]) % 65535 == expected % 65535
    if version == 4:
        assert checksum(packet[:20]) == 0
        assert int.from_bytes(packet[2:4]) == len(packet)
    else:
        assert int.from_bytes(packet[4:6]) == length
    ports = int.from_bytes(packet[ip : ip + 2]), int.from_bytes(packet[ip + 2 : ip + 4])
    data = packet[header:]
    return [datagram(version, data[at : at + size], ports) for at in range(0, len(data), size)]


@pytest.fixture
def tun() -> Tun:
    made = Tun()
    made.coalescer.joins_udp = True
    return made


def out_of(tun: Tun) -> list[list[bytes]]:
    return [unjoined(write) for write in tun.writes]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [1, 64, 1200, 1201])
def test_datagrams_of_one_length_are_one_write_and_the_same_again(tun: Tun, version: int, size: int) -> None:
    packets = talk(version, 20, size)
    assert tun.deliver(packets) == (20, sum(map(len, packets)))
    assert out_of(tun) == [packets]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("last", [1, 63, 1199])
@pytest.mark.parametrize("size", [1200, 1203])
def test_a_shorter_one_ends_the_write_and_a_longer_one_begins_another(
    tun: Tun, version: int, last: int, size: int
) -> None:
    first = talk(version, 5, size) + talk(version, 1, last)
    second, third = talk(version, 2, size - 1), talk(version, 3, size)
    tun.deliver(first + second + third)
    assert out_of(tun) == [first, second, third]


@pytest.mark.parametrize("version", [4, 6])
def test_a_write_has_at_most_so_many_datagrams_and_bytes(tun: Tun, version: int) -> None:
    packets = talk(version, 2 * MAXIMUM_DATAGRAMS + 3, 100)
    tun.deliver(packets)
    assert [len(found) for found in out_of(tun)] == [MAXIMUM_DATAGRAMS, MAXIMUM_DATAGRAMS, 3]
    assert [packet for found in out_of(tun) for packet in found] == packets
    tun.writes.clear()
    large = talk(version, 7, 20_000)
    tun.deliver(large)
    assert [len(found) for found in out_of(tun)] == [3, 3, 1]


def changed(packet: bytes, at: int, value: bytes) -> bytes:
    return packet[:at] + value + packet[at + len(value) :]


def fragmentable(packet: bytes, number: int, flags: bytes = bytes(2)) -> bytes:
    bare = packet[:4] + (number & 0xFFFF).to_bytes(2) + flags + packet[8:10] + bytes(2) + packet[12:]
    return changed(bare, 10, checksum(bare[:20]).to_bytes(2))


@pytest.mark.parametrize("first", [0, 7, 0xFFFE])
def test_without_df_they_are_joined_where_the_kernel_numbers_them_so_again(tun: Tun, first: int) -> None:
    packets = [fragmentable(packet, first + number) for number, packet in enumerate(talk(4, 8, 300))]
    packets.append(fragmentable(datagram(4, b"last"), first + 8))
    tun.deliver(packets)
    assert len(tun.writes) == 1
    write = tun.writes[0]
    assert write[VNET_HEADER_LENGTH:][4:8] == packets[0][4:8]
    assert VNET_HEADER.unpack_from(write)[3] == 300


@pytest.mark.parametrize("gap", [3, 8])
def test_without_df_another_number_begins_another_write(tun: Tun, gap: int) -> None:
    packets = [fragmentable(packet, 7 + number) for number, packet in enumerate(talk(4, 8, 300))]
    packets.append(fragmentable(datagram(4, b"last"), 15))
    packets[gap] = fragmentable(packets[gap], 99)
    tun.deliver(packets)
    numbers = [int.from_bytes(write[VNET_HEADER_LENGTH:][4:6]) for write in tun.writes]
    assert numbers == ([7, 99, 11] if gap == 3 else [7, 99])


@pytest.mark.parametrize(
    "other",
    [
        lambda packet: changed(packet, 26, bytes(2)),
        lambda packet: changed(packet, 24, (50).to_bytes(2)),
        lambda packet: fragmentable(packet, 7, b"\x20\x00"),
    ],
    ids=["no checksum", "wrong length", "a fragment"],
)
def test_what_cannot_be_told_apart_keeps_its_place(tun: Tun, other: Callable[[bytes], bytes]) -> None:
    """Also as the first, and as the last of several."""
    packets = talk(4, 9, 300)
    for at in (0, 4, 8):
        packets[at] = other(packets[at])
    tun.deliver(packets)
    assert [len(found) for found in out_of(tun)] == [1, 3, 1, 3, 1]
    plain = [write[VNET_HEADER_LENGTH:] for write in tun.writes if write.startswith(PLAIN)]
    assert plain == [packets[at] for at in (0, 4, 8)]


@pytest.mark.parametrize("at", [0, 3, 6])
@pytest.mark.parametrize("byte", [11, 27, 30, 299])
def test_a_damaged_one_is_not_made_good(tun: Tun, at: int, byte: int) -> None:
    """In the checksums and in the data: all are written as they came."""
    packets = talk(4, 7, 300)
    packets[at] = changed(packets[at], byte, bytes((packets[at][byte] ^ 0x40,)))
    tun.deliver(packets)
    assert [write[VNET_HEADER_LENGTH:] for write in tun.writes] == packets
    assert all(write.startswith(PLAIN) for write in tun.writes)


def test_flows_do_not_mix_and_keep_their_order(tun: Tun) -> None:
    one, two = talk(4, 4, 200, (1, 2)), talk(4, 4, 200, (1, 3))
    tcp = flow(4, 4, port=1)
    mixed = [packet for both in zip(one, two, strict=True) for packet in both]
    tun.deliver(mixed + tcp)
    writes = tun.writes
    assert [unjoined(write) for write in writes[:2]] == [one, two]
    assert len(writes) == 3
    same_ports = [tcp_packet(*HOSTS[4], 1, bytes(200), ports=(1, 2)), *one]
    tun.writes.clear()
    tun.deliver(same_ports)
    assert [len(write) for write in tun.writes] == [250, VNET_HEADER_LENGTH + 28 + 800]


def test_a_kernel_that_takes_none_gets_none() -> None:
    tun = Tun()
    packets = talk(4, 5, 300)
    tun.deliver(packets)
    assert [write[VNET_HEADER_LENGTH:] for write in tun.writes] == packets


@pytest.mark.parametrize("by_address", [False, True])
@pytest.mark.parametrize("version", [4, 6])
def test_no_datagram_overtakes_those_of_its_flow_that_wait(tun: Tun, version: int, by_address: bool) -> None:
    """Not even behind one of another flow that has no checksum, between the same addresses."""
    bare = changed(datagram(version, bytes(300), (9, 9)), 26 if version == 4 else 46, bytes(2))
    waiting = talk(version, 6, 300)
    packets = [bare, bare, *waiting[:3], bare, *waiting[3:], bare]
    assert tun.deliver(packets, by_address=by_address) == (len(packets), sum(map(len, packets)))
    assert out_of(tun) == [[bare], [bare], [bare], [bare], waiting]
