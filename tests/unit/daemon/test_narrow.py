"""Mappings of one protocol or some ports in a real kernel: the guard takes what they select, and no more.

    host 10.1.0.1 ----- gateway ----- far 10.2.0.1        and fd01::1, fd02::1

The tunnel is down: what is protected meets the blackhole, so all that arrives is what leaked, or is not ours.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network

import pytest

from tests.lab.lab import Lab, Namespace
from tests.unit.host.entered import inside, with_netlink
from tests.unit.tunnel.lives import policy
from vpnd.daemon.routing import guard, shield, tables_of
from vpnd.host import nftables
from vpnd.host.netlink import Netlink
from vpnd.model.policy import Communication, TunnelPolicy
from vpnd.model.selectors import ANY_PORT

pytestmark = pytest.mark.root

UDP = 17
LONG = 3000
"""Bytes of a datagram that travels in three fragments."""


Sent = tuple[int, int, int]
"""One datagram: from port, to port, bytes."""


@dataclass
class Site:
    """The three, with addresses and plain routes."""

    host: Namespace
    gateway: Namespace
    far: Namespace

    def arrive(
        self, sender: str, sent: list[tuple[int, int, int]], version: int = 4
    ) -> list[tuple[int, int, int]]:
        """Send datagrams (from port, to port, bytes) to the other end; returns those that arrive."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        ends = {"host": (self.host, 1), "far": (self.far, 2)}
        near, number = ends[sender]
        other, remote = ends["far" if sender == "host" else "host"]
        pattern = "10.{}.0.1" if version == 4 else "fd0{}::1"
        arrived: list[Sent] = []
        for source, destination, length in sent:
            with (
                other.socket(family, socket.SOCK_DGRAM) as listener,
                near.socket(family, socket.SOCK_DGRAM) as out,
            ):
                listener.bind((pattern.format(remote), destination))
                listener.settimeout(0.3)
                out.bind((pattern.format(number), source))
                try:
                    out.sendto(bytes(length), (pattern.format(remote), destination))
                    data, origin = listener.recvfrom(65535)
                except OSError:
                    continue
                arrived.append((origin[1], destination, len(data)))
        return arrived


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Lab() as lab:
        host, gateway, far = (lab.namespace(name) for name in ("host", "gw", "far"))
        lab.link(host, gateway, "eth0", "lan")
        lab.link(gateway, far, "out", "eth0")
        for one, device, number, beside in (
            (host, "eth0", 1, 1),
            (gateway, "lan", 1, 254),
            (gateway, "out", 2, 254),
            (far, "eth0", 2, 1),
        ):
            one.ip("address", "add", f"10.{number}.0.{beside}/24", "dev", device)
            one.ip("-6", "address", "add", f"fd0{number}::{beside}/64", "dev", device, "nodad")
            one.ip("link", "set", device, "up")
        for one, number in ((host, 1), (far, 2)):
            one.ip("route", "add", "default", "via", f"10.{number}.0.254")
            one.ip("-6", "route", "add", "default", "via", f"fd0{number}::254")
        gateway.sysctl("net.ipv4.ip_forward", "1")
        gateway.sysctl("net.ipv6.conf.all.forwarding", "1")
        yield Site(host, gateway, far)


def tunnel(version: int, **narrowed: object) -> TunnelPolicy:
    """An spd-policy tunnel with one mapping between the two sides."""
    whole = policy()
    (child, *_) = whole.peer.children
    local, remote = ("10.1.0.0/24", "10.2.0.0/24") if version == 4 else ("fd01::/64", "fd02::/64")
    child = replace(child, local=ip_network(local), remote=ip_network(remote), **narrowed)  # type: ignore[arg-type]  # fields by their names
    peer = replace(whole.peer, children=(child,))
    return replace(whole, communication=Communication.SPD_POLICY, peer=peer)


