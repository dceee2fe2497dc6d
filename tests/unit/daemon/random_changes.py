"""From one configuration to another and back, by a whole daemon but for the kernel and its peer."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.unit.config.random_configurations import KEYS, Tables
from tests.unit.daemon.fakes import Machine, Wire
from tests.unit.daemon.pairs import JumpingLoop
from vpnd.daemon.state import to_toml


def text(tables: Tables) -> str:
    """The file with these tunnels; nobody is there, so they wait for the peer."""
    common = {"customer_gateway": "other", "pre_shared_key": "file:psk", "negotiation": "passive"}
    return to_toml(
        {
            "gateway": {"name": "hq", "address": "192.0.2.1"},
            "customer_gateways": {"other": {"address": "192.0.2.2"}},
            "tunnels": {name: {**common, **table} for name, table in tables.items()},
        }
    )


def state(machine: Machine) -> tuple[object, ...]:
    """What runs, and what the machine has of it. Interfaces made again have another descriptor."""
    gateway, host = machine.service.gateway, machine.host
    return (
        machine.service.policy,
        tuple((tunnel.name, tunnel.policy, tunnel.state) for tunnel in gateway.tunnels),
        sorted(host.interfaces.items()),
        host.wanted,
        sorted(machine.engine.tunnels),
        {name: rows for name, rows in machine.engine.policies.items() if name in machine.engine.tunnels},
    )


def check_plan(a: Tables, b: Tables) -> None:
    """The plan says what apply does, and rollback brings the state of `a` again."""

    async def run(directory: Path) -> None:
        machine = Machine(Wire(), directory, "192.0.2.1", 1)
        key = directory / "psk"
        key.write_text(KEYS[0])
        key.chmod(0o600)
        machine.write(text(a))
        await machine.start()
        try:
            before = state(machine)
            machine.write(text(b))
            planned = await machine.operator.plan(None)
            assert state(machine) == before, "a plan changes nothing"
            compiled = machine.service.policy
            done = await machine.operator.apply(None)
            assert done.tunnels == planned.tunnels
            assert done.unchanged == planned.unchanged
            old = {tunnel.name: tunnel for tunnel in compiled.tunnels}
            new = {tunnel.name: tunnel for tunnel in machine.service.policy.tunnels}
            differ = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
            assert differ <= {one.tunnel for one in planned.tunnels}, "nothing else was changed"
            assert set(planned.unchanged) == new.keys() - {one.tunnel for one in planned.tunnels}
            assert (await machine.operator.plan(None)).tunnels == []
            # What a tunnel was changed by in place stays its own: the beginning is compared with the end.
            if machine.operator.configurations().configurations[1:]:
                await machine.operator.rollback(1)
            assert state(machine) == before
        finally:
            await machine.stop()

    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(run(Path(directory)))
