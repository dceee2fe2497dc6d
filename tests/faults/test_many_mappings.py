"""197 mappings, of which 2 go while 3 come: the 195 that stay are not touched, and lose nothing."""

from __future__ import annotations

import pytest

from tests.faults.test_change_classes import QUEUE, figures
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan, SpdRule
from tests.lab.process import wait_until
from tests.lab.stream import PACKET_LENGTH, Streams
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import Wire, two_gateways
from tests.lab.vpnd import Vpnd
from tests.lab.widen import widen
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.full_faults]

BEFORE = [*range(197)]
AFTER = [*range(2, 100), 250, 251, 252, *range(100, 197)]
STAY = sorted({*BEFORE} & {*AFTER})
CARRYING = (2, 99, 196)
"""The mappings with a stream: the first and the last that stay, and one beside where the new ones come."""
RATE = 250
"""Packets a second each way on each of them."""
PATIENCE = 240.0
"""Seconds in which 200 mappings come up, one after the other, on a busy machine."""


def network(number: int) -> str:
    return f"10.2.{number}.0/24"


def planned(numbers: list[int], version: str) -> Plan:
    """One local network to these remote ones, a mapping each."""
    rule = SpdRule(A.networks, tuple(map(network, numbers)))
    return Plan(rules=(rule,), version=version, negotiation="active")


def pairs(gateway: Vpnd) -> dict[str, tuple[int, int]]:
    """The SPIs that each mapping sends and receives on, by its remote network, or its own for the peer."""
    return {
        one.remote if one.remote not in A.networks else one.local: (one.spi_in, one.spi_out)
        for one in gateway.agreed("t1")
    }


def strongswan(wire: Wire, plan: Plan) -> StrongSwan:
    """It has every mapping of before and after."""
    swan = StrongSwan(wire.b.gateway)
    swan.add(plan.change(negotiation="passive").other())
    widen(swan.pid)
    wire.b.gateway.ip("link", "set", "ipsec0", "txqueuelen", str(QUEUE))
    return swan


@pytest.mark.parametrize(("version", "kind"), [("ikev1", "vpnd"), ("ikev2", "vpnd"), ("ikev2", "strongswan")])
def test_the_mappings_that_stay_lose_nothing(lab: Lab, version: str, kind: str, row: TellRow) -> None:
    wire = two_gateways(lab)
    before, after = planned(BEFORE, version), planned(AFTER, version)
    for number in CARRYING:
        wire.a.gateway.add_address(f"10.1.0.{number}/32")
    for number in {*BEFORE, *AFTER}:
        # strongSwan has a policy only where it has an address.
        if number and (number in CARRYING or kind == "strongswan"):
            wire.b.gateway.add_address(f"10.2.{number}.1/32")
    peer: Vpnd | StrongSwan
    if kind == "vpnd":
        peer = Vpnd(wire.b.gateway, B.address, plans=[before.change(negotiation="passive").other()])
    else:
        peer = strongswan(wire, planned(sorted({*BEFORE, *AFTER}), version))
    ours = Vpnd(wire.a.gateway, A.address, plans=[before])

    def all_up(numbers: list[int]) -> bool:
        mappings = ours.tunnel("t1")["mappings"]
        up = [one["remote"] for one in mappings if one["state"] == "up"]
        return up == list(map(network, numbers))

    wait_until(lambda: all_up(BEFORE), "197 mappings to be up", timeout=PATIENCE, interval=0.5)
    if version == "ikev2":
        ours.wait_proved("t1")
    wait_until(
        lambda: {one.mirrored() for one in ours.agreed("t1")} == set(peer.agreed("t1")),
        "both ends to have the same SAs",
        timeout=PATIENCE,
        interval=0.5,
    )
    had = pairs(ours)
    megabits = RATE * PACKET_LENGTH * 8 / 1e6
    ends = [(f"10.1.0.{number}", f"10.2.{number}.1") for number in CARRYING]
    streams = [Streams(wire.a.host, one, wire.b.host, other, megabits) for one, other in ends]
    with streams[0], streams[1], streams[2]:
        ours.replace(after)
        if isinstance(peer, Vpnd):
            peer.replace(after.change(negotiation="passive").other())
        wait_until(lambda: all_up(AFTER), "3 to come and 2 to go", timeout=PATIENCE, interval=0.5)
    has = pairs(ours)
    flows = [stream.require_flows() for stream in streams]
    kept = [number for number in STAY if had[network(number)] == has[network(number)]]
    row(
        "197 mappings, 3 added, 2 removed",
        version=version,
        peer=kind,
        kept=f"{len(kept)} of {len(STAY)}",
        **{"lost/doubled/reordered": " ".join(map(figures, flows))},
        packets=sum(flow.sent for both in flows for flow in both),
    )
    assert kept == STAY
    assert len(has) == len(AFTER)
    theirs = {one.mirrored() for one in peer.agreed("t1")}
    assert set(ours.agreed("t1")) <= theirs
    for flow in (flow for both in flows for flow in both):
        assert (flow.lost, flow.duplicates, flow.reordered) == (0, 0, 0), flow.explanation()
