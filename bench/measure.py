"""One pair of gateways with a tunnel between them, one measurement through it, and what pairs of runs say."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from subprocess import CompletedProcess
from typing import Any, Protocol, TypeVar

from bench.datagrams import Carried, carry
from tests.lab.lab import Lab, Namespace
from tests.lab.plan import A, B, End, Plan, Suite
from tests.lab.topology import Wire, two_gateways
from tests.lab.traffic import iperf, ping, require_ping

Figure = TypeVar("Figure")

IP_AND_UDP = 28
"""Bytes of the IPv4 and UDP headers: `UDP, 64 bytes` means packets of 64 bytes."""
MOST_LOST = 0.005
"""The part of the packets that may be lost at the rate that is looked for."""
TRIALS = 6
TRIAL_SECONDS = 0.7


class Gateway(Protocol):
    """What is asked of each kind."""

    def add(self, plan: Plan) -> None: ...
    def remove(self, name: str) -> None: ...
    def up(self, name: str, timeout: float = 10) -> CompletedProcess[str]: ...
    def cpu_seconds(self) -> float: ...


@dataclass(frozen=True)
class Load:
    """What is sent: TCP streams by iperf3, or UDP packets of one size.

    UDP as fast as it can, or, `lossless`, at the largest rate that hardly loses any.
    """

    name: str
    packet_size: int | None = None
    options: tuple[str, ...] = ()
    lossless: bool = False


LOADS = {
    "tcp": Load("TCP, 1 stream"),
    "tcp8": Load("TCP, 8 streams", options=("-P", "8")),
    "both": Load("TCP, both ways", options=("--bidir",)),
    "udp1400": Load("UDP, 1400 bytes", 1400),
    "udp64": Load("UDP, 64 bytes", 64),
    "rate1400": Load("UDP, 1400 bytes, at most 0.5 % lost", 1400, lossless=True),
    "rate64": Load("UDP, 64 bytes, at most 0.5 % lost", 64, lossless=True),
}


@dataclass(frozen=True)
class Sample:
    """One run: what arrived, and the CPU time that the two gateways used for it.

    Rates are of inner packets' payload; of both ways, the sum. `sender_cpu` and
    `receiver_cpu` are seconds of the gateway process for each second of the run, so 1.0 is a whole processor.
    """

    megabits: float
    packets_per_second: float | None
    sender_cpu: float
    receiver_cpu: float
    lost: float | None = None

    @property
    def cpu_per_gigabit(self) -> float:
        """CPU seconds of both gateways for each gigabit that arrived."""
        return (self.sender_cpu + self.receiver_cpu) / (self.megabits / 1000)

    @property
    def cpu_per_million(self) -> float | None:
        """CPU seconds of both gateways for a million packets that arrived."""
        if not self.packets_per_second:
            return None
        return (self.sender_cpu + self.receiver_cpu) / self.packets_per_second * 1e6


@dataclass(frozen=True)
class Stack:
    """A kind of gateway, which is at both ends of its pair."""

    name: str
    start: Callable[[Namespace, End], Gateway]
    encapsulation: str = "udp"


class Pair:
    """Two gateways of one kind with a wire of their own."""

    def __init__(self, lab: Lab, stack: Stack, number: int) -> None:
        self.name = stack.name
        self._encapsulation = stack.encapsulation
        self.wire: Wire = two_gateways(lab, f"s{number}-")
        self.a = stack.start(self.wire.a.gateway, A)
        self.b = stack.start(self.wire.b.gateway, B)
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
        """One measurement from a to b: a run, or as many as a rate takes."""
        if not load.lossless:
            return self._run(load, seconds)
        flood = self._run(load, TRIAL_SECONDS)
        return largest(lambda rate: self._run(load, TRIAL_SECONDS, rate), flood.packets_per_second or 1)

    def _run(self, load: Load, seconds: float, rate: float = 0) -> Sample:
        """One run; of UDP with so many packets a second, or with 0 as many as go."""
        source, target = self.wire.a.host, self.wire.b.host
        before = self.a.cpu_seconds(), self.b.cpu_seconds()
        if load.packet_size is None:
            end = iperf(source, A.inside, target, B.inside, seconds, *load.options)["end"]
        else:
            size = load.packet_size - IP_AND_UDP
            carried = carry(source, A.inside, target, B.inside, size, seconds, rate)
        used = self.a.cpu_seconds() - before[0], self.b.cpu_seconds() - before[1]
        return of_tcp(end, used) if load.packet_size is None else of_udp(carried, size, used)

    def ping_ms(self, count: int) -> float:
        """The median round trip of a quiet tunnel, in milliseconds."""
        return ping(self.wire.a.host, A.inside, B.inside, count=count, interval=0.02).median_ms


def of_tcp(end: dict[str, Any], used: tuple[float, float]) -> Sample:
    """What iperf3 says at the end of a run, and the CPU seconds that were used."""
    elapsed = end["sum_received"]["seconds"]
    carried = end["sum_received"]["bytes"] + end.get("sum_received_bidir_reverse", {}).get("bytes", 0)
    return Sample(carried * 8 / elapsed / 1e6, None, used[0] / elapsed, used[1] / elapsed)


def of_udp(carried: Carried, size: int, used: tuple[float, float]) -> Sample:
    """The same of datagrams with `size` bytes of data."""
    elapsed = carried.seconds
    rate = carried.arrived / elapsed
    lost = 1 - carried.arrived / max(1, carried.sent)
    return Sample(rate * size * 8 / 1e6, rate, used[0] / elapsed, used[1] / elapsed, lost)


def largest(run: Callable[[float], Sample], flood: float) -> Sample:
    """The run with the largest rate that lost at most `MOST_LOST`, looked for around the rate of a flood.

    What no rate has carried without loss is 0 packets a second.
    """
    best = Sample(0, 0, 0, 0)
    low, high = 0.0, 2 * flood
    rate = flood
    for _ in range(TRIALS):
        tried = run(rate)
        good = tried.lost is not None and tried.lost <= MOST_LOST
        if good:
            low = rate
            best = max(best, tried, key=lambda one: one.packets_per_second or 0)
        else:
            high = rate
        rate = (low + high) / 2
    return best


def alternate(pairs: Sequence[Pair], rounds: int, run: Callable[[Pair], Figure]) -> dict[str, list[Figure]]:
    """Run each pair once a round, in reverse order every other round (ABBA), so that drift hits all alike."""
    samples: dict[str, list[Figure]] = {pair.name: [] for pair in pairs}
    for number in range(rounds):
        for pair in pairs if number % 2 == 0 else list(reversed(pairs)):
            samples[pair.name].append(run(pair))
    return samples


def paired(ours: Sequence[float | None], theirs: Sequence[float | None]) -> float | None:
    """The median of the ratios of each round; None where there is no round with both."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True) if one is not None and other]
    return statistics.median(ratios) if ratios else None


def median(samples: Sequence[Sample]) -> Sample:
    """The medians of each figure."""

    def middle(values: list[float | None]) -> float | None:
        found = [value for value in values if value is not None]
        return statistics.median(found) if found else None

    return Sample(
        statistics.median(sample.megabits for sample in samples),
        middle([sample.packets_per_second for sample in samples]),
        statistics.median(sample.sender_cpu for sample in samples),
        statistics.median(sample.receiver_cpu for sample in samples),
        middle([sample.lost for sample in samples]),
    )
