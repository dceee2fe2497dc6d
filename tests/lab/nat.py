"""A NAT box between two gateways: nftables masquerades what the hidden one sends.

10.1.0.1 hidden 192.168.7.2 ---- 192.168.7.1 box 198.51.100.7 ---- 198.51.100.1 outside 10.2.0.1
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.lab.lab import Lab, Namespace
from tests.lab.plan import NO_DPD, End, Plan

HIDDEN = End("hidden", "192.168.7.2", "hidden.vpn.example", "10.1.0.1", ("10.1.0.0/24",))
OUTSIDE = End("outside", "198.51.100.1", "198.51.100.1", "10.2.0.1", ("10.2.0.0/24",))
FIRST, SECOND = "198.51.100.7", "198.51.100.8"
"""Addresses of the box; it begins with the first."""


@dataclass
class Nat:
    """Three namespaces; `ports` is the range from which the box takes what it shows."""

    hidden: Namespace
    box: Namespace
    outside: Namespace
    address: str = FIRST
    ports: str = "10000-19999"

    def __post_init__(self) -> None:
        self._masquerade()

    def change(self, address: str | None = None, ports: str | None = None) -> None:
        """Forget every mapping, as a box that restarts does; new ones have these ports, and this address."""
        self.ports = ports or self.ports
        self._masquerade()
        # The kernel forgets masqueraded connections when their interface goes down.
        self.box.ip("link", "set", "eth1", "down")
        if address is not None and address != self.address:
            self.box.ip("address", "del", f"{self.address}/24", "dev", "eth1")
            self.address = address
            self.box.add_address(f"{address}/24", "eth1")
        self.box.ip("link", "set", "eth1", "up")

    def _masquerade(self) -> None:
        self.box.run("nft", "add table ip lab; flush table ip lab")
        self.box.run("nft", "add chain ip lab post { type nat hook postrouting priority 100 ; }")
        self.box.run("nft", f"add rule ip lab post oif eth1 ip protocol udp masquerade to :{self.ports}")


def nat_between(lab: Lab, prefix: str = "") -> Nat:
    """The namespaces, the wires and the first rule."""
    hidden, box, outside = (lab.namespace(f"{prefix}{label}") for label in ("in", "box", "out"))
    lab.link(hidden, box, "eth0", "eth0")
    lab.link(box, outside, "eth1", "eth0")
    hidden.add_address(f"{HIDDEN.address}/24", "eth0")
    box.add_address("192.168.7.1/24", "eth0")
    box.add_address(f"{FIRST}/24", "eth1")
    outside.add_address(f"{OUTSIDE.address}/24", "eth0")
    hidden.add_address(f"{HIDDEN.inside}/32")
    outside.add_address(f"{OUTSIDE.inside}/32")
    hidden.ip("route", "add", "default", "via", "192.168.7.1")
    box.sysctl("net.ipv4.ip_forward", "1")
    return Nat(hidden, box, outside)


def plans(version: str) -> tuple[Plan, Plan]:
    """The tunnel as the hidden gateway sees it, who begins, and as the other does."""
    hidden = Plan(
        version=version,
        local=HIDDEN,
        remote=OUTSIDE,
        negotiation="active",
        encapsulation="auto",
        dpd_timeout=NO_DPD,
    )
    outside = replace(hidden, local=OUTSIDE, remote=replace(HIDDEN, address=FIRST), negotiation="passive")
    return hidden, outside
