"""Links, routes and rules in a network namespace of the test's own."""

from __future__ import annotations

import json
import sys
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.lab.lab import Lab, Namespace
from tests.unit.host.entered import with_netlink
from vpnd.daemon.routing import (
    FIRST_TABLE,
    INSIDE_METRIC,
    ROUTES_PRIORITY,
    ROUTES_TABLE,
    SEPARATE_PRIORITY,
    SEPARATE_TABLE,
    SPD_PRIORITY,
    TUNNEL_METRIC,
    WORST_METRIC,
)
from vpnd.host.netlink import Netlink, NetlinkFailed
from vpnd.host.routes import COMMON_GROUP, LAST_PORT_OF_RULES, MAIN_TABLE, MARK, Route, Rule, Wanted
from vpnd.host.tun import open_tun
from vpnd.model.selectors import Address

pytestmark = pytest.mark.root

NET, NET6 = ip_network("10.2.0.0/16"), ip_network("fd02::/64")
ALL = ip_network("0.0.0.0/0")


def holes() -> Wanted:
    routes = {
        Route(NET, MAIN_TABLE, None, WORST_METRIC),
        Route(NET6, MAIN_TABLE, None, WORST_METRIC),
        Route(ALL, SEPARATE_TABLE, None, WORST_METRIC),
        Route(ip_network("10.2.9.0/24"), ROUTES_TABLE, None, INSIDE_METRIC, thrown=True),
        Route(ip_network("fd02::/65"), ROUTES_TABLE, None, INSIDE_METRIC, thrown=True),
    }
    rules = {
        Rule(4, ip_network("10.1.0.0/24"), NET, FIRST_TABLE + 1, SPD_PRIORITY),
        Rule(6, ip_network("fd01::/64"), NET6, FIRST_TABLE + 1, SPD_PRIORITY),
        Rule(4, ip_network("10.1.0.0/24"), NET, FIRST_TABLE + 2, SPD_PRIORITY, protocol=1),
        Rule(4, NET, NET, FIRST_TABLE + 2, SPD_PRIORITY, protocol=17, source_ports=(53, 53)),
        Rule(
            6,
            ip_network("fd01::/64"),
            NET6,
            FIRST_TABLE + 2,
            SPD_PRIORITY,
            protocol=6,
            source_ports=(443, 443),
            destination_ports=(1024, LAST_PORT_OF_RULES),
        ),
        Rule(4, None, None, MAIN_TABLE, ROUTES_PRIORITY, suppress_group=COMMON_GROUP),
        Rule(4, None, None, MAIN_TABLE, SEPARATE_PRIORITY, suppress_default=True),
        Rule(4, None, None, SEPARATE_TABLE, SEPARATE_PRIORITY + 1, unless_mark=MARK),
    }
    return Wanted(frozenset(routes), frozenset(rules))


def ways(device: str) -> Wanted:
    return Wanted(
        frozenset(
            {
                Route(NET, MAIN_TABLE, device, TUNNEL_METRIC),
                Route(NET6, MAIN_TABLE, device, TUNNEL_METRIC),
                Route(ALL, SEPARATE_TABLE, device, TUNNEL_METRIC),
            }
        )
    )


def listed(namespace: Namespace, *command: str) -> Any:
    return json.loads(namespace.run("ip", "-json", *command).stdout or "[]")


def test_what_is_wanted_is_made_adopted_moved_and_taken_away(lab: Lab) -> None:
    namespace = lab.namespace("nl")

    def work(netlink: Netlink) -> None:
        tuns = [open_tun("t0"), open_tun("t1")]
        netlink.set_up("t0", 1400, 44)
        netlink.set_up("t1", 1380, 44)
        assert netlink.reconcile(holes() | ways("t0")) == []
        assert netlink.present() == holes() | ways("t0")
        assert netlink.reconcile(holes() | ways("t0")) == []
        assert netlink.reconcile(holes() | ways("t1")) == []
        assert netlink.present() == holes() | ways("t1")
        namespace.run("ip", "route", "del", "10.2.0.0/16", "dev", "t1")
        namespace.run("ip", "rule", "del", "pref", str(SPD_PRIORITY))
        assert netlink.reconcile(holes() | ways("t1")) == []
        assert netlink.present() == holes() | ways("t1")
        for tun in tuns:
            tun.close()
        # As after kill -9: the interfaces are gone with their routes, what guards the traffic is there.
        assert netlink.present() == holes()
        assert netlink.reconcile(holes()) == []
        assert netlink.reconcile(Wanted()) == []
        assert netlink.present() == Wanted()

    with_netlink(namespace, work)
    rules = listed(namespace, "rule")
    assert {rule["priority"] for rule in rules} == {0, 32766, 32767}


