"""Throughput and idle latency of vpnd and of strongSwan's userspace ESP, alternating in one run."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import LOADS, TCP, Pair, Sample, alternate, median
from tests.lab.lab import Lab
from tests.lab.plan import Suite

SUITES = (Suite("aes-128", "sha256"), Suite("aes-128-gcm", "sha256"))
SUITE_NAMES = {"aes-128": "AES-128-CBC + SHA-256", "aes-128-gcm": "AES-128-GCM"}
PINGS = 100


@dataclass
class Datapath:
    """Every sample: by suite, load and stack; and idle pings in milliseconds by stack."""

    samples: dict[str, dict[str, dict[str, list[Sample]]]] = field(default_factory=dict)
    pings: dict[str, list[float]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "throughput": {
                suite: {
                    load: {stack: [asdict(sample) for sample in samples] for stack, samples in stacks.items()}
                    for load, stacks in loads.items()
                }
                for suite, loads in self.samples.items()
            },
            "idle_ping_ms": self.pings,
        }


def measure(console: Console, rounds: int, seconds: float) -> Datapath:
    """Run everything; a line for each measurement as it is done."""
    found = Datapath()
    with Lab() as lab:
        ours = Pair(lab, "vpnd", "vpnd")
        theirs = Pair(lab, "strongSwan", "strongswan")
        raw = Pair(lab, "vpnd, raw ESP", "vpnd", encapsulation="auto")
        for suite in SUITES:
            name = SUITE_NAMES[suite.encryption]
            for pair in (ours, theirs, raw):
                pair.connect(suite)
            if not found.pings:
                found.pings = alternate([ours, theirs], rounds, lambda pair: pair.ping_ms(PINGS))
                medians = {stack: statistics.median(values) for stack, values in found.pings.items()}
                console.print(f"idle ping: {_side_by_side(medians, '{:.2f} ms')}")
            for load in LOADS:
                pairs = [ours, theirs, raw] if load is TCP else [ours, theirs]
                samples = alternate(pairs, rounds, partial(Pair.run, load=load, seconds=seconds))
                found.samples.setdefault(name, {})[load.name] = samples
                rates = {stack: median(values).megabits for stack, values in samples.items()}
                console.print(f"{name}, {load.name}: {_side_by_side(rates, '{:.0f} Mbit/s')}")
    return found


def table(found: Datapath) -> Table:
    """Medians with the smallest and largest, the ratio, and CPU time."""
    shown = Table(title="vpnd and strongSwan (kernel-libipsec), medians", title_justify="left")
    for heading in ("suite", "load", "stack"):
        shown.add_column(heading)
    for heading in ("Mbit/s", "min - max", "packets/s", "ratio", "CPU sender", "CPU receiver", "CPU s/Gbit"):
        shown.add_column(heading, justify="right")
    for suite, loads in found.samples.items():
        for load, stacks in loads.items():
            reference = median(stacks["strongSwan"])
            for stack, samples in stacks.items():
                shown.add_row(suite, load, stack, *_cells(samples, reference))
                suite = load = ""
            shown.add_section()
    return shown


def ping_line(found: Datapath) -> str:
    """Idle ping of both and the ratio."""
    ours, theirs = (statistics.median(found.pings[stack]) for stack in ("vpnd", "strongSwan"))
    return f"Idle ping: vpnd {ours:.2f} ms, strongSwan {theirs:.2f} ms, ratio {ours / theirs:.2f}"


def _cells(samples: list[Sample], reference: Sample) -> list[str]:
    middle = median(samples)
    rates = [sample.megabits for sample in samples]
    return [
        f"{middle.megabits:.0f}",
        f"{min(rates):.0f} - {max(rates):.0f}",
        "" if middle.packets_per_second is None else f"{middle.packets_per_second:.0f}",
        f"{middle.megabits / reference.megabits:.2f}",
        f"{middle.sender_cpu * 100:.0f} %",
        f"{middle.receiver_cpu * 100:.0f} %",
        f"{middle.cpu_per_gigabit:.2f}",
    ]


def _side_by_side(values: dict[str, float], style: str) -> str:
    return ", ".join(f"{stack} {style.format(value)}" for stack, value in values.items())
