"""The state table of IKEv1: what each message, timer, command and outcome means in each state.

             initiator                                   responder
    SENT_SA ----Main2----> SENT_KE           ANSWERED_SA ----Main3----> ANSWERED_KE
    SENT_KE ----Main4----> SENT_AUTH         ANSWERED_KE ----Main5----> ESTABLISHED
    SENT_AUTH --Main6----> ESTABLISHED
    SENT_AGGRESSIVE --Aggressive2--> ESTABLISHED     ANSWERED_AGGRESSIVE --Aggressive3--> ESTABLISHED

The story of a row that moves the state is the log's. A message or outcome without a row is a counted drop, a
command without one does nothing, and a timer without one is disarmed as the state is entered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vpnd.ike import commands
from vpnd.ike.commands import Cause
from vpnd.ike.steps import Step
from vpnd.ike.v1 import causes, life, messages, reauthentication
from vpnd.ike.v1.children import Limit
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.exchanges import aggressive_mode, informational, main_mode, quick_mode
from vpnd.ike.v1.messages import Received
from vpnd.ike.v1.state import State, Timer

Action = Callable[[Context, float, Any], Cause | None]
Key = type[object] | Timer | Limit


def key_of(cause: object) -> Any:
    """What the row of a cause is looked up by: a message's, command's or outcome's type, or a timer."""
    match cause:
        case Received(message=message):
            return type(message)
        case Timer():
            return cause
        case (Limit() as limit, _):
            return limit
        case _:
            return type(cause)


_PROVED: Step[Action, State] = Step("the peer proved who it is", main_mode.conclude)
_RENEW: Step[Action, State] = Step("begin a successor", life.renew)

STEPS: dict[tuple[State, Key], Step[Action, State]] = {
    # --- initiator
    (State.NEW, causes.BeginMain): Step("sent our proposal", main_mode.begin, State.SENT_SA),
    (State.NEW, causes.BeginAggressive): Step(
        "sent our proposal, key and identity", aggressive_mode.begin, State.SENT_AGGRESSIVE
    ),
    (State.SENT_SA, messages.Main2): Step(
        "the peer chose a proposal; sent our key and nonce", main_mode.on_main2, State.SENT_KE
    ),
    (State.SENT_KE, messages.Main4): Step(
        "keys agreed; proved who we are", main_mode.on_main4, State.SENT_AUTH
    ),
    (State.SENT_AUTH, messages.Main6): Step("the peer proved who it is", main_mode.on_main6),
    (State.SENT_AGGRESSIVE, messages.Aggressive2): Step(
        "the peer proved who it is; so did we", aggressive_mode.on_aggressive2
    ),
    # --- responder
    (State.NEW, messages.Main1): Step(
        "the peer proposes; answered with our choice", main_mode.on_main1, State.ANSWERED_SA
    ),
    (State.NEW, messages.Aggressive1): Step(
        "the peer proposes; answered with our choice and proof",
        aggressive_mode.on_aggressive1,
        State.ANSWERED_AGGRESSIVE,
    ),
    (State.ANSWERED_SA, messages.Main3): Step(
        "keys agreed; answered with our key and nonce", main_mode.on_main3, State.ANSWERED_KE
    ),
    (State.ANSWERED_KE, messages.Main5): Step("the peer proved who it is", main_mode.on_main5),
    (State.ANSWERED_KE, messages.UnopenedProof): Step("another key", main_mode.on_unopened),
    (State.ANSWERED_KE, causes.Proved): _PROVED,
    (State.HELD, causes.Proved): _PROVED,
    (State.HELD, Timer.HELD): Step("the present peer was asked", life.decide),
    (State.ANSWERED_AGGRESSIVE, messages.Aggressive3): Step(
        "the peer proved who it is", aggressive_mode.on_aggressive3
    ),
    (State.ANSWERED_AGGRESSIVE, messages.UnopenedProof): Step("another key", aggressive_mode.on_unopened),
    (State.REFUSED, Timer.FORGET): Step("refused long ago", life.forget),
    # --- established
    (State.ESTABLISHED, commands.RekeyNow): _RENEW,
    (State.ESTABLISHED, commands.Probe): Step("check that the peer is alive", life.probe),
    (State.ESTABLISHED, causes.PeerDead): Step("the peer is dead", life.dead),
    (State.ESTABLISHED, causes.AwaitSuccessor): Step(
        "deleted by the peer while a successor is being made", reauthentication.await_successor, State.DELETED
    ),
    (State.ESTABLISHED, causes.Superseded): Step(
        "a successor has taken over", reauthentication.supersede, State.REPLACED
    ),
    (State.ESTABLISHED, causes.Forgotten): Step("the peer has another one", reauthentication.forgotten),
    (State.ESTABLISHED, Timer.RENEW): _RENEW,
    (State.ESTABLISHED, Timer.MEND): Step("pairs that the peer may have lost", life.mend),
    (State.ESTABLISHED, Timer.LIVENESS): Step("is the peer alive?", life.check_life),
    (State.ESTABLISHED, Timer.KEEPALIVE): Step("keep the NAT's mapping", life.keep_alive),
    # --- replaced, or deleted by the peer
    (State.REPLACED, causes.Restored): Step(
        "the successor is gone", reauthentication.restore, State.ESTABLISHED
    ),
    (State.REPLACED, Timer.REVIEW): Step("does the peer have the one that is kept?", reauthentication.review),
    (State.REPLACED, Timer.FORGET): Step("it is one too many", life.close_replaced),
    (State.DELETED, causes.Superseded): Step(
        "the successor is there", reauthentication.supersede_deleted, State.REPLACED
    ),
    (State.DELETED, Timer.FORGET): Step("no successor has come", life.forget),
}
"""Rows of the states that differ in little follow."""

