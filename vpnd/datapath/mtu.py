"""How large an inner packet may be so that its ESP packet fits the path."""

from __future__ import annotations

from vpnd.crypto.suites import ENCRYPTIONS, integrity_of
from vpnd.model.proposals import Suite

IPV4_HEADER = 20
IPV6_HEADER = 40
UDP_HEADER = 8
ESP_HEADER = 8
ESP_TRAILER = 2
TCP_HEADER = 20

ESP_ALIGNMENT = 4
"""The ICV begins on a 4-byte boundary, whatever the cipher (RFC 4303 section 2.4)."""

MINIMUM_MTU = {4: 576, 6: 1280}
"""The least path MTU that is believed, by the family of the outer addresses.

Every IPv4 host takes 576 bytes (RFC 791), every IPv6 link carries 1280 (RFC 8200 section 5); a smaller
number is a forgery or a mistake, and following it would stop the traffic.
"""


def overhead(suite: Suite) -> int:
    """Bytes of ESP header, IV and ICV; padding and trailer are not in it."""
    cipher = ENCRYPTIONS[suite.encryption]
    icv = cipher.icv_length if suite.integrity is None else integrity_of(suite).icv_length
    return ESP_HEADER + cipher.iv_length + icv


def alignment(suite: Suite) -> int:
    """What inner packet, padding and trailer together are a multiple of."""
    return max(ENCRYPTIONS[suite.encryption].block, ESP_ALIGNMENT)


def outer_headers(version: int, udp: bool) -> int:
    """Bytes before the ESP header: IP and, with `udp`, UDP (RFC 3948)."""
    return (IPV4_HEADER if version == 4 else IPV6_HEADER) + (UDP_HEADER if udp else 0)


def inner_mtu(path_mtu: int, suite: Suite, udp: bool, outer_version: int) -> int:
    """The longest inner packet whose ESP packet, in one datagram, has at most `path_mtu` bytes.

    `path_mtu` counts from the outer IP header; `udp` says whether ESP is in UDP (RFC 3948).
    """
    room = path_mtu - outer_headers(outer_version, udp) - overhead(suite)
    return room - room % alignment(suite) - ESP_TRAILER


def path_mtu_of(inner: int, suite: Suite, udp: bool, outer_version: int) -> int:
    """The bytes of the datagram that carries an inner packet of `inner` bytes: `inner_mtu` the other way."""
    unit = alignment(suite)
    padded = -(-(inner + ESP_TRAILER) // unit) * unit
    return outer_headers(outer_version, udp) + overhead(suite) + padded


def mss(inner: int, version: int) -> int:
    """The TCP payload of an inner packet of `inner` bytes without options (RFC 9293 section 3.7.1)."""
    return inner - (IPV4_HEADER if version == 4 else IPV6_HEADER) - TCP_HEADER


def believed(path_mtu: int, outer_version: int) -> int:
    """`path_mtu`, but not less than what every path of that family carries."""
    return max(path_mtu, MINIMUM_MTU[outer_version])
