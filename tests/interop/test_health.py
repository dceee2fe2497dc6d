"""The health check inside one tunnel, by routes and by mappings, with vpnd and with strongSwan opposite."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.lab.lab import Lab
from tests.lab.plan import A, B, HealthCheck, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import two_gateways
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.slow]

CHECK = HealthCheck("169.254.128.1", "169.254.128.2")


def plan_of(routed: bool) -> Plan:
    """A tunnel whose mappings hold the probe where they must."""
    plan = Plan(routed=routed, negotiation="active", health=CHECK)
    if routed:
        return plan
    return plan.change(
        local=replace(A, networks=(*A.networks, f"{CHECK.local}/32")),
        remote=replace(B, networks=(*B.networks, f"{CHECK.remote}/32")),
    )


@pytest.mark.parametrize("routed", [True, False], ids=["routes", "mappings"])
@pytest.mark.parametrize("peer", ["vpnd", pytest.param("strongswan", marks=pytest.mark.strongswan)])
def test_probes_are_answered_and_their_silence_is_heard(lab: Lab, peer: str, routed: bool) -> None:
    wire, plan = two_gateways(lab), plan_of(routed)
    if peer == "vpnd":
        theirs = Vpnd(wire.b.gateway, B.address)
        theirs.configure(plan.other().change(negotiation="passive"))
        theirs.ctl("reload")
    else:
        wire.b.gateway.add_address(f"{CHECK.remote}/32")
        StrongSwan(wire.b.gateway).add(plan.other())
    ours = Vpnd(wire.a.gateway, A.address)
    ours.configure(plan)
    ours.ctl("reload")
    ours.wait_state(plan.name, "up")

    def state() -> str:
        found: str = ours.tunnel(plan.name)["health"]["state"]
        return found

    wait_until(lambda: state() == "healthy", "the first answer")
    # The peer receives no ESP any more; its IKE lives.
    wire.b.gateway.run("nft", "add table inet lab")
    wire.b.gateway.run("nft", "add chain inet lab input { type filter hook input priority 0 ; }")
    wire.b.gateway.run("nft", "add rule inet lab input udp dport 4500 @th,64,32 != 0 drop")
    unhealthy = ours.wait_state(plan.name, "unhealthy")
    assert unhealthy["mappings"][0]["state"] == "up"
    assert unhealthy["carries_traffic"] is False
    wire.b.gateway.run("nft", "delete table inet lab")
    ours.wait_state(plan.name, "up")
    assert ours.stop() == 0
    left = wire.a.gateway.left_behind()
    assert left["interfaces"] == []
    assert not any(CHECK.remote in route and "blackhole" not in route for route in left["routes"])
