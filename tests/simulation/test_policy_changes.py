"""The configuration of a tunnel changes while it is up: what holds at once, and what needs another IKE SA."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, speaking
from vpnd.ike.outputs import ChildFailed, Failed, IkeRekeyFailed, PeerDead
from vpnd.ike.session import SaSnapshot
from vpnd.model.policy import ChildPolicy, DpdPolicy, Encapsulation, PeerPolicy
from vpnd.model.proposals import Proposal
from vpnd.wire.iana import Protocol

VERSIONS: list[dict[str, Any]] = [{}, speaking(MAIN), speaking(AGGRESSIVE)]
SPOKEN = ["ikev2", "main", "aggressive"]
UNKNOWN_SPI = 0xDEAD0000
LATER = 40_000
"""The lifetime of IKE SAs after the change, in seconds."""

each_version = pytest.mark.parametrize("changes", VERSIONS, ids=SPOKEN)
each_side = pytest.mark.parametrize("side", ["a", "b"])


def pair_of(changes: dict[str, Any], seed: int = 0) -> Pair:
    """A tunnel that a has begun, and that is up."""
    pair = Pair(seed, changes_a=changes, changes_b=changes)
    pair.establish()
    return pair


def change(pair: Pair, side: str, **changes: Any) -> None:
    gateway = pair.world.gateways[side]
    policy: PeerPolicy = replace(gateway.policies[gateway.tunnel], **changes)
    gateway.policies[policy.name] = policy
    gateway.do("set_peer", policy)


def the_sa(pair: Pair, side: str) -> SaSnapshot:
    (sa,) = pair.world.gateways[side].endpoint.snapshot().sas
    return sa


TERMS: dict[str, dict[str, Any]] = {
    "algorithms": {"proposals": (Recipe(encryption=("aes-128", "aes-256")).ike_proposal(),)},
    "encapsulation": {"encapsulation": Encapsulation.UDP},
}
"""Of the first the peer has one; the second needs another IKE SA beside."""
each_term = pytest.mark.parametrize("term", TERMS)


@each_version
@each_side
@each_term
@pytest.mark.parametrize("seed", [4, 5])
def test_an_ike_sa_of_before_gets_a_successor_and_goes(
    seed: int, term: str, side: str, changes: dict[str, Any]
) -> None:
    """Whichever of the two would stay if both sides had begun at once."""
    pair = pair_of(changes, seed)
    before, children = the_sa(pair, side).spi_i, the_sa(pair, side).children
    change(pair, side, lifetime=LATER, **TERMS[term])
    pair.world.run_for(20)
    assert the_sa(pair, side).spi_i != before
    assert (the_sa(pair, side).children == children) is (term == "algorithms")
    pair.assert_agreement()
    assert pair.a.sends()
    assert not pair.a.of(Failed)
    assert not pair.b.of(Failed)


def test_a_rekey_that_is_refused_by_what_was_asked_before_a_change_is_asked_again() -> None:
    pair = pair_of({})
    before = the_sa(pair, "a").spi_i
    change(pair, "a", proposals=(Recipe(encryption=("aes-256",)).ike_proposal(),))
    pair.world.run_until(lambda: pair.world.ladder().steps, within=1)
    change(pair, "a", **TERMS["algorithms"])
    pair.world.run_for(5)
    assert not pair.a.of(IkeRekeyFailed)
    assert the_sa(pair, "a").spi_i != before
    pair.assert_agreement()


@each_version
def test_it_stays_while_the_peer_is_silent_and_is_tried_again(changes: dict[str, Any]) -> None:
    pair = pair_of(changes | {"dpd": DpdPolicy(timeout=3600)})
    before = the_sa(pair, "a").spi_i
    pair.world.silence("b")
    change(pair, "a", **TERMS["encapsulation"])
    pair.world.run_until(lambda: len(pair.a.of(IkeRekeyFailed)) == 3, within=900)
    assert [sa.spi_i for sa in pair.a.endpoint.snapshot().sas] == [before]
    assert not pair.a.of(Failed)
    pair.world.clear_sky()
    pair.world.run_until(lambda: pair.a.ike_sas()[0].spi_i != before, within=300)
    pair.world.run_for(60)
    pair.assert_agreement()
    assert pair.a.sends()


@each_version
@each_side
def test_without_dead_peer_detection_nobody_asks_any_more(side: str, changes: dict[str, Any]) -> None:
    pair = pair_of(changes)
    pair.world.run_for(60)
    for one in ("a", "b"):
        change(pair, one, dpd=DpdPolicy(enabled=False))
    pair.world.settle()
    pair.world.clear_ladder()
    pair.world.silence(side)
    pair.world.run_for(300)
    assert not pair.world.ladder().steps
    assert pair.a.ike_sas()
    assert pair.b.ike_sas()


@each_version
@each_side
@pytest.mark.parametrize("before", [DpdPolicy(enabled=False), DpdPolicy(timeout=600)], ids=["off", "slow"])
def test_dead_peer_detection_begins_at_once(side: str, before: DpdPolicy, changes: dict[str, Any]) -> None:
    pair = pair_of(changes | {"dpd": before})
    pair.world.silence("b" if side == "a" else "a")
    pair.world.run_for(20)
    change(pair, side, dpd=DpdPolicy(timeout=30))
    pair.world.run_until(lambda: pair.world.gateways[side].of(PeerDead), within=30)


@each_version
def test_a_question_that_is_out_is_waited_for(changes: dict[str, Any]) -> None:
    pair = pair_of(changes | {"dpd": DpdPolicy(timeout=60)})
    pair.world.silence("b")
    pair.a.probe()
    pair.world.run_for(1)
    change(pair, "a", dpd=DpdPolicy(enabled=False))
    pair.world.run_until(lambda: pair.a.of(PeerDead), within=120)


@each_version
@each_side
def test_an_sa_pair_gets_one_successor_at_once(side: str, changes: dict[str, Any]) -> None:
    """However often it is asked for; and one that was succeeded gets no other."""
    pair = pair_of(changes)
    gateway = pair.world.gateways[side]
    before = gateway.child()
    for _ in range(2):
        gateway.do("rekey_child", before.tunnel, before.spi_in)
    pair.world.run_for(5)
    after = gateway.child()
    assert after.spi_in != before.spi_in
    pair.world.clear_ladder()
    deadlines = the_sa(pair, side).deadlines
    gateway.do("rekey_child", before.tunnel, before.spi_in)
    gateway.do("rekey_child", before.tunnel, UNKNOWN_SPI)
    assert the_sa(pair, side).deadlines == deadlines
    pair.world.run_for(1)
    assert gateway.child() == after
    assert not pair.world.ladder().steps


def begun(changes: dict[str, Any]) -> tuple[Pair, tuple[ChildPolicy, ...]]:
    """A tunnel whose second mapping a has just asked for, and a's mappings."""
    pair = Pair(recipe=Recipe(mappings=2), changes_a=changes, changes_b=changes)
    pair.establish()
    pair.a.initiate(1)
    return pair, pair.a.policies[pair.a.tunnel].children


