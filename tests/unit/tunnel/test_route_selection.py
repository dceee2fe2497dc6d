"""Health and failover together: what a tunnel's life, its probes and its losses do to the traffic."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from tests.unit.tunnel.lives import DEAD, Life, policy
from vpnd.crypto.entropy import SeededEntropy
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ALL_IPV4, Communication, HealthPolicy, Negotiation, TunnelPolicy
from vpnd.tunnel.failover import RETURN_AFTER, NoSuchGroup, RouteMoved
from vpnd.tunnel.health import HealthChanged, HealthState, LossChanged, ProbeUnsent
from vpnd.tunnel.path_size import PathSized, SendProbe
from vpnd.tunnel.route_selection import RouteSelection, probe_mapping

ROUTE = IPv4Network("10.9.0.0/16")
CHECK = HealthPolicy(IPv4Address("169.254.128.1"), IPv4Address("169.254.128.2"), interval=1.0)
FAILING = Diagnosis.of(Code.HEALTH)
NUMBERS = {"primary": 0, "secondary": 100}


def routed(name: str, health: HealthPolicy | None = CHECK, **changes: object) -> TunnelPolicy:
    """A destination-route tunnel of the group."""
    made = policy(name="branch")
    child = replace(made.peer.children[0], local=ALL_IPV4, remote=ALL_IPV4)
    peer = replace(made.peer, children=(child,))
    values = {
        "communication": Communication.DESTINATION_ROUTE,
        "routes": (ROUTE,),
        "priority": NUMBERS[name],
        "health": health,
    }
    every: dict[str, Any] = {**values, **changes}
    return replace(made, peer=peer, **every)


class Site:
    """Two tunnels of a gateway, with what becomes of their probes; `moves` is who carried the route when."""

    def __init__(self, **policies: TunnelPolicy) -> None:
        self.now = 1000.0
        self.selection = RouteSelection(SeededEntropy(1))
        self.lives = {name: Life(made) for name, made in policies.items()}
        self.answers: dict[str, Callable[[float], bool]] = dict.fromkeys(policies, lambda at: True)
        self.moves: list[tuple[float, str]] = []
        self.triggered: list[str] = []
        self.sized: list[PathSized] = []
        named = [replace(made, name=name) for name, made in policies.items()]
        self.selection.configure(self.now, named)
        for made in named:
            self.selection.add(self.now, made.name, made.health)
        self.drain()

    def bring_up(self, name: str) -> None:
        self.lives[name].now = self.now
        self.lives[name].bring_up()
        self.tell(name)

    def lose(self, name: str) -> None:
        self.lives[name].now = self.now
        self.lives[name].lose(DEAD)
        self.tell(name)

    def tell(self, name: str) -> None:
        """The gateway hears of every change of a tunnel."""
        tunnel = self.lives[name].tunnel
        tunnel.policy = replace(tunnel.policy, name=name)
        self.selection.tunnel_changed(self.now, tunnel)
        self.drain()

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (at := self.selection.next_timeout()) is not None and at <= end:
            self.now = max(self.now, at)
            self.selection.handle_timeout(self.now)
            self.drain()
        self.now = end

    def drain(self) -> None:
        while waiting := self.selection.outputs:
            match waiting.popleft():
                case SendProbe(name, source, destination, identifier, sequence):
                    if self.answers[name](self.now):
                        self.selection.handle_reply(self.now, name, destination, source, identifier, sequence)
                case ProbeUnsent(name):
                    self.triggered.append(name)
                case HealthChanged(name, _, after):
                    failing = FAILING if after is HealthState.UNHEALTHY else None
                    self.lives[name].tunnel.set_health(self.now, failing)
                    self.tell(name)
                case LossChanged(name):
                    self.tell(name)
                case PathSized() as sized:
                    self.sized.append(sized)
                case RouteMoved(_, name):
                    self.moves.append((self.now, name))

    @property
    def carrier(self) -> str | None:
        return self.selection.carrier(ROUTE)


@pytest.fixture
def site() -> Site:
    made = Site(primary=routed("primary"), secondary=routed("secondary"))
    made.bring_up("primary")
    made.bring_up("secondary")
    made.run(10)
    assert made.carrier == "primary"
    made.moves.clear()
    return made


def test_large_packets_are_tried_on_a_tunnel_whose_limit_is_known(site: Site) -> None:
    site.selection.set_limit(site.now, "secondary", 1400)
    site.selection.set_limit(site.now, "of no check", 1400)
    site.run(5)
    assert site.sized == [PathSized("secondary", 1400, 1400)]


def test_failed_probes_move_the_traffic_in_time_and_answered_ones_bring_it_back(site: Site) -> None:
    cut = site.now + 0.5
    site.answers["primary"] = lambda at: not cut <= at < cut + 20
    site.run(120)
    (moved, to), (back, again) = site.moves
    assert (to, again) == ("secondary", "primary")
    assert moved - cut <= CHECK.failures * CHECK.interval + 1
    healthy = cut + 20 + CHECK.recoveries * CHECK.interval
    assert healthy - 1 + RETURN_AFTER <= back <= healthy + RETURN_AFTER


def test_a_tunnel_that_goes_down_hands_over_at_once(site: Site) -> None:
    site.lose("primary")
    assert site.moves == [(site.now, "secondary")]


def test_a_tunnel_without_a_check_is_taken_at_its_word() -> None:
    site = Site(primary=routed("primary", None), secondary=routed("secondary", None))
    site.bring_up("secondary")
    assert site.carrier == "secondary"
    site.bring_up("primary")
    assert site.carrier == "primary"
    assert site.selection.check("primary") is None


def test_loss_moves_the_traffic_and_leaves_the_tunnel_up(site: Site) -> None:
    weather = random.Random(4)
    site.answers["primary"] = lambda at: weather.random() >= 0.35
    site.run(120)
    assert [name for _, name in site.moves] == ["secondary"]
    assert site.lives["primary"].state == "up"
    check = site.selection.check("primary")
    assert check is not None
    assert check.lossy


@pytest.mark.slow
def test_loss_of_both_moves_nothing_to_and_fro(site: Site) -> None:
    weather = random.Random(4)
    for name in NUMBERS:
        site.answers[name] = lambda at: weather.random() >= 0.4
    site.run(600)
    assert len(site.moves) <= 3


def test_probes_without_an_sa_are_told_so_that_traffic_triggers_the_tunnel() -> None:
    site = Site(primary=routed("primary", negotiation=Negotiation.TRAFFIC_TRIGGERED))
    site.run(2)
    assert site.triggered
    assert set(site.triggered) == {"primary"}


def test_an_idle_traffic_triggered_tunnel_stands_by() -> None:
    site = Site(
        primary=routed("primary", None),
        secondary=routed("secondary", None, negotiation=Negotiation.TRAFFIC_TRIGGERED),
    )
    site.tell("primary")
    site.tell("secondary")
    assert site.carrier == "secondary"


def test_a_removed_tunnel_neither_probes_nor_carries(site: Site) -> None:
    site.selection.remove(site.now, "primary")
    site.drain()
    assert site.carrier == "secondary"
    assert site.selection.check("primary") is None


def test_switching_by_hand(site: Site) -> None:
    site.selection.switch(site.now, "primary", "secondary")
    assert site.carrier == "secondary"
    assert site.selection.group(str(ROUTE)).by_hand == "secondary"
    with pytest.raises(NoSuchGroup):
        site.selection.switch(site.now, "nothing", None)


def test_who_carries(site: Site) -> None:
    assert site.selection.carries(replace(routed("primary"), name="primary"))
    assert not site.selection.carries(replace(routed("secondary"), name="secondary"))
    assert site.selection.carries(policy())


def test_the_mapping_that_carries_the_probe() -> None:
    several = policy(mappings=3)
    inside = HealthPolicy(IPv4Address("10.1.2.1"), IPv4Address("10.2.2.1"))
    assert probe_mapping(several) is None
    assert probe_mapping(replace(several, health=inside)) == 2
    assert probe_mapping(replace(several, health=CHECK)) is None
