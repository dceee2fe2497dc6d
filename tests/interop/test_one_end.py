"""What only one end wants, with strongSwan: PFS in each direction, and to be left alone after a dead peer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.interop.batch import Batch, place
from tests.interop.test_restarts import Tunnel, at_once
from tests.lab.echo import Echo, echo
from tests.lab.lab import Lab
from tests.lab.plan import A, Plan
from tests.lab.process import PATIENCE, wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import Wire, two_gateways
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

GROUP = 14
"""The IKE SA's own."""
WITHIN = PATIENCE
"""Seconds until each tunnel has come as far as it comes."""


@dataclass(frozen=True)
class Case:
    """Which end wants PFS, in which version and mode, and who begins."""

    version: str
    mode: str
    role: str
    wanted_here: bool

    def plans(self, number: int) -> tuple[Plan, Plan, bool]:
        """Both ends' plans for this place of the batch, and whether we begin."""
        ours = place(Plan(version=self.version, mode=self.mode), number, self.role).plan
        here, there = (GROUP, 0) if self.wanted_here else (0, GROUP)
        return ours.change(pfs=here), ours.other().change(pfs=there), self.role == "initiator"


CASES = [
    Case(version, mode, role, wanted_here)
    for version, mode in (("ikev2", "main"), ("ikev1", "main"), ("ikev1", "aggressive"))
    for role in ("initiator", "responder")
    for wanted_here in (False, True)
]


def test_pfs_that_one_end_wants(batch: Batch, row: TellRow) -> None:
    if not isinstance(batch.ours, Vpnd):
        pytest.skip("only vpnd explains itself")
    vpnd, pairs = batch.ours, [case.plans(number) for number, case in enumerate(CASES)]
    faults = []
    try:
        batch.begin(pairs)
        for case, (ours, _, _) in zip(CASES, pairs, strict=True):
            try:
                wait_until(partial(has_code, vpnd, ours.name), "a word", WITHIN)
                found = ""
                if case.wanted_here:
                    refused(vpnd, ours, case)
                else:
                    granted(vpnd, ours)
            except (AssertionError, TimeoutError) as fault:
                found = f"{fault} {vpnd.tunnel(ours.name)['mappings']}"
            words = {"version": case.version, "mode": case.mode, "role": case.role}
            wants = "vpnd" if case.wanted_here else "strongSwan"
            row("PFS at one end, with strongSwan", **words, wants=wants, code=code_of(vpnd, ours.name))
            if found:
                faults.append(f"{case}: {found}")
        asked = {Echo(o.local.inside, o.remote.inside, 56): o for o, _, _ in pairs if is_up(vpnd, o)}
        assert set(echo(vpnd.namespace, asked)) == set(asked), "what is up carries packets"
        assert not faults
    finally:
        batch.end()


def code_of(vpnd: Vpnd, name: str) -> str | None:
    """What status says of the mapping, or of the tunnel."""
    tunnel = vpnd.tunnel(name)
    said: dict[str, Any] | None = tunnel["mappings"][0]["reason"] or tunnel["last_error"]
    return said["code"] if said else None


def has_code(vpnd: Vpnd, name: str) -> bool:
    return code_of(vpnd, name) is not None


def is_up(vpnd: Vpnd, plan: Plan) -> bool:
    return bool(vpnd.tunnel(plan.name)["mappings"][0]["spi_in"])


def granted(vpnd: Vpnd, plan: Plan) -> None:
    """PFS is off here: what strongSwan wants, it gets, and a rekey from here as well."""
    assert code_of(vpnd, plan.name) == "W-PFS", code_of(vpnd, plan.name)
    assert vpnd.tunnel(plan.name)["mappings"][0]["pfs"] == GROUP
    vpnd.call("POST", f"/v1/tunnels/{plan.name}/rekey", {"ike": False, "child": True, "timeout_s": 30})
    mapping = vpnd.tunnel(plan.name)["mappings"][0]
    assert (mapping["pfs"], mapping["reason"]["code"]) == (GROUP, "W-PFS")


