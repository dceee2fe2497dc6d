"""Which packets an SA carries: address ranges, IP protocol and ports on each side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    summarize_address_range,
)

from vpnd.wire.iana import IpProtocol, name_of

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNSPECIFIED: dict[int, Address] = {4: ip_address("0.0.0.0"), 6: ip_address("::")}  # noqa: S104 (nothing is bound to it here)
"""By IP version: stands for an address of this machine that is not known yet."""

Ports = tuple[int, int]
"""From the first to the second, both included."""

ANY_PORT: Ports = (0, 65535)


@dataclass(frozen=True, slots=True)
class Selector:
    """One side of a traffic selector pair (RFC 7296 section 3.13.1): an inclusive range of addresses.

    `protocol` 0 means any. Ports are inclusive; 0 to 65535 means any.
    """

    start: Address
    end: Address
    protocol: int = 0
    port_start: int = 0
    port_end: int = 65535

    def __post_init__(self) -> None:
        if type(self.start) is not type(self.end):
            raise ValueError("a selector's addresses are of one family")
        if int(self.start) > int(self.end):
            raise ValueError(f"a selector's range ends ({self.end}) before it starts ({self.start})")

    @classmethod
    def of(cls, network: Network, protocol: int = 0, ports: Ports = ANY_PORT) -> Selector:
        """Every address of `network`, with a protocol (0: any) and the ports from the first to the second."""
        return cls(network.network_address, network.broadcast_address, protocol, *ports)

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.start.version

    @property
    def first(self) -> int:
        """The lowest address, as a number."""
        return int(self.start)

    @property
    def last(self) -> int:
        """The highest address, as a number."""
        return int(self.end)

    def holds(self, address: Address) -> bool:
        """Whether `address` is within the range."""
        return address.version == self.version and self.first <= int(address) <= self.last

    def covers(self, other: Selector) -> bool:
        """Whether every packet of `other` is one of ours."""
        return (
            self.version == other.version
            and self.protocol in (0, other.protocol)
            and self.first <= other.first
            and other.last <= self.last
            and self.port_start <= other.port_start <= other.port_end <= self.port_end
        )

    def intersect(self, other: Selector) -> Selector | None:
        """The packets that both select, or None if there are none."""
        if type(self.start) is not type(other.start):
            return None
        if self.protocol and other.protocol and self.protocol != other.protocol:
            return None
        start = self.start if self.first >= other.first else other.start
        end = self.end if self.last <= other.last else other.end
        port_start = max(self.port_start, other.port_start)
        port_end = min(self.port_end, other.port_end)
        if int(start) > int(end) or port_start > port_end:
            return None
        return Selector(start, end, self.protocol or other.protocol, port_start, port_end)

    def networks(self) -> tuple[Network, ...]:
        """The range as CIDR blocks, in order."""
        return tuple(summarize_address_range(self.start, self.end))

    def __str__(self) -> str:
        return _text(self)


@lru_cache(maxsize=1024)  # each rekey tells of the same few
def _text(selector: Selector) -> str:
    blocks = selector.networks()
    text = str(blocks[0]) if len(blocks) == 1 else f"{selector.start}-{selector.end}"
    any_port = (selector.port_start, selector.port_end) == ANY_PORT
    if not selector.protocol and any_port:
        return text
    ports = "" if any_port else f"/{ports_text((selector.port_start, selector.port_end))}"
    return f"{text}[{protocol_text(selector.protocol)}{ports}]"


def ports_text(ports: Ports) -> str:
    """`443` or `1024-65535`."""
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def protocol_text(protocol: int) -> str:
    """`tcp`, or the number of one without a name here; `any` for 0."""
    return name_of(IpProtocol, protocol).lower()


def narrow(offered: Iterable[Selector], acceptable: Iterable[Selector]) -> tuple[Selector, ...]:
    """The part of `offered` that `acceptable` covers, without repeats (RFC 7296 section 2.9).

    Empty: TS_UNACCEPTABLE. The order is that of `offered`, so a specific selector stays first.
    """
    acceptable = tuple(acceptable)
    narrowed: dict[Selector, None] = {}
    for theirs in offered:
        for ours in acceptable:
            both = theirs.intersect(ours)
            if both is not None:
                narrowed[both] = None
    return tuple(s for s in narrowed if not any(o is not s and o.covers(s) for o in narrowed))


def parse_address(text: str) -> Address:
    """An IPv4 or IPv6 address. Raises ValueError."""
    return ip_address(text)


def covered(wanted: Selector, selectors: Iterable[Selector]) -> bool:
    """Whether every packet of `wanted` is one of these selectors', which may share it among them."""
    selectors = tuple(selectors)
    if any(selector.covers(wanted) for selector in selectors):
        return True
    able = [
        s
        for s in selectors
        if s.version == wanted.version and s.covers(replace(wanted, start=s.start, end=s.end))
    ]
    reached = wanted.first
    for first, last in sorted((s.first, s.last) for s in able):
        if first > reached:
            break
        reached = max(reached, last + 1)
    return reached > wanted.last


def describe(selectors: Iterable[Selector]) -> str:
    """`10.1.0.0/24, 10.1.1.0/24`, or `nothing`."""
    return ", ".join(map(str, selectors)) or "nothing"
