"""Routes and rules of the kernel as values, and by what those of vpnd are known."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from vpnd.model.selectors import ANY_PORT, Address, Network, Ports, ports_text, protocol_text

PROTOCOL = 86
"""Ours: the mark (`proto`) of every route and rule that vpnd makes; by it leftovers are found."""

MAIN_TABLE = 254

ANYWHERE: dict[int, Address] = {4: ip_address("192.0.0.8"), 6: ip_address("100::1")}
"""Addresses to which only a default route leads (RFC 7600 section 4.8, RFC 6666)."""

MARK = 0x7670
"""Ours: the fwmark of the datagrams that vpnd sends itself; they never enter a tunnel by its routes."""

LAST_PORT_OF_RULES = 65534
"""Linux: a rule that names port 65535, as the end of a range too, is refused (fib_rule_port_range_valid)."""

LINK_GROUP = 0x7670
"""Ours: the group of every TUN that vpnd makes; as a group a thousand go in the time of one."""

COMMON_GROUP = 0
"""Linux: the group of every interface that was not put into another."""


@dataclass(frozen=True, slots=True)
class Route:
    """One route; `device` None: a blackhole, or where it is `thrown`, the word that this table has none."""

    destination: Network
    table: int
    device: str | None
    metric: int
    source: Address | None = None
    thrown: bool = False

    @property
    def key(self) -> tuple[Network, int, int]:
        """What the kernel tells routes apart by."""
        return (self.destination, self.table, self.metric)

    def __str__(self) -> str:
        where = f"dev {self.device}" if self.device else "throw" if self.thrown else "blackhole"
        table = "" if self.table == MAIN_TABLE else f" table {self.table}"
        return f"route {self.destination} {where}{table} metric {self.metric}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy rule: packets from `source` to `destination` (None: any) look `table` up.

    `unless_mark`: only packets without this fwmark. `suppress_default`: a default route found is none.
    `suppress_group`: a route found is none if its interface is of this group. `protocol` (0: any) and the
    ports narrow it; a fragment matches no rule with ports.
    """

    version: int
    source: Network | None
    destination: Network | None
    table: int
    priority: int
    unless_mark: int | None = None
    suppress_default: bool = False
    suppress_group: int | None = None
    protocol: int = 0
    source_ports: Ports = ANY_PORT
    destination_ports: Ports = ANY_PORT

    def __str__(self) -> str:
        narrowed = f" ipproto {protocol_text(self.protocol)}" if self.protocol else ""
        for word, ports in (("sport", self.source_ports), ("dport", self.destination_ports)):
            narrowed += f" {word} {ports_text(ports)}" if ports != ANY_PORT else ""
        return (
            f"rule from {self.source or 'all'} to {self.destination or 'all'}{narrowed} lookup {self.table}"
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A set of routes and rules."""

    routes: frozenset[Route] = frozenset()
    rules: frozenset[Rule] = frozenset()

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(self.routes | other.routes, self.rules | other.rules)

    def __and__(self, other: Wanted) -> Wanted:
        return Wanted(self.routes & other.routes, self.rules & other.rules)
