"""A BGP session over a route-mode tunnel stays Established through every change that costs nothing.

FRR speaks it on the tunnel's interface, with addresses that were given to that by hand. Its counters are the
proof: one session established, none dropped, and the neighbour's network is reached through the interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.test_change_classes import STRONGER, interface_of, messages, said, widen_vpnd
from tests.lab.frr import HOLD, Frr, is_installed
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.topology import agreement, two_gateways
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow
from vpnd.config.classes import ChangeClass

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.full_faults,
    pytest.mark.skipif(not is_installed(), reason="FRR is not installed: apt-get install frr"),
]

LOCAL, REMOTE = "169.254.77.1", "169.254.77.2"
OURS, THEIRS = "10.77.1.0/24", "10.77.2.0/24"
PLAN = Plan(routed=True, negotiation="active")
ESP, IKE = PLAN.change(esp=STRONGER), PLAN.change(esp=STRONGER, ike=STRONGER)


@dataclass(frozen=True)
class Step:
    """What is configured next, and its class."""

    change_class: ChangeClass
    what: str
    plan: Plan


STEPS = [
    Step(ChangeClass.LIVE, "dpd, description", PLAN.change(dpd_timeout=60, lines=('description = "x"',))),
    Step(ChangeClass.LIVE, "back", PLAN),
    Step(ChangeClass.NEXT_SA, "lifetimes", PLAN.change(lifetime=7200, ike_lifetime=43200)),
    Step(ChangeClass.REKEY, "ESP algorithm", ESP),
    Step(ChangeClass.REKEY, "PFS", ESP.change(pfs=14)),
    Step(ChangeClass.NEW_IKE_SA, "IKE algorithm", IKE),
    Step(ChangeClass.NEW_IKE_SA, "encapsulation", IKE.change(encapsulation="auto")),
    Step(ChangeClass.NEW_IKE_SA, "all back", PLAN),
]


def is_applied(ours: Vpnd, plan: Plan) -> bool:
    """Whether the SAs are as configured."""
    tunnel = ours.tunnel("t1")
    ike, (mapping,) = tunnel["ike"], tunnel["mappings"]
    return (
        (tunnel["state"], mapping["state"]) == ("up", "up")
        and ike is not None
        and (ike["encryption"], mapping["encryption"]) == (plan.ike.encryption, plan.esp.encryption)
        and mapping["encapsulation"] == ("udp" if plan.encapsulation == "udp" else "esp")
    )


def heard(session: dict[str, Any]) -> int:
    """Keepalives that have come so far."""
    return int(session["messageStats"]["keepalivesRecv"])


@pytest.mark.parametrize("version", ["ikev1", "ikev2"])
def test_bgp_stays_established(lab: Lab, version: str, row: TellRow) -> None:
    wire = two_gateways(lab)
    plan = PLAN.change(version=version)
    peer = Vpnd(wire.b.gateway, B.address, plans=[plan.change(negotiation="passive").other()], running=False)
    path = peer.directory / "tunnels.d" / f"{plan.name}.toml"
    widen_vpnd(path)
    path.write_text(path.read_text().replace('encapsulation = "udp"', 'encapsulation = "auto"'))
    peer.start()
    ours = Vpnd(wire.a.gateway, A.address, plans=[plan])
    if version == "ikev2":
        ours.wait_proved(plan.name)
    agreement(ours, peer, plan.name)
    for site, address in ((wire.a, LOCAL), (wire.b, REMOTE)):
        site.gateway.add_address(f"{address}/30", plan.interface)
    here = Frr(wire.a.gateway, LOCAL, REMOTE, (65001, 65002), OURS)
    there = Frr(wire.b.gateway, REMOTE, LOCAL, (65002, 65001), THEIRS)
    for router in (here, there):
        wait_until(lambda r=router: r.neighbour()["bgpState"] == "Established", "BGP to be up", timeout=30)  # type: ignore[misc]  # a default binds the value of this turn
    index, _ = interface_of(ours)
    since = [router.neighbour()["bgpTimerUpEstablishedEpoch"] for router in (here, there)]
    for step in STEPS:
        wanted, before = step.plan.change(version=version), messages(ours)
        counted = [heard(router.neighbour()) for router in (here, there)]
        ours.replace(wanted)
        wait_until(lambda: is_applied(ours, wanted), f"{step.what} to be applied", interval=0.1)  # noqa: B023  # used at once
        # As many keepalives as fit into the hold time, and one more: one that was lost would be missed.
        for router, had in zip((here, there), counted, strict=True):
            wait_until(
                lambda r=router, n=had: heard(r.neighbour()) > n + HOLD // (HOLD // 3),  # type: ignore[misc]  # as above
                "keepalives after the change",
                timeout=5 * HOLD,
                interval=0.5,
            )
        sessions = [router.neighbour() for router in (here, there)]
        now, _ = interface_of(ours)
        row(
            "BGP through changes",
            **{
                "version": version,
                "class": step.change_class.value,
                "what": step.what,
                "state": "/".join(one["bgpState"] for one in sessions),
                "established/dropped": "/".join(
                    f"{one['connectionsEstablished']}+{one['connectionsDropped']}" for one in sessions
                ),
                "up for": f"{sessions[0]['bgpTimerUpMsec'] // 1000} s",
                "interface": f"{index} to {now}" if now != index else f"{index} stays",
                "messages": said(before, messages(ours)),
            },
        )
        for one, epoch in zip(sessions, since, strict=True):
            assert one["bgpState"] == "Established"
            assert (one["connectionsEstablished"], one["connectionsDropped"]) == (1, 0)
            # bgpd computes the moment from how long it is up: rounded.
            assert abs(one["bgpTimerUpEstablishedEpoch"] - epoch) <= 2
        assert now == index
        learnt = wire.a.gateway.ip("route", "show", THEIRS).stdout
        assert f"via {REMOTE} dev {plan.interface}" in learnt