def guarded(site: Site, one: TunnelPolicy) -> None:
    """What the daemon, or `vpnd guard`, has in the kernel while the tunnel is down."""

    def work(netlink: Netlink) -> None:
        assert netlink.reconcile(guard([one], tables_of([one.name]))) == []

    with_netlink(site.gateway, work)
    inside(site.gateway, lambda: nftables.install(shield([one])))


SHORT_ONES = [(5000, 53, 100), (5000, 54, 100), (53, 5000, 100)]


@pytest.mark.parametrize("version", [4, 6])
def test_only_the_ports_of_the_rule_are_protected(site: Site, version: int) -> None:
    """Both directions: what the peer would send in clear is not taken either."""
    guarded(site, tunnel(version, protocol=UDP, remote_ports=(53, 53)))
    assert site.arrive("host", SHORT_ONES, version) == [(5000, 54, 100), (53, 5000, 100)]
    assert site.arrive("far", SHORT_ONES, version) == [(5000, 53, 100), (5000, 54, 100)]
    guarded(site, tunnel(version, protocol=UDP, local_ports=(5000, 5001)))
    assert site.arrive("host", SHORT_ONES, version) == [(53, 5000, 100)]
    assert site.arrive("far", SHORT_ONES, version) == [(5000, 53, 100), (5000, 54, 100)]


@pytest.mark.parametrize("version", [4, 6])
def test_a_range_to_the_last_port_protects_that_too(site: Site, version: int) -> None:
    """The kernel's rules cannot name 65535, so what has it leaves neither way."""
    guarded(site, tunnel(version, protocol=UDP, remote_ports=(1024, 65535)))
    ends = [(5000, port, 100) for port in (1023, 1024, 65534, 65535)]
    assert site.arrive("host", ends, version) == [(5000, 1023, 100)]
    back = [(port, 5000, 100) for port in (1023, 1024, 65534, 65535)]
    assert site.arrive("far", back, version) == [(1023, 5000, 100)]
    guarded(site, tunnel(version, protocol=UDP, local_ports=(60000, 65535), remote_ports=(53, 65535)))
    ends = [(65535, 53, 100), (65535, 52, 100), (60000, 65535, 100), (59999, 65535, 100)]
    assert site.arrive("host", ends, version) == [(65535, 52, 100), (59999, 65535, 100)]


@pytest.mark.parametrize("version", [4, 6])
def test_no_fragment_leaks_that_may_be_of_a_protected_port(site: Site, version: int) -> None:
    """The kernel's rules do not see its ports, not even of the first: none of that protocol passes."""
    long_ones = [(source, destination, LONG) for source, destination, _ in SHORT_ONES]
    guarded(site, tunnel(version, protocol=UDP, remote_ports=(53, 53)))
    before = counters(site.far, version)
    assert site.arrive("host", long_ones, version) == []
    assert counters(site.far, version) == before, "not a single fragment"
    guarded(site, tunnel(version, protocol=6, remote_ports=(53, 53)))
    assert site.arrive("host", long_ones, version) == long_ones


@pytest.mark.parametrize("version", [4, 6])
def test_a_protocol_as_a_whole_needs_no_care_for_fragments(site: Site, version: int) -> None:
    long_one = [(5000, 54, LONG)]
    guarded(site, tunnel(version, protocol=UDP))
    before = counters(site.far, version)
    assert site.arrive("host", [*SHORT_ONES, *long_one], version) == []
    assert counters(site.far, version) == before
    guarded(site, tunnel(version, protocol=6, local_ports=ANY_PORT))
    assert site.arrive("host", [*SHORT_ONES, *long_one], version) == [*SHORT_ONES, *long_one]


def counters(namespace: Namespace, version: int) -> int:
    """Fragments that arrived, whether or not a datagram came of them."""
    name = "IpReasmReqds" if version == 4 else "Ip6ReasmReqds"
    return int(namespace.run("nstat", "-asz", name).stdout.split(name)[1].split()[0])
