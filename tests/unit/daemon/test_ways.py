"""By which interface the kernel sends a packet, with the routes and rules that vpnd wants in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.lab.lab import Lab, Namespace
from tests.unit.host.entered import with_netlink
from tests.unit.tunnel.lives import policy
from vpnd.daemon.routing import carried, guard, spared, tables_of
from vpnd.host.netlink import Netlink
from vpnd.host.routes import MARK
from vpnd.host.tun import Tun, open_tun
from vpnd.model.policy import Communication, TunnelPolicy

pytestmark = pytest.mark.root

OWN, PEER = ip_address("192.0.2.1"), ip_address("198.51.100.1")


def routed(*routes: str) -> TunnelPolicy:
    """A tunnel with these routes, by the interface t0."""
    made = replace(policy(), communication=Communication.DESTINATION_ROUTE, interface="t0")
    return replace(made, routes=tuple(map(ip_network, routes)))


class Ways:
    """A gateway with an interface outside, a LAN, the tunnel's interface t0, and t1, another tunnel's."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        for name, addresses in (
            ("out", ("192.0.2.1/24", "2001:db8::1/64")),
            ("lan", ("10.1.0.1/24", "fd01::1/64")),
        ):
            self.ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
            self.ip("link", "set", name, "up")
            self.ip("link", "set", f"{name}-peer", "up")
            for address in addresses:
                namespace.add_address(address, name)
        self.ip("route", "add", "default", "via", "192.0.2.254")
        self.ip("-6", "route", "add", "default", "via", "2001:db8::254")

    def ip(self, *arguments: str) -> None:
        self.namespace.ip(*arguments)

    def to(self, target: str, *options: str) -> str:
        """The interface, or why there is none."""
        done = self.namespace.ip("-o", "route", "get", target, *options, check=False)
        words = (done.stdout + done.stderr).split()
        return words[words.index("dev") + 1] if "dev" in words else "nowhere"

    def want(self, tunnel: TunnelPolicy, up: bool = True) -> None:
        """Make the kernel's tables what they should be for this tunnel, which is up or not."""

        def work(netlink: Netlink) -> None:
            tables = tables_of([tunnel.name])
            networks = netlink.networks_inside(frozenset({OWN}), frozenset({PEER}), MARK)
            wanted = guard([tunnel], tables) | spared([tunnel], networks)
            assert netlink.reconcile(wanted | carried(tunnel, tables) if up else wanted) == []

        with_netlink(self.namespace, work)


@pytest.fixture
def ways(lab: Lab) -> Iterator[Ways]:
    found = Ways(lab.namespace("ways"))
    tuns: list[Tun] = []

    def make(netlink: Netlink) -> None:
        for name in ("t0", "t1"):
            tuns.append(open_tun(name))
            netlink.set_up(name, 1400, 44)

    with_netlink(found.namespace, make)
    yield found
    for tun in tuns:
        tun.close()


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("everything", [False, True])
def test_a_route_outside_wins_over_no_route_of_the_tunnel(ways: Ways, everything: bool, up: bool) -> None:
    routes = ("0.0.0.0/0", "::/0") if everything else ("10.2.0.0/16", "fd02::/48")
    ways.want(routed(*routes), up)
    targets = ("10.2.0.1", "10.2.3.1", "10.2.4.1", "fd02::1")
    there = "t0" if up else "nowhere"
    assert {ways.to(target) for target in targets} == {there}
    for route in ("10.2.0.0/25", "10.2.0.0/16", "10.2.3.1/32", "0.0.0.0/1"):
        ways.ip("route", "add", route, "via", "192.0.2.254")
    ways.ip("route", "add", "10.2.4.0/24", "dev", "out")
    for route in ("fd02::/64", "fd02::1/128", "8000::/1"):
        ways.ip("-6", "route", "add", route, "via", "2001:db8::254")
    assert {ways.to(target) for target in targets} == {there}
    # Also when vpnd has had another look at the main table.
    ways.want(routed(*routes), up)
    assert {ways.to(target) for target in targets} == {there}
    if not everything:
        assert ways.to("203.0.113.1") == "out"


def test_a_route_by_another_tunnel_wins_over_a_less_specific_one(ways: Ways) -> None:
    ways.want(routed("10.2.0.0/16", "fd02::/48"))
    ways.ip("route", "add", "10.2.5.0/24", "dev", "t1")
    ways.ip("-6", "route", "add", "fd02:0:0:5::/64", "dev", "t1")
    assert (ways.to("10.2.5.1"), ways.to("10.2.6.1")) == ("t1", "t0")
    assert (ways.to("fd02:0:0:5::1"), ways.to("fd02:0:0:6::1")) == ("t1", "t0")
    # A hostile one within it has its traffic in the other tunnel, and not in clear.
    ways.ip("route", "add", "10.2.5.0/25", "via", "192.0.2.254")
    assert ways.to("10.2.5.1") == "t0"


@pytest.mark.parametrize("routes", [("10.0.0.0/8", "fd00::/8"), ("0.0.0.0/0", "::/0")])
def test_the_inner_side_stays_where_it_is(ways: Ways, routes: tuple[str, ...]) -> None:
    ways.ip("route", "add", "10.1.7.0/24", "via", "10.1.0.254")
    ways.want(routed(*routes))
    assert {ways.to(target) for target in ("10.1.0.9", "10.1.7.9", "fd01::9")} == {"lan"}
    assert ways.to("10.2.0.1") == "t0"
    assert ways.to("fe80::9", "dev", "lan") == "lan"
    assert ways.to("192.0.2.9") == "out"
    # Without its interface the LAN is in the tunnel, and nowhere outside.
    ways.ip("link", "set", "lan", "down")
    assert ways.to("10.1.0.9") == "t0"


@pytest.mark.parametrize("peer", ["198.51.100.1", "192.0.2.77"])
@pytest.mark.parametrize("routes", [("0.0.0.0/0",), ("0.0.0.0/1", "128.0.0.0/1"), ("198.51.100.0/24",)])
def test_a_route_that_the_peer_is_in_does_not_cut_vpnd_off(
    ways: Ways, routes: tuple[str, ...], peer: str
) -> None:
    tunnel = routed(*routes)
    tunnel = replace(tunnel, peer=replace(tunnel.peer, remote_address=ip_address(peer)))
    for up in (True, False):
        ways.want(tunnel, up)
        assert ways.to(peer, "mark", str(MARK)) == "out"
        assert ways.to("198.51.100.1") == ("t0" if up else "nowhere")
        assert ways.to("192.0.2.77") == "out"


def test_a_gateway_that_somebody_names_is_no_neighbour_in_the_tunnel(ways: Ways) -> None:
    ways.want(routed("0.0.0.0/0", "::/0"))
    ways.ip("route", "add", "203.0.113.0/24", "via", "192.0.2.254", "table", "77")
    ways.ip("-6", "route", "add", "2001:db8:1::/48", "via", "2001:db8::254", "table", "77")
    for family, route in (("-4", "203.0.113.0/24"), ("-6", "2001:db8:1::/48")):
        listed = ways.namespace.ip(family, "route", "show", route, "table", "77").stdout
        assert "dev out" in listed, listed