def test_routes_of_others_are_not_touched(lab: Lab) -> None:
    namespace = lab.namespace("nl")

    def work(netlink: Netlink) -> None:
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.run("ip", "route", "add", "10.2.0.0/16", "dev", "lo", "metric", "5")
        namespace.run("ip", "rule", "add", "pref", "100", "lookup", "55")
        assert netlink.reconcile(holes()) == []
        assert netlink.reconcile(Wanted()) == []

    with_netlink(namespace, work)
    assert [route["metric"] for route in listed(namespace, "route")] == [5]
    assert 100 in {rule["priority"] for rule in listed(namespace, "rule")}


def test_a_tun_is_up_quiet_and_long_enough(lab: Lab) -> None:
    namespace = lab.namespace("nl")

    def work(netlink: Netlink) -> None:
        tun = open_tun("t0")
        netlink.set_up("t0", 1390, 44)
        (link,) = listed(namespace, "-details", "link", "show", "t0")
        assert (link["mtu"], link["txqlen"], link["inet6_addr_gen_mode"]) == (1390, 10000, "none")
        assert "UP" in link["flags"]
        assert listed(namespace, "-6", "address", "show", "dev", "t0") in ([], [{}])
        netlink.set_mtu("t0", 1300)
        namespace.run("ip", "link", "set", "t0", "down")
        netlink.set_links_up(frozenset({"t0"}))
        (link,) = listed(namespace, "link", "show", "t0")
        assert (link["mtu"], "UP" in link["flags"]) == (1300, True)
        address = ip_address("169.254.128.1")
        for present in (True, True, False, False):
            netlink.set_address("t0", address, present)
            assert (address in netlink.local_addresses()) is present
        second = open_tun("t1")
        netlink.set_up("t1", 1400, 44)
        netlink.delete_tunnels()
        netlink.delete_tunnels()
        assert netlink.link_index("t0") is None
        assert netlink.link_index("t1") is None
        tun.close()
        second.close()
        with pytest.raises(NetlinkFailed, match="t0"):
            netlink.set_mtu("t0", 1400)

    with_netlink(namespace, work)


FORGED = """
import socket, struct
from ipaddress import ip_address
from vpnd.wire.ip import checksum, encode_ipv4
here, there = "192.0.2.1", "198.51.100.1"
quoted = encode_ipv4(ip_address(here), ip_address(there), 50, bytes(8))
message = struct.pack("!BBHHH", 3, 4, 0, 0, 600) + quoted
message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
with socket.socket(socket.AF_INET, socket.SOCK_RAW, 50) as esp:
    esp.bind((here, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) as icmp:
        icmp.sendto(message, (here, 0))
"""


def test_the_way_to_a_peer_is_known(lab: Lab) -> None:
    namespace = lab.namespace("nl")

    def work(netlink: Netlink) -> None:
        assert netlink.route_to(ip_address("192.0.2.2")) is None
        namespace.run("ip", "link", "add", "out", "type", "veth", "peer", "name", "other")
        namespace.run("ip", "link", "set", "out", "mtu", "1480", "up")
        namespace.run("ip", "link", "set", "other", "up")
        namespace.run("ip", "address", "add", "192.0.2.1/24", "dev", "out")
        route = netlink.route_to(ip_address("192.0.2.2"), MARK)
        assert route is not None
        assert (route.source, route.mtu) == (ip_address("192.0.2.1"), 1480)
        namespace.run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.9", "mtu", "1300")
        further = netlink.route_to(ip_address("198.51.100.1"))
        assert further is not None
        assert further.mtu == 1300
        # What the kernel takes from an ICMP error, which anyone can send, is no word of the route's.
        namespace.run(sys.executable, "-c", FORGED)
        assert "mtu 600" in namespace.ip("route", "get", "198.51.100.1").stdout
        forged = netlink.route_to(ip_address("198.51.100.1"))
        assert forged is not None
        assert forged.mtu == 1300

    with_netlink(namespace, work)


