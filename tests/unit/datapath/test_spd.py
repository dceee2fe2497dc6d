"""Selectors applied to packets."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment

from tests.unit.datapath.parts import EVERYTHING, selector, udp_packet
from vpnd.datapath.interface import PolicyRow
from vpnd.datapath.spd import MAXIMUM_FLOWS, NO_MAPPING, Row, SelectorTable, outbound_rows
from vpnd.model.selectors import Selector
from vpnd.wire.errors import DecodeError


def table(*rows: tuple[str, str]) -> SelectorTable:
    return SelectorTable(
        tuple(Row(index, (selector(source),), (selector(to),)) for index, (source, to) in enumerate(rows))
    )


def test_the_first_row_that_holds_decides() -> None:
    policies = table(
        ("10.1.0.0/16", "10.2.3.0/24"), ("10.1.0.0/16", "10.2.0.0/16"), ("fd01::/64", "fd02::/64")
    )
    assert policies.lookup(udp_packet("10.1.0.1", "10.2.3.4")) == 0
    assert policies.lookup(udp_packet("10.1.0.1", "10.2.4.4")) == 1
    assert policies.lookup(udp_packet("fd01::1", "fd02::1")) == 2
    assert policies.lookup(udp_packet("10.9.0.1", "10.2.4.4")) == NO_MAPPING
    assert policies.lookup(udp_packet("fd01::1", "fd03::1")) == NO_MAPPING


def test_local_is_the_source_of_what_leaves() -> None:
    rows = outbound_rows((PolicyRow(7, (selector("10.1.0.0/16"),), (selector("10.2.0.0/16"),)),))
    assert SelectorTable(rows).lookup(udp_packet("10.1.0.1", "10.2.0.1")) == 7
    assert SelectorTable(rows).lookup(udp_packet("10.2.0.1", "10.1.0.1")) == NO_MAPPING


def test_a_flow_is_remembered_by_its_addresses() -> None:
    policies = table(("10.1.0.0/16", "10.2.0.0/16"))
    packet = udp_packet("10.1.0.1", "10.2.0.1")
    policies.lookup(packet)
    assert policies.flows == {packet[12:20]: 0}
    policies.lookup(udp_packet("fd00::1", "fd00::2"))
    assert len(policies.flows) == 2


@pytest.mark.parametrize("ports", [(0, 80), (80, 65535), (53, 53)])
def test_a_flow_is_not_remembered_where_ports_decide(ports: tuple[int, int]) -> None:
    rule = selector("10.2.0.0/16")
    policies = SelectorTable(
        (Row(0, (selector("10.1.0.0/16"),), (replace(rule, port_start=ports[0], port_end=ports[1]),)),)
    )
    policies.lookup(udp_packet("10.1.0.1", "10.2.0.1"))
    assert policies.flows == {}


def test_the_flow_of_probes_is_told_from_what_a_row_holds_and_from_what_none_does() -> None:
    policies = table(("10.1.0.0/16", "10.2.0.0/16"))
    probe, other = udp_packet("10.1.0.1", "10.2.0.1"), udp_packet("10.1.0.1", "10.2.0.2")
    policies.tell_probes(probe[12:20])
    assert policies.lookup(probe) not in (0, NO_MAPPING)
    assert policies.lookup(other) == 0
    outside = udp_packet("10.9.0.1", "10.2.0.1")
    policies.tell_probes(outside[12:20])
    assert policies.lookup(outside) == NO_MAPPING
    assert policies.lookup(probe) == 0


def test_the_memory_of_flows_is_bounded() -> None:
    policies = SelectorTable((Row(0, EVERYTHING, EVERYTHING),))
    for host in range(MAXIMUM_FLOWS + 5):
        policies.lookup(udp_packet(str(ip_address("10.0.0.1") + host), "10.200.0.1"))
    assert len(policies.flows) == 5


@pytest.mark.parametrize(
    ("rule", "packet", "held"),
    [
        (selector("10.0.0.0/8", 17), UDP(sport=5, dport=53), True),
        (selector("10.0.0.0/8", 17), TCP(dport=53), False),
        (selector("10.0.0.0/8", 17, (53, 53)), UDP(dport=53), True),
        (selector("10.0.0.0/8", 17, (53, 53)), UDP(dport=54), False),
        (selector("10.0.0.0/8", 0, (53, 60)), TCP(dport=60), True),
        (selector("10.0.0.0/8", 1, (0x0800, 0x0800)), ICMP(type=8, code=0), True),
        (selector("10.0.0.0/8", 1, (0x0800, 0x0800)), ICMP(type=3, code=1), False),
        (selector("10.0.0.0/8", 0, (53, 60)), ICMP(type=8), False),
    ],
)
def test_protocols_and_ports(rule: Selector, packet: object, held: bool) -> None:
    policies = SelectorTable((Row(0, EVERYTHING, (rule,)),))
    whole = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / packet)
    assert (policies.lookup(whole) == 0) is held
    # Another packet between the same hosts may get another answer, so none is remembered.
    assert policies.flows == {}


@pytest.mark.parametrize("version", [4, 6])
def test_a_later_fragment_belongs_to_no_selector_with_ports(version: int) -> None:
    """It shows none (RFC 4301 section 7.1); one of all ports, or of a protocol, holds it."""
    networks = {4: "10.0.0.0/8", 6: "fd00::/8"}[version]
    source, destination = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}[version]
    for proto in (17, 6):
        head = (
            IP(src=source, dst=destination, frag=9, proto=proto)
            if version == 4
            else IPv6(src=source, dst=destination) / IPv6ExtHdrFragment(offset=9, nh=proto)
        )
        later = bytes(head / (b"x" * 32))
        for rule, held in (
            (selector(networks, 17, (53, 53)), False),
            (selector(networks, 0, (53, 60)), False),
            (selector(networks, 17), proto == 17),
            (selector(networks), True),
        ):
            table = SelectorTable((Row(0, (selector(networks),), (rule,)),))
            assert (table.lookup(later) == 0) is held


def test_the_first_fragment_is_matched_by_its_ports() -> None:
    policies = SelectorTable((Row(0, EVERYTHING, (selector("10.0.0.0/8", 17, (53, 53)),)),))
    for port, held in ((53, True), (54, False)):
        first = bytes(IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / UDP(dport=port) / (b"x" * 24))
        assert (policies.lookup(first) == 0) is held


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("224.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "10.0.0.1"),
        ("0.0.0.0", "10.0.0.1"),
        ("255.255.255.255", "10.0.0.1"),
        ("10.0.0.1", "127.0.0.1"),
        ("::1", "fd00::1"),
        ("::", "fd00::1"),
        ("ff02::1", "fd00::1"),
        ("fd00::1", "::1"),
        ("192.0.2.1", "10.0.0.1"),
    ],
)
def test_addresses_that_no_router_forwards_are_refused_where_asked(source: str, destination: str) -> None:
    row = Row(0, EVERYTHING, EVERYTHING)
    packet = udp_packet(source, destination)
    own = frozenset({ip_address("192.0.2.1")})
    assert SelectorTable((row,), refuse_martians=True, own=own).lookup(packet) == NO_MAPPING
    assert SelectorTable((row,)).lookup(packet) == 0


def test_multicast_to_is_carried() -> None:
    """Routing protocols speak through tunnels to groups."""
    row = Row(0, EVERYTHING, EVERYTHING)
    assert SelectorTable((row,), refuse_martians=True).lookup(udp_packet("10.0.0.1", "224.0.0.5")) == 0


def test_interrupted_only_the_kept_addresses_pass_and_flows_are_forgotten() -> None:
    policies = SelectorTable((Row(0, EVERYTHING, EVERYTHING),))
    business, probe, answer = (
        udp_packet("10.1.0.1", "10.2.0.1"),
        udp_packet("169.254.128.1", "169.254.128.2"),
        udp_packet("169.254.128.2", "169.254.128.1"),
    )
    assert policies.lookup(business) == 0
    policies.interrupt(frozenset({ip_address("169.254.128.2")}))
    assert policies.flows == {}
    assert [policies.lookup(packet) for packet in (business, probe, answer)] == [NO_MAPPING, 0, 0]
    policies.interrupt(None)
    assert policies.lookup(business) == 0


def test_a_malformed_packet_raises() -> None:
    with pytest.raises(DecodeError):
        table(("10.0.0.0/8", "10.0.0.0/8")).lookup(udp_packet("10.0.0.1", "10.0.0.2")[:30])
