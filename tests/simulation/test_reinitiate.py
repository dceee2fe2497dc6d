"""A peer that was restarted and says nothing: a new IKE SA is negotiated beside the old one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, speaking
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import ChildDown, Failed, IkeDown, IkeReplaced, PeerDead
from vpnd.model.policy import DpdPolicy

VERSIONS: list[dict[str, Any]] = [{}, speaking(MAIN), speaking(AGGRESSIVE)]
SPOKEN = ["ikev2", "main", "aggressive"]
REBORN = 4711
"""The seed of a side that has started again."""


def pair_of(changes: dict[str, Any], mappings: int = 1) -> Pair:
    """A tunnel that is up."""
    pair = Pair(recipe=Recipe(mappings=mappings), changes_a=changes, changes_b=changes)
    pair.establish(mappings)
    return pair


def forget(pair: Pair) -> None:
    """Side b loses its memory, as a process that is killed and started again."""
    pair.b.endpoint = Endpoint(SeededEntropy(REBORN))
    pair.b.installed.clear()
    for policy in pair.b.policies.values():
        pair.b.endpoint.set_peer(pair.world.now, policy)


def sending(pair: Pair) -> list[int]:
    """The SPIs that a sends on, the pair with the highest turn of each mapping."""
    latest: dict[int, tuple[int, int]] = {}
    for installed in pair.a.installed.values():
        mapping = installed.child.mapping
        latest[mapping] = max(latest.get(mapping, (0, 0)), (installed.turn, installed.child.spi_out))
    return [spi for _, spi in latest.values()]


@pytest.mark.parametrize("changes", VERSIONS, ids=SPOKEN)
@pytest.mark.parametrize("mappings", [1, 3])
def test_the_tunnel_is_there_again_for_every_mapping(changes: dict[str, Any], mappings: int) -> None:
    pair = pair_of(changes, mappings)
    forget(pair)
    pair.a.do("reinitiate", pair.a.tunnel)
    pair.world.run_for(10)
    assert len(pair.a.ike_sas()) == 1
    assert [ike.spi_i for ike in pair.a.ike_sas()] == [ike.spi_i for ike in pair.b.ike_sas()]
    assert len(pair.b.installed) == mappings
    assert sorted(sending(pair)) == sorted(pair.b.installed)
    assert not pair.a.of(PeerDead)
    assert not pair.a.of(Failed)


@pytest.mark.parametrize("changes", VERSIONS, ids=SPOKEN)
def test_a_peer_that_had_forgotten_nothing_keeps_one_tunnel(changes: dict[str, Any]) -> None:
    pair = pair_of(changes)
    pair.a.do("reinitiate", pair.a.tunnel)
    pair.world.run_for(20)
    assert len(pair.a.ike_sas()) == len(pair.b.ike_sas()) == 1
    assert set(sending(pair)) <= set(pair.b.installed)
    assert not pair.a.of(Failed)


@pytest.mark.parametrize("changes", VERSIONS, ids=SPOKEN)
def test_where_nothing_comes_of_it_all_is_as_it_was(changes: dict[str, Any]) -> None:
    pair = pair_of(changes | {"dpd": DpdPolicy(timeout=60)})
    before = set(pair.a.installed), [ike.spi_i for ike in pair.a.ike_sas()]
    pair.world.silence("b")
    pair.a.do("reinitiate", pair.a.tunnel)
    pair.world.run_for(35)
    assert (set(pair.a.installed), [ike.spi_i for ike in pair.a.ike_sas()]) == before
    for kind in (Failed, IkeDown, ChildDown, IkeReplaced):
        assert not pair.a.of(kind)
    pair.world.clear_sky()


@pytest.mark.parametrize("changes", VERSIONS, ids=SPOKEN)
def test_one_attempt_at_a_time(changes: dict[str, Any]) -> None:
    pair = pair_of(changes)
    for _ in range(3):
        pair.a.do("reinitiate", pair.a.tunnel)
    assert len(pair.world.ladder().steps) == 1


def test_a_tunnel_without_an_ike_sa_is_left_alone() -> None:
    pair = Pair()
    pair.a.do("reinitiate", pair.a.tunnel)
    pair.a.do("reinitiate", "unknown")
    pair.world.settle()
    assert not pair.a.events
