"""IKEv1, both ends at once: every order of arrival and every single loss, exhaustively.

Nothing acknowledges a DELETE in IKEv1: where it is lost the other side may renew what it still holds, so that
such a scenario may leave the mapping up or not. In any case both sides agree two lifetimes later, on one SA
pair for each mapping and one ISAKMP SA, and hold nothing of what there was.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.simulation.orders import (
    EVERY,
    RECIPE,
    Case,
    Scenario,
    Tally,
    assert_sending_alike,
    live_all,
    tell,
)
from tests.simulation.pair import Pair
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, pair_of
from tests.tables import TellRow
from vpnd.ike.outputs import ChildDown, ChildReplaced, PeerRenews
from vpnd.model.policy import NegotiationMode

GONE_OR_BACK = ((), (0,))

SCENARIOS = {
    "both start": Scenario("a initiate; b initiate", ((0,),), established=False),
    "both close": Scenario("a close; b close", ((),), 0),
    "both want the same child": Scenario("a initiate 1; b initiate 1", ((0, 1),)),
    "both delete the child": Scenario("a close_child; b close_child", ((),)),
    "delete child": Scenario("a close_child", GONE_OR_BACK),
    "rekey child": Scenario("a rekey_child", ((0,),)),
    "both rekey child": Scenario("a rekey_child; b rekey_child", ((0,),)),
    "rekey child x delete child": Scenario("a rekey_child; b close_child", GONE_OR_BACK),
    "rekey child x new child": Scenario("a rekey_child; b initiate 1", ((0, 1),)),
    "renew phase 1": Scenario("a rekey_ike", ((0,),)),
    "both renew phase 1": Scenario("a rekey_ike; b rekey_ike", ((0,),)),
    "renew phase 1 x rekey child": Scenario("a rekey_ike; b rekey_child", ((0,),)),
    "renew phase 1 x new child": Scenario("a rekey_ike; b initiate 1", ((0, 1),)),
    "renew phase 1 x delete child": Scenario("a rekey_ike; b close_child", GONE_OR_BACK),
}

RENEWALS = ("a rekey_ike", "b rekey_ike", "a rekey_ike; b rekey_ike")
"""What renews phase 1 and nothing else."""

DEPTH = {MAIN: 5, AGGRESSIVE: 4}
"""Messages that arrive in every order; those after them arrive as they were sent."""
FULL_DEPTH = 6
"""With --full-faults."""


def make(mode: NegotiationMode, established: bool) -> Pair:
    """The world before a scenario."""
    pair = pair_of(mode, 1, recipe=RECIPE)
    if established:
        pair.establish()
    return pair


def assert_healed(pair: Pair, scenario: Scenario) -> None:
    """Old pairs may live on, but both sides send on the same ones; a new phase 1 alone makes none."""
    if scenario.commands in RENEWALS:
        for gateway in (pair.a, pair.b):
            if any(isinstance(event, ChildReplaced | ChildDown | PeerRenews) for event in gateway.events):
                pair.world.fail(f"{gateway.name}: more than the ISAKMP SA was renewed")
    if len(scenario.left) == 1:
        (mappings,) = scenario.left
        assert_sending_alike(pair, mappings)
        assert {len(pair.a.ike_sas()), len(pair.b.ike_sas())} == {scenario.ike_sas}


def cases(name: str, mode: NegotiationMode, full: bool) -> Iterator[Case]:
    """Either role: the identity of `a` is the lower, which decides between two ISAKMP SAs.

    Messages are lost in the first case; with `full` in both, and every history lives on.
    """
    scenario = SCENARIOS[name]
    roles = [scenario] if scenario.is_its_mirror else [scenario, scenario.mirrored()]
    for place, played in enumerate(roles):
        yield Case(
            played,
            mode.value,
            partial(make, mode, played.established),
            played.begin,
            losses=1 if full or place == 0 else 0,
            every=1 if full else EVERY,
            depth=FULL_DEPTH if full else DEPTH[mode],
        )


@pytest.mark.slow
@pytest.mark.parametrize("mode", [MAIN, AGGRESSIVE])
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_order_ends_with_both_sides_agreeing(
    name: str, mode: NegotiationMode, request: pytest.FixtureRequest, row: TellRow
) -> None:
    tally = Tally()
    try:
        for case in cases(name, mode, request.config.getoption("--full-faults")):
            live_all(case, tally, assert_healed)
    finally:
        tell(row, f"IKEv1 {mode.value}", name, SCENARIOS[name], tally)