def test_inside_is_what_does_not_lie_on_the_way_to_a_peer(lab: Lab) -> None:
    namespace = lab.namespace("nl")

    def work(netlink: Netlink) -> None:
        for name in ("out", "second", "lan"):
            namespace.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
            namespace.run("ip", "link", "set", name, "up")
            namespace.run("ip", "link", "set", f"{name}-peer", "up")
        for name, address in (("out", "192.0.2.1/24"), ("second", "198.51.100.1/24"), ("lan", "10.1.0.1/24")):
            namespace.run("ip", "address", "add", address, "dev", name)
        namespace.run("ip", "-6", "address", "add", "fd01::1/64", "dev", "lan", "nodad")
        for route in (
            ("default", "via", "192.0.2.254"),
            ("203.0.113.0/24", "via", "198.51.100.254"),
            ("10.1.5.0/24", "via", "10.1.0.254"),
            ("10.2.0.0/25", "via", "192.0.2.254"),
            ("10.2.0.128/25", "dev", "out"),
            ("10.1.6.0/24", "nexthop", "via", "10.1.0.254", "nexthop", "via", "192.0.2.254"),
        ):
            namespace.run("ip", "route", "add", *route)
        tun = open_tun("t0")
        netlink.set_up("t0", 1400, 44)
        namespace.run("ip", "route", "add", "10.9.0.0/16", "dev", "t0")
        own, peer = ip_address("192.0.2.1"), ip_address("203.0.113.1")

        def networks(*own: Address) -> set[str]:
            found = netlink.networks_inside(frozenset(own), frozenset({peer}), MARK)
            return {str(network) for network in found if not network.is_link_local}

        lan = {"10.1.0.0/24", "10.1.5.0/24", "fd01::/64"}
        # Its own network is where a gateway with one interface has its hosts; the second way out is not.
        assert networks(own) == {*lan, "192.0.2.0/24"}
        # Behind an address translation we cannot know which is ours.
        assert networks(ip_address("203.0.113.77")) == {*lan, "192.0.2.0/24", "198.51.100.0/24"}
        # What a hostile network calls itself does not count.
        namespace.run("ip", "address", "add", "10.2.0.77/24", "dev", "out")
        assert networks(own) == {*lan, "192.0.2.0/24"}
        tun.close()

    with_netlink(namespace, work)


def test_hundreds_of_routes_are_written_and_a_refused_one_is_named(lab: Lab) -> None:
    namespace = lab.namespace("nl")

    def work(netlink: Netlink) -> None:
        tun = open_tun("t0")
        netlink.set_up("t0", 1400, 44)
        many = {
            Route(
                ip_network(f"{start}{number:x}::/64" if six else f"10.2.{number}.0/24"), table, device, metric
            )
            for number in range(150)
            for six, start in ((False, ""), (True, "fd02:0:0:"))
            for table in (MAIN_TABLE, ROUTES_TABLE)
            for device, metric in (("t0", TUNNEL_METRIC), (None, WORST_METRIC))
        }
        lost = Route(NET, MAIN_TABLE, "nothing", TUNNEL_METRIC)
        (failure,) = netlink.reconcile(Wanted(frozenset({*many, lost})))
        assert failure == f"add {lost}: No such device (ENODEV)"
        assert netlink.present().routes == many
        # One whose interface goes at the same time is gone, and no failure.
        tun.close()
        assert netlink.reconcile(Wanted()) == []
        assert netlink.present() == Wanted()

    with_netlink(namespace, work)


def test_a_strict_reverse_path_is_loosened_where_peers_are_heard(lab: Lab) -> None:
    namespace = lab.namespace("nl")

    def strictness(name: str) -> str:
        return namespace.run("sysctl", "-n", f"net.ipv4.conf.{name}.rp_filter").stdout.strip()

    def work(netlink: Netlink) -> None:
        for name, address in (("out", "192.0.2.1/24"), ("lan", "10.1.0.1/24")):
            namespace.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
            namespace.run("ip", "link", "set", name, "up")
            namespace.run("ip", "address", "add", address, "dev", name)
        namespace.run("ip", "route", "add", "default", "via", "192.0.2.254")
        peers = frozenset(map(ip_address, ("198.51.100.1", "2001:db8::1")))
        for name in ("out", "lan", "all"):
            namespace.sysctl(f"net.ipv4.conf.{name}.rp_filter", "0")
        assert netlink.allow_peer_sources(peers, MARK) == []
        for name in ("lan", "all"):
            namespace.sysctl(f"net.ipv4.conf.{name}.rp_filter", "1")
        assert netlink.allow_peer_sources(peers, MARK) == ["out"]
        assert netlink.allow_peer_sources(peers, MARK) == []
        assert (strictness("out"), strictness("lan"), strictness("all")) == ("2", "1", "1")

    with_netlink(namespace, work)
