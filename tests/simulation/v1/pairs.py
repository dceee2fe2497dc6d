"""Two gateways that speak IKEv1 with each other, in the simulated world."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from tests.simulation.pair import Pair
from tests.simulation.policies import Recipe
from tests.simulation.weather import CALM, Weather
from vpnd.ike.limits import Limits
from vpnd.model.policy import NegotiationMode, PeerPolicy
from vpnd.simulate.ladder import plain
from vpnd.wire.iana import IkeVersion

MAIN, AGGRESSIVE = NegotiationMode.MAIN, NegotiationMode.AGGRESSIVE
MODES = (MAIN, AGGRESSIVE)
TWO_MAPPINGS = Recipe(mappings=2)

MESSAGE_ID = re.compile(r" [0-9a-f]{8}(?=\*? )")


def speaking(mode: NegotiationMode, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """What makes a recipe's policy one of IKEv1, and further changes."""
    return {"version": IkeVersion.V1, "mode": mode} | (changes or {})


def pair_of(
    mode: NegotiationMode = MAIN,
    seed: int = 0,
    weather: Weather = CALM,
    recipe: Recipe | None = None,
    changes_a: dict[str, Any] | None = None,
    changes_b: dict[str, Any] | None = None,
    limits_b: Limits | None = None,
) -> Pair:
    """The same as `Pair`, in IKEv1."""
    a, b = speaking(mode, changes_a), speaking(mode, changes_b)
    return Pair(seed, weather, recipe, a, b, limits_b)


def spoken(pair: Pair) -> list[str]:
    """The ladder so far without message IDs, which are random in IKEv1."""
    return [MESSAGE_ID.sub("", line) for line in pair.ladder().steps]


def expect(pair: Pair, ladder: str) -> None:
    """The ladder so far is this one."""
    assert spoken(pair) == plain(ladder)


def policy_of(recipe: Recipe, mode: NegotiationMode) -> PeerPolicy:
    """Gateway b's configuration."""
    return replace(recipe.pair()[1], **speaking(mode))
