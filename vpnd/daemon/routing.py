"""Which routes and rules a gateway's tunnels want in the kernel: values, and how they follow from policies.

    spd-policy          7000  from 10.1.0.0/24 to 10.2.0.0/24 [ipproto tcp sport 443] lookup T
                              T:  default dev vpn-a metric 10
                                  blackhole default metric 4294967295
    destination-route   7050  lookup main suppress_ifgroup 0
                        7051  not fwmark MARK lookup ROUTES
                              ROUTES and the main table:
                                  10.2.0.0/16 dev vpn-a metric 10           while the interface is there
                                  blackhole 10.2.0.0/16 metric 4294967295   as long as it is configured
                              ROUTES: throw 10.2.9.0/24                     a network on our inner side
    routes that a peer  7100  lookup main suppress_prefixlength 0
    is in, as all are   7101  not fwmark MARK lookup SEPARATE
    in 0.0.0.0/0              SEPARATE, in place of the main table:  as above

The kernel takes a route away with its interface; blackholes and rules stay, also when the daemon is killed:
nothing that a tunnel should protect finds another way out.

No route of the main table wins over a mapping or over `routes`, however specific it is, if it leads out of
this machine: any DHCP server that answers us can set such routes (CVE-2024-3661). Two kinds still win over
a less specific entry of `routes`: those by another tunnel's interface, made by hand or by a routing daemon
(7050: every interface is of group 0 by default, ours are of another), and networks on
our inner side, such as the LAN of a gateway with a route to 10.0.0.0/8 (`Netlink.networks_inside`), which
the table throws back to the main table. The main table has the routes as well: there they are looked for.
But not those that a peer is in: what vpnd sends itself goes by the main table.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from vpnd.host.nftables import Narrow, Shield
from vpnd.host.routes import (
    COMMON_GROUP,
    LAST_PORT_OF_RULES,
    LINK_GROUP,
    MAIN_TABLE,
    MARK,
    Route,
    Rule,
    Wanted,
)
from vpnd.model.policy import ALL_IPV4, ALL_IPV6, Communication, TunnelPolicy
from vpnd.model.selectors import ANY_PORT, Network, Ports

TUNNEL_METRIC = 10

INSIDE_METRIC = 1
"""Ours: a network of our inner side wins over the same network in `routes`."""

WORST_METRIC = 0xFFFFFFFF
"""A route of this metric is taken when there is no other."""

SPD_PRIORITY = 7000
"""Ours: before the main table's 32766, so that no route in it wins over a mapping, however specific."""

ROUTES_PRIORITY = 7050
"""Ours: the two rules of `routes`, after the mappings."""

SEPARATE_PRIORITY = 7100
"""Ours: the two rules of routes that are kept apart from the main table, for what was thrown before."""

FIRST_TABLE = 0x76700000
TABLES = 0x80000
SEPARATE_TABLE = FIRST_TABLE + TABLES
ROUTES_TABLE = SEPARATE_TABLE + 1
"""Ours: numbers that no other program uses; a tunnel's follows from its name, so that restarts agree."""

LINK_LOCAL_V6 = IPv6Network("fe80::/10")


def tables_of(names: Iterable[str]) -> dict[str, int]:
    """A table number for each tunnel: from its name, and the next free one where two fall together."""
    taken: dict[int, str] = {}
    for name in sorted(names):
        slot = zlib.crc32(name.encode()) % TABLES
        while slot in taken:
            slot = (slot + 1) % TABLES
        taken[slot] = name
    return {name: FIRST_TABLE + slot for slot, name in taken.items()}


def apart(tunnels: Iterable[TunnelPolicy]) -> frozenset[Network]:
    """The routes that the main table must not have, since a peer is in them: its own would go through it.

    A peer of any address may be in each of them.
    """
    tunnels = tuple(tunnels)
    routes = {network for tunnel in tunnels for network in _routes_of(tunnel)}
    lengths = {(network.version, network.prefixlen) for network in routes}
    peers = {tunnel.peer.remote_address for tunnel in tunnels} - {None}
    holding = {
        ip_network((peer, length), strict=False)
        for version, length in lengths
        for peer in peers
        if peer is not None and peer.version == version
    }
    anywhere = {tunnel.peer.local_address.version for tunnel in tunnels if tunnel.peer.any_address}
    return frozenset(
        network
        for network in routes
        if network in holding or network.prefixlen == 0 or network.version in anywhere
    )


