"""The laboratory itself: what it reads from strongSwan, and that its traffic notices loss."""

from __future__ import annotations

import pytest
from scapy.utils import rdpcap

from tests.lab.capture import Capture
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan, Suite
from tests.lab.strongswan import children_of, parse_sas, proposal
from tests.lab.topology import two_gateways
from tests.lab.traffic import TrafficLost, require_ping

RAW = (
    "list-sa event {t {uniqueid=1 version=2 state=ESTABLISHED local-host=192.0.2.2 "
    "child-sas {c-1 {name=c state=INSTALLED spi-in=82c7904a local-ts=[10.1.0.0/24 10.3.0.0/24]}}}}\n"
    "list-sas reply {}\n"
)


def test_raw_sas_are_read_with_their_children() -> None:
    (sa,) = parse_sas(RAW)
    assert (sa["name"], sa["state"], sa["local-host"]) == ("t", "ESTABLISHED", "192.0.2.2")
    assert sa["child-sas"]["c-1"]["local-ts"] == ["10.1.0.0/24", "10.3.0.0/24"]
    assert sa["child-sas"]["c-1"]["spi-in"] == "82c7904a"


def test_no_sas_are_none() -> None:
    assert list(parse_sas("list-sas reply {}\n")) == []


@pytest.mark.parametrize(
    ("suite", "ike", "esp"),
    [
        (Suite("aes-256", "sha384", 19), "aes256-sha384-ecp256", "aes256-sha384"),
        (Suite("aes-128-gcm", "sha512", 31), "aes128gcm16-prfsha512-curve25519", "aes128gcm16"),
    ],
)
def test_a_proposal_in_the_peers_words(suite: Suite, ike: str, esp: str) -> None:
    assert (proposal(suite, ike=True), proposal(suite, ike=False)) == (ike, esp)


def test_every_mapping_is_a_child_of_its_own() -> None:
    plan = Plan().change(local=A, remote=B)
    assert children_of(plan) == [("t1", "10.1.0.0/24", "10.2.0.0/24")]
    assert children_of(plan.change(routed=True)) == [("t1", "0.0.0.0/0", "0.0.0.0/0")]


@pytest.mark.root
def test_lost_packets_are_noticed(lab: Lab) -> None:
    wire = two_gateways(lab)
    with pytest.raises(TrafficLost, match=B.inside):
        require_ping(wire.a.host, A.inside, B.inside, count=1)


@pytest.mark.root
def test_a_capture_holds_what_was_on_the_wire(lab: Lab) -> None:
    wire = two_gateways(lab)
    with Capture(wire.b.gateway, expression=f"icmp and host {A.address}") as path:
        require_ping(wire.a.host, A.address, B.address, count=2)
    assert len(rdpcap(str(path))) == 4


@pytest.mark.root
def test_a_namespace_reports_what_was_added_to_it(lab: Lab) -> None:
    namespace = two_gateways(lab).a.gateway
    assert namespace.left_behind() == {"interfaces": [], "routes": [], "rules": []}
    namespace.ip("tuntap", "add", "vpn-x", "mode", "tun")
    namespace.ip("rule", "add", "from", "10.1.0.0/24", "lookup", "77")
    namespace.ip("route", "add", "blackhole", "10.2.0.0/24")
    left = namespace.left_behind()
    assert left["interfaces"] == ["vpn-x"]
    assert left["routes"] == ["blackhole 10.2.0.0/24 "]
    assert len(left["rules"]) == 1
