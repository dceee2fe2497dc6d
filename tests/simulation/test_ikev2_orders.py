"""Both ends act at once: every order of arrival and every single loss, exhaustively.

Whatever the order, both sides end with the same SAs, and none is left that nobody uses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

import pytest

from .invariants import leaks
from .orders import Choices, histories
from .pair import Pair
from .policies import Recipe

AFTERWARDS = 100.0
"""Seconds for retransmissions to heal what was lost, for duplicates and for lingering IKE SAs."""

EXHAUSTIVE = "VPND_EXHAUSTIVE" in os.environ
"""Set it to lose messages with every outcome of every race; without it, with one (a few minutes less)."""

RECIPE = Recipe(mappings=2, dpd=False)
"""Without signs of life: what heals here is not that a peer is taken for dead."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What both ends do at once, and which mappings on how many IKE SAs are left of it.

    `commands` such as `a initiate 1; b close`: methods of `Gateway`. Nothing arrives between them.
    """

    commands: str
    mappings: tuple[int, ...]
    ike_sas: int = 1
    established: bool = True

    def make(self, seed: int) -> Pair:
        """The world before it; seeds differ in all nonces and SPIs, so in who wins a race."""
        pair = Pair(seed, recipe=RECIPE)
        if self.established:
            pair.establish()
        return pair

    def begin(self, pair: Pair) -> None:
        """Give the commands."""
        for command in self.commands.split(";"):
            name, method, *arguments = command.split()
            getattr(pair.world.gateways[name], method)(*map(int, arguments))


SCENARIOS = {
    "both start": Scenario("a initiate; b initiate", (0,), established=False),
    "both close": Scenario("a close; b close", (), 0),
    "both want the same child": Scenario("a initiate 1; b initiate 1", (0, 1)),
    "both delete the child": Scenario("a close_child; b close_child", ()),
    "new child x close": Scenario("a initiate 1; b close", (), 0),
    "new child x delete of another": Scenario("a initiate 1; b close_child", (1,)),
    "rekey child": Scenario("a rekey_child", (0,)),
    "rekey child as responder": Scenario("b rekey_child", (0,)),
    "both rekey child": Scenario("a rekey_child; b rekey_child", (0,)),
    "rekey child x delete child": Scenario("a rekey_child; b close_child", ()),
    "rekey child x new child": Scenario("a rekey_child; b initiate 1", (0, 1)),
    "rekey child x close": Scenario("a rekey_child; b close", (), 0),
    "rekey IKE": Scenario("a rekey_ike", (0,)),
    "rekey IKE as responder": Scenario("b rekey_ike", (0,)),
    "both rekey IKE": Scenario("a rekey_ike; b rekey_ike", (0,)),
    "rekey IKE x rekey child": Scenario("a rekey_ike; b rekey_child", (0,)),
    "rekey IKE x new child": Scenario("a rekey_ike; b initiate 1", (0, 1)),
    "rekey IKE x delete child": Scenario("a rekey_ike; b close_child", ()),
    "rekey IKE x close": Scenario("a rekey_ike; b close", (), 0),
}

RACES = ["both start", "both want the same child", "both rekey child", "both rekey IKE"]
"""The scenarios in which nonces or SPIs decide who wins."""


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", RACES)
def test_every_order_of_a_race_ends_with_both_sides_agreeing(name: str, seed: int) -> None:
    live_all(SCENARIOS[name], seed, losses=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4) if EXHAUSTIVE else [0])
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_order_with_every_single_loss_ends_with_both_sides_agreeing(name: str, seed: int) -> None:
    live_all(SCENARIOS[name], seed, losses=1)


def live_all(scenario: Scenario, seed: int, losses: int) -> None:
    """Every history of a scenario, each to its end."""
    lived = 0
    for pair in histories(partial(scenario.make, seed), scenario.begin, losses):
        pair.world.run_for(AFTERWARDS)
        pair.assert_agreement()
        held = tuple(sorted(child.mapping for child in pair.a.children()))
        if len(pair.a.ike_sas()) != scenario.ike_sas or held != scenario.mappings:
            pair.world.fail(f"left: {len(pair.a.ike_sas())} IKE SAs, SA pairs for mappings {held}")
        left_behind = leaks(pair.a) + leaks(pair.b)
        if left_behind:
            pair.world.fail("; ".join(left_behind))
        lived += 1
    assert lived >= 1 + losses


def test_the_walk_visits_every_leaf_once() -> None:
    leaves = []
    script: list[int] | None = []
    while script is not None:
        choices = Choices(script)
        first = choices.choose(3)
        second = choices.choose(2) if first != 1 else 0
        leaves.append((first, second))
        script = choices.successor()
    assert leaves == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]
