"""From routes and SPD rules to mappings: which pairs of ranges a tunnel has SAs for, and which overlap."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from vpnd.config.schema import TunnelTable
from vpnd.config.values import PROTOCOLS
from vpnd.model.policy import ALL_IPV4, ALL_IPV6
from vpnd.model.selectors import ANY_PORT, Network, Ports, Selector

MAX_MAPPINGS = 200
"""Mappings of all spd-policy tunnels of a gateway together (specification: SPD policies)."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One local range with one remote range; `rule` and `place` say where the remote range is written.

    `protocol` 0 is any.
    """

    local: Network
    remote: Network
    rule: int = 0
    place: int = 0
    protocol: int = 0
    local_ports: Ports = ANY_PORT
    remote_ports: Ports = ANY_PORT

    @property
    def has_ports(self) -> bool:
        """Whether it is for some ports only."""
        return (self.local_ports, self.remote_ports) != (ANY_PORT, ANY_PORT)

    def overlaps(self, other: Mapping) -> bool:
        """Whether a packet could belong to both: ranges, protocols and ports have something in common."""
        return (
            self.local.version == other.local.version
            and self.remote.version == other.remote.version
            and self.local.overlaps(other.local)
            and self.remote.overlaps(other.remote)
            and (self.protocol == other.protocol or 0 in (self.protocol, other.protocol))
            and _share_a_port(self.local_ports, other.local_ports)
            and _share_a_port(self.remote_ports, other.remote_ports)
        )

    def __str__(self) -> str:
        local = Selector.of(self.local, self.protocol, self.local_ports)
        return f"{local} - {Selector.of(self.remote, self.protocol, self.remote_ports)}"


def _share_a_port(one: Ports, other: Ports) -> bool:
    return max(one[0], other[0]) <= min(one[1], other[1])


def ports_of(text: str | None) -> Ports:
    """The ports that a rule names as `443` or `1024-65535`."""
    if text is None:
        return ANY_PORT
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def protocol_of(word: str | None) -> int:
    """The number of a protocol that a rule names; 0 if it names none."""
    if word is None:
        return 0
    return PROTOCOLS[word] if word in PROTOCOLS else int(word)


def mappings_of(table: TunnelTable) -> tuple[Mapping, ...]:
    """The mappings of a tunnel, in the order in which they are negotiated: as the rules are written.

    A destination-route tunnel has one that covers all of IPv4, or of IPv6 if all its routes are IPv6, and
    a second one if its routes are of both kinds. Of more than MAX_MAPPINGS, which are refused, there is one
    too many: a rule of thousands of ranges at each end would make millions.
    """
    if table.communication == "spd-policy":
        every = (
            Mapping(
                local,
                remote,
                rule,
                place,
                protocol_of(spd.protocol),
                ports_of(spd.local_port),
                ports_of(spd.remote_port),
            )
            for rule, spd in enumerate(table.spd)
            for local in spd.local
            for place, remote in enumerate(spd.remote)
        )
        return tuple(islice(every, MAX_MAPPINGS + 1))
    families = {route.version for route in table.routes}
    everything = []
    if families != {6}:
        everything.append(Mapping(ALL_IPV4, ALL_IPV4))
    if 6 in families:
        everything.append(Mapping(ALL_IPV6, ALL_IPV6))
    return tuple(everything)
