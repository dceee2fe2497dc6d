"""What the engine keeps for one tunnel, and the packets that wait for its SAs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vpnd.datapath.coalesce import VNET_HEADER_LENGTH, Coalescer
from vpnd.datapath.interface import (
    ACQUIRE_INTERVAL,
    ICMP_BURST,
    ICMP_RATE,
    WAITING_BYTES,
    WAITING_PACKETS,
    WAITING_TIME,
    Drop,
    PolicyRow,
    Tap,
)
from vpnd.datapath.spd import SelectorTable, outbound_rows
from vpnd.model.selectors import Address

DEFAULT_PATH_MTU = 1500

DEFAULT_BATCH = 64
"""Ours: packets read at one wake-up, until their length tells how many leave with one send."""


class Waiting:
    """The first packets of one mapping, oldest first, each with its headroom."""

    def __init__(self) -> None:
        self._packets: list[tuple[float, bytes]] = []
        self._bytes = 0
        self._acquire_at = float("-inf")

    def hold(self, now: float, packet: bytes) -> bool:
        """Keep a packet if there is room; the old ones go first, by age only."""
        self.expire(now)
        if len(self._packets) >= WAITING_PACKETS or self._bytes + len(packet) > WAITING_BYTES:
            return False
        self._packets.append((now, packet))
        self._bytes += len(packet)
        return True

    def expire(self, now: float) -> int:
        """Forget packets that have waited too long; returns how many."""
        expired = 0
        while self._packets and self._packets[0][0] <= now - WAITING_TIME:
            self._bytes -= len(self._packets.pop(0)[1])
            expired += 1
        return expired

    def may_acquire(self, now: float) -> bool:
        """Whether a notice is due; if so, the next is due an interval later."""
        if now < self._acquire_at + ACQUIRE_INTERVAL:
            return False
        self._acquire_at = now
        return True

    def release(self, now: float) -> list[bytes]:
        """All packets that may still be of use."""
        self.expire(now)
        packets = [packet for _, packet in self._packets]
        self._packets.clear()
        self._bytes = 0
        return packets


class TokenBucket:
    """`rate` events a second on average, `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether an event may happen now."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Tunnel:
    """One TUN, its policies, its counters and what waits.

    `batch` is how many packets are read at one wake-up, `headroom` the length of the `virtio_net_hdr` before
    each of them, 0 without one. `most` is how many bytes an inner packet has at most, and `mss` a TCP
    segment, whatever the path carries; None: no limit but the path's.
    """

    def __init__(
        self,
        name: str,
        fd: int,
        mtu: int,
        vnet_header: bool,
        write: Callable[[int, Sequence[bytes]], object],
        is_local: Callable[[bytes], bool],
    ) -> None:
        self.name = name
        self.fd = fd
        self.mtu = mtu
        self.batch = DEFAULT_BATCH
        self.headroom = VNET_HEADER_LENGTH if vnet_header else 0
        self.path_mtu = DEFAULT_PATH_MTU
        self.most: int | None = None
        self.mss: int | None = None
        self.rows: tuple[PolicyRow, ...] = ()
        self.policies = SelectorTable(())
        self.keep: frozenset[Address] | None = None
        self.probed: bytes | None = None
        self.tap: Tap | None = None
        self.waiting: dict[int, Waiting] = {}
        self.drops = [0] * len(Drop)
        self.icmp = TokenBucket(ICMP_RATE, ICMP_BURST)
        self.coalescer = Coalescer(self._write, is_local, joins=vnet_header)
        self._write_to = write

    def replace_policies(self, rows: tuple[PolicyRow, ...]) -> None:
        """The mappings, all at once; what waits for one that is gone goes with it."""
        self.rows = rows
        self.policies = SelectorTable(outbound_rows(rows))
        self.policies.interrupt(self.keep)
        mappings = {row.mapping for row in rows}
        self.waiting = {index: kept for index, kept in self.waiting.items() if index in mappings}

    def within(self, limit: int) -> int:
        """What is left of an SA's limit, in bytes of an inner packet."""
        return limit if self.most is None else min(limit, self.most)

    def write(self, packet: bytes) -> None:
        """Write one packet of our own to the TUN."""
        self.coalescer.write_plain(packet)

    def _write(self, buffers: Sequence[bytes]) -> None:
        try:
            self._write_to(self.fd, buffers)
        except OSError:
            self.drops[Drop.SEND] += 1
