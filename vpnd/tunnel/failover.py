"""Which of several tunnels carries a route: the able one with the lowest priority number.

Tunnels that share a route, directly or through others, form a group. Traffic leaves a tunnel at once that
cannot carry it, or that loses too much of it while another does not, and comes back late: a tunnel that has
failed must have been able for a while first, and for longer each time that it fails again soon. So a flapping
primary does not drag the traffic along.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from vpnd.ike.deadlines import Deadlines
from vpnd.model.selectors import Network
from vpnd.model.text import named

RETURN_AFTER = 10.0
"""Ours: seconds that a tunnel which failed must be able before it takes traffic from another that is.

Two health checks at their slowest: a path that was just repaired often breaks once more.
"""

LONGEST_RETURN = 600.0
"""Ours: the wait doubles with each failure up to this; an operator can switch by hand meanwhile."""

CALM = 600.0
"""Ours: seconds that a tunnel must have been able, its wait aside, for its next failure to be a first one."""


class Fitness(IntEnum):
    """What a tunnel can do for traffic, the best first."""

    ABLE = 0
    """Up, and healthy where that is checked."""
    LOSSY = 1
    """Up, but it loses too much: better than nothing."""
    READY = 2
    """Traffic-triggered and idle: a packet would bring it up."""
    UNABLE = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A tunnel, as the choice of a carrier sees it: its number and the routes it could carry."""

    name: str
    priority: int
    routes: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class RouteMoved:
    """This tunnel carries this route from now on; `before` did until now, None: none did."""

    route: Network
    tunnel: str
    before: str | None
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Tunnels that share routes, the preferred first. `name` is that of the first.

    `by_hand` is the tunnel that an operator has chosen; None: health and priority decide.
    """

    name: str
    members: tuple[str, ...]
    routes: tuple[Network, ...]
    by_hand: str | None


class NoSuchGroup(LookupError):
    """No group is called so, or the tunnel is not one of it."""


@dataclass(slots=True)
class _Tunnel:
    """A member, its fitness, and what its past says about its future."""

    member: Member
    place: int
    fitness: Fitness = Fitness.UNABLE
    able_since: float = 0.0
    failures: int = 0
    returns_at: float = 0.0


class Failover:
    """Chooses the carrier of every route. Times are in seconds on the caller's monotonic clock.

    A change of one tunnel's fitness costs as much as it has routes, times the tunnels that share them.
    `outputs` holds the changes.
    """

    def __init__(self) -> None:
        self.outputs: deque[RouteMoved] = deque()
        self._tunnels: dict[str, _Tunnel] = {}
        self._sharers: dict[Network, list[_Tunnel]] = {}
        self._carriers: dict[Network, str] = {}
        self._chosen: set[str] = set()
        self._returns: Deadlines[str] = Deadlines()

    # ------------------------------------------------------------------------------ queries

    def carrier(self, route: Network) -> str | None:
        """The tunnel that carries a route, or None for a route that no tunnel has."""
        return self._carriers.get(route)

    def carries(self, tunnel: str) -> bool:
        """Whether a tunnel carries at least one of its routes."""
        known = self._tunnels.get(tunnel)
        return known is not None and any(self._carriers.get(r) == tunnel for r in known.member.routes)

    def group(self, name: str) -> Group:
        """The group of this name: that of its first tunnel, of any other of its tunnels, or of a route.

        Raises NoSuchGroup.
        """
        start = self._tunnels.get(name)
        if start is None:
            sharers = next((found for route, found in self._sharers.items() if str(route) == name), None)
            if not sharers:
                raise NoSuchGroup(f"neither a tunnel nor a route is called {named(name)}")
            start = sharers[0]
        seen = {start.member.name: start}
        todo = [start]
        while todo:
            for route in todo.pop().member.routes:
                for other in self._sharers[route]:
                    if other.member.name not in seen:
                        seen[other.member.name] = other
                        todo.append(other)
        ordered = sorted(seen.values(), key=lambda tunnel: (tunnel.member.priority, tunnel.place))
        members = tuple(tunnel.member.name for tunnel in ordered)
        routes = tuple(dict.fromkeys(route for tunnel in ordered for route in tunnel.member.routes))
        by_hand = next((name for name in members if name in self._chosen), None)
        return Group(members[0], members, routes, by_hand)

    def contested(self) -> frozenset[str]:
        """The tunnels that have a route which another one could carry."""
        shared = (sharers for sharers in self._sharers.values() if len(sharers) > 1)
        return frozenset(tunnel.member.name for sharers in shared for tunnel in sharers)

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do."""
        return self._returns.next_timeout()

    # ------------------------------------------------------------------------------- inputs

    def configure(self, now: float, members: Iterable[Member]) -> None:
        """The tunnels that there are from now on, in the order of the configuration.

        What is known of those that stay is kept; a choice by hand ends with the tunnel that was chosen.
        """
        known = self._tunnels
        self._tunnels = {}
        self._sharers = {}
        for place, member in enumerate(members):
            tunnel = known.get(member.name) or _Tunnel(member, place)
            tunnel.member, tunnel.place = member, place
            self._tunnels[member.name] = tunnel
            for route in dict.fromkeys(member.routes):
                self._sharers.setdefault(route, []).append(tunnel)
        self._chosen = {
            name for name in self._chosen if name in self._tunnels and self.group(name).members[0] != name
        }
        for route in [route for route in self._carriers if route not in self._sharers]:
            del self._carriers[route]
        for route in self._sharers:
            self._choose(now, route)

    def set_fitness(self, now: float, name: str, fitness: Fitness) -> None:
        """A tunnel came up, failed, or is ready; unknown tunnels, which have no routes, are ignored."""
        tunnel = self._tunnels.get(name)
        if tunnel is None or tunnel.fitness is fitness:
            return
        if fitness is Fitness.ABLE:
            tunnel.able_since = now
            if tunnel.failures:
                wait = RETURN_AFTER * float(1 << min(tunnel.failures - 1, 10))
                tunnel.returns_at = now + min(wait, LONGEST_RETURN)
                self._returns.arm(name, tunnel.returns_at)
        elif tunnel.fitness is Fitness.ABLE:
            calm = now - max(tunnel.able_since, tunnel.returns_at) >= CALM
            tunnel.failures = 1 if calm else tunnel.failures + 1
        tunnel.fitness = fitness
        self._choose_all(now, tunnel)

    def switch(self, now: float, group: str, choice: str | None) -> Group:
        """The operator moves a group's routes to `choice`, where it has them; None: back to the automatic.

        The choice holds while the tunnel is able, and again when it is able again. Choosing the tunnel that
        comes first by priority ends the choice by hand. Raises NoSuchGroup.
        """
        found = self.group(group)
        if choice is not None and choice not in found.members:
            raise NoSuchGroup(f"{choice} is not one of the group {found.name}: {', '.join(found.members)}")
        self._chosen.difference_update(found.members)
        chosen = choice if choice is not None else found.members[0]
        # Who asks by hand does not wait for the hold-down.
        self._tunnels[chosen].returns_at = now
        if choice is not None and choice != found.members[0]:
            self._chosen.add(choice)
        for route in found.routes:
            self._choose(now, route, by_hand=True)
        return self.group(found.name)

    def handle_timeout(self, now: float) -> None:
        """A tunnel has been able for long enough to take its traffic back."""

        def serve(name: str) -> None:
            if (tunnel := self._tunnels.get(name)) is not None:
                self._choose_all(now, tunnel)

        self._returns.serve(now, serve)

    # ------------------------------------------------------------------------------------ inside

    def _choose_all(self, now: float, tunnel: _Tunnel) -> None:
        for route in dict.fromkeys(tunnel.member.routes):
            self._choose(now, route)

    def _choose(self, now: float, route: Network, by_hand: bool = False) -> None:
        sharers = self._sharers[route]
        before = self._carriers.get(route)
        current = next((tunnel for tunnel in sharers if tunnel.member.name == before), None)
        eligible = sharers
        if current is not None and current.fitness <= Fitness.LOSSY:
            # It carries; only who is better, and has waited long enough, takes over.
            eligible = [t for t in sharers if t is current or self._may_take_over(now, t)]
        best = min(eligible, key=self._preference)
        if best.member.name != before:
            self._carriers[route] = best.member.name
            self.outputs.append(RouteMoved(route, best.member.name, before, by_hand))

    def _may_take_over(self, now: float, tunnel: _Tunnel) -> bool:
        return self._merit(tunnel) is Fitness.ABLE and now >= tunnel.returns_at

    def _merit(self, tunnel: _Tunnel) -> Fitness:
        """Its fitness; an operator's choice is not taken away for what it loses."""
        chosen = tunnel.member.name in self._chosen
        return Fitness.ABLE if chosen and tunnel.fitness is Fitness.LOSSY else tunnel.fitness

    def _preference(self, tunnel: _Tunnel) -> tuple[int, int, int, int]:
        chosen = tunnel.member.name in self._chosen
        return (self._merit(tunnel), not chosen, tunnel.member.priority, tunnel.place)
