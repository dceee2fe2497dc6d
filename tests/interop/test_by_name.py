"""A peer by its domain name, without remote_id: strongSwan says its address, that name, or another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest

from tests.interop.batch import ROLES, negotiation
from tests.interop.pairwise import left_out, pairwise
from tests.lab.lab import Lab, write
from tests.lab.plan import A, B, Plan
from tests.lab.process import PATIENCE, wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import Wire, two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd, with_names

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

NAME = "branch.vpn.example"
BY_NAME = replace(B, address=NAME, identity="")
SAYS = {"its address": B.address, "its name": NAME}
SPOKEN = ("ikev2-main", "ikev1-main", "ikev1-aggressive")
AXES = (SPOKEN, ROLES, tuple(SAYS))


@dataclass
class Named:
    """vpnd, which finds the peer by its name, and strongSwan."""

    wire: Wire
    ours: Vpnd
    peer: StrongSwan

    def begin(self, plan: Plan, says: str) -> None:
        """Both ends know the tunnel, and the one that is to begin does."""
        theirs = plan.change(remote=replace(B, identity=says)).other()
        self.peer.replace(theirs)
        self.ours.replace(plan)
        if plan.negotiation == "passive":
            events = self.ours.events
            wait_until(lambda: "peer-resolved" in {e["event"] for e in events(plan.name)}, "the look-up")
            self.peer.begin([plan.name])

    def sas(self, plan: Plan) -> list[dict[str, Any]]:
        """strongSwan's IKE SAs of a tunnel; one that we refused stays with it for a while."""
        return [sa for sa in self.peer.sas() if sa["name"] == plan.name]


@pytest.fixture(scope="module")
def named() -> Iterator[Named]:
    with Lab() as lab:
        wire = two_gateways(lab)
        hosts = write(lab.directory / "hosts", f"127.0.0.1 localhost\n{B.address} {NAME}\n")
        ours = Vpnd(wire.a.gateway, A.address, with_names(hosts))
        yield Named(wire, ours, StrongSwan(wire.b.gateway))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each pair of values meets; with `--full-grid` every combination."""
    if "spoken" in metafunc.fixturenames:
        rows = product(*AXES) if metafunc.config.getoption("--full-grid") else pairwise(*AXES)
        metafunc.parametrize(("spoken", "role", "says"), list(rows))


def test_pairwise_leaves_no_pair_out() -> None:
    assert left_out(pairwise(*AXES), *AXES) == []


def test_a_peer_by_name_is_accepted(spoken: str, role: str, says: str, named: Named) -> None:
    version, mode = spoken.split("-")
    plan = Plan(
        name=f"{spoken}-{role}-{says[4]}",
        version=version,
        mode=mode,
        remote=BY_NAME,
        negotiation=negotiation(role),
    )
    try:
        named.begin(plan, SAYS[says])
        tunnel = named.ours.wait_state(plan.name, "up")
        assert tunnel["last_error"] is None
        assert [sa["local-id"] for sa in named.sas(plan)] == [SAYS[says]]
        require_ping(named.wire.a.host, A.inside, B.inside)
    finally:
        named.ours.replace()
        wait_until(lambda: not named.sas(plan), "strongSwan to have no SA")


@pytest.mark.parametrize("version", ["ikev2", "ikev1"])
def test_a_peer_by_name_that_says_another_is_refused(version: str, named: Named) -> None:
    plan = Plan(name=f"{version}-other", version=version, remote=BY_NAME, negotiation="active")
    try:
        named.begin(plan, "other.vpn.example")
        wait_until(lambda: named.ours.tunnel(plan.name)["last_error"], "a refusal", PATIENCE)
        error = named.ours.tunnel(plan.name)["last_error"]
        assert error["code"] == "E-ID", error
        assert "other.vpn.example" in error["message"]
    finally:
        named.ours.replace()
