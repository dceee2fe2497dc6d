"""The security associations: found by SPI for what arrives, by tunnel and mapping for what leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct

from vpnd.crypto.entropy import Entropy, chance
from vpnd.datapath.esp import make_opener, make_sealer
from vpnd.datapath.interface import PolicyRow, SaStats
from vpnd.datapath.mtu import inner_mtu, outer_headers
from vpnd.datapath.replay import ReplayWindow
from vpnd.datapath.spd import Row, SelectorTable
from vpnd.model.child import ChildSa, Path
from vpnd.model.selectors import ANY_PORT, Address, Selector

_SPI = Struct("!I")

KILOBYTE = 1024
SEQUENCE_END = {False: (1 << 32) - 1, True: (1 << 64) - 1}
"""The last number an SA may send, without and with extended numbers: it never wraps (RFC 4303 3.3.3)."""
SEQUENCE_RESERVE = 1 << 20
"""Ours: numbers before the end at which the SA should be replaced; 5 s of packets at 200,000 a second."""


class SaPair:
    """The two ESP SAs of one CHILD_SA, with everything that changes while they carry packets.

    `sequence` is the number last sent. `address` is where datagrams go, in the form that sockets take.
    `soft_bytes`, `hard_bytes` are limits for each direction; None means no limit. `part` is what it carries
    of its mapping's outbound packets where the peer did not agree to all of them. `by_port` says whether its
    selectors name ports; `awaited` whether it is not sent on before its first packet came, or IKE says so.
    """

    __slots__ = (
        "address",
        "allowed",
        "awaited",
        "by_port",
        "bytes_in",
        "bytes_out",
        "child",
        "hard_bytes",
        "hard_told",
        "key",
        "last_in",
        "last_out",
        "limit",
        "moved_told",
        "opener",
        "packets_in",
        "packets_out",
        "part",
        "path",
        "room",
        "sealer",
        "sequence",
        "sequence_end",
        "soft_bytes",
        "soft_told",
        "version",
        "window",
    )

    def __init__(
        self,
        child: ChildSa,
        entropy: Entropy,
        path_mtu: int,
        own: frozenset[Address] = frozenset(),
    ) -> None:
        self.child = child
        self.key = spi_key(child.spi_in)
        self.opener = make_opener(child.suite, child.keys_in)
        self.sealer = make_sealer(child.suite, child.keys_out, child.spi_out, entropy)
        self.window = ReplayWindow(child.replay_window)
        self.allowed = SelectorTable((Row(child.mapping, child.ts_remote, child.ts_local),), True, own)
        self.part: SelectorTable | None = None
        self.by_port = any(
            (selector.port_start, selector.port_end) != ANY_PORT
            for selector in (*child.ts_local, *child.ts_remote)
        )
        self.sequence = 0
        self.sequence_end = SEQUENCE_END[child.suite.esn]
        self.hard_bytes: int | None = None
        self.soft_bytes: int | None = None
        if child.lifetimes.kilobytes is not None:
            self.limit_bytes(child.lifetimes.kilobytes, entropy)
        self.packets_in = self.packets_out = self.bytes_in = self.bytes_out = 0
        self.last_in = self.last_out = 0.0
        self.soft_told = self.hard_told = self.awaited = False
        self.moved_told: tuple[str, int] | None = None
        self.move(child.path)
        self.resize(path_mtu)

    def compare(self, rows: Iterable[PolicyRow]) -> None:
        """Find out whether it carries its whole mapping: the peer may have narrowed it."""
        child = self.child
        for row in rows:
            if row.mapping == child.mapping and not (
                _all_in(row.local, child.ts_local) and _all_in(row.remote, child.ts_remote)
            ):
                self.part = SelectorTable((Row(child.mapping, child.ts_local, child.ts_remote),))

    def limit_bytes(self, kilobytes: int, entropy: Entropy) -> None:
        """It carries no more than so many KB, and is replaced before; a lower limit stays."""
        hard = kilobytes * KILOBYTE
        if self.hard_bytes is None or hard < self.hard_bytes:
            self.hard_bytes = hard
            self.soft_bytes = int(self.child.lifetimes.margin.soft(hard, chance(entropy)))

    def move(self, path: Path) -> None:
        """Send along `path` from now on."""
        self.path = path
        self.address = (str(path.remote), path.remote_port if self.child.udp else 0)
        self.version = path.remote.version
        self.moved_told = None

    def resize(self, path_mtu: int) -> None:
        """The path carries datagrams of `path_mtu` bytes.

        `limit` is what that leaves for an inner packet, `room` for an ESP packet.
        """
        self.limit = inner_mtu(path_mtu, self.child.suite, self.child.udp, self.version)
        self.room = path_mtu - outer_headers(self.version, self.child.udp)

    def is_used_up(self) -> bool:
        """Whether the SA carries nothing more."""
        hard = self.hard_bytes
        if hard is not None and (self.bytes_out >= hard or self.bytes_in >= hard):
            return True
        return self.sequence >= self.sequence_end

    def should_be_replaced(self) -> bool:
        """Whether one of its limits is near."""
        soft = self.soft_bytes
        if soft is not None and (self.bytes_out >= soft or self.bytes_in >= soft):
            return True
        reached = max(self.sequence, self.window.highest)
        return reached >= self.sequence_end - SEQUENCE_RESERVE

    def sendable(self, count: int, length: int) -> int:
        """How many of `count` packets of `length` bytes may still leave: not one beyond a limit.

        Once a packet did not fit, no smaller one follows.
        """
        if self.hard_told:
            return 0
        left = self.sequence_end - self.sequence
        if self.hard_bytes is not None:
            left = min(left, max(self.hard_bytes - self.bytes_out, 0) // length)
        return min(count, left)

    def stats(self) -> SaStats:
        """The counters now."""
        return SaStats(
            self.packets_in, self.packets_out, self.bytes_in, self.bytes_out, self.last_in, self.last_out
        )


class Sad:
    """All SAs. SPIs are keys in their 4 bytes of wire form, so that the receive path need not convert them.

    Inbound SAs are found by the SPI that we chose and nothing else (RFC 4301 section 4.1), so two peers that
    choose the same SPI for us to send on do not meet.
    """

    def __init__(self) -> None:
        self.inbound: dict[bytes, SaPair] = {}
        self.outbound: dict[tuple[str, int], SaPair] = {}
        self._sending: dict[bytes, list[SaPair]] = {}
        """By the SPI that we send on: peers choose them, and two may choose the same."""

    def install(self, pair: SaPair, outbound: bool) -> None:
        """Receive on `pair`; with `outbound`, send its mapping's packets on it. ValueError if known."""
        if pair.key in self.inbound:
            raise ValueError(f"an SA with inbound SPI {pair.child.spi_in:08x} is installed")
        self.inbound[pair.key] = pair
        self._sending.setdefault(spi_key(pair.child.spi_out), []).append(pair)
        pair.awaited = not outbound
        if outbound:
            self.use_outbound(pair)

    def use_outbound(self, pair: SaPair) -> None:
        """Send the packets of its mapping on `pair`."""
        pair.awaited = False
        self.outbound[pair.child.tunnel, pair.child.mapping] = pair

    def by_spi(self, spi: int) -> SaPair | None:
        """The SA pair that receives on `spi`."""
        return self.inbound.get(spi_key(spi))

    def sending_on(self, key: bytes) -> Sequence[SaPair]:
        """The pairs whose packets carry this SPI, in its 4 bytes."""
        return self._sending.get(key, ())

    def remove(self, spi: int) -> SaPair | None:
        """Forget a pair; returns it if it was known."""
        pair = self.inbound.pop(spi_key(spi), None)
        if pair is not None:
            alike = self._sending[spi_key(pair.child.spi_out)]
            alike.remove(pair)
            if not alike:
                del self._sending[spi_key(pair.child.spi_out)]
            mapping = (pair.child.tunnel, pair.child.mapping)
            if self.outbound.get(mapping) is pair:
                del self.outbound[mapping]
        return pair

    def of_tunnel(self, tunnel: str) -> list[SaPair]:
        """The pairs of one tunnel, the oldest first."""
        return [pair for pair in self.inbound.values() if pair.child.tunnel == tunnel]


def _all_in(wanted: Iterable[Selector], agreed: tuple[Selector, ...]) -> bool:
    return all(any(selector.covers(one) for selector in agreed) for one in wanted)


def spi_key(spi: int) -> bytes:
    """An SPI as it travels."""
    return _SPI.pack(spi)
