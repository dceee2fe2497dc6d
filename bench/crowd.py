"""A thousand tunnels between two daemons: time until all are up, memory, and what they cost idle and busy.

Two pairs of daemons live side by side, one with a single tunnel and one with all of them, so that one and
the same moment decides both figures of a comparison. The busy tunnel is the first of its pair.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import lookups
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.topology import two_gateways
from tests.lab.traffic import iperf, require_ping
from tests.lab.vpnd import Vpnd

TUNNELS = 1000
UP_TIMEOUT = 300.0
SETTLE = 5.0
"""Seconds of quiet before memory is read."""

SOURCE, TARGET = "10.0.0.1", "10.0.0.129"
"""Addresses within the first tunnel's networks."""
LOAD = ("-u", "-b", "200M", "-l", "1372")
"""UDP at a rate that both pairs keep up with, so that both send the same packets in the same batches."""


WORDS = {"alone": "only tunnel", "one_of_all": "one of all", "all_in_turn": "all in turn"}


@dataclass(frozen=True)
class Figures:
    """What was measured, and the goals: 60 s, 60 KiB, 5 %, a ratio of 1.05.

    `engine` is that of the daemons. `idle_cpu` is of one processor, the busier of both. `packet_ns` are by
    engine nanoseconds of CPU time for a packet in the datapath alone, by `bench.lookups`; `packet_us` are
    microseconds of both daemons with all system calls, less what they use while idle, with one tunnel and
    with all.
    """

    engine: str
    tunnels: int
    up_seconds: float
    kib_a_tunnel: float
    kib_a_tunnel_peer: float
    idle_seconds: float
    idle_cpu: float
    packet_ns: dict[str, dict[str, float]]
    packet_us_one: float
    packet_us_all: float

    @property
    def packet_ratio(self) -> dict[str, float]:
        """The cost of a packet among all tunnels as a multiple of that in the only one: the worse of two."""
        costs = self.packet_ns.items()
        return {name: max(cost["one_of_all"], cost["all_in_turn"]) / cost["alone"] for name, cost in costs}


class Pair:
    """Two daemons with so many tunnels between them, all up."""

    def __init__(self, lab: Lab, count: int, engine: str) -> None:
        plans = [plan(number) for number in range(count)]
        passive = [plan.other().change(negotiation="passive") for plan in plans]
        self.wire = two_gateways(lab, f"x{count}-")
        self.idle = 0.0
        """Seconds of CPU time of both daemons in a second without packets."""
        began = time.monotonic()
        self.b = Vpnd(self.wire.b.gateway, B.address, plans=passive, start_timeout=UP_TIMEOUT, engine=engine)
        self.a = Vpnd(self.wire.a.gateway, A.address, plans=plans, start_timeout=UP_TIMEOUT, engine=engine)
        # The whole status of a thousand tunnels is not for asking often; one tunnel's is.
        for name in (plans[-1].name, plans[0].name):
            wait_until(partial(self._is_up, name), f"{name} to be up", UP_TIMEOUT, interval=0.25)
        wait_until(lambda: _up(self.a) == _up(self.b) == count, "all to be up", UP_TIMEOUT, interval=0.5)
        self.up_seconds = time.monotonic() - began
        self.wire.a.gateway.add_address(f"{SOURCE}/32")
        self.wire.b.gateway.add_address(f"{TARGET}/32")

    @property
    def engine(self) -> str:
        """Which engine carries the packets."""
        return str(self.a.get("/v1/status")["gateway"]["engine"])

    def resident(self) -> tuple[int, int]:
        """Memory of both, in bytes."""
        return self.a.resident_bytes(), self.b.resident_bytes()

    def idle_cpu(self, seconds: float) -> float:
        """The part of a processor that the busier of the two uses with nothing to do."""
        before = self.a.cpu_seconds(), self.b.cpu_seconds()
        began = time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - began
        used = [self.a.cpu_seconds() - before[0], self.b.cpu_seconds() - before[1]]
        self.idle = sum(used) / elapsed
        return max(used) / elapsed

    def packet_us(self, seconds: float) -> float:
        """Microseconds of CPU time of both daemons for each packet through the first tunnel."""
        began, before = time.monotonic(), self.a.cpu_seconds() + self.b.cpu_seconds()
        result = iperf(self.wire.a.gateway, SOURCE, self.wire.b.gateway, TARGET, seconds, *LOAD)
        used = self.a.cpu_seconds() + self.b.cpu_seconds() - before
        used -= self.idle * (time.monotonic() - began)
        received = result["end"]["sum_received"]
        return float(used / max(1, received["packets"] - received["lost_packets"]) * 1e6)

    def _is_up(self, name: str) -> bool:
        tunnel = self.a.get(f"/v1/tunnels/{name}")
        return tunnel is not None and tunnel["state"] == "up"