def guard(
    tunnels: Iterable[TunnelPolicy], tables: dict[str, int], separate: frozenset[Network] | None = None
) -> Wanted:
    """What stands as long as the tunnels are configured: blackholes, and the rules that lead to them.

    `separate` is what `apart` says, if more is known of the peers than these tunnels tell.
    """
    tunnels = tuple(tunnels)
    separate = apart(tunnels) if separate is None else separate
    routes: set[Route] = set()
    rules: set[Rule] = set()
    for tunnel in tunnels:
        if tunnel.communication is Communication.SPD_POLICY:
            table = tables[tunnel.name]
            for child in tunnel.peer.children:
                routes.add(Route(_everything(child.local), table, None, WORST_METRIC))
                rules.add(
                    Rule(
                        child.local.version,
                        child.local,
                        child.remote,
                        table,
                        SPD_PRIORITY,
                        protocol=child.protocol,
                        source_ports=_in_a_rule(child.local_ports),
                        destination_ports=_in_a_rule(child.remote_ports),
                    )
                )
        for network in _routes_of(tunnel):
            routes |= {Route(network, table, None, WORST_METRIC) for table in _tables_of(network, separate)}
            rules |= _route_rules(network.version)
            if network in separate:
                rules |= _separate_rules(network.version)
    return Wanted(frozenset(routes), frozenset(rules))


def carried(
    tunnel: TunnelPolicy, tables: dict[str, int], separate: frozenset[Network] | None = None
) -> Wanted:
    """What leads to the tunnel's interface while it carries the traffic of its routes and mappings.

    `separate` is as for `guard`.
    """
    separate = apart([tunnel]) if separate is None else separate
    routes: set[Route] = set()
    if tunnel.communication is Communication.SPD_POLICY:
        for child in tunnel.peer.children:
            everything = _everything(child.local)
            routes.add(Route(everything, tables[tunnel.name], tunnel.interface, TUNNEL_METRIC))
    for network in _routes_of(tunnel):
        for table in _tables_of(network, separate):
            routes.add(Route(network, table, tunnel.interface, TUNNEL_METRIC))
    return Wanted(frozenset(routes))


def spared(tunnels: Iterable[TunnelPolicy], inside: Iterable[Network]) -> Wanted:
    """Which of the networks on our inner side are excepted from `routes`: those that lie in one of them."""
    protected = {network for tunnel in tunnels for network in _routes_of(tunnel)}
    lengths: set[tuple[int, int]] = {(network.version, network.prefixlen) for network in protected}
    excepted = [network for network in inside if _lies_in(network, protected, lengths)]
    if ALL_IPV6 in protected:
        # Neighbour discovery would end in the tunnel.
        excepted.append(LINK_LOCAL_V6)
    return Wanted(
        frozenset(Route(n, ROUTES_TABLE, None, INSIDE_METRIC, thrown=True) for n in excepted if n.prefixlen)
    )


def shield(tunnels: Iterable[TunnelPolicy]) -> Shield:
    """What must not arrive but through a tunnel."""
    tunnels = tuple(tunnels)
    mapped = [t for t in tunnels if t.communication is Communication.SPD_POLICY]
    children = [child for tunnel in mapped for child in tunnel.peer.children]
    whole = [child for child in children if not child.protocol]
    return Shield(
        LINK_GROUP,
        frozenset(network for tunnel in tunnels for network in _routes_of(tunnel)),
        frozenset(child.local for child in whole),
        frozenset(child.remote for child in whole),
        frozenset(
            Narrow(child.local, child.remote, child.protocol, child.local_ports, child.remote_ports)
            for child in children
            if child.protocol
        ),
    )


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


def _tables_of(network: Network, separate: frozenset[Network]) -> tuple[int, int]:
    return (ROUTES_TABLE, SEPARATE_TABLE if network in separate else MAIN_TABLE)


def _lies_in(network: Network, protected: set[Network], lengths: set[tuple[int, int]]) -> bool:
    """Whether it is part of one of many: looked up by each length that there is, not one by one."""
    return any(
        network.supernet(new_prefix=length) in protected
        for version, length in lengths
        if version == network.version and length <= network.prefixlen
    )


def _in_a_rule(ports: Ports) -> Ports:
    """What of a range the kernel's rules can name; the filter keeps the last port in (`nftables`)."""
    return ports if ports == ANY_PORT else (ports[0], min(ports[1], LAST_PORT_OF_RULES))


def _everything(network: Network) -> IPv4Network | IPv6Network:
    return ALL_IPV4 if network.version == 4 else ALL_IPV6


def _route_rules(version: int) -> set[Rule]:
    """Routes by other tunnels' interfaces first, then `routes`, but not for what vpnd sends itself."""
    return {
        Rule(version, None, None, MAIN_TABLE, ROUTES_PRIORITY, suppress_group=COMMON_GROUP),
        Rule(version, None, None, ROUTES_TABLE, ROUTES_PRIORITY + 1, unless_mark=MARK),
    }


def _separate_rules(version: int) -> set[Rule]:
    """For what ROUTES has thrown: more specific routes of the main table, then the tunnel after all."""
    return {
        Rule(version, None, None, MAIN_TABLE, SEPARATE_PRIORITY, suppress_default=True),
        Rule(version, None, None, SEPARATE_TABLE, SEPARATE_PRIORITY + 1, unless_mark=MARK),
    }