@each_version
def test_a_pair_of_a_mapping_that_went_meanwhile_goes(changes: dict[str, Any]) -> None:
    pair, (first, _) = begun(changes)
    change(pair, "a", children=(first,))
    pair.world.run_for(20)
    assert pair.a.children(1) == []
    assert pair.b.children(1) == []
    assert pair.a.sends(0)


@each_version
def test_a_pair_of_a_mapping_with_other_ranges_goes_and_the_new_one_is_asked_for(
    changes: dict[str, Any],
) -> None:
    pair, (first, second) = begun(changes)
    asked = pair.a.of(ChildFailed)
    change(pair, "a", children=(first, replace(second, remote=ip_network("10.99.0.0/24"))))
    pair.world.run_for(20)
    assert pair.a.children(1) == []
    assert len(pair.a.of(ChildFailed)) > len(asked), "the peer has no such ranges"


@each_version
def test_a_pair_with_other_algorithms_gets_a_successor_at_once(changes: dict[str, Any]) -> None:
    pair, (first, second) = begun(changes)
    wider = Proposal(Protocol.ESP, ("aes-128", "aes-256"), (), ("sha256",))
    mappings = pair.b.policies[pair.b.tunnel].children
    change(pair, "b", children=(mappings[0], replace(mappings[1], proposals=(wider,))))
    change(pair, "a", children=(first, replace(second, proposals=(replace(wider, encryption=("aes-256",)),))))
    pair.world.run_for(20)
    assert pair.a.child(1).suite.encryption == "aes-256"
    assert pair.b.sends(1)
