"""Handshakes, children and DELETEs in bad weather: both sides end alike."""

from __future__ import annotations

import pytest

from vpnd.ike.outputs import ChildUp, Established, Failed
from vpnd.simulate.gateway import Gateway

from .invariants import disagreements
from .pair import Pair
from .policies import Recipe
from .weather import CALM, STORM, Weather, blocks

SEEDS = 1000
BLOCKS = 20

TWO_MAPPINGS = Recipe(mappings=2)


def recipe(seed: int, mappings: int = 2) -> Recipe:
    """Every other seed plays the early proof of a rekey, which the daemon has for every tunnel."""
    return Recipe(mappings=mappings, prove=bool(seed % 2))


def up(pair: Pair, mapping: int) -> bool:
    """Whether both sides hold an SA pair for the mapping."""
    return bool(pair.a.children(mapping) and pair.b.children(mapping))


def persist(pair: Pair, mappings: list[int], within: float = 300.0, closed: int | None = None) -> None:
    """Until both sides agree on exactly these mappings, ask for what is missing, as the lifecycle does.

    A storm may last longer than the patience of a probe: then a peer is taken for dead, rightly, and what
    is left of the tunnel at the other side goes when that one finds out. An IKE SA that is begun beside one
    whose peer does not answer has every mapping of that one, also one that is `closed` meanwhile: b closes it
    again.
    """
    end = pair.world.now + within
    while not (agreed_on(pair.a, mappings) and agreed_on(pair.b, mappings) and not differ(pair)):
        if pair.world.now > end:
            pair.world.fail(f"no agreement on mappings {mappings} after {within:g} s")
        for mapping in mappings:
            pair.a.initiate(mapping)
        if closed is not None and pair.b.sends(closed) and not differ(pair):
            pair.b.close_child(closed)
        pair.world.run_for(1.0)


def differ(pair: Pair) -> list[str]:
    """In what both sides differ."""
    return disagreements(pair.a, pair.b)


def agreed_on(gateway: Gateway, mappings: list[int]) -> bool:
    """Whether a side holds one IKE SA and one SA pair for each of these mappings."""
    held = sorted(child.mapping for child in gateway.children())
    return held == mappings and len(gateway.ike_sas()) == 1


def whole_life(seed: int, weather: Weather) -> Pair:
    """Handshake, a further child, DELETE of a child, DELETE of the IKE SA; agreement after each."""
    pair = Pair(seed, weather, recipe(seed))
    persist(pair, [0])
    persist(pair, [0, 1])
    pair.b.close_child(1)
    persist(pair, [0], closed=1)
    pair.a.close()
    pair.world.run_until(lambda: not pair.a.ike_sas() and not pair.b.ike_sas(), within=90)
    pair.world.run_for(90)
    pair.assert_nothing_left()
    return pair


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(BLOCKS))
def test_a_thousand_lives_in_a_storm_end_with_both_sides_agreeing(block: int) -> None:
    for seed in range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS):
        whole_life(seed, STORM)


def count_of(gateway: Gateway, kind: type) -> int:
    """How many outputs of a kind there were."""
    return len(gateway.of(kind))


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("sender", ["a", "b"])
@pytest.mark.parametrize("number", [1, 2])
def test_each_handshake_message_may_be_lost(sender: str, number: int, times: int) -> None:
    """F2: drop exactly message k, once and three times in a row; the same bytes are sent again."""
    pair = Pair()
    first = number
    pair.world.drop(sender, *range(first, first + times))
    start = pair.world.now
    pair.a.initiate()
    pair.world.run_until(lambda: up(pair, 0), within=30)
    pair.world.settle()
    pair.assert_one_tunnel()
    assert pair.world.now - start <= (4.0 if times == 1 else 16.0)
    for name in ("a", "b"):
        sent = [d.data for d in pair.world.sent if d.sender == name]
        assert len(set(sent)) == 2, "a repeated message differs from the first"
    assert [count_of(g, k) for g in (pair.a, pair.b) for k in (Established, ChildUp)] == [1, 1, 1, 1]


@pytest.mark.parametrize("copies", [2, 5, 50])
def test_copies_of_every_message_make_no_further_sa(copies: int) -> None:
    """F3: every message arrives `copies` times."""
    pair = Pair(recipe=TWO_MAPPINGS)
    pair.world.interceptors.append(lambda d: [(0.01 + 0.001 * n, d.data) for n in range(copies)])
    pair.a.initiate(0)
    pair.world.run_for(5)
    pair.a.initiate(1)
    pair.world.run_for(5)
    pair.assert_one_tunnel(2)
    pair.a.close()
    pair.world.run_for(20)
    pair.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "within", "share"), [(0.05, 5, 0.99), (0.2, 20, 0.99), (0.5, 60, 0.90)])
def test_loss_delays_but_does_not_prevent(loss: float, within: float, share: float) -> None:
    """F1: the share of handshakes that are done in time, over fixed seeds."""
    done = 0
    seeds = 100
    for seed in range(seeds):
        pair = Pair(seed, Weather(loss=loss))
        end = pair.world.now + within
        while not up(pair, 0) and pair.world.now < end:
            pair.a.initiate()
            pair.world.run_for(0.5)
        done += up(pair, 0)
    assert done >= share * seeds


@pytest.mark.parametrize("seed", range(20))
def test_messages_three_seconds_late_and_out_of_order_converge(seed: int) -> None:
    """F4: each message takes between 0 and 3 s."""
    pair = Pair(seed, Weather(delay=(0.0, 3.0)), recipe(seed))
    pair.a.initiate(0)
    pair.a.initiate(1)
    pair.world.run_for(60)
    pair.assert_one_tunnel(2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_both_ends_start_at_once(seed: int) -> None:
    """F13: within 10 s one IKE SA and one SA pair are left, and they stay for ten minutes."""
    pair = Pair(seed, Weather(loss=0.1 * (seed % 3), delay=(0.005, 0.1)), recipe(seed // 2, mappings=1))
    pair.a.initiate()
    if seed % 2:
        pair.world.run_for(0.01 * (seed % 11))
    pair.b.initiate()
    pair.world.run_for(10)
    if seed % 3:
        pair.world.default_weather = CALM
        pair.world.run_for(60)
    pair.assert_one_tunnel()
    events = len(pair.a.of(ChildUp)) + len(pair.b.of(ChildUp))
    pair.world.run_for(600)
    pair.assert_one_tunnel()
    assert len(pair.a.of(ChildUp)) + len(pair.b.of(ChildUp)) == events, "the tunnel flapped"


def test_the_handshake_gives_up_when_nobody_answers() -> None:
    pair = Pair()
    pair.world.silence("b")
    start = pair.world.now
    pair.a.initiate()
    pair.world.run_until(lambda: pair.a.of(Failed), within=40)
    assert 25 <= pair.world.now - start <= 35
    pair.world.run_for(120)
    pair.assert_nothing_left()