def measure(
    console: Console, count: int, engine: str, idle_seconds: float, rounds: int, seconds: float
) -> dict[str, Any]:
    """Everything about `count` tunnels of daemons with this engine, as a table and as a document."""
    with Lab() as lab:
        one = Pair(lab, 1, engine)
        time.sleep(SETTLE)
        alone = one.resident()
        one.idle_cpu(SETTLE)
        crowd = Pair(lab, count, engine)
        time.sleep(SETTLE)
        grown = [(now - then) / (count - 1) / 1024 for now, then in zip(crowd.resident(), alone, strict=True)]
        idle = crowd.idle_cpu(idle_seconds)
        costs: dict[Pair, list[float]] = {one: [], crowd: []}
        for pair in costs:
            require_ping(pair.wire.a.gateway, SOURCE, TARGET)
        for number in range(rounds):
            for pair in (one, crowd) if number % 2 == 0 else (crowd, one):
                costs[pair].append(pair.packet_us(seconds))
        figures = Figures(
            one.engine,
            count,
            crowd.up_seconds,
            grown[0],
            grown[1],
            idle_seconds,
            idle,
            {name: lookups.measure(name, count) for name in lookups.engines()},
            statistics.median(costs[one]),
            statistics.median(costs[crowd]),
        )
    console.print()
    console.print(_table(figures))
    return asdict(figures) | {"packet_ratio": figures.packet_ratio}


def _table(found: Figures) -> Table:
    table = Table(
        title=f"{found.tunnels} tunnels between two daemons, both on this machine, {found.engine} engine",
        title_justify="left",
    )
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("goal", justify="right")
    table.add_row("from the start of both daemons to all up", f"{found.up_seconds:.1f} s", "60 s")
    memory = f"{found.kib_a_tunnel:.1f} and {found.kib_a_tunnel_peer:.1f} KiB"
    table.add_row("memory of a tunnel, initiator and responder", memory, "60 KiB")
    table.add_row(
        f"CPU while idle, of one processor, over {found.idle_seconds:g} s",
        f"{found.idle_cpu * 100:.1f} %",
        "5 %",
    )
    for engine, ratio in found.packet_ratio.items():
        for name, words in WORDS.items():
            cost = found.packet_ns[engine][name] / 1000
            table.add_row(f"{engine} datapath, a packet out and in, {words}", f"{cost:.2f} us", "")
        table.add_row("the worse of these as a multiple of the first", f"{ratio:.3f}", "1.05")
    daemons = f"{found.packet_us_one:.1f} and {found.packet_us_all:.1f} us"
    table.add_row("both daemons, a packet, only tunnel and one of all", daemons, "")
    return table


def _up(gateway: Vpnd) -> int:
    return sum(tunnel["state"] == "up" for tunnel in gateway.get("/v1/status")["tunnels"])


def plan(number: int) -> Plan:
    """One of many tunnels between the same addresses: its identities tell it apart."""
    network = f"{number >> 8}.{number & 255}"
    return Plan(
        name=f"t{number}",
        interface=f"vpn-{number}",
        routed=True,
        negotiation="active",
        local=replace(A, identity=f"a{number}.vpn.example", networks=(f"10.{network}.0/25",)),
        remote=replace(B, identity=f"b{number}.vpn.example", networks=(f"10.{network}.128/25",)),
    )
