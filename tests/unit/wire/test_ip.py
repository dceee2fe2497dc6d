"""IPv4 and IPv6 headers."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from vpnd.wire.errors import DecodeError
from vpnd.wire.ip import (
    adjust_checksum,
    checksum,
    decode_packet,
    encode_ipv4,
    encode_ipv6,
    encode_packet,
    ip_version,
    ones_complement_sum,
    pseudo_header,
    set_traffic_class,
    traffic_class,
)

A4, B4 = IPv4Address("192.168.0.1"), IPv4Address("192.168.0.199")
A6, B6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")

# UDP from port 1234 to port 53 with nothing in it.
UDP = bytes.fromhex("04d2 0035 0008 0000")

# A UDP datagram of 115 bytes with DF, a textbook example: its checksum is b861.
IPV4 = bytes.fromhex("4500 0073 0000 4000 4011 b861 c0a80001 c0a800c7") + UDP + bytes(87)


# ------------------------------------------------------------------------------------ checksums


def test_sum_of_the_rfc_1071_example() -> None:
    assert ones_complement_sum(bytes.fromhex("0001 f203 f4f5 f6f7")) == 0xDDF2


def test_an_odd_byte_stands_in_front_of_a_zero() -> None:
    assert ones_complement_sum(b"\x01\x02\x03") == 0x0402


@pytest.mark.parametrize(
    ("data", "total"), [("", 0), ("0000", 0), ("ffff", 0xFFFF), ("ffff ffff", 0xFFFF), ("0001 fffe", 0xFFFF)]
)
def test_zero_and_its_negative_stay_apart(data: str, total: int) -> None:
    assert ones_complement_sum(bytes.fromhex(data)) == total


def test_a_sum_can_go_on_from_another() -> None:
    whole = bytes(range(64))
    assert checksum(whole[32:], ones_complement_sum(whole[:32])) == checksum(whole)


def test_checksum_of_the_textbook_header() -> None:
    assert checksum(IPV4[:10] + b"\0\0" + IPV4[12:20]) == 0xB861
    assert ones_complement_sum(IPV4[:20]) == 0xFFFF


def test_adjustment_of_the_rfc_1624_example() -> None:
    assert adjust_checksum(0xDD2F, 0x5555, 0x3285) == 0x0000


def test_pseudo_headers() -> None:
    assert pseudo_header(A4, B4, 17, 8) == bytes.fromhex("c0a80001 c0a800c7 0011 0008")
    assert pseudo_header(A6, B6, 58, 8) == A6.packed + B6.packed + bytes.fromhex("00000008 0000003a")


# ----------------------------------------------------------------------------------------- IPv4


def test_an_ipv4_packet_is_read() -> None:
    packet = decode_packet(IPV4)
    assert (packet.version, packet.source, packet.destination) == (4, A4, B4)
    assert (packet.protocol, packet.header_length, packet.total_length) == (17, 20, 115)
    assert (packet.hop_limit, packet.dont_fragment, packet.is_fragment) == (64, True, False)
    assert (packet.source_port, packet.destination_port, packet.icmp) == (1234, 53, None)


def test_link_padding_behind_the_packet_is_not_part_of_it() -> None:
    assert decode_packet(IPV4 + bytes(6)).total_length == 115


def test_options_are_skipped() -> None:
    packet = bytes.fromhex("4600 0020 0000 0000 4006 0000 c0a80001 c0a800c7 94040000") + UDP
    decoded = decode_packet(packet)
    assert decoded.header_length == 24
    assert (decoded.source_port, decoded.destination_port) == (1234, 53)


@pytest.mark.parametrize(
    ("flags", "more", "offset", "ports"),
    [("2000", True, 0, (1234, 53)), ("2001", True, 8, (None, None)), ("1fff", False, 65528, (None, None))],
)
def test_only_the_first_fragment_shows_ports(
    flags: str, more: bool, offset: int, ports: tuple[int | None, int | None]
) -> None:
    packet = decode_packet(IPV4[:6] + bytes.fromhex(flags) + IPV4[8:])
    assert packet.is_fragment
    assert (packet.more_fragments, packet.fragment_offset, packet.dont_fragment) == (more, offset, False)
    assert (packet.source_port, packet.destination_port) == ports


def test_ports_that_are_cut_off_are_none() -> None:
    packet = decode_packet(encode_ipv4(A4, B4, 6, b"\x04\xd2\x00"))
    assert (packet.source_port, packet.destination_port) == (None, None)


def test_icmp_has_type_and_code_instead_of_ports() -> None:
    assert decode_packet(encode_ipv4(A4, B4, 1, bytes.fromhex("0304 0000"))).icmp == (3, 4)
    assert decode_packet(encode_ipv4(A4, B4, 1, b"\x03")).icmp is None
    assert decode_packet(encode_ipv4(A4, B4, 47, UDP)).source_port is None


def test_ipv4_is_built_as_it_is_read() -> None:
    assert encode_ipv4(A4, B4, 17, UDP + bytes(87)) == IPV4
    packet = decode_packet(
        encode_ipv4(A4, B4, 50, b"", traffic_class=0xB9, ttl=3, identification=7, dont_fragment=False)
    )
    assert (packet.traffic_class, packet.dscp, packet.ecn) == (0xB9, 46, 1)
    assert (packet.hop_limit, packet.dont_fragment) == (3, False)


BAD_IPV4 = {
    "empty": b"",
    "version 0": bytes(20),
    "version 5": b"\x55" + bytes(19),
    "header cut": IPV4[:19],
    "IHL 4": b"\x44" + IPV4[1:],
    "total length below the header": IPV4[:2] + b"\0\x13" + IPV4[4:],
    "total length beyond the bytes": IPV4[:-1],
    "options beyond the total length": bytes.fromhex("4f00 0014 0000 0000 4011 0000 c0a80001 c0a800c7"),
}


@pytest.mark.parametrize("packet", BAD_IPV4.values(), ids=BAD_IPV4.keys())
def test_malformed_ipv4_is_refused(packet: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_packet(packet)


# ----------------------------------------------------------------------------------------- IPv6


def ipv6(next_header: int, payload: bytes) -> bytes:
    return encode_ipv6(A6, B6, next_header, payload)


def test_an_ipv6_packet_is_read() -> None:
    packet = decode_packet(encode_ipv6(A6, B6, 17, UDP, traffic_class=0xB9, hop_limit=9, flow_label=0x12345))
    assert (packet.version, packet.source, packet.destination) == (6, A6, B6)
    assert (packet.protocol, packet.header_length, packet.total_length) == (17, 40, 48)
    assert (packet.traffic_class, packet.hop_limit, packet.dont_fragment) == (0xB9, 9, True)
    assert (packet.source_port, packet.destination_port) == (1234, 53)


def test_ipv6_is_built_by_its_drawing() -> None:
    packet = encode_ipv6(A6, B6, 17, UDP, traffic_class=0xB9, hop_limit=9, flow_label=0x12345)
    assert packet == bytes.fromhex("6b912345 0008 11 09") + A6.packed + B6.packed + UDP


EXTENSIONS = {
    "hop-by-hop": (0, "11 00 010400000000"),
    "hop-by-hop of 16 bytes": (0, "11 01 0104000000000000000000000000"),
    "routing": (43, "11 00 000000000000"),
    "destination options": (60, "11 00 010400000000"),
    "first fragment": (44, "11 00 0001 00000007"),
    "authentication header of 24 bytes": (51, "11 04 0000 00000100 00000001 000000000000000000000000"),
}


@pytest.mark.parametrize(("header", "extension"), EXTENSIONS.values(), ids=EXTENSIONS.keys())
def test_extension_headers_are_skipped(header: int, extension: str) -> None:
    octets = bytes.fromhex(extension)
    packet = decode_packet(ipv6(header, octets + UDP))
    assert (packet.protocol, packet.header_length) == (17, 40 + len(octets))
    assert (packet.source_port, packet.destination_port) == (1234, 53)


def test_several_extension_headers_are_skipped() -> None:
    chain = bytes.fromhex("2b 00 010400000000  3c 00 000000000000  3a 00 010400000000")
    packet = decode_packet(ipv6(0, chain + bytes.fromhex("80 00 0000")))
    assert (packet.protocol, packet.icmp) == (58, (128, 0))


@pytest.mark.parametrize(("offset", "more"), [("0009", True), ("fff8", False)])
def test_a_later_fragment_shows_its_protocol_and_nothing_else(offset: str, more: bool) -> None:
    packet = decode_packet(ipv6(44, bytes.fromhex(f"11 00 {offset} 00000007") + UDP))
    assert packet.protocol == 17
    assert packet.is_fragment
    assert packet.more_fragments is more
    assert packet.fragment_offset == int(offset, 16) & 0xFFF8
    assert packet.source_port is None


def test_no_next_header_is_a_protocol_without_ports() -> None:
    assert decode_packet(ipv6(59, b"")).protocol == 59


BAD_IPV6 = {
    "header cut": ipv6(17, UDP)[:39],
    "payload length beyond the bytes": ipv6(17, UDP)[:-1],
    "extension header cut": ipv6(0, b"\x11"),
    "extension header longer than the packet": ipv6(0, bytes.fromhex("11 01 010400000000")),
    "fragment header cut": ipv6(44, bytes.fromhex("11 00 0001 000000")),
    "extension headers without end": ipv6(60, bytes.fromhex("3c 00 010400000000") * 100),
}


@pytest.mark.parametrize("packet", BAD_IPV6.values(), ids=BAD_IPV6.keys())
def test_malformed_ipv6_is_refused(packet: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_packet(packet)


def test_the_version_is_in_the_first_four_bits() -> None:
    assert ip_version(b"\x45") == 4
    assert ip_version(b"\x60") == 6
    with pytest.raises(DecodeError, match="IP version: 7"):
        ip_version(b"\x75")
    with pytest.raises(DecodeError):
        ip_version(b"")


def test_a_packet_of_two_families_is_not_built() -> None:
    assert decode_packet(encode_packet(A4, B4, 17, UDP)).version == 4
    assert decode_packet(encode_packet(A6, B6, 17, UDP)).version == 6
    for source, destination in ((A4, B6), (A6, B4)):
        with pytest.raises(ValueError, match="two address families"):
            encode_packet(source, destination, 17, UDP)


def test_a_packet_beyond_65535_bytes_is_not_built() -> None:
    with pytest.raises(OverflowError):
        encode_ipv4(A4, B4, 17, bytes(65516))
    with pytest.raises(OverflowError):
        encode_ipv6(A6, B6, 17, bytes(65536))


# --------------------------------------------------------------------------------- DSCP and ECN


@pytest.mark.parametrize("value", [0x00, 0x01, 0x02, 0x03, 0xB8, 0xFF])
def test_the_traffic_class_is_replaced_in_place(value: int) -> None:
    for packet in (IPV4, encode_ipv4(A4, B4, 17, UDP, traffic_class=0xFF), ipv6(17, UDP)):
        changed = bytearray(packet)
        set_traffic_class(changed, value)
        decoded = decode_packet(bytes(changed))
        assert traffic_class(bytes(changed)) == decoded.traffic_class == value
        if decoded.version == 4:
            assert ones_complement_sum(bytes(changed[:20])) == 0xFFFF, "the checksum was mended"
        set_traffic_class(changed, decode_packet(packet).traffic_class)
        assert bytes(changed) == packet, "nothing else was touched"


def test_the_traffic_class_of_nothing_is_refused() -> None:
    with pytest.raises(DecodeError):
        traffic_class(b"\x45")
