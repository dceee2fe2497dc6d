"""What a handshake costs, and what a tunnel that is idle costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.topology import two_gateways
from tests.lab.vpnd import Vpnd
from tests.simulation.policies import Recipe
from vpnd.crypto.entropy import OsEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import ChildUp, Transmit
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis

GROUPS = (14, 31)
UP_TIMEOUT = 300.0
SETTLE = 2.0
"""Seconds of quiet before memory is read."""


@dataclass
class Side:
    """One endpoint and the processor time that it has used."""

    endpoint: Endpoint
    name: str
    seconds: float = 0.0
    children: int = 0

    def call(self, method: Callable[..., None], *arguments: object) -> list[Transmit]:
        """One input, timed; returns what it sends."""
        began = time.thread_time()
        method(*arguments)
        outputs = [self.endpoint.outputs.popleft() for _ in range(len(self.endpoint.outputs))]
        self.seconds += time.thread_time() - began
        self.children += sum(isinstance(output, ChildUp) for output in outputs)
        return [output for output in outputs if isinstance(output, Transmit)]


def measure_setups(console: Console, seconds: float) -> dict[str, dict[str, float]]:
    """IKE_SA_INIT and IKE_AUTH between two endpoints of this process, each timed apart."""
    table = Table(title="IKEv2 setups a second (one child each)", title_justify="left")
    for heading in ("DH group", "initiator", "responder", "one core each"):
        table.add_column(heading, justify="right")
    found = {}
    for group in GROUPS:
        initiator, responder, count = _setups(group, seconds)
        rates = {
            "initiator_per_second": count / initiator,
            "responder_per_second": count / responder,
            "setups_per_second": count / max(initiator, responder),
        }
        found[str(group)] = rates
        table.add_row(str(group), *(f"{rate:.0f}" for rate in rates.values()))
    console.print()
    console.print(table)
    return found


def _setups(group: int, seconds: float) -> tuple[float, float, int]:
    policy_a, policy_b = Recipe(dh=(group,)).pair()
    a = Side(Endpoint(OsEntropy()), policy_a.name)
    b = Side(Endpoint(OsEntropy()), policy_b.name)
    now = 1000.0
    a.call(a.endpoint.set_peer, now, policy_a)
    b.call(b.endpoint.set_peer, now, policy_b)
    count, spent = 0, (0.0, 0.0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = a.seconds, b.seconds
        _exchange(now, a, b, a.call(a.endpoint.initiate, now, a.name, 0))
        count += 1
        spent = spent[0] + a.seconds - before[0], spent[1] + b.seconds - before[1]
        if not a.children == b.children == count:
            raise RuntimeError(f"setup {count} with group {group} did not succeed")
        closing = a.call(a.endpoint.close, now, a.name, Diagnosis.of(Code.DOWN_BY_OPERATOR))
        _exchange(now, a, b, closing)
        now += 60.0
        for side, other in ((a, b), (b, a)):
            _exchange(now, side, other, side.call(side.endpoint.handle_timeout, now))
    return spent[0], spent[1], count


def _exchange(now: float, sender: Side, receiver: Side, messages: list[Transmit]) -> None:
    """Deliver messages and the answers to them, until both are silent."""
    while messages:
        answers = []
        for message in messages:
            path = message.path
            arrived = Path(path.remote, path.remote_port, path.local, path.local_port)
            answers += receiver.call(receiver.endpoint.handle_datagram, now, arrived, message.data)
        sender, receiver, messages = receiver, sender, answers


def measure_tunnels(console: Console, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Memory of a daemon with so many idle tunnels, and how long they take to come up, both ends here."""
    table = Table(title="Idle tunnels, both daemons on this machine", title_justify="left")
    for heading in ("tunnels", "start to all up s", "RSS MB", "RSS peer MB", "KB a tunnel", "CPU idle"):
        table.add_column(heading, justify="right")
    rows: list[dict[str, Any]] = []
    for count in counts:
        row = _tunnels(count)
        first = rows[0] if rows else row
        more = max(1, count - first["tunnels"])
        row["kilobytes_a_tunnel"] = (row["rss"] - first["rss"]) / more / 1024
        rows.append(row)
        table.add_row(
            str(count),
            f"{row['up_seconds']:.1f}",
            f"{row['rss'] / 1e6:.1f}",
            f"{row['rss_peer'] / 1e6:.1f}",
            f"{row['kilobytes_a_tunnel']:.0f}" if rows[1:] else "",
            f"{row['idle_cpu'] * 100:.1f} %",
        )
    console.print()
    console.print(table)
    return rows


def _tunnels(count: int) -> dict[str, Any]:
    plans = [_plan(number) for number in range(count)]
    with Lab() as lab:
        wire = two_gateways(lab)
        passive = [plan.other().change(negotiation="passive") for plan in plans]
        b = Vpnd(wire.b.gateway, B.address, plans=passive, start_timeout=UP_TIMEOUT)
        began = time.monotonic()
        a = Vpnd(wire.a.gateway, A.address, plans=plans, start_timeout=UP_TIMEOUT)
        wait_until(lambda: _up(a) == _up(b) == count, f"{count} tunnels to be up", UP_TIMEOUT, interval=0.2)
        up_seconds = time.monotonic() - began
        time.sleep(SETTLE)
        before = a.cpu_seconds()
        time.sleep(SETTLE)
        idle = (a.cpu_seconds() - before) / SETTLE
        return {
            "tunnels": count,
            "up_seconds": up_seconds,
            "rss": a.resident_bytes(),
            "rss_peer": b.resident_bytes(),
            "idle_cpu": idle,
        }


def _up(gateway: Vpnd) -> int:
    return sum(tunnel["state"] == "up" for tunnel in gateway.get("/v1/status")["tunnels"])


def _plan(number: int) -> Plan:
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
