"""What status says of the next rekey is when that rekey then begins: both versions, both SAs, both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.bounds import PFS_PROOF, PFS_PROOF_OF_PEER
from tests.simulation.pair import Pair
from tests.simulation.policies import CURVE25519, Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, pair_of
from vpnd.ike.outputs import ChildSaInfo
from vpnd.simulate.gateway import Gateway

Make = Callable[..., Pair]


def ikev1_aggressive(**arguments: Any) -> Pair:
    return pair_of(AGGRESSIVE, **arguments)


def ikev1_main(**arguments: Any) -> Pair:
    return pair_of(MAIN, **arguments)


VERSIONS: dict[str, Make] = {"ikev2": Pair, "main": ikev1_main, "aggressive": ikev1_aggressive}
of_each_version = pytest.mark.parametrize("make", VERSIONS.values(), ids=VERSIONS.keys())


def child_of(gateway: Gateway) -> ChildSaInfo:
    """What is ahead of the SA pair that carries mapping 0."""
    return gateway.endpoint.child_sas(gateway.tunnel)[gateway.child().spi_in]


def next_request(pair: Pair, within: float) -> tuple[str, float]:
    """Who sends the next message that is no sign of life and no DELETE, and when."""
    before = len(pair.world.rungs)

    def new() -> list[tuple[str, float]]:
        rungs = pair.world.rungs[before:]
        return [(r.sender, r.at) for r in rungs if not r.text.startswith(("INFORMATIONAL", "Informational"))]

    pair.world.run_until(new, within)
    return new()[0]


def first(pair: Pair, at: Callable[[Gateway], float | None]) -> tuple[str, float]:
    """Which side says that it comes first, and when."""
    said = [(due, gateway.name) for gateway in (pair.a, pair.b) if (due := at(gateway)) is not None]
    due, name = min(said)
    return name, due


def rekey_of_child(gateway: Gateway) -> float | None:
    return child_of(gateway).rekey_at


def rekey_of_ike(gateway: Gateway) -> float | None:
    return gateway.ike_sas()[0].rekey_at


@of_each_version
@pytest.mark.parametrize("seed", range(2))
def test_of_an_sa_pair(make: Make, seed: int) -> None:
    """One rekey after the other; while it is under way none is due, and its end is never before it."""
    pair = make(seed=seed, recipe=Recipe(child_lifetime=3600, dpd=False))
    pair.establish()
    for _ in range(3):
        name, due = first(pair, rekey_of_child)
        assert pair.world.now < due < child_of(pair.world.gateways[name]).expires_at
        assert next_request(pair, 3600) == (name, due)
        assert child_of(pair.world.gateways[name]).rekey_at is None
        pair.world.run_for(20)
    pair.assert_agreement()


@of_each_version
@pytest.mark.parametrize("seed", range(2))
def test_of_an_ike_sa(make: Make, seed: int) -> None:
    pair = make(seed=seed, recipe=Recipe(ike_lifetime=3600, child_lifetime=86_400, dpd=False))
    pair.establish()
    for _ in range(3):
        name, due = first(pair, rekey_of_ike)
        assert next_request(pair, 3600) == (name, due)
        assert pair.world.gateways[name].ike_sas()[0].rekey_at is None
        pair.world.run_for(20)
    pair.assert_agreement()


EARLY = [
    ("a", PFS_PROOF, {"pfs": (CURVE25519,)}, {}),
    ("a", PFS_PROOF, {"prove": True}, {}),
    ("b", PFS_PROOF_OF_PEER, {"prove": True}, {"prove_rekey": False}),
]


@pytest.mark.parametrize(("name", "wait", "recipe", "changes_a"), EARLY)
def test_of_the_early_rekey(name: str, wait: float, recipe: Any, changes_a: dict[str, Any]) -> None:
    """It comes seconds after the first CHILD_SA, and not at the end of its lifetime."""
    pair = Pair(recipe=Recipe(**recipe), changes_a=changes_a)
    pair.establish()
    side = pair.world.gateways[name]
    due = child_of(side).rekey_at
    assert due == side.installed[side.child().spi_in].since + wait
    assert next_request(pair, 10) == (name, due)
    pair.world.run_for(10)
    after = child_of(side).rekey_at
    assert after is not None
    assert after > pair.world.now + 10_000


@of_each_version
def test_after_a_rekey_that_the_peer_refused(make: Make) -> None:
    """The peer has other algorithms now: the moment of the next try."""
    pair = make(recipe=Recipe(child_lifetime=3600, dpd=False))
    pair.establish()
    others = Recipe(child_lifetime=3600, encryption=("aes-256",), dpd=False).pair()[1]
    pair.b.set_peer("a", replace(pair.b.policies["to-a"], children=others.children))
    pair.a.rekey_child()
    pair.world.settle()
    due = child_of(pair.a).rekey_at
    assert due is not None
    assert next_request(pair, 3600) == ("a", due)


@of_each_version
def test_a_rekey_that_is_under_way_is_not_due(make: Make) -> None:
    pair = make()
    pair.establish()
    pair.world.silence("b")
    pair.a.rekey_child()
    pair.world.run_for(1)
    assert child_of(pair.a).rekey_at is None
    assert child_of(pair.a).expires_at > pair.world.now


@of_each_version
def test_a_reload_leaves_what_is_agreed(make: Make) -> None:
    """Another lifetime is that of the next SAs, so the present ones are rekeyed when status said."""
    pair = make(recipe=Recipe(child_lifetime=3600, dpd=False))
    pair.establish()
    before = first(pair, rekey_of_child)
    shorter = Recipe(child_lifetime=900).pair()
    pair.a.set_peer("b", replace(pair.a.policies["to-b"], children=shorter[0].children))
    pair.b.set_peer("a", replace(pair.b.policies["to-a"], children=shorter[1].children))
    assert first(pair, rekey_of_child) == before
    assert next_request(pair, 3600) == before
    pair.world.run_for(20)
    assert child_of(pair.a).expires_at <= pair.world.now + 900
