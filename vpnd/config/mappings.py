"""From routes and SPD rules to mappings: which pairs of ranges a tunnel has SAs for, and which overlap."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.config.schema import TunnelTable
from vpnd.model.policy import ALL_IPV4, ALL_IPV6
from vpnd.model.selectors import Network

MAX_MAPPINGS = 200
"""Mappings of all spd-policy tunnels of a gateway together (specification: SPD policies)."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One local range with one remote range; `rule` and `place` say where the remote range is written."""

    local: Network
    remote: Network
    rule: int = 0
    place: int = 0

    def overlaps(self, other: Mapping) -> bool:
        """Whether both ranges share an address with the other's: only then could a packet belong to both."""
        return (
            self.local.version == other.local.version
            and self.remote.version == other.remote.version
            and self.local.overlaps(other.local)
            and self.remote.overlaps(other.remote)
        )

    def __str__(self) -> str:
        return f"{self.local} - {self.remote}"


def mappings_of(table: TunnelTable) -> tuple[Mapping, ...]:
    """The mappings of a tunnel, in the order in which they are negotiated: as the rules are written.

    A destination-route tunnel has one that covers all of IPv4, or of IPv6 if all its routes are IPv6, and
    a second one if its routes are of both kinds.
    """
    if table.communication == "spd-policy":
        return tuple(
            Mapping(local, remote, rule, place)
            for rule, spd in enumerate(table.spd)
            for local in spd.local
            for place, remote in enumerate(spd.remote)
        )
    families = {route.version for route in table.routes}
    everything = []
    if families != {6}:
        everything.append(Mapping(ALL_IPV4, ALL_IPV4))
    if 6 in families:
        everything.append(Mapping(ALL_IPV6, ALL_IPV6))
    return tuple(everything)
