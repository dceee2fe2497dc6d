"""Whether a health check can work: its addresses are fit, free, and carried by the tunnel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from vpnd.config.assign import HealthAddresses, health_addresses
from vpnd.config.configuration import Configuration, Findings, Tunnel
from vpnd.config.mappings import mappings_of
from vpnd.config.schema import GatewayTable
from vpnd.model.selectors import Address, Network
from vpnd.tunnel.route_selection import carries_ping


def check(configuration: Configuration, findings: Findings) -> None:
    """Report what keeps a tunnel's health check from working, or from telling tunnels apart."""
    gateway = configuration.gateway
    if gateway is None:
        return
    ranges = _Ranges(configuration)
    addresses = health_addresses(gateway.name, configuration.tables, ranges.all())
    probed: dict[Address, Tunnel] = {}
    for tunnel in configuration.tunnels.values():
        if tunnel.name not in addresses:
            continue
        pair = addresses[tunnel.name]
        _usable_pair(tunnel, pair, gateway, findings)
        _outside_every_range(tunnel, pair, ranges, findings)
        _carried(tunnel, pair, findings)
        table = tunnel.table.health_check
        if table.timeout_ms > table.interval_ms:
            key = (*tunnel.path, "health_check", "timeout_ms")
            message = f"timeout_ms {table.timeout_ms} is longer than interval_ms {table.interval_ms}"
            findings.warn(
                tunnel.source, key, "W-HEALTH-TIMEOUT", message, "several probes will be under way at once"
            )
        other = probed.setdefault(pair.remote, tunnel)
        if other is not tunnel:
            key = (*tunnel.path, "health_check", "remote")
            message = f"{pair.remote} is also the health-check address of {other.name} ({other.place})"
            findings.error(
                tunnel.source, key, "E-HEALTH-ADDRESS", message, "give each tunnel addresses of its own"
            )


def _usable_pair(tunnel: Tunnel, pair: HealthAddresses, gateway: GatewayTable, findings: Findings) -> None:
    key = (*tunnel.path, "health_check", "remote")
    for end, address in (("local", pair.local), ("remote", pair.remote)):
        if address.is_loopback or address == gateway.address:
            what = "a loopback address" if address.is_loopback else "the gateway's outer address"
            findings.error(
                tunnel.source,
                (*tunnel.path, "health_check", end),
                "E-HEALTH-ADDRESS",
                f"the health-check address {address} is {what}",
                "use a free address, or leave it out and vpnd assigns one",
            )
    if pair.local == pair.remote:
        message = f"both ends of the health check have the address {pair.local}"
        findings.error(
            tunnel.source, key, "E-HEALTH-ADDRESS", message, "give the customer gateway another address"
        )
    if pair.local.version != pair.remote.version:
        message = f"the health-check addresses {pair.local} and {pair.remote} are of two kinds"
        findings.error(
            tunnel.source, key, "E-HEALTH-ADDRESS", message, "give both ends IPv4 addresses, or both IPv6"
        )


class _Ranges:
    """Every range that a tunnel carries, and whose it is; but for default routes, which mean "all else".

    An address is looked up by each prefix length that occurs, so a thousand tunnels are no matter.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._owners: dict[Network, list[Tunnel]] = {}
        self._lengths: set[tuple[int, int]] = set()
        for tunnel in configuration.tunnels.values():
            spd = (network for rule in tunnel.table.spd for network in (*rule.local, *rule.remote))
            for network in dict.fromkeys((*tunnel.table.routes, *spd)):
                if network.prefixlen:
                    self._owners.setdefault(network, []).append(tunnel)
                    self._lengths.add((network.version, network.prefixlen))

    def all(self) -> Iterable[Network]:
        """Each range once."""
        return self._owners

    def holding(self, address: Address) -> Iterator[tuple[Tunnel, Network]]:
        """The ranges with this address in them, the widest first."""
        for version, length in sorted(self._lengths):
            if version == address.version:
                network = ip_network(f"{address}/{length}", strict=False)
                for owner in self._owners.get(network, ()):
                    yield owner, network


def _outside_every_range(tunnel: Tunnel, pair: HealthAddresses, ranges: _Ranges, findings: Findings) -> None:
    for end, address in (("local", pair.local), ("remote", pair.remote)):
        for owner, network in ranges.holding(address):
            if owner is tunnel and network.prefixlen == network.max_prefixlen:
                continue  # its own mapping for the probe
            where = f"{network} of tunnel {owner.name} ({owner.place})"
            message = f"the health-check address {address} is in {where}"
            hint = "use an address that no tunnel carries, or leave it out and vpnd assigns one"
            key = (*tunnel.path, "health_check", end)
            findings.error(tunnel.source, key, "E-HEALTH-ADDRESS", message, hint)
            break


def _carried(tunnel: Tunnel, pair: HealthAddresses, findings: Findings) -> None:
    """A probe travels in an SA like any packet: the tunnel needs a mapping for it."""
    if pair.local.version != pair.remote.version:
        return  # which has been said
    if any(
        pair.local in m.local and pair.remote in m.remote and carries_ping(m.protocol, m.has_ports)
        for m in mappings_of(tunnel.table)
    ):
        return
    message = f"no mapping of this tunnel carries its health check, {pair.local} - {pair.remote}"
    hint = (
        f'add a rule with local = ["{pair.local}/{pair.local.max_prefixlen}"] and'
        f' remote = ["{pair.remote}/{pair.remote.max_prefixlen}"], here and mirrored at the peer;'
        " or use destination-route"
    )
    if tunnel.table.communication == "destination-route":
        carried = 6 if pair.local.version == 4 else 4
        hint = f"its routes are all IPv{carried}: give local and remote IPv{carried} addresses"
    findings.error(
        tunnel.source, (*tunnel.path, "health_check", "enabled"), "E-HEALTH-MAPPING", message, hint
    )
