"""`apply --confirm` without `confirm`, over kill -9; fifty times in tests/faults."""

from __future__ import annotations

import random

import pytest

from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan
from tests.lab.topology import two_gateways
from tests.lab.unconfirmed import CONFIRMED, candidate, in_force, play
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow]

ROUNDS = 2


def test_what_is_not_confirmed_goes_back_over_a_kill(lab: Lab, row: TellRow) -> None:
    """And what is confirmed stays, with the tunnel beside it up all the time."""
    wire = two_gateways(lab)
    plan = Plan(name="branch-a", routed=True, negotiation="active")
    Vpnd(wire.b.gateway, B.address, plans=[plan.other().change(negotiation="passive")])
    ours = Vpnd(wire.a.gateway, A.address, running=False, plans=[plan])
    candidate(ours, CONFIRMED)
    ours.start()
    chance = random.Random(20261129)
    for number in range(ROUNDS):
        play(ours, chance, number, 1.0, row)
    ours.wait_state("branch-a", "up")
    other = "10.9.250.0/24"
    candidate(ours, other)
    planned = ours.ctl("plan").stdout
    assert f'routes: ["{CONFIRMED}"] -> ["{other}"]' in planned
    assert "confirmed configuration comes back in 600 s" in ours.ctl("apply", "--confirm", "600").stdout
    assert "goes back in" in ours.ctl("status").stdout
    ours.ctl("confirm")
    ours.kill()
    ours.start()
    assert in_force(ours) == other
    assert ours.ctl("rollback").stdout.endswith("1 not touched\n")
    assert in_force(ours) == CONFIRMED
    assert "rolled back" in ours.ctl("status").stdout
