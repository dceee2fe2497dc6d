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
from vpnd.ike.steps import Step, table
from vpnd.ike.v1 import causes, life, messages, reauthentication
from vpnd.ike.v1.children import Limit
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.exchanges import aggressive_mode, informational, main_mode, quick_mode
from vpnd.ike.v1.state import State, Timer

Action = Callable[[Context, float, Any], Cause | None]
Key = type[object] | Timer | Limit

ATTEMPTS = (State.SENT_SA, State.SENT_KE, State.SENT_AUTH, State.SENT_AGGRESSIVE)
"""Ours."""
HALF_OPEN = (State.ANSWERED_SA, State.ANSWERED_KE, State.ANSWERED_AGGRESSIVE)
"""The peer's."""
PROOFS = (State.SENT_AUTH, State.SENT_AGGRESSIVE, State.ANSWERED_KE, State.ANSWERED_AGGRESSIVE, State.HELD)
"""States in which the peer's proof makes the ISAKMP SA."""

_ROWS: dict[tuple[State, ...], dict[Key, Step[Action, State]]] = {
    # --- initiator
    (State.NEW,): {
        causes.BeginMain: Step("sent our proposal", main_mode.begin, State.SENT_SA),
        causes.BeginAggressive: Step(
            "sent our proposal, key and identity", aggressive_mode.begin, State.SENT_AGGRESSIVE
        ),
        messages.Main1: Step(
            "the peer proposes; answered with our choice", main_mode.on_main1, State.ANSWERED_SA
        ),
        messages.Aggressive1: Step(
            "the peer proposes; answered with our choice and proof",
            aggressive_mode.on_aggressive1,
            State.ANSWERED_AGGRESSIVE,
        ),
    },
    (State.SENT_SA,): {
        messages.Main2: Step(
            "the peer chose a proposal; sent our key and nonce", main_mode.on_main2, State.SENT_KE
        ),
    },
    (State.SENT_KE,): {
        messages.Main4: Step("keys agreed; proved who we are", main_mode.on_main4, State.SENT_AUTH),
    },
    (State.SENT_AUTH,): {messages.Main6: Step("the peer proved who it is", main_mode.on_main6)},
    (State.SENT_AGGRESSIVE,): {
        messages.Aggressive2: Step("the peer proved who it is; so did we", aggressive_mode.on_aggressive2),
    },
    ATTEMPTS: {
        causes.Refused: Step("it makes no sense", life.doubt),
        causes.AttemptFailed: Step("the attempt failed", life.fail),
        Timer.RETRANSMIT: Step("no answer", life.retransmit),
        Timer.ERROR: Step("no better answer", life.give_up),
    },
    (State.NEW, *ATTEMPTS, State.ESTABLISHED): {commands.Want: Step("bring a mapping up", life.want)},
    # --- responder
    (State.ANSWERED_SA,): {
        messages.Main3: Step(
            "keys agreed; answered with our key and nonce", main_mode.on_main3, State.ANSWERED_KE
        ),
    },
    (State.ANSWERED_KE,): {
        messages.Main5: Step("the peer proved who it is", main_mode.on_main5),
        messages.UnopenedProof: Step("another key", main_mode.on_unopened),
    },
    (State.ANSWERED_KE, State.HELD): {
        causes.Proved: Step("the peer proved who it is", main_mode.conclude),
        causes.Contested: Step(
            "hold the peer's attempt: ask the present peer for a sign of life", life.hold, State.HELD
        ),
    },
    (State.HELD,): {Timer.HELD: Step("the present peer was asked", life.decide)},
    (State.ANSWERED_AGGRESSIVE,): {
        messages.Aggressive3: Step("the peer proved who it is", aggressive_mode.on_aggressive3),
        messages.UnopenedProof: Step("another key", aggressive_mode.on_unopened),
    },
    HALF_OPEN: {Timer.ERROR: Step("no better message", life.report_hint)},
    (State.NEW, *HALF_OPEN, State.HELD): {
        causes.Refused: Step("refuse the peer's attempt, or wait", life.suspect),
        causes.Rejected: Step("refused the peer's attempt", life.reject, State.REFUSED),
        Timer.HALF_OPEN: Step("the peer's next message has not come", life.half_open_over),
    },
    (State.REFUSED,): {Timer.FORGET: Step("refused long ago", life.forget)},
    # --- the proofs
    PROOFS: {
        causes.Authenticated: Step("both sides are authenticated", reauthentication.admit),
        causes.Admitted: Step(
            "established with a pre-shared key", reauthentication.begin_life, State.ESTABLISHED
        ),
        causes.Crossed: Step(
            "established beside another that both sides keep", reauthentication.yield_to, State.REPLACED
        ),
    },
    (State.SENT_AUTH, State.ANSWERED_AGGRESSIVE): {
        messages.Informational: Step("the peer goes no further", informational.on_early),
        messages.UnopenedInformational: Step("another key", informational.on_unopened),
    },
    (*ATTEMPTS, *HALF_OPEN, State.ESTABLISHED, State.REPLACED): {
        messages.PlainInformational: Step("a hint in clear", informational.on_plain),
    },
    # --- established, replaced, or deleted by the peer
    (State.ESTABLISHED,): {
        commands.RekeyNow: Step("begin a successor", life.renew),
        commands.PolicyChanged: Step("another policy holds", life.follow_policy),
        commands.Probe: Step("check that the peer is alive", life.probe),
        causes.PeerDead: Step("the peer is dead", life.dead),
        causes.AwaitSuccessor: Step(
            "deleted by the peer while a successor is being made",
            reauthentication.await_successor,
            State.DELETED,
        ),
        causes.Superseded: Step("a successor has taken over", reauthentication.supersede, State.REPLACED),
        causes.Forgotten: Step("the peer has another one", reauthentication.forgotten),
        Timer.RENEW: Step("begin a successor", life.renew),
        Timer.MEND: Step("pairs that the peer may have lost", life.mend),
        Timer.LIVENESS: Step("is the peer alive?", life.check_life),
        Timer.KEEPALIVE: Step("keep the NAT's mapping", life.keep_alive),
    },
    (State.REPLACED,): {
        causes.Restored: Step("the successor is gone", reauthentication.restore, State.ESTABLISHED),
        Timer.REVIEW: Step("does the peer have the one that is kept?", reauthentication.review),
        Timer.FORGET: Step("it is one too many", life.close_replaced),
    },
    (State.DELETED,): {
        causes.Superseded: Step("the successor is there", reauthentication.supersede_deleted, State.REPLACED),
        Timer.FORGET: Step("no successor has come", life.forget),
    },
    (State.ESTABLISHED, State.REPLACED): {
        messages.Main5: Step("the peer's proof again", main_mode.on_main5_again),
        messages.Aggressive3: Step("the peer's proof again", aggressive_mode.on_aggressive3_again),
        messages.Quick1: Step("the peer wants a pair of IPsec SAs", quick_mode.on_quick1),
        messages.Quick2: Step("the peer chose; acknowledged", quick_mode.on_quick2),
        messages.Quick3: Step("the peer acknowledged", quick_mode.on_quick3),
        causes.Refused: Step("refuse a message", life.refuse),
        causes.Settled: Step("find its place in the tunnel", reauthentication.settle),
        Timer.EXPIRE: Step("its lifetime is over", life.expire),
    },
    (State.ESTABLISHED, State.REPLACED, State.DELETED): {
        messages.Informational: Step("the peer informed us", informational.on_informational),
        causes.PeerClosed: Step("the peer deleted it", reauthentication.peer_closed),
        commands.Moved: Step("the peer sends from elsewhere", quick_mode.follow),
        causes.QuickModesDue: Step("repeat or end quick modes", quick_mode.serve),
    },
    (State.ESTABLISHED, State.DELETED): {
        commands.CloseChild: Step("delete a pair", life.close_child),
        commands.RekeyChildNow: Step("rekey a pair", life.rekey_child),
        Limit.SEND: Step("send on a pair", life.send_on),
        Limit.SOFT: Step("rekey a pair", life.rekey_due),
        Limit.HARD: Step("the lifetime of a pair is over", life.child_lifetime),
        Limit.REMOVE: Step("remove a pair", life.remove_child),
        Limit.SURPLUS: Step("delete one of two pairs", life.delete_surplus),
        Limit.DELETE: Step("delete a pair again", life.delete_again),
    },
    # --- the end
    tuple(state for state in State if state is not State.GONE): {
        commands.Close: Step("close", life.close),
        causes.Ended: Step("gone", reauthentication.end, State.GONE),
    },
}
STEPS = table(_ROWS)

EXPECTED: dict[State, frozenset[Any]] = {
    state: frozenset(key for found, key in STEPS if found is state) for state in State
}
"""What has a row in each state."""