def refused(vpnd: Vpnd, plan: Plan, case: Case) -> None:
    """PFS is asked for here and off there: named, with both values where the protocol tells them."""
    code = code_of(vpnd, plan.name)
    names = ("E-P2-PROPOSAL", "E-PFS") if case.version == "ikev1" and case.role == "initiator" else ("E-PFS",)
    assert code in names, code
    why = vpnd.get(f"/v1/tunnels/{plan.name}/why")
    if code == "E-PFS":
        assert "14" in why["error"]["message"], why
        assert "off" in why["error"]["message"], why
    if case.version == "ikev2":
        assert is_up(vpnd, plan), "the first SAs go on"


# ------------------------------------------------------------------------- dpd.action = "disconnect"

DPD = 10
"""Seconds, the least that can be configured."""
QUIET = 12.0
"""Seconds in which a disconnected tunnel begins nothing."""


@dataclass(frozen=True)
class Life:
    """A tunnel whose peer is killed, and what brings it back afterwards."""

    version: str
    negotiation: str
    back_by: str

    @property
    def name(self) -> str:
        """For the names of namespaces."""
        return f"{self.version[-1]}{self.negotiation[0]}{self.back_by[0]}"


BACK_BY = {
    "active": ("up", "peer"),
    "passive": ("peer", "up"),
    "traffic-triggered": ("traffic", "peer", "up"),
}
"""What may bring a disconnected tunnel back, the most usual first."""
LIVES = [
    Life(version, negotiation, back_by)
    for version in ("ikev2", "ikev1")
    for negotiation, ways in BACK_BY.items()
    for back_by in ways
]


def test_a_disconnected_tunnel_waits_for_what_may_bring_it_back(
    lab: Lab, row: TellRow, request: pytest.FixtureRequest
) -> None:
    full = request.config.getoption("--full-faults")
    lives = [life for life in LIVES if full or life.back_by == BACK_BY[life.negotiation][0]]
    wires = {life: two_gateways(lab, life.name) for life in lives}

    def play(life: Life) -> None:
        plan = Plan(
            version=life.version, negotiation=life.negotiation, dpd_timeout=DPD, dpd_action="disconnect"
        )
        tunnel = begun(wires[life], plan)
        tunnel.peer.kill()
        tunnel.ours.wait_state(plan.name, "waiting", timeout=DPD + WITHIN)
        stays_waiting(tunnel)
        tunnel.peer = StrongSwan(tunnel.wire.b.gateway)
        tunnel.peer.add(plan.other())
        back(tunnel, life.back_by)
        found = tunnel.ours.tunnel(plan.name)
        row(
            "dpd.action = disconnect, strongSwan killed",
            version=life.version,
            negotiation=life.negotiation,
            back_by=life.back_by,
            then=found["state"],
        )
        assert found["last_error"] is None

    at_once(play, lives)


def begun(wire: Wire, plan: Plan) -> Tunnel:
    """The tunnel, up, whatever begins it."""
    peer = StrongSwan(wire.b.gateway)
    peer.add(plan.other())
    ours = Vpnd(wire.a.gateway, A.address, plans=[plan])
    if plan.negotiation == "passive":
        peer.up(plan.name)
    elif plan.negotiation == "traffic-triggered":
        ours.up(plan.name)
    ours.wait_state(plan.name, "up")
    return Tunnel(wire, ours, peer, plan)


def stays_waiting(tunnel: Tunnel) -> None:
    """No SA, E-DPD, and not one attempt."""
    name = tunnel.plan.name
    heard = len(tunnel.events())
    with pytest.raises(TimeoutError):
        wait_until(lambda: tunnel.ours.tunnel(name)["state"] != "waiting", "an attempt", QUIET, 0.5)
    found = tunnel.ours.tunnel(name)
    assert found["last_error"]["code"] == "E-DPD"
    assert not tunnel.ours.ike_sas(name)
    assert len(tunnel.events()) == heard


def back(tunnel: Tunnel, by: str) -> None:
    """The tunnel comes back by the peer, by traffic, or by `vpnctl up`."""
    name = tunnel.plan.name
    if by == "traffic":
        with tunnel.heartbeat():
            tunnel.ours.wait_state(name, "up", timeout=WITHIN)
        return
    if by == "peer":
        tunnel.peer.up(name)
    else:
        tunnel.ours.up(name)
    tunnel.ours.wait_state(name, "up", timeout=WITHIN)
