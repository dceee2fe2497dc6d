"""Headers, checksums, ECN, fitting and ICMP: the same answer from both engines for any bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engines import NativeModule
from tests.native.packets import FEW, any_bytes, ip_packets, ipv4
from tests.unit.datapath.parts import SUITES
from vpnd.datapath import ecn, fit, mtu
from vpnd.model.proposals import Suite
from vpnd.wire import icmp, ip
from vpnd.wire.errors import DecodeError

vpnd_engine = NativeModule()

T = TypeVar("T")
MALFORMED = "malformed"

many = settings(max_examples=60)


def outcome(call: Callable[[], T]) -> T | str:
    """What a call returns, or that it found the packet malformed."""
    try:
        return call()
    except DecodeError:
        return MALFORMED
    except ValueError as error:
        if str(error) != "malformed packet":
            raise
        return MALFORMED


def fields(packet: bytes) -> tuple[object, ...]:
    read = ip.decode_packet(packet)
    return (
        read.source,
        read.destination,
        read.protocol,
        read.header_length,
        read.total_length,
        read.traffic_class,
        read.dont_fragment,
        read.more_fragments,
        read.fragment_offset,
        (read.source_port, read.destination_port),
        read.icmp,
    )


@many
@given(any_bytes)
def test_a_packet_is_read_alike(packet: bytes) -> None:
    assert outcome(lambda: vpnd_engine.read_packet(packet)) == outcome(lambda: fields(packet))


@FEW
@given(st.binary(max_size=3000) | st.binary(max_size=9) | st.integers(0, 3000).map(bytes))
def test_checksums_are_alike(data: bytes) -> None:
    assert vpnd_engine.checksum(data) == ip.checksum(data)
    assert vpnd_engine.checksum(b"\xff" * len(data)) == ip.checksum(b"\xff" * len(data))


words = st.integers(0, 0xFFFF) | st.sampled_from([0, 1, 0xFFFE, 0xFFFF])


@FEW
@given(words, words, words)
def test_adjusted_checksums_are_alike(old: int, before: int, after: int) -> None:
    assert vpnd_engine.adjust_checksum(old, before, after) == ip.adjust_checksum(old, before, after)


@FEW
@given(any_bytes, st.integers(0, 255))
def test_the_outer_ecn_field_is_applied_alike(packet: bytes, outer: int) -> None:
    ours = outcome(lambda: vpnd_engine.apply_outer(packet, outer))
    assert ours == outcome(lambda: ecn.apply_outer(packet, outer))


def test_every_pair_of_ecn_fields_is_forwarded_alike() -> None:
    for inner in range(4):
        for outer in range(4):
            packet = bytes((0x45, 0xB8 | inner)) + bytes(18)
            assert vpnd_engine.apply_outer(packet, outer) == ecn.apply_outer(packet, outer)


limits = st.integers(88, 1500) | st.sampled_from([576, 1280, 1438, 65535])


@many
@given(any_bytes, limits, st.none() | st.integers(1, 65535))
def test_the_mss_is_clamped_alike(packet: bytes, limit: int, most: int | None) -> None:
    ours = outcome(lambda: vpnd_engine.clamp_mss(packet, limit, most))
    assert ours == outcome(lambda: fit.clamp_mss(packet, limit, most))


@many
@given(any_bytes)
def test_a_syn_is_suspected_alike(packet: bytes) -> None:
    if packet and len(packet) >= {4: 20, 6: 40}.get(packet[0] >> 4, 1 << 16):
        assert vpnd_engine.may_be_syn(packet) == fit.may_be_syn(packet)


@many
@given(ipv4(), st.integers(20, 200), st.booleans())
def test_fragments_are_alike(packet: bytes, limit: int, large: bool) -> None:
    if large and packet[2:4] == len(packet).to_bytes(2):
        packet = packet[:2] + (len(packet) + 2000).to_bytes(2) + packet[4:] + bytes(range(250)) * 8
    ours = outcome(lambda: vpnd_engine.fragment_ipv4(packet, limit))
    assert ours == outcome(lambda: fit.fragment_ipv4(packet, limit))


@FEW
@given(any_bytes, st.integers(68, 65535))
def test_the_error_about_a_large_packet_is_alike(packet: bytes, limit: int) -> None:
    ours = outcome(lambda: vpnd_engine.too_big(packet, limit))
    assert ours == outcome(lambda: icmp.too_big(packet, limit))


def echo_answer(packet: bytes) -> bytes | None:
    echo = icmp.Echo.decode(packet)
    return None if echo is None or echo.reply else echo.answer().encode()


@many
@given(ip_packets | any_bytes)
def test_echo_requests_are_answered_alike(packet: bytes) -> None:
    assert outcome(lambda: vpnd_engine.echo_answer(packet)) == outcome(lambda: echo_answer(packet))


@FEW
@given(
    st.sampled_from([*SUITES, Suite("aes-128", None, "sha256", None, icv_length=12)]),
    st.integers(0, 9216),
    st.booleans(),
    st.sampled_from([4, 6]),
)
def test_paths_carry_packets_of_the_same_length(suite: Suite, path: int, udp: bool, version: int) -> None:
    ours = vpnd_engine.inner_mtu(path, (suite.encryption, suite.integrity, suite.icv_length), udp, version)
    assert ours == mtu.inner_mtu(mtu.believed(path, version), suite, udp, version)
