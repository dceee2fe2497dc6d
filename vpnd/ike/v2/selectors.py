"""TS payloads <-> the selectors of `vpnd.model` (RFC 7296 section 3.13)."""

from __future__ import annotations

from collections.abc import Container, Iterable
from ipaddress import IPv4Address, IPv6Address

from vpnd.model.policy import ChildPolicy
from vpnd.model.selectors import Selector, narrow
from vpnd.wire.iana import TsType
from vpnd.wire.ikev2 import TrafficSelector, Ts


def encode_selectors(selectors: Iterable[Selector]) -> tuple[TrafficSelector, ...]:
    """The selectors as they travel, for a TsI or TsR."""
    return tuple(_encode(selector) for selector in selectors)


def decode_selectors(ts: Ts) -> tuple[Selector, ...]:
    """The address ranges of a TS payload; what is none, runs backwards or is OPAQUE selects nothing here."""
    return tuple(
        selector for part in ts.selectors if part.is_range and (selector := _decode(part)) is not None
    )


def choose_mapping(
    children: Iterable[ChildPolicy],
    local: tuple[Selector, ...],
    remote: tuple[Selector, ...],
    up: Container[int] = (),
) -> tuple[ChildPolicy, tuple[Selector, ...], tuple[Selector, ...]] | None:
    """The mapping that a peer's selectors mean, with what both sides agree on; None: TS_UNACCEPTABLE.

    `local` and `remote` are the peer's offer as seen from here. Of several mappings the one wins that holds
    the packet that waits, if there is one, then one without an SA (`up` holds those that have one), then the
    one that holds the first selectors whole and leaves the offer the least narrowed.
    """
    narrowed = ((one, narrow(local, (one.ts_local,)), narrow(remote, (one.ts_remote,))) for one in children)
    fitting = [one for one in narrowed if one[1] and one[2]]
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    waits = _has_packet(local) or _has_packet(remote)

    def rank(one: tuple[ChildPolicy, tuple[Selector, ...], tuple[Selector, ...]]) -> tuple[bool, ...]:
        child, narrowed_local, narrowed_remote = one
        ours_local, ours_remote = child.ts_local, child.ts_remote
        holds_first = ours_local.covers(local[0]) and ours_remote.covers(remote[0])
        return (
            waits and holds_first,
            child.index not in up,
            holds_first,
            ours_local in local and ours_remote in remote,
            set(narrowed_local) == set(local) and set(narrowed_remote) == set(remote),
        )

    return max(fitting, key=rank)


def touched(
    children: Iterable[ChildPolicy], local: tuple[Selector, ...], remote: tuple[Selector, ...]
) -> tuple[int, ...]:
    """The mappings of which a peer's offer, as seen from here, holds at least a part."""
    return tuple(
        child.index
        for child in children
        if narrow(local, (child.ts_local,)) and narrow(remote, (child.ts_remote,))
    )


def _has_packet(selectors: tuple[Selector, ...]) -> bool:
    """Whether the first selector is that of a packet that waits: another has it too (RFC 7296 2.9)."""
    first = selectors[0]
    return any(other != first and other.covers(first) for other in selectors[1:])


def _encode(selector: Selector) -> TrafficSelector:
    kind = TsType.IPV4_ADDR_RANGE if selector.version == 4 else TsType.IPV6_ADDR_RANGE
    return TrafficSelector(
        kind,
        selector.protocol,
        selector.port_start,
        selector.port_end,
        selector.start.packed,
        selector.end.packed,
    )


def _decode(part: TrafficSelector) -> Selector | None:
    family = IPv4Address if part.ts_type == TsType.IPV4_ADDR_RANGE else IPv6Address
    if part.start > part.end or part.port_start > part.port_end:
        return None
    return Selector(family(part.start), family(part.end), part.protocol, part.port_start, part.port_end)
