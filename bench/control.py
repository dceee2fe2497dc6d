"""What a handshake costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tests.simulation.policies import Recipe
from vpnd.crypto.entropy import OsEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import ChildUp, Transmit
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis

GROUPS = (14, 31)


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
