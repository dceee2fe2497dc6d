"""One site, two gateways of another site, and a network in between whose paths can be broken.

    host-a --- a --- net --+-- b1 --+-- host-b
    10.1.0.2       (routes)+-- b2 --+   10.2.0.2

`a` has two tunnels with the same route, 10.2.0.0/24: primary to b1, secondary to b2. host-b answers through
b1 as long as it has a link to it, so that what comes back may take another tunnel than what went there.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Self

from tests.lab.lab import Lab, Namespace
from tests.lab.plan import End, HealthCheck, Plan
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
SETTLED = 0.3
"""Seconds for the last packets of a stream to arrive."""


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


class Stream:
    """Numbered datagrams from host-a to host-b, `rate` a second, for the length of a `with` block."""

    def __init__(self, paths: TwoPaths, rate: int = 100) -> None:
        self._paths = paths
        self._rate = rate
        self._stop = threading.Event()
        self.sent: list[float] = []
        """When each datagram left, by its number, in seconds of the monotonic clock."""
        self.arrived: dict[int, float] = {}
        """When each datagram arrived."""

    def __enter__(self) -> Self:
        self._receiver = self._paths.host_b.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receiver.bind((THERE["primary"].inside, STREAM_PORT))
        self._receiver.settimeout(0.1)
        self._sender = self._paths.host_a.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._sender.close()
        self._receiver.close()

    @property
    def lost(self) -> int:
        """Datagrams that have not arrived; the last few may still be on their way while it runs."""
        return len(self.sent) - len(self.arrived)

    def longest_gap(self, since: float = 0.0) -> float:
        """The longest time between two arrivals after `since`, in seconds."""
        times = sorted(at for at in self.arrived.values() if at >= since)
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def _send(self) -> None:
        began = time.monotonic()
        number = 0
        while not self._stop.is_set():
            self.sent.append(time.monotonic())
            # An ICMP error that came back for an earlier one is raised here; this one counts as lost then.
            with suppress(OSError):
                self._sender.sendto(struct.pack("!I", number), (THERE["primary"].inside, STREAM_PORT))
            number += 1
            self._stop.wait(max(0.0, began + number / self._rate - time.monotonic()))

    def _receive(self) -> None:
        ends: float | None = None
        while ends is None or time.monotonic() < ends:
            if ends is None and self._stop.is_set():
                ends = time.monotonic() + SETTLED
            try:
                data = self._receiver.recv(64)
            except TimeoutError:
                continue
            self.arrived.setdefault(struct.unpack("!I", data)[0], time.monotonic())
