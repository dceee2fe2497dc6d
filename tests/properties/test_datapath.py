"""The datapath against models: a window is a set, a train of segments is its segments."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.datapath.parts import (
    CBC,
    GCM,
    SUITES,
    Gateway,
    child,
    decapsulate,
    encapsulate,
    facing,
    keys_for,
    tcp_packet,
)
from tests.unit.datapath.test_coalesce import Tun
from vpnd.crypto.entropy import SeededEntropy
from vpnd.datapath.esp import make_opener, make_sealer, strip_trailer
from vpnd.datapath.fit import clamp_mss, fragment_ipv4
from vpnd.datapath.interface import Datagram
from vpnd.datapath.replay import ReplayWindow
from vpnd.model.proposals import Suite
from vpnd.wire.errors import DecodeError
from vpnd.wire.ip import encode_packet


@given(
    size=st.sampled_from([32, 64, 128, 4096]),
    steps=st.lists(st.integers(-200, 200), max_size=300),
    advance=st.lists(st.integers(1, 200), max_size=5),
)
def test_a_replay_window_is_a_set_with_a_floor(size: int, steps: list[int], advance: list[int]) -> None:
    window, seen, highest = ReplayWindow(size), set[int](), 0
    for step in steps:
        sequence = highest + step
        expected = sequence > 0 and sequence > highest - size and sequence not in seen
        assert window.check(sequence) is expected
        assert window.accept(sequence) is expected
        if expected:
            seen.add(sequence)
            highest = max(highest, sequence)
        assert window.highest == highest
        if advance and step == 0:
            count = advance.pop()
            window.advance(count)
            seen |= set(range(highest + 1, highest + count + 1))
            highest += count


@given(highest=st.integers(0, (1 << 40)), distance=st.integers(-127, (1 << 31)))
@example(highest=(1 << 32) - 1, distance=1)
def test_the_high_half_of_a_number_near_the_window_is_found(highest: int, distance: int) -> None:
    window = ReplayWindow(128)
    if highest:
        window.accept(highest)
    number = highest + distance
    if number > 0:
        assert window.extend(number & 0xFFFFFFFF) == number


@given(suite=st.sampled_from(SUITES), data=st.binary(max_size=1500), sequence=st.integers(1, 1 << 20))
def test_what_is_sealed_is_opened(suite: Suite, data: bytes, sequence: int) -> None:
    packet = encode_packet(ip_address("10.0.0.1"), ip_address("10.0.0.2"), 99, data)
    keys = keys_for(suite)
    sealed = encapsulate(make_sealer(suite, keys, 0x1234, SeededEntropy(1)), packet, sequence)
    opened = decapsulate(make_opener(suite, keys), sealed, sequence)
    assert opened is not None
    assert strip_trailer(opened) == packet


@given(st.binary(max_size=400))
def test_any_plaintext_is_a_packet_or_none(plaintext: bytes) -> None:
    packet = strip_trailer(plaintext)
    assert packet is None or plaintext.startswith(packet)


@pytest.mark.usefixtures("on_each_engine")
@given(
    datagram=st.binary(max_size=400),
    spi=st.sampled_from([b"", bytes(4), (0x2002).to_bytes(4)]),
    length=st.integers(1, 400),
    suite=st.sampled_from([GCM, CBC]),
    traffic_class=st.integers(0, 255),
    port=st.sampled_from([0, 4500]),
)
def test_any_datagram_is_refused_and_never_raises(
    datagram: bytes, spi: bytes, length: int, suite: Suite, traffic_class: int, port: int
) -> None:
    gateway = Gateway()
    gateway.install(facing(child(suite=suite)))
    data = Datagram(spi + datagram, length, traffic_class, ip_address("192.0.2.1"), port)
    assert gateway.receive_batch(data, port=port) == []


@pytest.mark.usefixtures("on_each_engine")
@given(packet=st.binary(max_size=200), head=st.sampled_from([b"", b"\x45", b"\x60", b"\x4f"]))
def test_any_bytes_from_the_tun_are_sent_or_counted(packet: bytes, head: bytes) -> None:
    gateway = Gateway()
    gateway.install(child())
    gateway.send(head + packet)
    assert len(gateway.sent) + sum(gateway.dropped().values()) >= 1


@given(packet=st.binary(min_size=20, max_size=200), limit=st.integers(68, 2000))
def test_fitting_any_bytes_is_a_packet_or_an_error(packet: bytes, limit: int) -> None:
    for fit in (clamp_mss, fragment_ipv4):
        try:
            fit(packet, limit)
        except DecodeError:
            continue


SEGMENT = st.tuples(
    st.integers(0, 2),
    st.sampled_from([64, 65, 100, 100, 100, 100]),
    st.sampled_from([0x10, 0x10, 0x10, 0x10, 0x18, 0x11]),
    st.integers(0, 1),
    st.booleans(),
)


@given(segments=st.lists(SEGMENT, max_size=40), local=st.booleans(), version=st.sampled_from([4, 6]))
def test_joined_or_not_every_flow_is_what_it_was(
    segments: list[tuple[int, int, int, int, bool]], local: bool, version: int
) -> None:
    """Segments of three flows, some out of place, with other flags or acknowledgements, some damaged."""
    hosts = ("10.1.0.1", "10.2.0.1") if version == 4 else ("fd01::1", "fd02::1")
    following = [1000, 2000, (1 << 32) - 150]
    packets, damaged = [], []
    for index, (flow, size, flags, gap, hurt) in enumerate(segments):
        sequence = following[flow] + gap
        following[flow] = sequence + size
        data = bytes((index,)) * size
        packet = tcp_packet(*hosts, sequence, data, flags, ports=(flow + 1, 80))
        if hurt and index % 5 == 0:
            packet = packet[:-1] + bytes((packet[-1] ^ 0x80,))
            damaged.append(packet)
        packets.append(packet)
    tun = Tun(local)
    counted = tun.deliver(packets)
    assert counted == (len(packets), sum(map(len, packets)))
    arrived = tun.packets()
    at = 22 if version == 4 else 42
    port = slice(at - 2, at)
    if not (local and damaged):
        for flow in range(3):
            key = (flow + 1).to_bytes(2)
            assert [p for p in arrived if p[port] == key] == [p for p in packets if p[port] == key]
    # Never does a damaged segment come out with a good checksum, nor anything that was not sent.
    assert set(arrived) <= set(packets)
