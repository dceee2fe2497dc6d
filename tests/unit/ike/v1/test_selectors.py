"""Quick mode identities and the ranges that they name (RFC 2407 section 4.6.2)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from vpnd.ike.v1.selectors import id_of, selector_of
from vpnd.model.selectors import ANY_PORT, Selector
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import IdType
from vpnd.wire.ikev1 import Id

NETWORKS = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.2.0/31",
    "192.0.2.1/32",
    "::/0",
    "2001:db8::/32",
    "2001:db8::1/128",
]


@pytest.mark.parametrize("text", NETWORKS)
def test_a_network_is_read_back(text: str) -> None:
    for protocol, ports in ((0, ANY_PORT), (17, ANY_PORT), (6, (443, 443))):
        selector = Selector.of(ip_network(text), protocol, ports)
        assert selector_of(Id.decode(id_of(selector).encode())) == selector


def test_a_range_of_ports_has_no_identity() -> None:
    with pytest.raises(ValueError, match="no identity for the ports 1-2"):
        id_of(Selector.of(ip_network("10.0.0.0/8"), 6, (1, 2)))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("10.0.0.0/8", IdType.IPV4_ADDR_SUBNET),
        ("10.0.0.1/32", IdType.IPV4_ADDR),
        ("2001:db8::/32", IdType.IPV6_ADDR_SUBNET),
        ("2001:db8::1/128", IdType.IPV6_ADDR),
    ],
)
def test_one_host_is_an_address(text: str, kind: IdType) -> None:
    assert id_of(Selector.of(ip_network(text))).type == kind


def test_one_host_as_a_subnet_is_the_same() -> None:
    address = ip_address("10.0.0.1")
    subnet = Id(IdType.IPV4_ADDR_SUBNET, address.packed + b"\xff" * 4)
    assert selector_of(subnet) == selector_of(Id(IdType.IPV4_ADDR, address.packed))


def test_host_bits_are_ignored_and_ports_are_kept() -> None:
    identity = Id(IdType.IPV4_ADDR_SUBNET, bytes((10, 1, 2, 3, 255, 255, 255, 0)), 6, 80)
    found = selector_of(identity)
    assert (str(found.start), str(found.end)) == ("10.1.2.0", "10.1.2.255")
    assert (found.protocol, found.port_start, found.port_end) == (6, 80, 80)


def test_a_range_is_a_range() -> None:
    found = selector_of(Id(IdType.IPV4_ADDR_RANGE, bytes((10, 0, 0, 5, 10, 0, 0, 9))))
    assert (str(found.start), str(found.end)) == ("10.0.0.5", "10.0.0.9")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (IdType.FQDN, b"x.example"),
        (IdType.IPV4_ADDR, bytes(3)),
        (IdType.IPV4_ADDR, bytes(16)),
        (IdType.IPV4_ADDR_SUBNET, bytes(4)),
        (IdType.IPV4_ADDR_SUBNET, bytes((10, 0, 0, 0, 255, 0, 255, 0))),
        (IdType.IPV4_ADDR_RANGE, bytes((10, 0, 0, 9, 10, 0, 0, 5))),
        (IdType.IPV6_ADDR, bytes(4)),
        (IdType.IPV6_ADDR_SUBNET, bytes(31)),
        (0, b""),
        (255, bytes(8)),
    ],
)
def test_what_names_no_range_is_refused(kind: int, value: bytes) -> None:
    with pytest.raises(DecodeError):
        selector_of(Id(kind, value))
