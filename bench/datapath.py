"""Throughput, packets a second and idle latency of vpnd's engines and of other userspace VPNs, in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from bench import wireguard
from bench.measure import LOADS, Load, Pair, Sample, Stack, alternate, median, paired
from tests.lab.lab import Lab, Namespace
from tests.lab.plan import End, Suite
from tests.lab.strongswan import StrongSwan
from tests.lab.vpnd import Vpnd
from vpnd.datapath.engines import is_native_installed

NATIVE, PYTHON, STRONGSWAN = "native", "python", "strongSwan"
WIREGUARD, TAILSCALE = tuple(wireguard.MODULES)
RAW = "-raw"
STACKS = (NATIVE, PYTHON, STRONGSWAN, WIREGUARD, TAILSCALE, NATIVE + RAW, PYTHON + RAW)

DEBIAN_PLUGINS = (
    "aesni aes sha2 sha1 md5 random nonce openssl gmp curve25519 chapoly hmac kdf gcm "
    "kernel-libipsec kernel-netlink socket-default vici"
)
"""What Debian's charon loads, in its own order, as far as it is used here."""

SUITES = {
    "gcm": Suite("aes-128-gcm", "sha256"),
    "chacha": Suite("chacha20-poly1305", "sha256"),
    "cbc": Suite("aes-128", "sha256"),
}
SUITE_NAMES = {"gcm": "AES-128-GCM", "chacha": "ChaCha20-Poly1305", "cbc": "AES-128-CBC + SHA-256"}
MEASURED = {"gcm": tuple(LOADS), "chacha": ("tcp",), "cbc": ("tcp", "udp64")}
"""The loads of each suite. WireGuard, which always has ChaCha20-Poly1305, is in the first two."""
PINGS = 50
PING = "idle ping"
RATE_ROUNDS = 2
"""A rate takes several runs, so it is looked for in so many rounds at most."""
HOPS = 4
"""A ping passes two gateways in each direction."""


@dataclass(frozen=True)
class Goal:
    """What is to be reached: the paired ratio of two stacks, or, without the other, a figure."""

    suite: str
    load: str
    figure: Literal["megabits", "packets_per_second", "cpu_per_million", "ping"]
    ours: str
    theirs: str | None
    wanted: float
    is_most: bool = False

    def words(self) -> str:
        """What is compared."""
        what = {
            "megabits": "",
            "packets_per_second": ", packets a second",
            "cpu_per_million": ", CPU a packet",
            "ping": "" if self.theirs else ", microseconds a hop",
        }[self.figure]
        measured = PING if self.load == "ping" else f"{SUITE_NAMES[self.suite]}, {LOADS[self.load].name}"
        return f"{measured}{what}: {self.ours}" + (f" / {self.theirs}" if self.theirs else "")

    def is_reached(self, found: float) -> bool:
        """Whether this figure does."""
        return found <= self.wanted if self.is_most else found >= self.wanted


GOALS = (
    Goal("gcm", "tcp", "megabits", NATIVE, WIREGUARD, 2),
    Goal("gcm", "tcp", "megabits", NATIVE, TAILSCALE, 2),
    Goal("gcm", "tcp", "megabits", NATIVE, STRONGSWAN, 12),
    Goal("chacha", "tcp", "megabits", NATIVE, WIREGUARD, 1.5),
    Goal("chacha", "tcp", "megabits", NATIVE, TAILSCALE, 1.5),
    Goal("cbc", "tcp", "megabits", NATIVE, STRONGSWAN, 8),
    Goal("gcm", "udp64", "packets_per_second", NATIVE, PYTHON, 3),
    Goal("gcm", "udp64", "cpu_per_million", NATIVE, PYTHON, 0.25, is_most=True),
    Goal("gcm", "ping", "ping", NATIVE, STRONGSWAN, 1, is_most=True),
    Goal("gcm", "ping", "ping", PYTHON, None, 135, is_most=True),
)


@dataclass
class Datapath:
    """Every sample: by suite, load and stack; and idle pings in milliseconds by stack."""

    samples: dict[str, dict[str, dict[str, list[Sample]]]] = field(default_factory=dict)
    pings: dict[str, list[float]] = field(default_factory=dict)

    def figure(self, goal: Goal) -> float | None:
        """What a goal is measured by; None if that was not."""
        if goal.load == "ping":
            ours, theirs = self.pings.get(goal.ours), self.pings.get(goal.theirs or "")
            if ours and theirs:
                return paired(ours, theirs)
            return statistics.median(ours) * 1000 / HOPS if ours and goal.theirs is None else None
        samples = self.samples.get(goal.suite, {}).get(goal.load, {})
        if goal.ours not in samples or goal.theirs not in samples:
            return None
        values = [[getattr(one, goal.figure) for one in samples[stack]] for stack in (goal.ours, goal.theirs)]
        return paired(*values)

    def document(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "throughput": {
                SUITE_NAMES[suite]: {
                    LOADS[load].name: {
                        stack: [
                            asdict(sample) | {"cpu_per_million": sample.cpu_per_million} for sample in samples
                        ]
                        for stack, samples in stacks.items()
                    }
                    for load, stacks in loads.items()
                }
                for suite, loads in self.samples.items()
            },
            "idle_ping_ms": self.pings,
            "goals": [
                {
                    "what": goal.words(),
                    "wanted": goal.wanted,
                    "found": found,
                    "reached": goal.is_reached(found),
                }
                for goal in GOALS
                if (found := self.figure(goal)) is not None
            ],
        }


