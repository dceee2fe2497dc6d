"""A flood of random, mutated and replayed datagrams while a transfer runs through the tunnel."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from tests.lab.capture import Capture
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.topology import start, two_gateways
from tests.lab.traffic import require_ping, transfer
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

COUNT = 100_000
LOG_LINES = 100
"""More than a few lines a second would let a stranger fill the disk."""
MEMORY_GROWTH = 8 << 20
"""Resident bytes that a daemon may grow by while its caches and the allocator's arenas fill."""


@pytest.mark.parametrize("peer_kind", ["vpnd", "strongswan"])
def test_tunnel_lives_through_a_flood(peer_kind: str, lab: Lab) -> None:
    seed = 20_221_104
    print(f"seed {seed}")
    wire = two_gateways(lab)
    ours, peer = Vpnd(wire.a.gateway, A.address), start(peer_kind, wire.b.gateway, B.address)
    raw = "auto" if peer_kind == "vpnd" else "udp"
    plan = Plan(negotiation="active", encapsulation=raw, remote=replace(B))
    peer.add(plan.other().change(negotiation="passive"))

    with Capture(wire.a.gateway, "eth0", f"src host {B.address}") as seen:
        ours.add(plan)
        assert ours.up(plan.name).returncode == 0
        require_ping(wire.a.host, A.inside, B.inside, count=20)
    ours.wait_proved(plan.name)
    (before,) = ours.agreed(plan.name)
    transfer(wire.a.host, A.inside, wire.b.host, B.inside)
    memory, log = ours.resident_bytes(), len(ours.log().splitlines())

    flood = wire.b.gateway.spawn(
        sys.executable, "-m", "tests.lab.hostile", str(seen), A.address, str(COUNT), str(seed), log="flood"
    )
    transfers = 0
    while flood.exit_code is None:
        transfer(wire.a.host, A.inside, wire.b.host, B.inside)
        transfer(wire.b.host, B.inside, wire.a.host, A.inside)
        transfers += 2
    assert (flood.exit_code, flood.output().split()) == (0, [str(COUNT)])
    assert transfers >= 2, "no transfer ran while the flood did"

    require_ping(wire.a.host, A.inside, B.inside)
    assert ours.agreed(plan.name) == [before], "the SAs of before the flood are no longer those in use"
    assert len(ours.log().splitlines()) - log < LOG_LINES
    wait_until(
        lambda: ours.resident_bytes() - memory < MEMORY_GROWTH,
        f"memory to return below {(memory + MEMORY_GROWTH) >> 20} MB (now {ours.resident_bytes() >> 20} MB)",
    )
