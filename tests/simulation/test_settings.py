"""What a tunnel's settings do to its negotiations and its SAs, in both versions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import Recipe
from vpnd.ike.outputs import ChildReplaced, IkeReplaced
from vpnd.model.policy import DpdPolicy, Lifetimes, Margin, NegotiationMode
from vpnd.wire.iana import IkeVersion

QUIET: dict[str, Any] = {"dpd": DpdPolicy(enabled=False)}
SPOKEN: dict[str, dict[str, Any]] = {
    "IKEv2": QUIET,
    "IKEv1 main": QUIET | {"version": IkeVersion.V1, "mode": NegotiationMode.MAIN},
    "IKEv1 aggressive": QUIET | {"version": IkeVersion.V1, "mode": NegotiationMode.AGGRESSIVE},
}


def children(side: int, **changes: Any) -> dict[str, Any]:
    """The children of one side (0: a, 1: b) of the usual pair, with other values."""
    policy = Recipe().pair()[side]
    return {"children": tuple(replace(child, **changes) for child in policy.children)}


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize(("percent", "fuzz"), [(40, 0), (2, 0), (20, 100), (10, 300)])
def test_a_child_is_rekeyed_the_margin_before_its_end(spoken: str, percent: int, fuzz: int) -> None:
    """The other side waits until a hundredth is left, so it is this side that begins."""
    margin, last = Margin(percent, fuzz), Margin(1, 0)
    pair = Pair(
        seed=percent,
        changes_a=SPOKEN[spoken] | children(0, lifetimes=Lifetimes(10_000, None, margin)),
        changes_b=SPOKEN[spoken] | children(1, lifetimes=Lifetimes(10_000, None, last)),
    )
    pair.establish()
    pair.world.run_for(margin.soft(10_000, 1) - 5)
    assert not pair.a.of(ChildReplaced)
    pair.world.run_for(margin.soft(10_000, 0) - margin.soft(10_000, 1) + 10)
    assert len(pair.a.of(ChildReplaced)) == 1


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("fuzz", [0, 100])
def test_the_ike_sa_has_a_margin_of_its_own(spoken: str, fuzz: int) -> None:
    margin, last = Margin(30, fuzz), Margin(1, 0)
    pair = Pair(
        seed=3,
        changes_a=SPOKEN[spoken] | {"lifetime": 10_000, "margin": margin},
        changes_b=SPOKEN[spoken] | {"lifetime": 10_000, "margin": last},
    )
    pair.establish()
    pair.world.run_for(margin.soft(10_000, 1) - 5)
    assert not pair.a.of(IkeReplaced)
    pair.world.run_for(margin.soft(10_000, 0) - margin.soft(10_000, 1) + 10)
    assert len(pair.a.of(IkeReplaced)) == 1


@pytest.mark.parametrize("spoken", SPOKEN)
def test_the_chance_is_another_for_each(spoken: str) -> None:
    """SAs that were made together are not replaced together."""
    margin = Margin(10, 300)
    moments = set()
    for seed in range(12):
        both = Lifetimes(10_000, None, margin)
        pair = Pair(
            seed=seed,
            changes_a=SPOKEN[spoken] | children(0, lifetimes=both),
            changes_b=SPOKEN[spoken] | children(1, lifetimes=Lifetimes(10_000, None, Margin(1, 0))),
        )
        pair.establish()
        begun = pair.world.now
        pair.world.run_until(lambda: pair.a.of(ChildReplaced), within=10_000)  # noqa: B023 (used at once)
        moments.add(round(pair.world.now - begun))
    assert len(moments) >= 10
    assert min(moments) >= 5_990
    assert max(moments) <= 9_010
    assert max(moments) - min(moments) >= 1_500
