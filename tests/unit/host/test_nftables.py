"""The filter for what arrives in clear, as `nft` reads it back."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import Lab, Namespace
from tests.unit.host.entered import inside
from vpnd.host import nftables
from vpnd.host.nftables import Narrow, Shield

pytestmark = pytest.mark.root

GROUP = 0x7670


def nets(*texts: str) -> frozenset[Any]:
    return frozenset(map(ip_network, texts))


def ruleset(namespace: Namespace) -> str:
    return namespace.run("nft", "list", "ruleset").stdout


def elements(namespace: Namespace, name: str) -> list[Any]:
    found = json.loads(namespace.run("nft", "-j", "list", "set", "inet", "vpnd", name).stdout)
    entries = next(entry["set"] for entry in found["nftables"] if "set" in entry).get("elem", [])
    return [
        f"{e['prefix']['addr']}/{e['prefix']['len']}" if "prefix" in e else "-".join(e["range"])
        for e in entries
    ]


def test_the_filter_says_what_its_docstring_says(lab: Lab) -> None:
    namespace = lab.namespace("nft")
    shield = Shield(GROUP, nets("10.2.0.0/16"), nets("10.1.0.0/24", "fd01::/64"), nets("10.3.0.0/24"))
    inside(namespace, lambda: nftables.install(shield))
    rules = [line.strip() for line in ruleset(namespace).splitlines() if line.endswith(("accept", "drop"))]
    assert rules == [
        f"iifgroup {GROUP} accept",
        "meta l4proto esp fib daddr . iif type local accept",
        "udp dport { 500, 4500 } fib daddr . iif type local accept",
        "ip saddr @remote4 ip daddr @local4 fib saddr . iif oif missing drop",
        "ip saddr @routes4 fib daddr . iif type != local fib saddr . iif oif missing drop",
        "ip6 saddr @remote6 ip6 daddr @local6 fib saddr . iif oif missing drop",
        "ip6 saddr @routes6 fib daddr . iif type != local fib saddr . iif oif missing drop",
    ]
    assert elements(namespace, "routes4") == ["10.2.0.0/16"]
    assert elements(namespace, "local6") == ["fd01::/64"]
    assert elements(namespace, "remote6") == []


def test_mappings_of_one_protocol_or_some_ports_are_written_out(lab: Lab) -> None:
    namespace = lab.namespace("nft")
    ours, theirs = ip_network("10.1.0.0/24"), ip_network("10.2.0.0/24")
    ours6, theirs6 = ip_network("fd01::/64"), ip_network("fd02::/64")
    narrow = frozenset(
        {
            Narrow(ours, theirs, 1),
            Narrow(ours, theirs, 6, (443, 443)),
            Narrow(ours, theirs, 6, (0, 65535), (1024, 2047)),
            Narrow(ours6, theirs6, 17, (53, 53), (1, 9)),
        }
    )
    inside(namespace, lambda: nftables.install(Shield(GROUP, narrow=narrow)))
    rules = [line.strip() for line in ruleset(namespace).splitlines() if line.endswith("drop")]
    usual = [rule for rule in rules if "@" in rule]
    rules = [rule for rule in rules if "@" not in rule]
    assert len(usual) == 4
    there, back = "ip saddr 10.1.0.0/24 ip daddr 10.2.0.0/24", "ip saddr 10.2.0.0/24 ip daddr 10.1.0.0/24"
    assert sorted(rules) == sorted(
        [
            f"{back} meta l4proto icmp drop",
            f"{back} tcp dport 443 drop",
            f"{back} tcp sport 1024-2047 drop",
            "ip6 saddr fd02::/64 ip6 daddr fd01::/64 udp sport 1-9 udp dport 53 drop",
            f"{there} meta l4proto tcp ip frag-off & 16383 != 0 drop",
            "ip6 saddr fd01::/64 ip6 daddr fd02::/64 meta l4proto udp exthdr frag exists drop",
        ]
    )


def test_it_is_replaced_as_a_whole_and_leaves_other_tables_alone(lab: Lab) -> None:
    namespace = lab.namespace("nft")
    namespace.run("nft", "add", "table", "inet", "other")

    def work() -> None:
        assert not nftables.installed()
        for route in ("10.2.0.0/16", "10.4.0.0/16"):
            nftables.install(Shield(GROUP, nets(route)))
            assert nftables.installed()
            assert elements(namespace, "routes4") == [route]
        nftables.install(Shield(GROUP))
        assert not nftables.installed()

    inside(namespace, work)
    assert ruleset(namespace).split() == ["table", "inet", "other", "{", "}"]


def test_a_route_to_everything_leaves_link_local_traffic_alone(lab: Lab) -> None:
    namespace = lab.namespace("nft")
    inside(namespace, lambda: nftables.install(Shield(GROUP, nets("0.0.0.0/0", "::/0"))))
    covered = {version: elements(namespace, f"routes{version}") for version in (4, 6)}
    for text, version, protected in (
        ("192.0.2.1", 4, True),
        ("10.255.255.255", 4, True),
        ("169.254.1.1", 4, False),
        ("0.0.0.0", 4, False),
        ("255.255.255.255", 4, False),
        ("2001:db8::1", 6, True),
        ("fe80::1", 6, False),
        ("::", 6, False),
    ):
        address = ip_network(text)
        within = any(address.subnet_of(ip_network(entry)) for entry in covered[version])  # type: ignore[arg-type]  # both are of one version
        assert within is protected, text


def test_thousands_of_networks_fit(lab: Lab) -> None:
    namespace = lab.namespace("nft")
    routes = nets(*(f"10.{number >> 8}.{number & 255}.0/25" for number in range(3000)))
    inside(namespace, lambda: nftables.install(Shield(GROUP, routes)))
    assert len(elements(namespace, "routes4")) == 3000


def test_what_nft_says_is_told(lab: Lab) -> None:
    namespace = lab.namespace("nft")

    def work() -> None:
        with pytest.raises(nftables.FilterFailed, match=r"^nftables: .*[Ee]rror"):
            nftables.install(Shield(-1, nets("10.2.0.0/16")))
        assert not nftables.installed()

    inside(namespace, work)


def test_a_machine_without_nft_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "PLACES", "/nowhere")
    with pytest.raises(nftables.FilterFailed, match="package nftables"):
        nftables.installed()


def test_bytes_that_are_no_text_are_no_reason_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As comments of others may be."""
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\nprintf 'a\\377b'\nprintf 'Error: c\\377d' >&2\nexit ${1:-0}\n")
    program.chmod(0o755)
    monkeypatch.setattr(nftables, "PLACES", str(tmp_path))
    assert nftables.nft() == "a\\xffb"
    with pytest.raises(nftables.FilterFailed, match=r"Error: c\\xffd"):
        nftables.nft("1")
