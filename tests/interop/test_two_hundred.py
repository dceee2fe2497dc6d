"""The most mappings that a gateway has, in one tunnel between two vpnd."""

from __future__ import annotations

import json
import time

import pytest

from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan, SpdRule
from tests.lab.topology import agreement, two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow]

HERE = tuple(f"10.1.{number}.0/24" for number in range(20))
THERE = tuple(f"10.2.{number}.0/24" for number in range(10))
PATIENCE = 300
"""Seconds for a busy machine; the row has the figure."""
SAMPLED = 8


@pytest.mark.parametrize("version", ["ikev1", "ikev2"])
def test_two_hundred_mappings_come_up_in_order_and_carry_traffic(
    version: str, lab: Lab, row: TellRow
) -> None:
    """With PFS: a key exchange for each."""
    wire = two_gateways(lab)
    a, b = wire.a.gateway, wire.b.gateway
    for namespace, networks in ((a, HERE), (b, THERE)):
        for network in networks[1:]:
            namespace.add_address(network.replace(".0/24", ".1/32"))
    plan = Plan(name="wide", version=version, pfs=14, rules=(SpdRule(HERE, THERE),))
    theirs = Vpnd(b, B.address, plans=[plan.other()])
    ours = Vpnd(a, A.address, plans=[plan])
    before = ours.cpu_seconds(), theirs.cpu_seconds()
    began = time.monotonic()
    done = ours.up(plan.name, PATIENCE)
    seconds = time.monotonic() - began
    cpu = ours.cpu_seconds() - before[0], theirs.cpu_seconds() - before[1]
    if version == "ikev2" and done.returncode == 0:
        # The first mapping is rekeyed early; the counters of its new SA begin at 0.
        ours.wait_proved(plan.name)
    mappings = ours.tunnel(plan.name)["mappings"]
    up = [mapping for mapping in mappings if mapping["state"] == "up"]
    events = map(json.loads, ours.ctl("--json", "events").stdout.splitlines())
    order = [event["text"] for event in events if event["event"] == "mapping-up"]
    row(
        "mappings",
        peer="vpnd",
        version=version,
        what="200 in one tunnel, PFS 14",
        figure=f"{len(up)} up in {seconds:.1f} s; processor {cpu[0]:.1f} s here, {cpu[1]:.1f} s there",
    )
    assert done.returncode == 0, done.stderr
    assert len(up) == len(plan.mappings) == 200
    assert [(mapping["local"], mapping["remote"]) for mapping in mappings] == plan.mappings
    assert order == [f"{local} - {remote} is up" for local, remote in plan.mappings]
    agreement(ours, theirs, plan.name, len(plan.mappings))
    for local, remote in plan.mappings[:: 200 // SAMPLED]:
        require_ping(a, local.replace(".0/24", ".1"), remote.replace(".0/24", ".1"), count=1)
    carried = [m for m in ours.tunnel(plan.name)["mappings"] if m["packets_in"]]
    assert [(m["local"], m["remote"]) for m in carried] == plan.mappings[:: 200 // SAMPLED]
