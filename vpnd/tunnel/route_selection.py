"""Which tunnels can carry traffic, and which do: the health checks and the failover of a gateway, together.

It is told how each tunnel's life goes (`tunnel_changed`) and what comes back from the probes; it asks for
probes to be sent, tells verdicts, and says which tunnel carries each route.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from vpnd.crypto.entropy import Entropy
from vpnd.model.policy import Communication, HealthPolicy, Negotiation, TunnelPolicy
from vpnd.model.selectors import Address, Network
from vpnd.tunnel.commands import TunnelState
from vpnd.tunnel.failover import Failover, Fitness, Group, Member, RouteMoved
from vpnd.tunnel.health import HealthCheck, HealthChecks, ProbeOutput
from vpnd.tunnel.lifecycle import Tunnel
from vpnd.tunnel.mappings import numbered
from vpnd.wire.iana import IpProtocol

RouteSelectionOutput = ProbeOutput | RouteMoved


class RouteSelection:
    """Health and failover of all tunnels of a gateway. `outputs` holds what it asks for."""

    def __init__(self, entropy: Entropy) -> None:
        self._checks = HealthChecks(entropy)
        self._failover = Failover()

    # ------------------------------------------------------------------------------ queries

    @property
    def outputs(self) -> deque[ProbeOutput] | deque[RouteMoved]:
        """What waits to be performed: verdicts and probes first, then what follows from them."""
        return self._checks.outputs or self._failover.outputs

    def check(self, tunnel: str) -> HealthCheck | None:
        """The health check of a tunnel, or None while it is off."""
        return self._checks.get(tunnel)

    def carrier(self, route: Network) -> str | None:
        """The tunnel that carries a route, or None for a route that no tunnel has."""
        return self._failover.carrier(route)

    def carries(self, policy: TunnelPolicy) -> bool:
        """Whether traffic is led to this tunnel: its mappings, or at least one of its routes."""
        return policy.communication is Communication.SPD_POLICY or self._failover.carries(policy.name)

    def group(self, name: str) -> Group:
        """As `Failover.group`. Raises NoSuchGroup."""
        return self._failover.group(name)

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do, in seconds on the caller's clock."""
        deadlines = (self._checks.next_timeout(), self._failover.next_timeout())
        return min((at for at in deadlines if at is not None), default=None)

    # ------------------------------------------------------------------------------- inputs

    def configure(self, now: float, tunnels: Iterable[TunnelPolicy]) -> None:
        """The tunnels that are configured from now on, in their order: who shares a route with whom."""
        self._failover.configure(
            now,
            (
                Member(policy.name, policy.priority, policy.routes)
                for policy in tunnels
                if policy.communication is Communication.DESTINATION_ROUTE
            ),
        )
        self._checks.set_contested(now, self._failover.contested())

    def add(self, now: float, name: str, policy: HealthPolicy | None) -> None:
        """A tunnel begins to live: its probes begin with it."""
        self._checks.set_policy(now, name, policy)

    def remove(self, now: float, name: str) -> None:
        """A tunnel's life ends; it may be added again, and begins again then."""
        self._checks.remove(name)
        self._failover.set_fitness(now, name, Fitness.UNABLE)

    def tunnel_changed(self, now: float, tunnel: Tunnel) -> None:
        """A tunnel, one of its mappings or what it loses is another."""
        index = probe_mapping(tunnel.policy)
        if index is not None:
            mapping = numbered(tunnel.mappings, index)
            self._checks.set_linked(now, tunnel.name, mapping is not None and mapping.owner is not None)
        check = self._checks.get(tunnel.name)
        lossy = check is not None and check.lossy
        self._failover.set_fitness(now, tunnel.name, _fitness(tunnel, lossy))

    def switch(self, now: float, group: str, choice: str | None) -> Group:
        """As `Failover.switch`. Raises NoSuchGroup."""
        return self._failover.switch(now, group, choice)

    def set_limit(self, now: float, tunnel: str, limit: int) -> None:
        """As `HealthChecks.set_limit`."""
        self._checks.set_limit(now, tunnel, limit)

    def handle_reply(
        self, now: float, tunnel: str, source: Address, destination: Address, identifier: int, sequence: int
    ) -> None:
        """An echo reply came out of a tunnel."""
        self._checks.handle_reply(now, tunnel, source, destination, identifier, sequence)

    def handle_timeout(self, now: float) -> None:
        """Sends what is due, judges what is decided, and lets back who has waited long enough."""
        self._checks.handle_timeout(now)
        self._failover.handle_timeout(now)


def carries_ping(protocol: int, has_ports: bool) -> bool:
    """Whether packets of a health check are among those that a rule selects."""
    return protocol in (0, IpProtocol.ICMP, IpProtocol.ICMPV6) and not has_ports


def probe_mapping(policy: TunnelPolicy) -> int | None:
    """The mapping whose SA carries the health check's probes; None: it is off, or no mapping carries it."""
    health = policy.health
    if health is None:
        return None
    for child in policy.peer.children:
        inside = health.local in child.local and health.remote in child.remote
        if inside and carries_ping(child.protocol, child.has_ports):
            return child.index
    return None


def _fitness(tunnel: Tunnel, lossy: bool) -> Fitness:
    if tunnel.state is TunnelState.UP:
        return Fitness.LOSSY if lossy else Fitness.ABLE
    idle = tunnel.state is TunnelState.WAITING and tunnel.standing.error is None
    if idle and tunnel.policy.negotiation is Negotiation.TRAFFIC_TRIGGERED:
        return Fitness.READY
    return Fitness.UNABLE