ATTEMPTS = (State.SENT_SA, State.SENT_KE, State.SENT_AUTH, State.SENT_AGGRESSIVE)
"""Ours."""
HALF_OPEN = (State.ANSWERED_SA, State.ANSWERED_KE, State.ANSWERED_AGGRESSIVE)
"""The peer's."""
PROOFS = (State.SENT_AUTH, State.SENT_AGGRESSIVE, State.ANSWERED_KE, State.ANSWERED_AGGRESSIVE, State.HELD)
"""States in which the peer's proof makes the ISAKMP SA."""

for _state in ATTEMPTS:
    STEPS[_state, causes.Refused] = Step("it makes no sense", life.doubt)
    STEPS[_state, causes.AttemptFailed] = Step("the attempt failed", life.fail)
    STEPS[_state, Timer.RETRANSMIT] = Step("no answer", life.retransmit)
    STEPS[_state, Timer.ERROR] = Step("no better answer", life.give_up)

for _state in (State.NEW, *ATTEMPTS, State.ESTABLISHED):
    STEPS[_state, commands.Want] = Step("bring a mapping up", life.want)

for _state in (State.NEW, *HALF_OPEN, State.HELD):
    STEPS[_state, causes.Refused] = Step("refuse the peer's attempt, or wait", life.suspect)
    STEPS[_state, causes.Rejected] = Step("refused the peer's attempt", life.reject, State.REFUSED)
    STEPS[_state, Timer.HALF_OPEN] = Step("the peer's next message has not come", life.half_open_over)

for _state in HALF_OPEN:
    STEPS[_state, Timer.ERROR] = Step("no better message", life.report_hint)

for _state in (State.ANSWERED_KE, State.HELD):
    STEPS[_state, causes.Contested] = Step(
        "hold the peer's attempt: ask the present peer for a sign of life", life.hold, State.HELD
    )

for _state in PROOFS:
    STEPS[_state, causes.Authenticated] = Step("both sides are authenticated", reauthentication.admit)
    STEPS[_state, causes.Admitted] = Step(
        "established with a pre-shared key", reauthentication.begin_life, State.ESTABLISHED
    )
    STEPS[_state, causes.Crossed] = Step(
        "established beside another that both sides keep", reauthentication.yield_to, State.REPLACED
    )

for _state in (State.SENT_AUTH, State.ANSWERED_AGGRESSIVE):
    STEPS[_state, messages.Informational] = Step("the peer goes no further", informational.on_early)
    STEPS[_state, messages.UnopenedInformational] = Step("another key", informational.on_unopened)

for _state in (*ATTEMPTS, *HALF_OPEN, State.ESTABLISHED, State.REPLACED):
    STEPS[_state, messages.PlainInformational] = Step("a hint in clear", informational.on_plain)

for _state in (State.ESTABLISHED, State.REPLACED):
    STEPS[_state, messages.Main5] = Step("the peer's proof again", main_mode.on_main5_again)
    STEPS[_state, messages.Aggressive3] = Step("the peer's proof again", aggressive_mode.on_aggressive3_again)
    STEPS[_state, messages.Quick1] = Step("the peer wants a pair of IPsec SAs", quick_mode.on_quick1)
    STEPS[_state, messages.Quick2] = Step("the peer chose; acknowledged", quick_mode.on_quick2)
    STEPS[_state, messages.Quick3] = Step("the peer acknowledged", quick_mode.on_quick3)
    STEPS[_state, causes.Refused] = Step("refuse a message", life.refuse)
    STEPS[_state, causes.Settled] = Step("find its place in the tunnel", reauthentication.settle)
    STEPS[_state, Timer.EXPIRE] = Step("its lifetime is over", life.expire)

for _state in (State.ESTABLISHED, State.REPLACED, State.DELETED):
    STEPS[_state, messages.Informational] = Step("the peer informed us", informational.on_informational)
    STEPS[_state, causes.PeerClosed] = Step("the peer deleted it", reauthentication.peer_closed)
    STEPS[_state, commands.Moved] = Step("the peer sends from elsewhere", life.follow)
    STEPS[_state, causes.QuickModesDue] = Step("repeat or end quick modes", quick_mode.serve)

for _state in (State.ESTABLISHED, State.DELETED):
    STEPS[_state, commands.CloseChild] = Step("delete a pair", life.close_child)
    STEPS[_state, commands.RekeyChildNow] = Step("rekey a pair", life.rekey_child)
    STEPS[_state, Limit.SEND] = Step("send on a pair", life.send_on)
    STEPS[_state, Limit.SOFT] = Step("rekey a pair", life.rekey_due)
    STEPS[_state, Limit.HARD] = Step("the lifetime of a pair is over", life.child_lifetime)
    STEPS[_state, Limit.REMOVE] = Step("remove a pair", life.remove_child)
    STEPS[_state, Limit.SURPLUS] = Step("delete one of two pairs", life.delete_surplus)
    STEPS[_state, Limit.DELETE] = Step("delete a pair again", life.delete_again)

for _state in State:
    if _state is not State.GONE:
        STEPS[_state, causes.Close] = Step("close", life.close)
        STEPS[_state, causes.Ended] = Step("gone", reauthentication.end, State.GONE)

EXPECTED: dict[State, frozenset[Any]] = {
    state: frozenset(key for found, key in STEPS if found is state) for state in State
}
"""What has a row in each state."""
