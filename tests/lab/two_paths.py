"""One site, two gateways of another site, and a network in between whose paths can be broken.

    host-a --- a --- net --+-- b1 --+-- host-b
    10.1.0.2       (routes)+-- b2 --+   10.2.0.2

`a` has two tunnels with the same route, 10.2.0.0/24: primary to b1, secondary to b2. host-b answers through
b1 as long as it has a link to it, so that what comes back may take another tunnel than what went there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.lab.lab import Lab, Namespace
from tests.lab.plan import End, HealthCheck, Plan
from tests.lab.trickle import Trickle
from tests.lab.vpnd import Vpnd

HERE = End("a", "192.0.2.1", "192.0.2.1", "10.1.0.2", ("10.1.0.0/24",))
THERE = {
    "primary": End("b1", "198.51.100.1", "198.51.100.1", "10.2.0.2", ("10.2.0.0/24",)),
    "secondary": End("b2", "203.0.113.1", "203.0.113.1", "10.2.0.2", ("10.2.0.0/24",)),
}
CHECKS = {
    "primary": HealthCheck("169.254.128.1", "169.254.128.2"),
    "secondary": HealthCheck("169.254.128.5", "169.254.128.6"),
}
INTERFACES = {"primary": "vpn-primary", "secondary": "vpn-secondary"}
PRIORITIES = {"primary": 0, "secondary": 100}

STREAM_PORT = 7100


@dataclass
class TwoPaths:
    """The namespaces and the daemons."""

    host_a: Namespace
    a: Namespace
    net: Namespace
    host_b: Namespace
    ours: Vpnd
    peers: dict[str, Vpnd]

    def carrier(self) -> str:
        """The tunnel to which the kernel sends what is for the other site."""
        line = self.a.ip("route", "get", THERE["primary"].inside).stdout
        return next((name for name, device in INTERFACES.items() if f"dev {device} " in line), "none")

    @contextmanager
    def dropping(self, path: str, match: str = "", way: str = "both") -> Iterator[None]:
        """The network drops what `match` (nftables) says on one path; `way` there, back or both."""
        device = {"primary": "eth1", "secondary": "eth2"}[path]
        rules = []
        if way in ("both", "there"):
            rules.append(f'add rule inet weather forward oifname "{device}" {match} drop')
        if way in ("both", "back"):
            rules.append(f'add rule inet weather forward iifname "{device}" {match} drop')
        self.net.run("nft", "add table inet weather")
        self.net.run("nft", "add chain inet weather forward { type filter hook forward priority 0 ; }")
        for rule in rules:
            self.net.run("nft", rule)
        try:
            yield
        finally:
            self.net.run("nft", "delete", "table", "inet", "weather")

    @contextmanager
    def cut(self, path: str) -> Iterator[None]:
        """The wire between the network and one peer is cut."""
        device = {"primary": "eth1", "secondary": "eth2"}[path]
        self.net.ip("link", "set", device, "down")
        try:
            yield
        finally:
            self.net.ip("link", "set", device, "up")


def two_paths(lab: Lab, **changes: object) -> TwoPaths:
    """Everything, running, with both tunnels up and healthy; `changes` go into both plans."""
    host_a, a, net, b1, b2, host_b = (lab.namespace(n) for n in ("host-a", "a", "net", "b1", "b2", "host-b"))
    for namespace in (a, net, b1, b2):
        namespace.sysctl("net.ipv4.ip_forward", "1")
    _wire(lab, (host_a, "eth0", "10.1.0.2/24"), (a, "lan0", "10.1.0.1/24"))
    _wire(lab, (a, "eth0", "192.0.2.1/24"), (net, "eth0", "192.0.2.254/24"))
    _wire(lab, (net, "eth1", "198.51.100.254/24"), (b1, "eth0", "198.51.100.1/24"))
    _wire(lab, (net, "eth2", "203.0.113.254/24"), (b2, "eth0", "203.0.113.1/24"))
    _wire(lab, (b1, "lan0", "10.20.1.1/24"), (host_b, "eth0", "10.20.1.2/24"))
    _wire(lab, (b2, "lan0", "10.20.2.1/24"), (host_b, "eth1", "10.20.2.2/24"))
    host_b.add_address("10.2.0.2/32")
    host_a.ip("route", "add", "default", "via", "10.1.0.1")
    host_b.ip("route", "add", "default", "via", "10.20.1.1", "metric", "1")
    host_b.ip("route", "add", "default", "via", "10.20.2.1", "metric", "2")
    a.ip("route", "add", "default", "via", "192.0.2.254")
    b1.ip("route", "add", "default", "via", "198.51.100.254")
    b2.ip("route", "add", "default", "via", "203.0.113.254")
    b1.ip("route", "add", "10.2.0.0/24", "via", "10.20.1.2")
    b2.ip("route", "add", "10.2.0.0/24", "via", "10.20.2.2")
    ours = Vpnd(a, HERE.address, name="hq")
    peers = {"primary": Vpnd(b1, THERE["primary"].address), "secondary": Vpnd(b2, THERE["secondary"].address)}
    for name, peer in peers.items():
        plan = plan_of(name).change(**changes)
        peer.configure(plan.other().change(negotiation="passive", priority=0))
        peer.ctl("reload")
        ours.configure(plan)
    ours.ctl("reload")
    for name, peer in peers.items():
        for end in (ours, peer):
            # A passive end that waited long has found its tunnel sick, and interrupts until it has recovered.
            end.wait_state(name, "up")
    return TwoPaths(host_a, a, net, host_b, ours, peers)


def plan_of(name: str) -> Plan:
    """One of the two tunnels as `a` sees it."""
    return Plan(
        name=name,
        local=HERE,
        remote=THERE[name],
        routed=True,
        negotiation="active",
        encapsulation="auto",
        interface=INTERFACES[name],
        priority=PRIORITIES[name],
        health=CHECKS[name],
    )


def _wire(lab: Lab, one: tuple[Namespace, str, str], other: tuple[Namespace, str, str]) -> None:
    lab.link(one[0], other[0], one[1], other[1])
    for namespace, device, address in (one, other):
        namespace.add_address(address, device)


class Stream(Trickle):
    """Numbered datagrams from host-a to host-b, `rate` a second, for the length of a `with` block."""

    def __init__(self, paths: TwoPaths, rate: int = 100) -> None:
        super().__init__(
            paths.host_a, HERE.inside, paths.host_b, THERE["primary"].inside, rate, port=STREAM_PORT
        )
