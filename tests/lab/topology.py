"""The wires: two gateways, or two gateways with a host behind each."""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab.lab import Lab, Namespace
from tests.lab.plan import A6, B6, A, Agreed, B, Gateway, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.vpnd import Vpnd


@dataclass
class Site:
    """A gateway's namespace, the namespace where the traffic starts and ends, and the addresses inside."""

    gateway: Namespace
    host: Namespace
    inside: str
    inside6: str


@dataclass
class Wire:
    """Two sites with one network between them."""

    a: Site
    b: Site


def two_gateways(lab: Lab, prefix: str = "") -> Wire:
    """Each gateway carries its inside address itself, on its loopback interface.

    `prefix` tells the namespaces of several wires in one laboratory apart.
    """
    a, b = lab.namespace(f"{prefix}a"), lab.namespace(f"{prefix}b")
    lab.link(a, b)
    sites = []
    for namespace, end, end6 in ((a, A, A6), (b, B, B6)):
        namespace.add_address(f"{end.address}/24", "eth0")
        namespace.add_address(f"{end6.address}/64", "eth0")
        namespace.add_address(f"{end.inside}/32")
        namespace.add_address(f"{end6.inside}/128")
        sites.append(Site(namespace, namespace, end.inside, end6.inside))
    return Wire(*sites)


def two_sites(lab: Lab) -> Wire:
    """A host behind each gateway; the gateways forward.

    host-a 10.1.0.2 --lan0-- 10.1.0.1 a 192.0.2.1 ---- 192.0.2.2 b 10.2.0.1 --lan0-- 10.2.0.2 host-b
    """
    a, b = lab.namespace("a"), lab.namespace("b")
    lab.link(a, b)
    sites = []
    for namespace, end, end6 in ((a, A, A6), (b, B, B6)):
        host = lab.namespace(f"host-{end.label}")
        lab.link(namespace, host, "lan0", "eth0")
        namespace.sysctl("net.ipv4.ip_forward", "1")
        namespace.sysctl("net.ipv6.conf.all.forwarding", "1")
        namespace.add_address(f"{end.address}/24", "eth0")
        namespace.add_address(f"{end6.address}/64", "eth0")
        namespace.add_address(f"{end.inside}/24", "lan0")
        namespace.add_address(f"{end6.inside}/64", "lan0")
        inside, inside6 = end.inside[:-1] + "2", end6.inside[:-1] + "2"
        host.add_address(f"{inside}/24", "eth0")
        host.add_address(f"{inside6}/64", "eth0")
        host.ip("route", "add", "default", "via", end.inside)
        host.ip("-6", "route", "add", "default", "via", end6.inside)
        sites.append(Site(namespace, host, inside, inside6))
    return Wire(*sites)


def start(kind: str, namespace: Namespace, address: str) -> Gateway:
    """Start a gateway of this kind: `vpnd` or `strongswan`."""
    return Vpnd(namespace, address) if kind == "vpnd" else StrongSwan(namespace)


def settle(here: Vpnd, there: StrongSwan, plan: Plan) -> None:
    """Wait until the early rekey of IKEv2 is over at both ends: from now on the SAs stay.

    strongSwan sends on what was replaced until our DELETE has come. Raises TimeoutError.
    """
    if plan.version == "ikev2":
        here.wait_proved(plan.name)
    wait_until(lambda: not there.replaced(plan.name), "strongSwan to have heard our DELETE", interval=0.1)


def agreement(here: Gateway, there: Gateway, name: str, mappings: int = 1) -> list[Agreed]:
    """What both ends of a tunnel report alike, as `here` sees it; waits, since its first rekey comes early.

    Raises TimeoutError where they do not agree.
    """
    found: list[Agreed] = []

    def alike() -> bool:
        found[:] = sorted(here.agreed(name), key=lambda one: one.spi_in)
        theirs = sorted((one.mirrored() for one in there.agreed(name)), key=lambda one: one.spi_in)
        return len(found) == mappings and found == theirs

    wait_until(alike, f"both ends to have the same SAs of {name}", interval=0.1)
    return found
