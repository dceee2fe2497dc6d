"""Which routes and rules a gateway's tunnels want in the kernel: values, and how they follow from policies.

    destination-route   main table:  10.2.0.0/16 dev vpn-a metric 10          while the interface is there
                                     blackhole 10.2.0.0/16 metric 4294967295  as long as it is configured
                        0.0.0.0/0:   in a table of its own, for all that vpnd has not sent itself
    spd-policy          rule:        from 10.1.0.0/24 to 10.2.0.0/24 lookup T
                        table T:     default dev vpn-a metric 10
                                     blackhole default metric 4294967295

The kernel takes a route away with its interface; blackholes and rules stay, also when the daemon is killed:
nothing that a tunnel should protect finds another way out.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from vpnd.model.policy import ALL_IPV4, ALL_IPV6, Communication, TunnelPolicy
from vpnd.model.selectors import Address, Network

PROTOCOL = 86
"""Ours: the mark (`proto`) of every route and rule that vpnd makes; by it leftovers are found."""

MAIN_TABLE = 254

TUNNEL_METRIC = 10
"""Ours: leaves room for an administrator's better route."""

WORST_METRIC = 0xFFFFFFFF
"""A route of this metric is taken when there is no other."""

SPD_PRIORITY = 7000
"""Ours: before the main table's 32766, so that no route in it wins over a mapping, however specific."""

DEFAULT_PRIORITY = 7100
"""Ours: the two rules of a default route through a tunnel come after the mappings."""

FIRST_TABLE = 0x76700000
TABLES = 0x80000
DEFAULT_TABLE = FIRST_TABLE + TABLES
"""Ours: table numbers that nobody else uses; a tunnel's follows from its name, so that restarts agree."""

MARK = 0x7670
"""Ours: the fwmark of the datagrams that vpnd sends itself; they never enter a default route's tunnel."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route; `device` None: a blackhole."""

    destination: Network
    table: int
    device: str | None
    metric: int
    source: Address | None = None

    @property
    def key(self) -> tuple[Network, int, int]:
        """What the kernel tells routes apart by."""
        return (self.destination, self.table, self.metric)

    def __str__(self) -> str:
        where = f"dev {self.device}" if self.device else "blackhole"
        table = "" if self.table == MAIN_TABLE else f" table {self.table}"
        return f"route {self.destination} {where}{table} metric {self.metric}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy rule: packets from `source` to `destination` (None: any) look `table` up.

    `unless_mark`: only packets without this fwmark. `suppress_default`: a default route found is none.
    """

    version: int
    source: Network | None
    destination: Network | None
    table: int
    priority: int
    unless_mark: int | None = None
    suppress_default: bool = False

    def __str__(self) -> str:
        return f"rule from {self.source or 'all'} to {self.destination or 'all'} lookup {self.table}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A set of routes and rules."""

    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(self.routes | other.routes, self.rules | other.rules)


def tables_of(names: Iterable[str]) -> dict[str, int]:
    """A table number for each tunnel: from its name, and the next free one where two fall together."""
    taken: dict[int, str] = {}
    for name in sorted(names):
        slot = zlib.crc32(name.encode()) % TABLES
        while slot in taken:
            slot = (slot + 1) % TABLES
        taken[slot] = name
    return {name: FIRST_TABLE + slot for slot, name in taken.items()}


def guard(tunnels: Iterable[TunnelPolicy], tables: dict[str, int]) -> Wanted:
    """What stands as long as the tunnels are configured: blackholes, and the rules that lead to them."""
    routes: set[Route] = set()
    rules: set[Rule] = set()
    for tunnel in tunnels:
        if tunnel.communication is Communication.SPD_POLICY:
            table = tables[tunnel.name]
            for child in tunnel.peer.children:
                routes.add(Route(_everything(child.local), table, None, WORST_METRIC))
                rules.add(Rule(child.local.version, child.local, child.remote, table, SPD_PRIORITY))
        for network in _routes_of(tunnel):
            routes.add(Route(network, _table_of(network), None, WORST_METRIC))
            if network.prefixlen == 0:
                rules |= _default_rules(network)
    return Wanted(frozenset(routes), frozenset(rules))


def carried(tunnel: TunnelPolicy, tables: dict[str, int]) -> Wanted:
    """What leads to the tunnel's interface while it carries the traffic of its routes and mappings."""
    routes: set[Route] = set()
    if tunnel.communication is Communication.SPD_POLICY:
        for child in tunnel.peer.children:
            everything = _everything(child.local)
            routes.add(Route(everything, tables[tunnel.name], tunnel.interface, TUNNEL_METRIC))
    for network in _routes_of(tunnel):
        routes.add(Route(network, _table_of(network), tunnel.interface, TUNNEL_METRIC))
    return Wanted(frozenset(routes))


def probed(tunnel: TunnelPolicy) -> Wanted:
    """What leads the health check, and our answers to the peer's, through the tunnel itself.

    It stands whichever tunnel carries the traffic. In an spd-policy tunnel the probe's mapping does this.
    """
    health = tunnel.health
    if health is None or tunnel.communication is Communication.SPD_POLICY:
        return Wanted()
    remote = ip_network(health.remote)
    route = Route(remote, MAIN_TABLE, tunnel.interface, TUNNEL_METRIC, health.local)
    return Wanted(frozenset({route}))


def _routes_of(tunnel: TunnelPolicy) -> tuple[Network, ...]:
    return tunnel.routes if tunnel.communication is Communication.DESTINATION_ROUTE else ()


def _table_of(network: Network) -> int:
    return DEFAULT_TABLE if network.prefixlen == 0 else MAIN_TABLE


def _everything(network: Network) -> IPv4Network | IPv6Network:
    return ALL_IPV4 if network.version == 4 else ALL_IPV6


def _default_rules(network: Network) -> set[Rule]:
    """More specific routes of the main table first, then the tunnel, but not for what vpnd sends itself."""
    version = network.version
    return {
        Rule(version, None, None, MAIN_TABLE, DEFAULT_PRIORITY, suppress_default=True),
        Rule(version, None, None, DEFAULT_TABLE, DEFAULT_PRIORITY + 1, unless_mark=MARK),
    }
