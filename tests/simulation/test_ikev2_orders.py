"""Both ends act at once: every order of arrival and every single loss, exhaustively.

Whatever the order, both sides end with the same SAs and send on the same ones, none is left that nobody uses,
and nothing of it is there two lifetimes later.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.simulation.bounds import PFS_PROOF, PFS_PROOF_OF_PEER
from tests.tables import TellRow
from vpnd.ike.outputs import ChildReplaced

from .exchanges.held import LOWEST, Led, LedEntropy
from .orders import (
    EVERY,
    MOMENT,
    RECIPE,
    Case,
    Choices,
    Scenario,
    Tally,
    assert_left,
    live_all,
    mappings_of,
    tell,
)
from .pair import Pair

SCENARIOS = {
    "both start": Scenario("a initiate; b initiate", ((0,),), established=False),
    "both close": Scenario("a close; b close", ((),), 0),
    "both want the same child": Scenario("a initiate 1; b initiate 1", ((0, 1),)),
    "both delete the child": Scenario("a close_child; b close_child", ((),)),
    "new child x close": Scenario("a initiate 1; b close", ((),), 0),
    "new child x delete of another": Scenario("a initiate 1; b close_child", ((1,),)),
    "delete child": Scenario("a close_child", ((),)),
    "rekey child": Scenario("a rekey_child", ((0,),)),
    "both rekey child": Scenario("a rekey_child; b rekey_child", ((0,),)),
    "rekey child x delete child": Scenario("a rekey_child; b close_child", ((),)),
    "rekey child x new child": Scenario("a rekey_child; b initiate 1", ((0, 1),)),
    "rekey child x close": Scenario("a rekey_child; b close", ((),), 0),
    "close": Scenario("a close", ((),), 0),
    "rekey IKE": Scenario("a rekey_ike", ((0,),)),
    "both rekey IKE": Scenario("a rekey_ike; b rekey_ike", ((0,),)),
    "rekey IKE x rekey child": Scenario("a rekey_ike; b rekey_child", ((0,),)),
    "rekey IKE x new child": Scenario("a rekey_ike; b initiate 1", ((0, 1),)),
    "rekey IKE x delete child": Scenario("a rekey_ike; b close_child", ((),)),
    "rekey IKE x close": Scenario("a rekey_ike; b close", ((),), 0),
    "rekey child, new child x rekey IKE": Scenario("a rekey_child; a initiate 1; b rekey_ike", ((0, 1),)),
}


MANY = {
    "both rekey child and IKE": Scenario("a rekey_child; a rekey_ike; b rekey_ike; b rekey_child", ((0,),)),
}
"""Tens of thousands of histories, for ten minutes and more."""

ALL = SCENARIOS | MANY

RACES = {
    "both start": ("Ni of a", "Ni of b"),
    "both want the same child": LOWEST,
    "both rekey child": LOWEST,
    "both rekey IKE": LOWEST,
}
"""The scenarios in which nonces decide who wins, or SPIs, which the same byte leads."""


def make(established: bool) -> Pair:
    """The world before a scenario."""
    pair = Pair(1, recipe=RECIPE, entropy=LedEntropy)
    if established:
        pair.establish()
    return pair


def begin(scenario: Scenario, lowest: str, pair: Pair) -> None:
    """The commands of a scenario; of the nonces that collide then, `lowest` is the lowest."""
    led = Led.of(lowest, pair)
    led.requests()
    scenario.begin(pair)
    led.answers()


def cases(name: str, full: bool) -> Iterator[Case]:
    """Either role, and every order of nonces where it decides.

    Messages are lost in the first case; with `full` in all of them, and every history lives on.
    """
    scenario = ALL[name]
    orders = RACES.get(name, LOWEST[:1])
    both_roles = [scenario] if scenario.is_its_mirror else [scenario, scenario.mirrored()]
    for place, (played, lowest) in enumerate((s, order) for s in both_roles for order in orders):
        yield Case(
            played,
            f"lowest {lowest}",
            partial(make, played.established),
            partial(begin, played, lowest),
            losses=1 if full or place == 0 else 0,
            every=1 if full else EVERY,
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_order_ends_with_both_sides_agreeing(
    name: str, request: pytest.FixtureRequest, row: TellRow
) -> None:
    full = request.config.getoption("--full-faults")
    if name in MANY and not full:
        pytest.skip("tens of thousands of histories: run with --full-faults")
    tally = Tally()
    try:
        for case in cases(name, full):
            live_all(case, tally)
    finally:
        tell(row, "IKEv2", name, ALL[name], tally)


PROVED_WITH = {
    "proof x probe": Scenario("b probe", ((0,),)),
    "proof x rekey child": Scenario("b rekey_child", ((0,),)),
    "proof x delete child": Scenario("b close_child", ((),)),
    "proof x new child": Scenario("b initiate 1", ((0, 1),)),
    "proof x rekey IKE": Scenario("b rekey_ike", ((0,),)),
    "proof x close": Scenario("b close", ((),), 0),
}
"""What one end does in the moment in which the other proves that the first CHILD_SA can be rekeyed."""


def make_unproved(by: str) -> Pair:
    """A tunnel of a's that is up, and whose first CHILD_SA `by` is about to prove."""
    changes = {name: {"prove_rekey": name == by} for name in ("a", "b")}
    pair = Pair(1, recipe=RECIPE, entropy=LedEntropy, changes_a=changes["a"], changes_b=changes["b"])
    pair.establish()
    made = pair.world.gateways[by].installed.values()
    due = min(one.since for one in made) + (PFS_PROOF if by == "a" else PFS_PROOF_OF_PEER)
    pair.world.run_for(due - pair.world.now - MOMENT / 2)
    return pair


def begin_proof(scenario: Scenario, lowest: str, pair: Pair) -> None:
    """The commands of a scenario, and the proof, whose time comes before anything arrives."""
    begin(scenario, lowest, pair)
    pair.world.run_for(MOMENT)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVED_WITH)
def test_the_early_proof_of_a_rekey_in_every_order(name: str, row: TellRow) -> None:
    """As the daemon has it for every tunnel: whatever it meets, both ends agree, and it is made."""
    scenario, tally = PROVED_WITH[name], Tally()
    try:
        for by, played in (("a", scenario), ("b", scenario.mirrored())):
            case = Case(
                played,
                f"{by} proves",
                partial(make_unproved, by),
                partial(begin_proof, played, "Ni of a"),
                losses=int(by == "a"),
                every=EVERY,
            )
            live_all(case, tally, assert_proved)
    finally:
        tell(row, "IKEv2", name, scenario, tally)


def assert_proved(pair: Pair, scenario: Scenario) -> None:
    """What is left is as always, and the first CHILD_SA of a mapping that is left has been rekeyed."""
    assert_left(pair, scenario)
    if 0 in mappings_of(pair.a) and not (pair.a.of(ChildReplaced) and pair.b.of(ChildReplaced)):
        pair.world.fail("the first CHILD_SA has had no successor")


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
