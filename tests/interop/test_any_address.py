"""A hub whose peers have any address, with strongSwan at the other end, which moves and is copied."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from tests.lab.hub import ADDRESS, HUB, INSIDE, NAT_ADDRESS, Places, hub_plan, places, plan
from tests.lab.lab import Lab
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

DECIDED = 20
"""Seconds for strongSwan to hear what becomes of it: it repeats IKE_AUTH after 4 and 11 s."""


@dataclass
class Scene:
    """The hub with its two tunnels, and where machines can be."""

    version: str
    places: Places
    hub: Vpnd

    def machine(self, who: str, place: str) -> StrongSwan:
        """strongSwan with this identity at this place."""
        namespace = self.places.at[place]
        namespace.ip("address", "replace", f"{INSIDE[who]}/32", "dev", "lo")
        machine = StrongSwan(namespace)
        machine.add(plan(who, place, version=self.version))
        return machine

    def require_traffic(self, who: str, place: str) -> None:
        """Pings pass both ways."""
        there = self.places.at[place]
        require_ping(there, INSIDE[who], HUB.inside)
        require_ping(self.places.hub, HUB.inside, INSIDE[who])

    def peer(self, who: str) -> str | None:
        """Where the hub has the peer."""
        address: str | None = self.hub.tunnel(who)["peer"]["address"]
        return address

    def codes(self, who: str) -> set[str | None]:
        """The codes of a tunnel's events."""
        lines = self.hub.ctl("--json", "events").stdout.splitlines()
        return {event["code"] for event in map(json.loads, lines) if event["tunnel"] == who}


@pytest.fixture(params=["ikev2", "ikev1"])
def scene(request: pytest.FixtureRequest, lab: Lab) -> Scene:
    """The hub runs, and no peer has come yet."""
    where = places(lab)
    plans = [hub_plan(who, version=request.param) for who in INSIDE]
    return Scene(request.param, where, Vpnd(where.hub, HUB.address, plans=plans))


def test_a_peer_is_where_it_begins_and_is_followed_when_it_begins_elsewhere(scene: Scene) -> None:
    assert scene.peer("branch") is None
    assert scene.hub.tunnel("branch")["state"] == "waiting"
    refused = scene.hub.up("branch")
    assert refused.returncode == 1
    assert "only it can begin" in refused.stdout + refused.stderr
    first = scene.machine("branch", "place-1")
    assert first.up("branch").returncode == 0
    scene.hub.wait_state("branch", "up")
    assert scene.peer("branch") == ADDRESS["place-1"]
    scene.require_traffic("branch", "place-1")
    scene.hub.ctl("rekey", "branch")
    scene.require_traffic("branch", "place-1")
    first.kill()
    second = scene.machine("branch", "place-2")
    assert second.up("branch", DECIDED).returncode == 0
    wait_until(lambda: scene.peer("branch") == ADDRESS["place-2"], "the peer at its new place")
    assert "E-PEER-ELSEWHERE" in scene.codes("branch")
    scene.require_traffic("branch", "place-2")
    second.kill()
    behind = scene.machine("branch", "behind-1")
    assert behind.up("branch", DECIDED).returncode == 0
    wait_until(lambda: scene.peer("branch") == NAT_ADDRESS, "the peer behind the NAT")
    scene.require_traffic("branch", "behind-1")
    assert scene.hub.tunnel("branch")["peer"]["nat"] is True


def test_a_copy_of_a_peer_is_refused_while_the_peer_answers(scene: Scene) -> None:
    first = scene.machine("branch", "place-1")
    assert first.up("branch").returncode == 0
    copy = scene.machine("branch", "place-2")
    assert copy.up("branch", DECIDED).returncode != 0
    assert scene.peer("branch") == ADDRESS["place-1"]
    assert "E-ID-TAKEN" in scene.codes("branch")
    scene.require_traffic("branch", "place-1")
    assert len(first.sas()) == 1


def test_two_peers_behind_one_nat_have_a_tunnel_each(scene: Scene) -> None:
    for who, place in (("branch", "behind-1"), ("shop", "behind-2")):
        assert scene.machine(who, place).up(who).returncode == 0
    tunnels = [scene.hub.wait_state(who, "up") for who in ("branch", "shop")]
    assert [tunnel["peer"]["address"] for tunnel in tunnels] == [NAT_ADDRESS] * 2
    assert len({tunnel["peer"]["port"] for tunnel in tunnels}) == 2
    scene.require_traffic("branch", "behind-1")
    scene.require_traffic("shop", "behind-2")


def test_either_side_may_start_again(scene: Scene) -> None:
    peer = scene.machine("branch", "place-1")
    assert peer.up("branch").returncode == 0
    scene.hub.kill()
    scene.hub.start()
    assert scene.peer("branch") is None
    peer.terminate_all()
    assert peer.up("branch", DECIDED).returncode == 0
    scene.require_traffic("branch", "place-1")
    peer.kill()
    again = scene.machine("branch", "place-1")
    assert again.up("branch", DECIDED).returncode == 0
    scene.require_traffic("branch", "place-1")


def test_a_peer_may_be_in_the_routes_of_its_own_tunnel(lab: Lab) -> None:
    """What the hub sends to it does not enter the tunnel, and what it sends passes the reverse-path check."""
    where = places(lab)
    tunnel = hub_plan("branch", routed=True)
    holding = replace(tunnel.remote, networks=(*tunnel.remote.networks, "203.0.113.0/24"))
    everywhere = tunnel.change(remote=holding)
    scene = Scene("ikev2", where, Vpnd(where.hub, HUB.address, plans=[everywhere]))
    namespace = where.at["place-1"]
    namespace.ip("address", "replace", f"{INSIDE['branch']}/32", "dev", "lo")
    machine = StrongSwan(namespace)
    machine.add(plan("branch", "place-1", routed=True))
    assert machine.up("branch").returncode == 0
    scene.hub.wait_state("branch", "up")
    scene.require_traffic("branch", "place-1")
