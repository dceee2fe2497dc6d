"""What a packet costs in the datapath alone, by the number of tunnels: out through one SA, and back in.

No descriptor and no system call is involved, so what differs is finding tunnels and SAs, and what processor
caches hold of them. AES-GCM is what the least of a packet is spent on, so that this shows most.
"""

from __future__ import annotations

import time
from itertools import cycle

from tests.engines import NATIVE, PYTHON, carrier, missing_for_native
from tests.unit.datapath.parts import EVERYTHING, GCM, HEADER, LOCAL, REMOTE, child, udp_packet
from vpnd.crypto.entropy import OsEntropy
from vpnd.datapath.interface import Datagram, PolicyRow

BATCH = 44
"""Packets in a row: as many as leave with one send."""
BATCHES = 300
REPEATS = 7
FIRST_SPI = 0x1000


class Loop:
    """An engine of `count` tunnels whose SAs send to themselves: what leaves comes in again."""

    def __init__(self, engine: str, count: int) -> None:
        self._carrier = carrier(engine, OsEntropy())
        self._tunnels = [f"t{number}" for number in range(count)]
        self._turns = cycle(self._tunnels)
        self.arrived = 0
        """Bytes of packets that came in again."""
        for spi, name in enumerate(self._tunnels, FIRST_SPI):
            self._carrier.add_tunnel(name, vnet_header=True)
            self._carrier.replace_policies(name, (PolicyRow(0, EVERYTHING, EVERYTHING),))
            self._carrier.install(1.0, child(spi, spi, GCM, labels=(1, 1), tunnel=name))
        # Of nothing that is joined, so that each packet is written by itself.
        packet = udp_packet("10.0.0.1", "10.0.0.2", 1372)
        self._packets = [packet] * BATCH
        self.sent = len(packet) + HEADER
        """Bytes that each packet comes to."""

    def nanoseconds(self, over_all: bool) -> float:
        """CPU time for each packet: all through the first tunnel, or each batch through the next one."""
        tunnels = [next(self._turns) if over_all else self._tunnels[0] for _ in range(BATCHES)]
        began = time.thread_time_ns()
        for tunnel in tunnels:
            self._carry(tunnel)
        return (time.thread_time_ns() - began) / BATCHES / BATCH

    def _carry(self, tunnel: str) -> None:
        for train in self._carrier.send(1.0, tunnel, self._packets).trains:
            data = Datagram(b"".join(train.packets), len(train.packets[0]), 0, REMOTE, 4500)
            for _, written in self._carrier.receive(1.0, [data], LOCAL, 4500).writes:
                self.arrived += len(written)


def measure(engine: str, count: int) -> dict[str, float]:
    """Nanoseconds for a packet, the least of several turns: alone, one of all, and through all in turn."""
    one, crowd = Loop(engine, 1), Loop(engine, count)
    found: dict[str, list[float]] = {"alone": [], "one_of_all": [], "all_in_turn": []}
    for _ in range(REPEATS):
        found["alone"].append(one.nanoseconds(over_all=False))
        found["one_of_all"].append(crowd.nanoseconds(over_all=False))
        found["all_in_turn"].append(crowd.nanoseconds(over_all=True))
    turns = REPEATS * BATCHES * BATCH * one.sent
    if (one.arrived, crowd.arrived) != (turns, 2 * turns):
        raise RuntimeError(f"of {turns} bytes {one.arrived} arrived, of {2 * turns} {crowd.arrived}")
    return {name: min(values) for name, values in found.items()}


def engines() -> list[str]:
    """Those that can be measured here."""
    return [PYTHON] if missing_for_native() else [PYTHON, NATIVE]
