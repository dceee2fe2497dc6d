"""How long `vpnd run` takes until it negotiates and until it answers, and what a command and a PUT cost.

What is started is compiled, as a package, `make install` and an image have it, whatever the environment says:
from source alone a start takes twice as long.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from threading import Thread

from rich.console import Console
from rich.table import Table

from bench import crowd
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import two_gateways
from tests.lab.vpnd import PROGRAM, PROGRAMS, Vpnd
from vpnd.control import addition

RUNS = 7
"""The least of which a median says something on a machine that does other things too."""

LONGEST = 60.0
"""Seconds; a start that takes longer has failed."""

IKE_PORT = 500

SWANCTL = "swanctl --list-sas"
"""What strongSwan's operators ask instead; in C."""

PUT_BESIDE = (1, 60)
"""How many tunnels there are besides the one that is changed."""


@dataclass(frozen=True)
class Cost:
    """Seconds and processor time until the answer or the end; the same until the first IKE message."""

    wall: float
    cpu: float
    negotiates: float | None = None
    negotiates_cpu: float | None = None


def measure(console: Console, runs: int = RUNS) -> dict[str, dict[str, float | None]]:
    """Medians of at least `RUNS` runs: the daemon until `/v1/status` is answered, and whole commands."""
    with _compiled():
        medians = _medians(max(runs, RUNS))
    console.print(_table(medians))
    if SWANCTL in medians:
        for name in ("vpnctl --json status", "vpnctl status"):
            times = medians[name].cpu / medians[SWANCTL].cpu
            console.print(f"{name}: {times:.1f} times the processor time of {SWANCTL}")
    return {name: asdict(cost) for name, cost in medians.items()}


def _medians(runs: int) -> dict[str, Cost]:
    found: dict[str, list[Cost]] = {}
    with Lab() as lab:
        wire = two_gateways(lab, "starts-")
        plan = Plan(negotiation="active")
        vpnd = Vpnd(wire.a.gateway, A.address, plans=[plan], running=False, start_timeout=LONGEST)
        with wire.b.gateway.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((B.address, IKE_PORT))
            found["vpnd run"] = [_start(vpnd, peer) for _ in range(runs + 1)][1:]
        vpnd.start()
        vpnctl = partial(_command, str(PROGRAMS / "vpnctl"), "--socket", str(vpnd.socket))
        commands: dict[str, Callable[[], object]] = {
            "vpnctl --json status": partial(vpnctl, "--json", "status"),
            "vpnctl status": partial(vpnctl, "status"),
            "vpnctl --help": partial(vpnctl, "--help"),
            "vpnd check": partial(_command, str(PROGRAMS / "vpnd"), "check", str(vpnd.config)),
        }
        if shutil.which("swanctl"):
            charon = StrongSwan(wire.b.gateway)
            charon.add(plan.other())
            commands[SWANCTL] = lambda: charon.swanctl("--list-sas")
        for name, command in commands.items():
            found[name] = [_cost(command) for _ in range(runs + 1)][1:]
    found |= {f"PUT, {count} tunnels": _put(count, runs) for count in PUT_BESIDE}
    return {name: _median(costs) for name, costs in found.items()}


@contextmanager
def _compiled() -> Iterator[None]:
    """What the first start compiles is kept for those that count, in a directory of its own."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="vpnd-bench-") as directory:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = directory
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _start(vpnd: Vpnd, peer: socket.socket) -> Cost:
    """One start and the end of it by SIGKILL, so that the next one finds what a killed daemon leaves."""
    heard: list[tuple[float, float]] = []
    _drain(peer)
    peer.settimeout(LONGEST)

    def listen() -> None:
        peer.recv(4096)
        heard.append((time.monotonic() - began, vpnd.cpu_seconds()))

    listener = Thread(target=listen)
    began = time.monotonic()
    vpnd.launch()
    listener.start()
    wait_until(lambda: _answers(vpnd), "an answer", LONGEST, 0.01)
    wall, cpu = time.monotonic() - began, vpnd.cpu_seconds()
    listener.join()
    vpnd.kill()
    return Cost(wall, cpu, *heard[0])


def _answers(vpnd: Vpnd) -> bool:
    try:
        return vpnd.get("/v1/status") is not None
    except OSError:
        return False


def _drain(peer: socket.socket) -> None:
    """What the daemon before has sent is not what this one sends."""
    peer.setblocking(False)
    try:
        while peer.recv(4096):
            pass
    except BlockingIOError:
        return


def _put(count: int, runs: int) -> list[Cost]:
    """One tunnel changed over the API beside `count` others: its answer, and the daemon's processor time."""
    with Lab() as lab:
        wire = two_gateways(lab, f"put{count}-")
        others = [crowd.plan(number).change(negotiation="passive") for number in range(count)]
        vpnd = Vpnd(wire.a.gateway, A.address, PROGRAM, plans=others, start_timeout=LONGEST)
        costs = []
        for run in range(runs + 1):
            plan = crowd.plan(count).change(negotiation="passive", dpd_timeout=30 + run)
            (tunnel,) = addition.read(vpnd.write_tunnel(plan, vpnd.directory / "put.toml"))
            before, began = vpnd.cpu_seconds(), time.monotonic()
            vpnd.call("PUT", f"/v1/tunnels/{tunnel.name}", tunnel.table)
            costs.append(Cost(time.monotonic() - began, vpnd.cpu_seconds() - before))
    return costs[1:]


def _command(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=LONGEST)


def _cost(call: Callable[[], object]) -> Cost:
    """What the program that is run in it costs."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    call()
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        _median_of_all([cost.negotiates for cost in costs]),
        _median_of_all([cost.negotiates_cpu for cost in costs]),
    )


def _median_of_all(figures: list[float | None]) -> float | None:
    """None where one of them was not measured."""
    known = [figure for figure in figures if figure is not None]
    return statistics.median(known) if len(known) == len(figures) else None


def _table(medians: dict[str, Cost]) -> Table:
    table = Table(title="Starts, in seconds (medians)", title_justify="left")
    table.add_column("program")
    for heading in ("done or answering", "CPU until then", "first IKE message", "CPU until then"):
        table.add_column(heading, justify="right")
    for name, cost in medians.items():
        figures = (cost.wall, cost.cpu, cost.negotiates, cost.negotiates_cpu)
        table.add_row(name, *("" if figure is None else f"{figure:.2f}" for figure in figures))
    return table
