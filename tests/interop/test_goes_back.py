"""A change that makes a tunnel fail, live with strongSwan: it goes back by itself, and says why.

vpnctl apply --confirm 120 with another version or mode, or a peer where nobody is: the tunnel is gone,
does not come up again, and the confirmed configuration is in force as soon as that is known
vpnctl apply --confirm 5 with algorithms that the peer refuses: the tunnel stays on the IKE SA that it
has, and goes back at the deadline; no packet is lost by either
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.interop.conftest import Opposite
from tests.lab.plan import A, B, End, Plan, Suite
from tests.lab.process import wait_until
from tests.lab.stream import Streams
from tests.lab.topology import agreement
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow]

SPOKEN = {
    "ikev2": {"version": "ikev2"},
    "main": {"version": "ikev1", "mode": "main"},
    "aggressive": {"version": "ikev1", "mode": "aggressive"},
}
NOBODY = End("b", "192.0.2.99", "192.0.2.2", B.inside, B.networks)
CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "ikev2 to ikev1": ("ikev2", SPOKEN["main"], "E-"),
    "ikev1 to ikev2": ("main", SPOKEN["ikev2"], "E-"),
    "main to aggressive": ("main", SPOKEN["aggressive"], "E-"),
    "aggressive to main": ("aggressive", SPOKEN["main"], "E-"),
    "ikev2, nobody there": ("ikev2", {"remote": NOBODY}, "E-|not up after 30 s"),
    "ikev1, nobody there": ("main", {"remote": NOBODY}, "E-|not up after 30 s"),
}
PATIENCE = 90.0
"""Seconds, never what decides: a tunnel has 30 to come up, and the machine may be busy."""
LONG = 600
"""Seconds until it would go back for want of a `confirm`."""


def gateway(vpnd: Vpnd) -> dict[str, Any]:
    found: dict[str, Any] = vpnd.status()["gateway"]
    return found


def running(opposite: Opposite, plan: Plan) -> Vpnd:
    """The tunnel is up, and begins by itself."""
    ours, peer = opposite.ours, opposite.peer
    assert isinstance(ours, Vpnd)
    ours.replace()  # what begins by itself would go on doing so
    peer.terminate_all()
    wait_until(lambda: not peer.sas(), "strongSwan to be idle", interval=0.1)
    peer.replace(plan.other())
    ours.replace(plan)
    ours.wait_state(plan.name, "up", timeout=PATIENCE)
    if plan.version == "ikev2":
        ours.wait_proved(plan.name)
    agreement(ours, peer, plan.name)
    return ours


@pytest.mark.full_faults
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_makes_a_tunnel_fail_goes_back_and_says_why(
    opposite: Opposite, change: str, row: TellRow
) -> None:
    spoken, changes, why = CHANGES[change]
    plan = Plan(name=f"back-{list(CHANGES).index(change)}", negotiation="active").change(**SPOKEN[spoken])
    ours = running(opposite, plan)
    heard = len(ours.events())
    ours.configure(plan.change(**changes))
    began = time.monotonic()
    done = ours.call("POST", "/v1/apply", {"confirm_s": LONG})
    assert [one["class"] for one in done["tunnels"]] == ["break"]
    wait_until(lambda: gateway(ours)["confirm_in_s"] is None, "the confirmed configuration", PATIENCE, 0.1)
    back = time.monotonic() - began
    said = gateway(ours)["rolled_back"]
    assert said["code"] == "E-ROLLED-BACK"
    assert f"{plan.name} was up and did not come up again: " in said["message"]
    assert any(one in said["message"] for one in why.split("|")), said["message"]
    ours.wait_state(plan.name, "up", timeout=PATIENCE)
    agreement(ours, opposite.peer, plan.name)
    require_ping(opposite.wire.a.host, A.inside, B.inside)
    (event,) = [one for one in ours.events()[heard:] if one["event"] == "rolled-back"]
    assert plan.name in event["text"]
    ours.kill()
    ours.start()
    ours.wait_state(plan.name, "up", timeout=PATIENCE)
    assert gateway(ours)["rolled_back"]["message"] == said["message"], "a start uses the confirmed one"
    reason = said["message"].rpartition("come up again: ")[2].rstrip(")")
    row("goes back by itself", change=change, back_s=f"{back:.1f}", reason=reason[:60])


@pytest.mark.full_faults
@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_change_that_the_peer_refuses_costs_no_packet(
    opposite: Opposite, spoken: str, row: TellRow
) -> None:
    """The IKE SA that there is goes on; nobody confirms, so the algorithms go back too."""
    plan = Plan(name=f"refused-{spoken}", negotiation="active", dpd_timeout=3600).change(**SPOKEN[spoken])
    ours = running(opposite, plan)
    require_ping(opposite.wire.a.host, A.inside, B.inside)
    with Streams(opposite.wire.a.host, A.inside, opposite.wire.b.host, B.inside, 1.0) as streams:
        ours.configure(plan.change(ike=Suite(encryption="aes-256", integrity="sha512", dh_group=15)))
        done = ours.call("POST", "/v1/apply", {"confirm_s": 5})
        assert [one["class"] for one in done["tunnels"]] == ["new IKE SA"]
        wait_until(lambda: gateway(ours)["confirm_in_s"] is None, "the deadline", PATIENCE, 0.1)
        assert "not confirmed in time" in gateway(ours)["rolled_back"]["message"]
        agreement(ours, opposite.peer, plan.name)
    for flow in streams.require_flows():
        assert flow.lost == flow.duplicates == 0, flow.explanation()
    assert "tunnel-lost" not in ours.told(plan.name)
    row("goes back at the deadline", spoken=spoken, lost=0, result="nothing lost")
