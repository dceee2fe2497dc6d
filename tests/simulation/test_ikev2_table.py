"""Each timer that is armed in a state has a row in it, so that none fires into nothing."""

from __future__ import annotations

import random

import pytest

from vpnd.ike.session import Snapshot
from vpnd.ike.v2.children import ChildTimer
from vpnd.ike.v2.state import State, Timer
from vpnd.ike.v2.table import STEPS
from vpnd.simulate.gateway import Gateway

from .pair import Pair
from .policies import Recipe
from .weather import STORM

SEEDS = 12
COMMANDS = ("initiate", "close", "rekey_ike", "rekey_child", "close_child", "probe")


def armed(snapshot: Snapshot) -> set[tuple[State, Timer | ChildTimer]]:
    """The timers of each IKE SA and of its children, with its state."""
    found: set[tuple[State, Timer | ChildTimer]] = set()
    for sa in snapshot.sas:
        state = State[sa.state]
        found |= {(state, Timer.DPD)} if sa.liveness is not None else set()
        for name in sa.deadlines:
            what, *of_child = name.split()
            found.add((state, ChildTimer[what] if of_child else Timer[what]))
    return found


def test_every_armed_timer_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each input, while both sides do at random what an operator can ask for, in a storm."""
    seen: set[tuple[State, Timer | ChildTimer]] = set()
    drain = Gateway.drain

    def watched(gateway: Gateway) -> None:
        seen.update(armed(gateway.endpoint.snapshot()))
        drain(gateway)

    monkeypatch.setattr(Gateway, "drain", watched)
    for seed in range(SEEDS):
        dice, pair = random.Random(seed), Pair(seed, STORM, Recipe(mappings=2, prove=bool(seed % 2)))
        for _ in range(15):
            gateway = dice.choice((pair.a, pair.b))
            command = dice.choice(COMMANDS) if gateway.sends() else "initiate"
            getattr(gateway, command)()
            pair.world.run_for(dice.uniform(0, 4))
    assert seen <= set(STEPS)
    rare = {State.HELD, State.REFUSED, State.SUCCESSOR}
    assert {state for state, _ in seen} >= set(State) - rare - {State.NEW, State.GONE}
    assert {timer for _, timer in seen} >= {*ChildTimer, *Timer} - {
        Timer.HELD,
        Timer.KEEPALIVE,
        Timer.LISTEN,
        Timer.RETRY,
    }
