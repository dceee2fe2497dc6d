"""Both operators do what they like, in a storm; then the sky clears, and everything must come to order."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from vpnd.simulate.gateway import Gateway

from .invariants import leaks
from .pair import Pair
from .policies import Recipe
from .weather import STORM

SEEDS = 5000 if "VPND_EXHAUSTIVE" in os.environ else 60
BLOCKS = 10
FOUND_SOMETHING = [13, 19, 26, 94, 99, 179, 300, 373, 509, 566, 675, 753, 1295, 1749, 4279]
"""Seeds whose histories once ended in disorder."""

COMMANDS = 15
CALMING = 200.0
"""Seconds in which every request in flight is answered or given up, and dead peers are found."""

DEEDS: list[Callable[[Gateway], None]] = [
    lambda g: g.initiate(0),
    lambda g: g.initiate(1),
    lambda g: rekey_some_child(g),
    lambda g: rekey_some_child(g),
    lambda g: g.rekey_ike(),
    lambda g: g.probe(),
    lambda g: delete_some_child(g),
    lambda g: g.close(),
    lambda g: g.do("note_activity", g.tunnel),
]
WEIGHTS = [4, 4, 4, 4, 4, 2, 2, 1, 1]


def rekey_some_child(gateway: Gateway) -> None:
    """Rekey the oldest SA pair, if there is one."""
    for child in gateway.children()[:1]:
        gateway.do("rekey_child", child.tunnel, child.spi_in)


def delete_some_child(gateway: Gateway) -> None:
    """Delete the newest SA pair, if there is one."""
    for child in gateway.children()[-1:]:
        gateway.do("close_child", child.tunnel, child.spi_in)


def live(seed: int, pfs: bool) -> Pair:
    """A storm with random deeds of both sides at random moments, and the calm after it."""
    dice = random.Random(seed)
    pair = Pair(seed, STORM, Recipe(mappings=2, pfs=(31,) if pfs else ()))
    for _ in range(COMMANDS):
        deed = dice.choices(DEEDS, WEIGHTS)[0]
        deed(dice.choice([pair.a, pair.b]))
        pair.world.run_for(dice.choice([0.0, 0.02, 0.2, 1.0, 6.0]))
    pair.world.clear_sky()
    pair.world.run_for(CALMING)
    pair.assert_agreement()
    return pair


@pytest.mark.slow
@pytest.mark.parametrize("block", range(BLOCKS))
def test_after_a_storm_everything_comes_to_order(block: int) -> None:
    for seed in range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS):
        whole_story(seed)


@pytest.mark.parametrize("seed", FOUND_SOMETHING)
def test_storms_that_once_ended_in_disorder(seed: int) -> None:
    whole_story(seed)


def whole_story(seed: int) -> None:
    """A storm, the calm, a tunnel with both mappings, its end; nothing is left over after any of them."""
    pair = live(seed, pfs=bool(seed % 2))
    assert leaks(pair.a) + leaks(pair.b) == [], pair.world.history()
    pair.a.initiate(0)
    pair.b.initiate(1)
    pair.world.run_for(60)
    pair.assert_one_tunnel(2)
    assert leaks(pair.a) + leaks(pair.b) == [], pair.world.history()
    pair.a.close()
    pair.assert_nothing_left()
