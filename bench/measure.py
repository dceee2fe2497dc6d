"""One pair of gateways with a tunnel between them, and one measurement through it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.lab.lab import Lab
from tests.lab.plan import A, B, Gateway, Plan, Suite
from tests.lab.topology import Wire, start, two_gateways
from tests.lab.traffic import iperf, ping, require_ping

Figure = TypeVar("Figure", float, "Sample")

IP_AND_UDP = 28
"""Bytes of the IPv4 and UDP headers: `UDP at 64 bytes` means packets of 64 bytes."""


@dataclass(frozen=True)
class Load:
    """What iperf3 sends: one TCP stream, or UDP packets of one size as fast as it can."""

    name: str
    packet_size: int | None = None

    def options(self) -> list[str]:
        """iperf3's options."""
        if self.packet_size is None:
            return []
        return ["-u", "-b", "0", "-l", str(self.packet_size - IP_AND_UDP)]


TCP = Load("TCP, one stream")
LOADS = (TCP, Load("UDP, 1400 bytes", 1400), Load("UDP, 64 bytes", 64))


@dataclass(frozen=True)
class Sample:
    """One run: what arrived, and the CPU time that the two gateways used for it.

    Rates are of inner packets' payload as iperf3 counts it. `sender_cpu` and `receiver_cpu` are seconds of
    the gateway process for each second of the run, so 1.0 is a whole processor.
    """

    megabits: float
    packets_per_second: float | None
    sender_cpu: float
    receiver_cpu: float

    @property
    def cpu_per_gigabit(self) -> float:
        """CPU seconds of both gateways for each gigabit that arrived."""
        return (self.sender_cpu + self.receiver_cpu) / (self.megabits / 1000)


class Pair:
    """Two gateways of one kind with a wire of their own."""

    def __init__(self, lab: Lab, name: str, kind: str, encapsulation: str = "udp") -> None:
        self.name = name
        self._encapsulation = encapsulation
        self.wire: Wire = two_gateways(lab, f"{name.partition(',')[0].lower()}-{encapsulation}-")
        self.a: Gateway = start(kind, self.wire.a.gateway, A.address)
        self.b: Gateway = start(kind, self.wire.b.gateway, B.address)
        self._plan: Plan | None = None

    def connect(self, suite: Suite) -> None:
        """Replace the tunnel by one with this suite, and see that it carries packets."""
        if self._plan is not None:
            self.a.remove(self._plan.name)
            self.b.remove(self._plan.name)
        self._plan = Plan(ike=suite, esp=suite, encapsulation=self._encapsulation)
        self.b.add(self._plan.other())
        self.a.add(self._plan.change(negotiation="active"))
        done = self.a.up(self._plan.name)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} does not connect: {done.stdout}{done.stderr}")
        require_ping(self.wire.a.host, A.inside, B.inside)

    def run(self, load: Load, seconds: float) -> Sample:
        """One run of iperf3 from a to b."""
        before = self.a.cpu_seconds(), self.b.cpu_seconds()
        result = iperf(self.wire.a.host, A.inside, self.wire.b.host, B.inside, seconds, *load.options())
        after = self.a.cpu_seconds(), self.b.cpu_seconds()
        received = result["end"]["sum_received"]
        elapsed = received["seconds"]
        arrived = None
        if load.packet_size is not None:
            arrived = (received["packets"] - received["lost_packets"]) / elapsed
        return Sample(
            received["bytes"] * 8 / elapsed / 1e6,
            arrived,
            (after[0] - before[0]) / elapsed,
            (after[1] - before[1]) / elapsed,
        )

    def ping_ms(self, count: int) -> float:
        """The median round trip of a quiet tunnel, in milliseconds."""
        return ping(self.wire.a.host, A.inside, B.inside, count=count, interval=0.02).median_ms


def alternate(pairs: list[Pair], rounds: int, run: Callable[[Pair], Figure]) -> dict[str, list[Figure]]:
    """Run each pair once a round, in reverse order every other round (ABBA), so that drift hits all alike."""
    samples: dict[str, list[Figure]] = {pair.name: [] for pair in pairs}
    for number in range(rounds):
        for pair in pairs if number % 2 == 0 else reversed(pairs):
            samples[pair.name].append(run(pair))
    return samples


def median(samples: list[Sample]) -> Sample:
    """The medians of each figure."""
    packets = [sample.packets_per_second for sample in samples if sample.packets_per_second is not None]
    return Sample(
        statistics.median(sample.megabits for sample in samples),
        statistics.median(packets) if packets else None,
        statistics.median(sample.sender_cpu for sample in samples),
        statistics.median(sample.receiver_cpu for sample in samples),
    )
