"""Changes with a way back, often: the daemon killed at random moments, and random pairs of configurations."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings

from tests.lab.lab import Lab
from tests.lab.plan import A
from tests.lab.topology import two_gateways
from tests.lab.unconfirmed import CONFIRMED, candidate, play
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow
from tests.unit.config.random_configurations import Tables, tunnels
from tests.unit.daemon.random_changes import check_plan

pytestmark = [pytest.mark.slow, pytest.mark.full_faults]

ROUNDS = 50
PAIRS = 1000


@pytest.mark.root
def test_what_is_not_confirmed_goes_back_whenever_the_daemon_is_killed(lab: Lab, row: TellRow) -> None:
    wire = two_gateways(lab)
    ours = Vpnd(wire.a.gateway, A.address, running=False)
    candidate(ours, CONFIRMED)
    ours.start()
    chance = random.Random(20261129)
    for number in range(ROUNDS):
        play(ours, chance, number, 5.0, row)


@settings(max_examples=PAIRS)
@given(tunnels(), tunnels())
def test_the_plan_says_what_apply_does_and_rollback_undoes_it(a: Tables, b: Tables) -> None:
    check_plan(a, b)
