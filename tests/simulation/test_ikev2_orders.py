"""Both ends act at once: every order of arrival and every single loss, exhaustively.

Whatever the order, both sides end with the same SAs, and none is left that nobody uses.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .orders import Choices, histories
from .pair import Pair
from .policies import Recipe

AFTERWARDS = 40.0
"""Seconds for retransmissions to heal what was lost, and for duplicates to be settled."""


def established_pair() -> Pair:
    pair = Pair(recipe=Recipe(mappings=2))
    pair.establish()
    return pair


def fresh_pair() -> Pair:
    return Pair(recipe=Recipe(mappings=2))


def both_start(pair: Pair) -> None:
    pair.a.initiate()
    pair.b.initiate()


def both_close(pair: Pair) -> None:
    pair.a.close()
    pair.b.close()


def both_want_the_same_child(pair: Pair) -> None:
    pair.a.initiate(1)
    pair.b.initiate(1)


def child_crosses_close(pair: Pair) -> None:
    pair.a.initiate(1)
    pair.b.close()


def both_delete_the_child(pair: Pair) -> None:
    pair.a.close_child()
    pair.b.close_child()


def child_crosses_delete_of_another(pair: Pair) -> None:
    pair.a.initiate(1)
    pair.b.close_child(0)


ONE, TWO = [0], [0, 1]
SCENARIOS: dict[str, tuple[Callable[[], Pair], Callable[[Pair], None], list[int], int]] = {
    "both start": (fresh_pair, both_start, ONE, 1),
    "both close": (established_pair, both_close, [], 0),
    "both want the same child": (established_pair, both_want_the_same_child, TWO, 1),
    "new child x close": (established_pair, child_crosses_close, [], 0),
    "both delete the child": (established_pair, both_delete_the_child, [], 1),
    "new child x delete of another": (established_pair, child_crosses_delete_of_another, [1], 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_order_ends_with_both_sides_agreeing(name: str) -> None:
    make, begin, mappings, ike_sas = SCENARIOS[name]
    lived = 0
    for pair in histories(make, begin, losses=1):
        pair.world.run_for(AFTERWARDS)
        pair.assert_agreement()
        held = sorted(child.mapping for child in pair.a.children())
        if len(pair.a.ike_sas()) != ike_sas or held != mappings:
            pair.world.fail(f"left: {len(pair.a.ike_sas())} IKE SAs, SA pairs for mappings {held}")
        lived += 1
    assert lived >= 2


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
