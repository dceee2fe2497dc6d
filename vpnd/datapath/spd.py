"""Selectors applied to packets: which mapping carries one, and whether an SA may have carried it.

The answer for a pair of addresses is found once and kept in `flows`; the engine looks there first. Only the
first packet of a flow is decoded and compared with every row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vpnd.datapath.interface import PolicyRow
from vpnd.model.selectors import ANY_PORT, Address, Selector
from vpnd.wire.iana import IpProtocol
from vpnd.wire.ip import IpPacket, decode_packet

MAXIMUM_FLOWS = 4096
"""Ours: address pairs remembered for one table, about 1 MB; beyond it all are forgotten and found again."""

NO_MAPPING = -1
"""The value of a flow that no row covers."""

PROBED = -2
"""The value of the flow of the peer's health probes."""

ADDRESSES = {4: slice(12, 20), 6: slice(8, 40)}
"""Where source and destination lie in a header: the key of a flow."""


@dataclass(frozen=True, slots=True)
class Row:
    """Packets from `sources` to `destinations` belong to `mapping`."""

    mapping: int
    sources: tuple[Selector, ...]
    destinations: tuple[Selector, ...]

    def holds(self, ip: IpPacket) -> bool:
        """Whether some source selector and some destination selector both take the packet."""
        return any(_holds(s, ip, ip.source, ip.source_port) for s in self.sources) and any(
            _holds(s, ip, ip.destination, ip.destination_port) for s in self.destinations
        )


def outbound_rows(rows: Iterable[PolicyRow]) -> tuple[Row, ...]:
    """A tunnel's mappings as its outbound packets see them: from local to remote."""
    return tuple(Row(row.mapping, row.local, row.remote) for row in rows)


class SelectorTable:
    """Rows in order of preference, and what they say about each flow.

    With `refuse_martians`, packets from addresses that no host may send from, or from one of `own`, are of
    no mapping: what comes out of a tunnel is checked so before it reaches the kernel.
    """

    def __init__(
        self, rows: tuple[Row, ...], refuse_martians: bool = False, own: frozenset[Address] = frozenset()
    ) -> None:
        self.flows: dict[bytes, int] = {}
        self._rows = rows
        self._refuse_martians = refuse_martians
        self._own = own
        self._keep: frozenset[Address] | None = None
        self._probed: bytes | None = None
        # Where a row names a protocol or ports, two packets between the same hosts may differ.
        self.by_address = all(
            selector.protocol == 0 and (selector.port_start, selector.port_end) == ANY_PORT
            for row in rows
            for selector in (*row.sources, *row.destinations)
        )

    def interrupt(self, keep: frozenset[Address] | None) -> None:
        """From now on only packets from or to `keep` are of any mapping; None ends the interruption."""
        self._keep = keep
        self.flows.clear()

    def tell_probes(self, flow: bytes | None) -> None:
        """From now on packets of this flow, source and destination as in a header, are PROBED."""
        self._probed = flow
        self.flows.clear()

    def lookup(self, packet: bytes) -> int:
        """The mapping of a packet, NO_MAPPING or PROBED; remembered where it depends on the addresses alone.

        Raises DecodeError for a malformed packet.
        """
        ip = decode_packet(packet)
        found = next((row.mapping for row in self._rows if row.holds(ip)), NO_MAPPING)
        if self._is_refused(ip):
            found = NO_MAPPING
        elif found != NO_MAPPING and packet[ADDRESSES[ip.version]] == self._probed:
            found = PROBED
        if self.by_address:
            if len(self.flows) >= MAXIMUM_FLOWS:
                self.flows.clear()
            self.flows[packet[ADDRESSES[ip.version]]] = found
        return found

    def _is_refused(self, ip: IpPacket) -> bool:
        if self._keep is not None and ip.source not in self._keep and ip.destination not in self._keep:
            return True
        return self._refuse_martians and (ip.source in self._own or is_martian(ip))


def is_martian(ip: IpPacket) -> bool:
    """Whether no router may forward this packet because of its addresses (RFC 1812 section 5.3.7)."""
    source, destination = ip.source, ip.destination
    if source.is_multicast or source.is_loopback or source.is_unspecified or destination.is_loopback:
        return True
    return ip.version == 4 and source.packed == b"\xff\xff\xff\xff"


def _holds(selector: Selector, ip: IpPacket, address: Address, port: int | None) -> bool:
    """Whether one side of a packet is within one selector.

    A later fragment shows no ports: only a selector of all ports holds it (RFC 4301 section 7.1). For ICMP,
    the port range holds type and code as one number (RFC 7296 section 3.13.1).
    """
    if not selector.holds(address) or selector.protocol not in (0, ip.protocol):
        return False
    if (selector.port_start, selector.port_end) == ANY_PORT:
        return True
    if ip.fragment_offset:
        return False
    if selector.protocol in (IpProtocol.ICMP, IpProtocol.ICMPV6) and ip.icmp is not None:
        port = ip.icmp[0] << 8 | ip.icmp[1]
    return port is not None and selector.port_start <= port <= selector.port_end
