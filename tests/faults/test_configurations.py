"""Changes with a way back, often: the daemon killed at random moments, and random pairs of configurations.

Each in parts, so that several processes share it: in all 8 minutes of waiting, and 5 of computing.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, seed, settings

from tests.lab.lab import Lab
from tests.lab.plan import A
from tests.lab.topology import two_gateways
from tests.lab.unconfirmed import CONFIRMED, candidate, play
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow
from tests.unit.config.random_configurations import Tables, tunnels
from tests.unit.daemon.random_changes import check_plan

pytestmark = [pytest.mark.slow, pytest.mark.full_faults]

ROUNDS, KILLING = 50, 5
PAIRS, COMPARING = 1000, 4
"""In all, and in how many parts."""


@pytest.mark.root
@pytest.mark.parametrize("part", range(KILLING))
def test_what_is_not_confirmed_goes_back_whenever_the_daemon_is_killed(
    lab: Lab, part: int, row: TellRow
) -> None:
    wire = two_gateways(lab)
    ours = Vpnd(wire.a.gateway, A.address, running=False)
    candidate(ours, CONFIRMED)
    ours.start()
    chance = random.Random(20261129 + part)
    for number in range(ROUNDS // KILLING):
        play(ours, chance, number, 5.0, row)


@pytest.mark.parametrize("part", range(COMPARING))
def test_the_plan_says_what_apply_does_and_rollback_undoes_it(part: int) -> None:
    @seed(part)
    @settings(max_examples=PAIRS // COMPARING, database=None)
    @given(tunnels(), tunnels())
    def compare(a: Tables, b: Tables) -> None:
        check_plan(a, b)

    compare()