def stacks(console: Console, wanted: Collection[str]) -> list[Stack]:
    """Those that are wanted and can be had; a line for each that cannot."""

    def vpnd(engine: str, namespace: Namespace, end: End) -> Vpnd:
        return Vpnd(namespace, end.address, engine=engine)

    def strongswan(namespace: Namespace, _end: End) -> StrongSwan:
        return StrongSwan(namespace, plugins=DEBIAN_PLUGINS)

    found = [Stack(STRONGSWAN, strongswan)]
    for engine in (NATIVE, PYTHON):
        if engine == NATIVE and not is_native_installed():
            console.print("native: not measured, the native engine is not built")
            continue
        start = partial(vpnd, engine)
        found += [Stack(engine, start), Stack(engine + RAW, start, encapsulation="auto")]
    if {WIREGUARD, TAILSCALE} & set(wanted):
        for name, program in wireguard.build(console).items():
            found.append(Stack(name, _wireguard(program)))
    return sorted((one for one in found if one.name in wanted), key=lambda one: STACKS.index(one.name))


def _wireguard(program: Any) -> Callable[[Namespace, End], wireguard.WireGuard]:
    return lambda namespace, _end: wireguard.WireGuard(namespace, program)


def measure(
    console: Console,
    rounds: int,
    seconds: float,
    suites: Collection[str] = tuple(SUITES),
    loads: Collection[str] = ("ping", *LOADS),
    wanted: Collection[str] = STACKS,
) -> Datapath:
    """Run everything that is asked for; a line for each measurement as it is done."""
    found = Datapath()
    with Lab() as lab:
        pairs = [Pair(lab, stack, number) for number, stack in enumerate(stacks(console, wanted))]
        for suite in (suite for suite in SUITES if suite in suites):
            among = [pair for pair in pairs if suite != "cbc" or pair.name not in (WIREGUARD, TAILSCALE)]
            for pair in among:
                pair.connect(SUITES[suite])
            if not found.pings and "ping" in loads:
                found.pings = alternate(among, rounds, lambda pair: pair.ping_ms(PINGS))
                medians = {stack: statistics.median(values) for stack, values in found.pings.items()}
                console.print(f"{PING}: {_side_by_side(medians, '{:.2f} ms')}")
            for load in (load for load in MEASURED[suite] if load in loads):
                what = LOADS[load]
                turns = min(rounds, RATE_ROUNDS) if what.lossless else rounds
                samples = alternate(among, turns, partial(Pair.run, load=what, seconds=seconds))
                found.samples.setdefault(suite, {})[load] = samples
                rates, unit = {stack: median(values).megabits for stack, values in samples.items()}, "Mbit/s"
                if what.packet_size is not None:
                    unit = "packets/s"
                    rates = {
                        stack: median(values).packets_per_second or 0 for stack, values in samples.items()
                    }
                console.print(f"{SUITE_NAMES[suite]}, {what.name}: {_side_by_side(rates, '{:.0f}')} {unit}")
    return found


def tables(found: Datapath) -> Iterator[Table]:
    """Of each suite: medians with the smallest and largest, CPU time, and ratios."""
    for suite, loads in found.samples.items():
        title = f"{SUITE_NAMES[suite]}, medians; native / this: of the pairs of each round"
        shown = Table(title=title, title_justify="left")
        shown.add_column("load", max_width=18)
        shown.add_column("stack")
        for heading in ("Mbit/s", "min - max", "packets/s", "native / this", "CPU s/Gbit", "CPU s/million"):
            shown.add_column(heading, justify="right", no_wrap=heading == "min - max")
        for load, stacks in loads.items():
            words = LOADS[load].name
            for stack, samples in stacks.items():
                shown.add_row(words, stack, *_cells(LOADS[load], samples, stacks.get(NATIVE)))
                words = ""
            shown.add_section()
        yield shown


def ping_table(found: Datapath) -> Table:
    """Idle pings of each, and the native engine's as a part of them."""
    shown = Table(title="Idle ping, medians", title_justify="left")
    for heading in ("stack", "ms", "min - max", "native / this"):
        shown.add_column(heading, justify="left" if heading == "stack" else "right")
    for stack, values in found.pings.items():
        ratio = paired(found.pings[NATIVE], values) if NATIVE in found.pings else None
        spread = f"{min(values):.2f} - {max(values):.2f}"
        shown.add_row(stack, f"{statistics.median(values):.2f}", spread, _number(ratio, ".2f"))
    return shown


def goal_table(found: Datapath) -> Table:
    """What was to be reached and what was, as far as it was measured."""
    shown = Table(title="Goals, medians of paired ratios", title_justify="left")
    for heading in ("figure", "wanted", "found", ""):
        shown.add_column(heading, justify="right" if heading in ("wanted", "found") else "left")
    for goal in GOALS:
        value = found.figure(goal)
        if value is None:
            continue
        bound = "at most" if goal.is_most else "at least"
        word = "reached" if goal.is_reached(value) else "missed"
        shown.add_row(goal.words(), f"{bound} {goal.wanted:g}", f"{value:.2f}", word)
    return shown


def _cells(load: Load, samples: list[Sample], native: list[Sample] | None) -> list[str]:
    middle = median(samples)
    rates = [sample.megabits for sample in samples]
    ratio = paired([one.megabits for one in native], rates) if native else None
    return [
        f"{middle.megabits:.0f}",
        f"{min(rates):.0f} - {max(rates):.0f}",
        _number(middle.packets_per_second, ".0f"),
        _number(ratio, ".2f"),
        _number(middle.cpu_per_gigabit if middle.megabits and load.packet_size is None else None, ".2f"),
        _number(middle.cpu_per_million, ".1f"),
    ]


def _number(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)


def _side_by_side(values: dict[str, float], style: str) -> str:
    return ", ".join(f"{stack} {style.format(value)}" for stack, value in values.items())
