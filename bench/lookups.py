"""What a packet costs in the datapath alone, by the number of tunnels: out through one SA, and back in.

No descriptor and no system call is involved, so what differs is finding tunnels and SAs, and what processor
caches hold of them.
"""

from __future__ import annotations

import time

from tests.unit.datapath.parts import CBC, EVERYTHING, LOCAL, REMOTE, child, udp_packet
from vpnd.crypto.entropy import OsEntropy
from vpnd.datapath.inbound import Inbound
from vpnd.datapath.interface import Notice, PolicyRow
from vpnd.datapath.outbound import Outbound
from vpnd.datapath.sad import Sad, SaPair
from vpnd.datapath.tunnels import Tunnel

BATCH = 44
"""Packets in a row: as many as leave with one send."""
BATCHES = 300
REPEATS = 7
SENDER = (str(REMOTE), 4500)
FIRST_SPI = 0x1000


class Loop:
    """An engine of `count` tunnels whose SAs send to themselves: what leaves comes in again."""

    def __init__(self, count: int) -> None:
        notices: list[Notice] = []
        self._left: list[tuple[bytes, int]] = []
        self._sad = Sad()
        self.arrived = 0
        tunnels: dict[str, Tunnel] = {}
        for number in range(count):
            spi, name = FIRST_SPI + number, f"t{number}"
            tunnel = tunnels[name] = Tunnel(name, -1, 1400, True, self._write, lambda _: False)
            tunnel.replace_policies((PolicyRow(0, EVERYTHING, EVERYTHING),))
            sa = child(spi, spi, CBC, labels=(1, 1), tunnel=name)
            self._sad.install(SaPair(sa, OsEntropy(), 1500), outbound=True)
        self._tunnels = list(tunnels.values())
        self._outbound = Outbound(self._sad, self._transmit, notices)
        self._inbound = Inbound(self._sad, tunnels, notices, lambda *_: None)
        headroom = bytes(self._tunnels[0].headroom)
        self._packets = [headroom + udp_packet("10.0.0.1", "10.0.0.2", 1372)] * BATCH

    def nanoseconds(self, over_all: bool) -> float:
        """CPU time for each packet: all through the first tunnel, or each batch through the next one."""
        tunnels = self._tunnels if over_all else self._tunnels[:1]
        began = time.thread_time_ns()
        for number in range(BATCHES):
            self._carry(tunnels[number % len(tunnels)])
        return (time.thread_time_ns() - began) / BATCHES / BATCH

    def _carry(self, tunnel: Tunnel) -> None:
        self._outbound.send(1.0, tunnel, self._packets)
        for data, length in self._left:
            self._inbound.receive(1.0, data, length, 0, SENDER, LOCAL, 4500)
        self._left.clear()
        self._inbound.flush()

    def _transmit(self, pair: SaPair, buffers: list[bytes], length: int, traffic_class: int) -> int:
        self._left.append((b"".join(buffers), length))
        return 0

    def _write(self, descriptor: int, buffers: object) -> None:
        self.arrived += 1


def measure(count: int) -> dict[str, float]:
    """Nanoseconds for a packet, the least of several turns: alone, one of all, and through all in turn."""
    one, crowd = Loop(1), Loop(count)
    found: dict[str, list[float]] = {"alone": [], "one_of_all": [], "all_in_turn": []}
    for _ in range(REPEATS):
        found["alone"].append(one.nanoseconds(over_all=False))
        found["one_of_all"].append(crowd.nanoseconds(over_all=False))
        found["all_in_turn"].append(crowd.nanoseconds(over_all=True))
    turns = REPEATS * BATCHES * BATCH
    if (one.arrived, crowd.arrived) != (turns, 2 * turns):
        raise RuntimeError(f"of {turns} packets {one.arrived} arrived, of {2 * turns} {crowd.arrived}")
    return {name: min(values) for name, values in found.items()}
