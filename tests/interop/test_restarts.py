"""strongSwan is killed, says no DELETE, and starts again with an empty memory; or it never comes back.

All cases of a test run at the same time, each on a wire of its own: they wait most of the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import pytest

from tests.lab.heartbeat import Heartbeat
from tests.lab.lab import Lab
from tests.lab.plan import NO_DPD, A, B, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import Wire, two_gateways
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

NAME = "t1"
BACK_WITHIN = 5.0
"""Seconds after the start of strongSwan until traffic passes again; the row has the figure.

What is asserted is that the doubt about the peer, or the peer's own beginning, has brought it back: with
`NO_DPD` nothing else does.
"""
ABSENT = 0.2
"""Seconds between the kill and the start."""
DPD = 30
DPD_LATE = 1.0
"""Seconds by which a dead peer may be found late; the row has the figure."""
CLOCKS = 0.15
"""Seconds between two pings, and what the times of ping and of vpnd may differ by."""
KEPT_ALIVE = 2.0

Item = TypeVar("Item")


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the run takes its time."""
    return bool(request.config.getoption("--full-faults"))


def at_once(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Do it for every item at the same time; raises the first failure when all are done."""
    items = list(items)
    with ThreadPoolExecutor(len(items)) as pool:
        for outcome in [pool.submit(work, item) for item in items]:
            outcome.result()


@dataclass
class Tunnel:
    """A wire with both daemons, and a tunnel between them that is up."""

    wire: Wire
    ours: Vpnd
    peer: StrongSwan
    plan: Plan

    @classmethod
    def on(cls, wire: Wire, plan: Plan) -> Tunnel:
        """Start both ends and bring the tunnel up."""
        ours = Vpnd(wire.a.gateway, A.address, plans=[plan])
        peer = StrongSwan(wire.b.gateway)
        peer.add(plan.other())
        if plan.negotiation == "passive":
            peer.up(plan.name)
        ours.wait_state(plan.name, "up")
        return cls(wire, ours, peer, plan)

    def heartbeat(self) -> Heartbeat:
        """From vpnd's side to strongSwan's and back."""
        return Heartbeat(self.wire.a.host, A.inside, B.inside)

    def events(self) -> list[dict[str, Any]]:
        """What vpnd has told of this tunnel."""
        return self.ours.events(self.plan.name)

    def story(self) -> str:
        """The same as an operator reads it."""
        return self.ours.ctl("events").stdout


@dataclass(frozen=True)
class Restart:
    """Who begins after the restart: vpnd, strongSwan, or both."""

    version: str
    negotiation: str
    peer_begins: bool

    @property
    def name(self) -> str:
        """For the names of namespaces."""
        return f"{self.version[-1]}{self.negotiation[0]}{'s' if self.peer_begins else 'n'}"


RESTARTS = [
    Restart(version, negotiation, peer_begins)
    for version in ("ikev1", "ikev2")
    for negotiation, peer_begins in (("active", False), ("passive", True), ("active", True))
]


def test_a_peer_that_was_killed_has_its_traffic_back_within_five_seconds(
    lab: Lab, full: bool, row: TellRow
) -> None:
    restarts = [one for one in RESTARTS if full or one.negotiation == "passive" or not one.peer_begins]
    wires = {restart: two_gateways(lab, restart.name) for restart in restarts}
    found: dict[Restart, tuple[float | None, float | None]] = {}

    def play(restart: Restart) -> None:
        plan = Plan(name=NAME, version=restart.version, negotiation=restart.negotiation, dpd_timeout=NO_DPD)
        tunnel = Tunnel.on(wires[restart], plan)
        found[restart] = restarted(tunnel, restart)

    try:
        at_once(play, restarts)
    finally:
        for restart, (outage, after) in found.items():
            row(
                "peer restarts",
                version=restart.version,
                vpnd=restart.negotiation,
                strongSwan="begins" if restart.peer_begins else "waits",
                target=f"traffic {BACK_WITHIN:g} s after its start",
                outage="without end" if outage is None else f"{outage:.1f} s",
                **{"after start": "never" if after is None else f"{after:.1f} s"},
            )
    assert len(found) == len(restarts)


def restarted(tunnel: Tunnel, restart: Restart) -> tuple[float | None, float | None]:
    """Kill strongSwan and start it; returns the outage and how much of it was after the start, in seconds."""
    with tunnel.heartbeat() as heartbeat:
        wait_until(lambda: len(heartbeat.answers) > KEPT_ALIVE / 0.1, "traffic")
        killed = time.time()
        assert tunnel.peer.kill() != 0
        time.sleep(ABSENT)
        tunnel.peer = StrongSwan(tunnel.wire.b.gateway)
        tunnel.peer.add(tunnel.plan.other())
        # Before it has its configuration it refuses everything.
        started = time.time()
        if restart.peer_begins:
            tunnel.peer.begin([tunnel.plan.name])
        wait_until(lambda: heartbeat.first_after(started) is not None, "traffic again")
        back = heartbeat.first_after(started)
    assert back is not None, tunnel.story()
    require_one_tunnel(tunnel)
    require_story(tunnel, restart)
    return back - killed, back - started


def require_one_tunnel(tunnel: Tunnel) -> None:
    """Both ends agree on one IKE SA and one pair that carries traffic; vpnd has not said that it was down."""

    def settled() -> bool:
        here, there = tunnel.ours.agreed(NAME), tunnel.peer.agreed(NAME)
        return len(here) == 1 and [here[0].mirrored()] == there and len(tunnel.peer.sas()) == 1

    wait_until(settled, f"one tunnel at both ends:\n{tunnel.story()}")


def require_story(tunnel: Tunnel, restart: Restart) -> None:
    """The events say what an operator wants to know."""
    kinds = [event["event"] for event in tunnel.events()]
    lost = [event["code"] for event in tunnel.events() if event["event"] == "tunnel-lost"]
    assert set(lost) <= {"E-PEER-RESTARTED"}, tunnel.story()
    if restart.negotiation == "passive":
        # This end begins nothing: by INITIAL_CONTACT the old SA is gone, not as a redundant one, later.
        assert "E-PEER-RESTARTED" in tunnel.ours.told(NAME), tunnel.story()
    if not restart.peer_begins:
        assert "peer-silent" in kinds, tunnel.story()
        wait_until(lambda: "peer-answers" in tunnel.story(), "the end of the story")


@dataclass(frozen=True)
class Death:
    """A peer that dies: what DPD is told to do, and whether there are packets for it meanwhile."""

    version: str
    action: str
    loaded: bool

    @property
    def name(self) -> str:
        """For the names of namespaces."""
        return f"{self.version[-1]}{self.action[0]}"


DEATHS = [
    Death("ikev1", "disconnect", loaded=False),
    Death("ikev1", "retry", loaded=True),
    Death("ikev2", "disconnect", loaded=True),
    Death("ikev2", "retry", loaded=False),
]
AFTERWARDS = {"disconnect": "waiting", "retry": "connecting"}
"""The state of a tunnel that begins nothing by itself."""


def test_a_peer_that_is_gone_for_good_is_found_in_time(lab: Lab, full: bool, row: TellRow) -> None:
    if not full:
        pytest.skip("waits for the 30 s of DPD: only with --full-faults")
    wires = {death: two_gateways(lab, death.name) for death in DEATHS}
    found: dict[Death, tuple[float, str]] = {}

    def play(death: Death) -> None:
        plan = Plan(name=NAME, version=death.version, dpd_timeout=DPD, dpd_action=death.action)
        found[death] = died(Tunnel.on(wires[death], plan), death)

    try:
        at_once(play, DEATHS)
    finally:
        for death, (after, state) in found.items():
            row(
                "dead peer detection",
                version=death.version,
                action=death.action,
                traffic="loaded" if death.loaded else "idle",
                target=f"{DPD} to {DPD + DPD_LATE:g} s",
                figure=f"{after:.2f} s",
                then=state,
            )
    for death, (after, state) in found.items():
        assert after >= DPD - CLOCKS, death
        assert state == AFTERWARDS[death.action], death


def died(tunnel: Tunnel, death: Death) -> tuple[float, str]:
    """Kill strongSwan for good; how long after its last packet it was found dead, and the state then."""
    with tunnel.heartbeat() as heartbeat:
        wait_until(lambda: len(heartbeat.answers) > KEPT_ALIVE / 0.1, "traffic")
        if not death.loaded:
            heartbeat.stop()
        tunnel.peer.kill()
        last = heartbeat.answers[-1]
        state = tunnel.ours.wait_state(NAME, "waiting", "connecting", "down", timeout=DPD + 30)["state"]
    (lost,) = [event for event in tunnel.events() if event["event"] == "tunnel-lost"]
    assert lost["code"] == "E-DPD", tunnel.story()
    # By the timer of so many seconds, and by no later one.
    assert any(f"nothing heard for {seconds} s" in lost["text"] for seconds in (DPD, DPD + 1)), lost
    assert tunnel.ours.tunnel(NAME)["mappings"][0]["spi_in"] is None
    return datetime.fromisoformat(lost["at"]).timestamp() - last, str(state)
