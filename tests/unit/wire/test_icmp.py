"""ICMP and ICMPv6: echo, and packets that are too big."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from vpnd.model.selectors import Address
from vpnd.wire.errors import DecodeError
from vpnd.wire.icmp import Echo, may_report, too_big
from vpnd.wire.ip import (
    checksum,
    decode_packet,
    encode_ipv4,
    encode_ipv6,
    encode_packet,
    ones_complement_sum,
    pseudo_header,
)

A4, B4 = IPv4Address("192.0.2.1"), IPv4Address("198.51.100.2")
A6, B6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
PAIRS: list[tuple[Address, Address]] = [(A4, B4), (A6, B6)]


def report(offending: bytes, mtu: int, router: Address | None = None) -> bytes:
    """The error about a packet that may have one."""
    packet = too_big(offending, mtu, router)
    assert packet is not None
    return packet


def verify(packet: bytes) -> bytes:
    """The ICMP message inside a packet whose checksums are both right."""
    ip = decode_packet(packet)
    message = packet[ip.header_length :]
    covered = b""
    if ip.version == 4:
        assert ones_complement_sum(packet[:20]) == 0xFFFF
    else:
        covered = pseudo_header(ip.source, ip.destination, 58, len(message))
    assert ones_complement_sum(covered + message) == 0xFFFF
    return message


# ----------------------------------------------------------------------------------------- echo


@pytest.mark.parametrize(("source", "destination"), PAIRS)
@pytest.mark.parametrize("reply", [False, True])
def test_echo_is_read_as_it_is_built(source: Address, destination: Address, reply: bool) -> None:
    echo = Echo(source, destination, reply, 0x1234, 7, b"odd")
    assert Echo.decode(echo.encode()) == echo
    verify(echo.encode())


def test_echo_has_the_bytes_of_the_rfcs() -> None:
    message = verify(Echo(A4, B4, False, 1, 2, b"abcd").encode())
    assert message[:2] + message[4:] == bytes.fromhex("0800 0001 0002") + b"abcd"
    assert verify(Echo(A4, B4, True, 1, 2).encode())[:2] == b"\x00\x00"
    assert verify(Echo(A6, B6, False, 1, 2).encode())[:2] == b"\x80\x00"
    assert verify(Echo(A6, B6, True, 1, 2).encode())[:2] == b"\x81\x00"


def test_the_answer_comes_back_with_the_same_data() -> None:
    echo = Echo(A4, B4, False, 1, 2, b"data")
    assert echo.answer() == Echo(B4, A4, True, 1, 2, b"data")


def icmp4(message: bytes) -> bytes:
    return encode_ipv4(A4, B4, 1, message[:2] + checksum(message).to_bytes(2, "big") + message[4:])


NO_ECHO = {
    "UDP": encode_ipv4(A4, B4, 17, bytes(8)),
    "ICMPv6 in IPv4": encode_ipv4(A4, B4, 58, bytes(8)),
    "unreachable": icmp4(bytes.fromhex("0304 0000 00000000")),
    "a code of its own": icmp4(bytes.fromhex("0801 0000 00010001")),
    "one byte of ICMP": encode_ipv4(A4, B4, 1, b"\x08"),
    "first fragment": encode_ipv4(A4, B4, 1, bytes.fromhex("0800 0000 00010001"))[:6]
    + b"\x20\x00"
    + encode_ipv4(A4, B4, 1, bytes.fromhex("0800 0000 00010001"))[8:],
}


@pytest.mark.parametrize("packet", NO_ECHO.values(), ids=NO_ECHO.keys())
def test_what_is_no_echo_is_none(packet: bytes) -> None:
    assert Echo.decode(packet) is None


@pytest.mark.parametrize(("source", "destination"), PAIRS)
def test_an_echo_with_one_bit_wrong_is_refused(source: Address, destination: Address) -> None:
    packet = bytearray(Echo(source, destination, False, 1, 2, b"data").encode())
    packet[-1] ^= 1
    with pytest.raises(DecodeError, match="ICMP checksum"):
        Echo.decode(bytes(packet))


def test_an_echo_without_identifier_is_refused() -> None:
    with pytest.raises(DecodeError):
        Echo.decode(icmp4(bytes.fromhex("0800 0000 0001")))


def test_an_echo_of_two_families_is_not_built() -> None:
    with pytest.raises(ValueError, match="two address families"):
        Echo(A4, B6, False, 1, 2).encode()


# -------------------------------------------------------------------------------------- too big


def test_fragmentation_needed_tells_the_mtu_and_quotes_the_packet() -> None:
    offending = encode_ipv4(A4, B4, 17, bytes(1472))
    packet = report(offending, 1422)
    ip = decode_packet(packet)
    assert (ip.source, ip.destination, ip.protocol) == (B4, A4, 1)
    message = verify(packet)
    assert message[:2] == b"\x03\x04"
    assert message[4:8] == bytes.fromhex("0000 058e")
    assert message[8:] == offending[: 576 - 28]
    assert len(packet) == 576


def test_packet_too_big_tells_the_mtu_and_quotes_the_packet() -> None:
    offending = encode_ipv6(A6, B6, 17, bytes(1460))
    packet = report(offending, 1398)
    ip = decode_packet(packet)
    assert (ip.source, ip.destination, ip.protocol) == (B6, A6, 58)
    message = verify(packet)
    assert message[:2] == b"\x02\x00"
    assert message[4:8] == bytes.fromhex("00000576")
    assert message[8:] == offending[: 1280 - 48]
    assert len(packet) == 1280


def test_a_gateway_may_speak_in_its_own_name() -> None:
    router = IPv4Address("203.0.113.9")
    assert decode_packet(report(encode_ipv4(A4, B4, 17, bytes(1472)), 1400, router)).source == router


def test_a_short_packet_is_quoted_whole_and_its_link_padding_is_not() -> None:
    offending = encode_ipv4(A4, B4, 17, bytes(100))
    assert verify(report(offending + bytes(10), 68))[8:] == offending


def fragment(packet: bytes, word: int) -> bytes:
    return packet[:6] + word.to_bytes(2, "big") + packet[8:]


UDP4 = encode_ipv4(A4, B4, 17, bytes(64))
NOT_REPORTED = {
    "a later fragment": fragment(UDP4, 0x2001),
    "an ICMP error": encode_ipv4(A4, B4, 1, b"\x03\x04" + bytes(30)),
    "an ICMPv6 error": encode_ipv6(A6, B6, 58, b"\x02\x00" + bytes(30)),
    "to everyone": encode_ipv4(A4, IPv4Address("255.255.255.255"), 17, bytes(64)),
    "to a group": encode_ipv4(A4, IPv4Address("224.0.0.5"), 17, bytes(64)),
    "from everyone": encode_ipv4(IPv4Address("255.255.255.255"), B4, 17, bytes(64)),
    "from a group": encode_ipv4(IPv4Address("224.0.0.5"), B4, 17, bytes(64)),
    "from nobody": encode_ipv6(IPv6Address("::"), B6, 17, bytes(64)),
}


@pytest.mark.parametrize("packet", NOT_REPORTED.values(), ids=NOT_REPORTED.keys())
def test_some_packets_are_never_answered_with_an_error(packet: bytes) -> None:
    assert too_big(packet, 1400) is None


REPORTED = {
    "UDP": UDP4,
    "a first fragment": fragment(UDP4, 0x2000),
    "a ping": encode_ipv4(A4, B4, 1, b"\x08\x00" + bytes(30)),
    "ICMP without a type": encode_ipv4(A4, B4, 1, b""),
    "a ping over IPv6": encode_ipv6(A6, B6, 58, b"\x80\x00" + bytes(30)),
    "ICMPv6 without a type": encode_ipv6(A6, B6, 58, b""),
    "TCP over IPv6": encode_ipv6(A6, B6, 6, bytes(64)),
    "an IPv6 group, which path MTU discovery needs": encode_ipv6(A6, IPv6Address("ff0e::1"), 17, bytes(64)),
}


@pytest.mark.parametrize("packet", REPORTED.values(), ids=REPORTED.keys())
def test_others_are(packet: bytes) -> None:
    assert may_report(decode_packet(packet))


def test_an_error_for_a_group_must_not_come_from_the_group() -> None:
    """RFC 4443 section 2.2: the source is a unicast address, so the gateway has to give its own."""
    offending = encode_packet(A6, IPv6Address("ff0e::1"), 17, bytes(64))
    assert too_big(offending, 1280) is None
    assert decode_packet(report(offending, 1280, B6)).source == B6


@pytest.mark.parametrize("packet", [b"", b"\x45", UDP4[:-1]])
def test_a_malformed_packet_is_refused(packet: bytes) -> None:
    with pytest.raises(DecodeError):
        too_big(packet, 1400)
