"""The state table of IKEv2 is complete: what a row comes to has a row, and so has what an answer comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from vpnd.ike import commands
from vpnd.ike.commands import Cause
from vpnd.ike.message import Received
from vpnd.ike.v2 import causes
from vpnd.ike.v2.children import ChildTimer
from vpnd.ike.v2.exchanges.auth import AuthExchange
from vpnd.ike.v2.exchanges.informational import AuthenticationFailedNotice, DeleteIke
from vpnd.ike.v2.exchanges.sa_init import SaInitExchange
from vpnd.ike.v2.requests import Exchange
from vpnd.ike.v2.state import State, Timer
from vpnd.ike.v2.table import ANSWERS, STEPS

ASKED_IN = {
    SaInitExchange: (State.SENT_INIT,),
    AuthExchange: (State.SENT_AUTH,),
    DeleteIke: (State.CLOSING, State.REKEYED),
    AuthenticationFailedNotice: (State.CLOSING,),
}
"""Where a request has its answer; those that are not here, in an established IKE SA."""

COMMANDS = {
    causes.Begin,
    commands.Want,
    commands.Close,
    commands.CloseChild,
    commands.RekeyNow,
    commands.RekeyChildNow,
    commands.Probe,
    commands.Moved,
    causes.TakeOver,
    causes.Discard,
    causes.SuccessorAgreed,
    causes.Answered,
}
"""What comes from outside; all other causes are outcomes of an action."""


def outcomes(action: Callable[..., Any]) -> Iterator[type]:
    """What an action may come to, by its annotation, but for an answer and nothing."""
    hint = get_type_hints(action)["return"]
    for one in get_args(hint) if isinstance(hint, UnionType) else (hint,):
        if one is not NoneType and get_origin(one) is not tuple:
            yield one


def test_what_a_row_comes_to_has_a_row() -> None:
    missing = {
        f"{(step.to or state).name} {outcome.__name__}"
        for (state, _), step in STEPS.items()
        for outcome in outcomes(step.action)
        if outcome not in (Cause, Received) and ((step.to or state), outcome) not in STEPS
    }
    # Only an IKE SA that is established may have a rival, and only then is superseded by it.
    assert missing == {f"{state} Superseded" for state in ("SUCCESSOR", "REKEYED", "CLOSING")}


def test_what_an_answer_comes_to_has_a_row() -> None:
    exchanges: set[type[Exchange]] = {exchange for exchange, _ in ANSWERS}
    actions: list[tuple[type[Exchange], Callable[..., object]]]
    actions = [(exchange, action) for (exchange, _), action in ANSWERS.items()]
    actions += [(exchange, exchange.failed) for exchange in exchanges]
    missing = {
        f"{exchange.__name__}: {state.name} {outcome.__name__}"
        for exchange, action in actions
        for state in ASKED_IN.get(exchange, (State.ESTABLISHED,))
        for outcome in outcomes(action)
        if outcome is not Cause and (state, outcome) not in STEPS
    }
    assert missing == set()


def test_every_outcome_is_an_actions() -> None:
    actions: list[Callable[..., object]] = [step.action for step in STEPS.values()]
    actions += ANSWERS.values()
    actions += [exchange.failed for exchange, _ in ANSWERS]
    known = {outcome for action in actions for outcome in outcomes(action)}
    named = {one for one in vars(causes).values() if isinstance(one, type) and issubclass(one, Cause)}
    assert named - {Cause} - COMMANDS - known == {causes.Refused}, "Refused is what a Fault becomes"


def test_every_request_and_timer_has_a_row() -> None:
    keys = {key for _, key in STEPS}
    assert {*Timer, *ChildTimer} <= keys
    assert {state for state, _ in STEPS} == set(State) - {State.GONE}


def test_every_state_is_reached_by_a_row_and_left_by_one() -> None:
    assert {step.to for step in STEPS.values() if step.to} == set(State) - {State.NEW}
    left = {state for (state, _), step in STEPS.items() if step.to not in (None, state)}
    assert left == set(State) - {State.GONE}


@pytest.mark.parametrize("state", [one for one in State if one is not State.GONE])
def test_every_state_that_lasts_ends_by_a_timer(state: State) -> None:
    """No IKE SA is kept without end, whatever the peer does."""
    timers = {key for found, key in STEPS if found is state and isinstance(key, Timer)}
    ends = {Timer.END, Timer.RETRANSMIT, Timer.LIFETIME}
    assert state is State.NEW or timers & ends
