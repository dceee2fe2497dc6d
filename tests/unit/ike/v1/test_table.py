"""The state table of IKEv1 is complete: what a row comes to has a row, and every state ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import pytest

from vpnd.ike import commands
from vpnd.ike.commands import Cause
from vpnd.ike.v1 import causes, messages
from vpnd.ike.v1.children import Limit
from vpnd.ike.v1.exchanges import aggressive_mode, main_mode
from vpnd.ike.v1.state import State, Timer
from vpnd.ike.v1.table import STEPS

COMMANDS = {
    causes.BeginMain,
    causes.BeginAggressive,
    commands.Want,
    commands.Probe,
    commands.Moved,
    causes.QuickModesDue,
    causes.Superseded,
    causes.Restored,
    causes.Forgotten,
}
"""What comes from outside; all other causes are outcomes of an action."""


def outcomes(action: Callable[..., Any]) -> Iterator[type]:
    """What an action may come to, by its annotation."""
    hint = get_type_hints(action)["return"]
    for one in get_args(hint) if isinstance(hint, UnionType) else (hint,):
        if one is not NoneType:
            yield one


def test_what_a_row_comes_to_has_a_row() -> None:
    missing = {
        f"{(step.to or state).name} {outcome.__name__}"
        for (state, _), step in STEPS.items()
        for outcome in outcomes(step.action)
        if outcome is not Cause and ((step.to or state), outcome) not in STEPS
    }
    # Only what is established awaits a successor, or has quick modes of ours without an answer.
    others = {f"{state} AwaitSuccessor" for state in ("REPLACED", "DELETED")}
    assert missing == others | {f"{s} {o}" for s in ("REPLACED", "DELETED") for o in ("PeerDead", "RekeyNow")}


def test_every_outcome_is_an_actions() -> None:
    known = {outcome for step in STEPS.values() for outcome in outcomes(step.action)}
    named = {one for one in vars(causes).values() if isinstance(one, type) and issubclass(one, Cause)}
    assert named - {Cause} - COMMANDS - known == {causes.Refused}, "Refused is what a Fault becomes"


def test_every_message_and_timer_has_a_row() -> None:
    keys = {key for _, key in STEPS}
    assert {*Timer, *Limit, *messages.MAIN, *messages.AGGRESSIVE} <= keys
    assert {state for state, _ in STEPS} == set(State) - {State.GONE}


def test_every_state_is_reached_by_a_row_and_left_by_one() -> None:
    assert {step.to for step in STEPS.values() if step.to} == set(State) - {State.NEW}
    left = {state for (state, _), step in STEPS.items() if step.to not in (None, state)}
    assert left == set(State) - {State.GONE}


@pytest.mark.parametrize("state", [one for one in State if one is not State.GONE])
def test_every_state_that_lasts_ends_by_a_timer(state: State) -> None:
    """No ISAKMP SA is kept without end, whatever the peer does."""
    timers = {key for found, key in STEPS if found is state and isinstance(key, Timer)}
    assert timers & {Timer.FORGET, Timer.RETRANSMIT, Timer.EXPIRE, Timer.HALF_OPEN}


@pytest.mark.parametrize("action", [main_mode.on_main5_again, aggressive_mode.on_aggressive3_again])
def test_a_proof_that_comes_again_has_a_row_only_where_it_was_accepted(action: Callable[..., Any]) -> None:
    """Not where it was refused: the answer to that is the refusal, which a repeat in the same bytes gets."""
    states = {state for (state, _), step in STEPS.items() if step.action is action}
    assert states == {State.ESTABLISHED, State.REPLACED}
