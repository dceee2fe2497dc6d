"""No packet is lost while SAs succeed each other: in calm, in collisions, in a storm of IKE messages."""

from __future__ import annotations

import random

import pytest

from vpnd.ike.outputs import PeerDead

from .pair import Pair
from .policies import Recipe
from .traffic import Traffic
from .weather import CALM, Weather

ROUGH = Weather(loss=0.15, duplicate=0.1, delay=(0.01, 0.4))
SEEDS = 15


def flowing(seed: int = 0, weather: Weather = CALM) -> tuple[Pair, Traffic]:
    """A tunnel that is up, with packets both ways."""
    pair = Pair(seed, recipe=Recipe(mappings=2))
    pair.establish()
    pair.world.default_weather = weather
    traffic = Traffic(pair.world)
    traffic.start()
    return pair, traffic


@pytest.mark.slow
@pytest.mark.parametrize("who", ["a", "b", "ab", "ba"])
@pytest.mark.parametrize("what", ["rekey_child", "rekey_ike"])
def test_a_succession_loses_nothing(what: str, who: str) -> None:
    pair, traffic = flowing()
    for _ in range(20):
        for name in who:
            getattr(pair.world.gateways[name], what)()
        pair.world.run_for(8)
    traffic.stop()
    pair.world.run_for(30)
    pair.assert_one_tunnel()
    assert traffic.lost == []
    assert traffic.received == traffic.sent > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_successions_in_a_storm_lose_nothing(seed: int) -> None:
    pair, traffic = flowing(seed, ROUGH)
    dice = random.Random(seed)
    for _ in range(12):
        deed = dice.choice(["rekey_child", "rekey_child", "rekey_ike", "probe"])
        getattr(dice.choice([pair.a, pair.b]), deed)()
        pair.world.run_for(dice.choice([0.0, 0.02, 0.3, 2.0]))
    pair.world.clear_sky()
    pair.world.run_for(20)
    traffic.stop()
    pair.world.run_for(40)
    assert not pair.a.of(PeerDead)
    assert not pair.b.of(PeerDead)
    pair.assert_one_tunnel()
    assert traffic.lost == []
