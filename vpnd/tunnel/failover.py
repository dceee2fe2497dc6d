"""Which of several tunnels carries a route: the able one with the lowest priority number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vpnd.model.selectors import Network


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tunnel, as the choice of a carrier sees it. `able`: it is up, and healthy where that is checked."""

    name: str
    priority: int
    routes: tuple[Network, ...]
    able: bool


def carriers(candidates: Iterable[Candidate]) -> dict[Network, str]:
    """The tunnel that carries each route, in the order of the configuration where priorities are equal.

    While no tunnel of a route is able, the one with the lowest number holds it: its packets may be what
    brings it up.
    """
    best: dict[Network, tuple[bool, int, str]] = {}
    for candidate in candidates:
        rank = (not candidate.able, candidate.priority, candidate.name)
        for network in candidate.routes:
            if network not in best or rank[:2] < best[network][:2]:
                best[network] = rank
    return {network: name for network, (_, _, name) in best.items()}
