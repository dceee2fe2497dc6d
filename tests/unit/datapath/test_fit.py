"""MSS clamping and fragmentation before ESP."""

from __future__ import annotations

import pytest
from scapy.layers.inet import (
    IP,
    TCP,
    UDP,
    IPOption,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    defragment,
)
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt

from vpnd.datapath.fit import clamp_mss, fragment_ipv4, may_be_syn
from vpnd.wire.errors import DecodeError

LIMIT = 1422


def syn(version: int, options: list[tuple[str, object]], flags: str = "S") -> bytes:
    ip = IP(src="10.0.0.1", dst="10.0.0.2") if version == 4 else IPv6(src="fd00::1", dst="fd00::2")
    return bytes(ip / TCP(sport=1, dport=2, flags=flags, options=options))


def mss_of(packet: bytes) -> int | None:
    read = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    stated = dict(option for option in read[TCP].options if option[0] == "MSS").get("MSS")
    checksum = read[TCP].chksum
    del read[TCP].chksum
    rebuilt = type(read)(bytes(read))
    assert rebuilt[TCP].chksum == checksum
    return stated


@pytest.mark.parametrize("flags", ["S", "SA"])
@pytest.mark.parametrize(("version", "clamped"), [(4, LIMIT - 40), (6, LIMIT - 60)])
def test_a_syn_that_promises_too_much_is_clamped(version: int, clamped: int, flags: str) -> None:
    packet = syn(version, [("SAckOK", b""), ("MSS", 1460), ("WScale", 7)], flags)
    assert may_be_syn(packet)
    assert mss_of(clamp_mss(packet, LIMIT)) == clamped


def test_an_mss_at_an_odd_offset_keeps_the_checksum_right() -> None:
    assert mss_of(clamp_mss(syn(4, [("NOP", None), ("MSS", 1460), ("NOP", None)]), LIMIT)) == LIMIT - 40


def test_behind_an_extension_header_a_syn_is_found() -> None:
    packet = bytes(
        IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrDestOpt() / TCP(flags="S", options=[("MSS", 1460)])
    )
    assert may_be_syn(packet)
    assert mss_of(clamp_mss(packet, LIMIT)) == LIMIT - 60


@pytest.mark.parametrize(
    "packet",
    [
        syn(4, [("MSS", 1200)]),
        syn(4, [("SAckOK", b""), ("EOL", None)]),
        syn(4, []),
        syn(4, [("MSS", 1460)], flags="A"),
        bytes(IP(src="10.0.0.1", dst="10.0.0.2", frag=5) / TCP(flags="S", options=[("MSS", 1460)])),
        bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / (b"x" * 40)),
        # An MSS option cut off by the end of the header, one of a wrong length, an option of length 0.
        syn(4, [("MSS", 1460)])[:40] + b"\x01\x01\x02\x04",
        syn(4, [("MSS", 1460)])[:40] + b"\x02\x03\x05\xb4",
        syn(4, [("MSS", 1460)])[:40] + b"\x08\x00\x05\xb4",
    ],
)
def test_anything_else_is_left_as_it_is(packet: bytes) -> None:
    assert clamp_mss(packet, LIMIT) == packet


def test_the_quick_look_never_misses() -> None:
    assert not may_be_syn(syn(4, [], flags="A"))
    assert not may_be_syn(syn(6, [], flags="A"))
    assert not may_be_syn(bytes(IP() / UDP() / (b"x" * 40)))
    assert not may_be_syn(bytes(IPv6() / UDP() / (b"x" * 40)))
    assert not may_be_syn(syn(4, [])[:30])


@pytest.mark.parametrize(
    "options", [[], [IPOption_NOP(), IPOption_Router_Alert(), IPOption_RR(length=7, routers=["0.0.0.0"])]]
)
@pytest.mark.parametrize(("size", "limit"), [(1500, 1400), (4000, 1422), (1423, 1422), (65000, 576)])
def test_fragments_fit_and_are_the_packet_again(size: int, limit: int, options: list[IPOption]) -> None:
    data = bytes(i % 251 for i in range(size - 40 if options else size - 28))
    packet = IP(src="10.0.0.1", dst="10.0.0.2", id=77, options=options) / UDP(sport=5, dport=6) / data
    fragments = fragment_ipv4(bytes(packet), limit)
    assert all(len(fragment) <= limit for fragment in fragments)
    if not options:
        assert len(fragments) == -(-(len(packet) - 20) // ((limit - 20) // 8 * 8))
    for fragment in fragments:
        checked = IP(fragment)
        value = checked.chksum
        del checked.chksum
        assert IP(bytes(checked)).chksum == value
    (whole,) = defragment([IP(fragment) for fragment in fragments])
    assert bytes(whole[UDP].payload) == data
    # Only options with the copied bit are in the later fragments (RFC 791).
    if options:
        assert fragments[0][20:32] == b"\x01\x94\x04\0\0\x07\x07\x04\0\0\0\0"
        assert all(
            fragment[:1] == b"\x46" and fragment[20:24] == b"\x94\x04\0\0" for fragment in fragments[1:]
        )


def test_a_fragment_is_fragmented_again_in_place() -> None:
    middle = IP(src="10.0.0.1", dst="10.0.0.2", id=9, frag=100, flags="MF", proto=17) / (b"m" * 2000)
    parts = [IP(part) for part in fragment_ipv4(bytes(middle), 1000)]
    assert [part.frag for part in parts] == [100, 100 + 976 // 8, 100 + 2 * 976 // 8]
    assert all("MF" in str(part.flags) for part in parts)


def test_options_that_make_no_sense_go_with_the_first_fragment_only() -> None:
    whole = bytearray(
        bytes(IP(src="10.0.0.1", dst="10.0.0.2", options=IPOption_Router_Alert()) / (b"x" * 200))
    )
    whole[21] = 9
    first, later = (IP(part) for part in fragment_ipv4(bytes(whole), 148))
    assert (first.ihl, later.ihl) == (6, 5)


def test_a_header_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(DecodeError):
        fragment_ipv4(bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / (b"x" * 100)), 24)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("most", "clamped"), [(1200, 1200), (1300, 1300), (9000, None), (None, None)])
def test_a_segment_has_at_most_what_is_configured(
    version: int, most: int | None, clamped: int | None
) -> None:
    usual = LIMIT - (40 if version == 4 else 60)
    packet = syn(version, [("MSS", 1460)])
    changed = clamp_mss(packet, LIMIT, most)
    assert mss_of(changed) == (clamped if clamped is not None and clamped < usual else usual)
    assert clamp_mss(syn(version, [("MSS", 536)]), LIMIT, most) == syn(version, [("MSS", 536)])
