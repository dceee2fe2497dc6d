"""A hub whose peers may be anywhere: two places with addresses of their own, and two behind one NAT box.

                                  core --eth1-- 192.168.7.2  behind-1   (masqueraded as 198.51.100.7)
hub 198.51.100.1 ---- 198.51.100.7 | --eth2-- 192.168.8.2  behind-2   (the same)
    10.2.0.1                      | --eth3-- 203.0.113.2  place-1
                                  | --eth4-- 203.0.113.6  place-2
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab.lab import Lab, Namespace
from tests.lab.plan import End, Plan

HUB = End("hub", "198.51.100.1", "hub.example", "10.2.0.1", ("10.2.0.0/24",))
NAT_ADDRESS = "198.51.100.7"
ROUTER = {
    "behind-1": "192.168.7.1",
    "behind-2": "192.168.8.1",
    "place-1": "203.0.113.1",
    "place-2": "203.0.113.5",
}
ADDRESS = {
    "behind-1": "192.168.7.2",
    "behind-2": "192.168.8.2",
    "place-1": "203.0.113.2",
    "place-2": "203.0.113.6",
}
INSIDE = {"branch": "10.1.0.1", "shop": "10.3.0.1"}


@dataclass
class Places:
    """The namespaces."""

    hub: Namespace
    core: Namespace
    at: dict[str, Namespace]


def places(lab: Lab, prefix: str = "") -> Places:
    """The wires; the hub has a default route, and checks the reverse path strictly."""
    hub, core = lab.namespace(f"{prefix}hub"), lab.namespace(f"{prefix}core")
    lab.link(hub, core)
    hub.add_address(f"{HUB.address}/24", "eth0")
    hub.add_address(f"{HUB.inside}/32")
    core.add_address(f"{NAT_ADDRESS}/24", "eth0")
    hub.ip("route", "add", "default", "via", NAT_ADDRESS)
    for scope in ("all", "default", "eth0"):
        hub.sysctl(f"net.ipv4.conf.{scope}.rp_filter", "1")
    core.sysctl("net.ipv4.ip_forward", "1")
    at: dict[str, Namespace] = {}
    for number, (place, address) in enumerate(ADDRESS.items(), start=1):
        at[place] = namespace = lab.namespace(f"{prefix}{place}")
        lab.link(core, namespace, f"eth{number}", "eth0")
        core.add_address(f"{ROUTER[place]}/30", f"eth{number}")
        namespace.add_address(f"{address}/30", "eth0")
        namespace.ip("route", "add", "default", "via", ROUTER[place])
    core.run("nft", "add table ip lab")
    core.run("nft", "add chain ip lab post { type nat hook postrouting priority 100 ; }")
    rule = "oif eth0 ip saddr 192.168.0.0/16 ip protocol udp masquerade to :20000-29999"
    core.run("nft", f"add rule ip lab post {rule}")
    return Places(hub, core, at)


def plan(who: str, place: str, **values: object) -> Plan:
    """The tunnel of a peer with this name as the machine at `place` has it; its `other` is the hub's."""
    end = End(who, ADDRESS[place], f"{who}.example", INSIDE[who], (f"{INSIDE[who][:-1]}0/24",))
    tunnel = Plan(name=who, local=end, remote=HUB, encapsulation="auto", interface=f"vpn-{who}")
    return tunnel.change(**values)


def hub_plan(who: str, **values: object) -> Plan:
    """The same as the hub has it: the peer may have any address."""
    end = End(who, "any", f"{who}.example", INSIDE[who], (f"{INSIDE[who][:-1]}0/24",))
    tunnel = Plan(name=who, local=HUB, remote=end, encapsulation="auto", interface=f"vpn-{who}")
    return tunnel.change(**values)
