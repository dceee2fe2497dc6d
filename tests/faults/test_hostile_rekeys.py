"""SAs are renewed again and again while half of the packets that arrive are hostile: no good one is lost."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from tests.lab.lab import Lab, Namespace
from tests.lab.plan import A, B, Plan
from tests.lab.process import Child, wait_until
from tests.lab.stream import Streams
from tests.lab.topology import Wire, two_gateways
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.full_faults]

NETWORKS = 3
"""On each side, so that there are nine mappings; three of them carry a stream."""
MEGABITS = 2.0
RENEWALS = 12
PAUSE = 1.0
"""Seconds between two renewals, in which the streams carry hundreds of packets on the new SAs."""


@contextmanager
def gateways(lab: Lab, plan: Plan, engine: str) -> Iterator[tuple[Wire, Vpnd, Vpnd]]:
    """Both on this engine, with an address inside each network."""
    wire = two_gateways(lab)
    ends = []
    for site, end, view in (
        (wire.b, B, plan.other().change(negotiation="passive")),
        (wire.a, A, plan),
    ):
        for number in range(1, NETWORKS):
            site.gateway.add_address(f"{inside(end.label, number)}/32")
        # What leaves is seen packet by packet.
        site.gateway.run("ethtool", "-K", "eth0", "tx-udp-segmentation", "off", "gso", "off")
        ends.append(Vpnd(site.gateway, end.address, plans=[view], engine=engine))
    assert {gateway.status()["gateway"]["engine"] for gateway in ends} == {engine}
    yield wire, ends[1], ends[0]


def inside(label: str, number: int) -> str:
    return f"10.{1 if label == 'a' else 2}.{number}.1"


@contextmanager
def shadow(namespace: Namespace) -> Iterator[dict[str, int]]:
    """Hostile packets beside those that leave from here; how many of each kind, once it has ended."""
    sent: dict[str, int] = {}
    child: Child = namespace.spawn(
        sys.executable, "-m", "tests.lab.shadow", "eth0", log=f"shadow-{namespace.label}.log"
    )
    wait_until(lambda: "ready" in child.output(), "the hostile packets")
    yield sent
    child.stop()
    sent.update(json.loads(child.output().splitlines()[-1]))


@pytest.mark.parametrize("version", ["ikev2", "ikev1"])
def test_renewals_among_hostile_packets_lose_nothing(engine: str, version: str, row: TellRow) -> None:
    networks = [tuple(f"10.{side}.{number}.0/24" for number in range(NETWORKS)) for side in (1, 2)]
    local, remote = replace(A, networks=networks[0]), replace(B, networks=networks[1])
    plan = Plan(local=local, remote=remote, version=version)
    with Lab() as lab, gateways(lab, plan, engine) as (wire, ours, theirs), ExitStack() as running:
        ours.up(plan.name, timeout=30)
        first = {sa.spi_in for sa in ours.agreed(plan.name)}
        assert len(first) == NETWORKS * NETWORKS
        shadows = [running.enter_context(shadow(site.gateway)) for site in (wire.a, wire.b)]
        with ExitStack() as flowing:
            ends = [(inside("a", number), inside("b", number)) for number in range(NETWORKS)]
            streams = [
                flowing.enter_context(Streams(wire.a.gateway, here, wire.b.gateway, there, MEGABITS))
                for here, there in ends
            ]
            seen = set(first)
            for turn in range(RENEWALS):
                renewing = ours if turn % 2 == 0 else theirs
                renewing.vpnctl("rekey", plan.name, "--child")
                time.sleep(PAUSE)
                now = {sa.spi_in for sa in ours.agreed(plan.name)}
                assert not now & seen, f"not every SA was renewed in turn {turn}"
                seen |= now
        running.close()
        flows = [flow for stream in streams for flow in stream.require_flows()]
        hostile = sum(sum(sent.values()) for sent in shadows)
        counted = {end.namespace.label: end.tunnel(plan.name)["drops"] for end in (ours, theirs)}
    assert [flow.explanation() for flow in flows if flow.lost or flow.duplicates] == []
    good = sum(flow.sent for flow in flows)
    assert hostile > good * 0.9, "not half of the packets were hostile"
    for drops in counted.values():
        assert drops["integrity"] > 0
        assert drops["replay"] > 0
    row(
        "renewals among hostile packets", engine=engine, version=version, renewals=RENEWALS,
        sas=len(seen), good=good, lost=0, hostile=hostile,
    )  # fmt: skip
