"""The state table of IKEv2: what each message, timer, command and outcome means in each state.

The story of a row that moves the state is the log's; `{cause}` and `{sa}` are what it is about. A message or
outcome without a row is a counted drop, a command without one does nothing, and a timer without one is
disarmed as the state is entered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from vpnd.ike import commands
from vpnd.ike.commands import Cause
from vpnd.ike.faults import Fault
from vpnd.ike.message import Message, Received
from vpnd.ike.steps import Step, table
from vpnd.ike.v2 import causes, duplicates, life
from vpnd.ike.v2.causes import Answered
from vpnd.ike.v2.children import Child, ChildTimer
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.exchanges import auth, informational, rekey_child, rekey_ike, sa_init
from vpnd.ike.v2.exchanges.create_child import CreateChild
from vpnd.ike.v2.exchanges.informational import (
    AuthenticationFailedNotice,
    DeleteChildren,
    DeleteIke,
    Liveness,
)
from vpnd.ike.v2.faults import InvalidSyntax, UnsupportedCriticalPayload
from vpnd.ike.v2.messages import (
    AuthRequest,
    AuthResponse,
    ChildRequest,
    ChildResponse,
    IkeRekeyRequest,
    IkeRekeyResponse,
    InformationalRequest,
    InformationalResponse,
    Malformed,
    Refusal,
    SaInitRequest,
    SaInitResponse,
)
from vpnd.ike.v2.requests import Exchange, Forgotten
from vpnd.ike.v2.state import State, Timer
from vpnd.wire import errors
from vpnd.wire.errors import DecodeError
from vpnd.wire.ikev2 import Payload

Result = tuple[Payload, ...] | Cause | Received | None
"""What an action comes to: the payloads of an answer, or what the next row is looked up by."""
Action = Callable[[Context, float, Any], Result]
Key = type[Message] | type[Cause] | Timer | ChildTimer


def answered(context: Context, now: float, answer: Answered) -> Result:
    """The peer has answered: `ANSWERS` has what that means to the exchange that asked."""
    exchange, message = answer.exchange, answer.received.message
    if isinstance(exchange, Forgotten):
        return None
    try:
        if isinstance(message, Malformed):
            raise message.error
        action = ANSWERS.get((type(exchange), type(message)))
        if action is None:
            detail = "an answer that does not fit the request"
            raise InvalidSyntax(exchange=exchange.kind.name, detail=detail)
        return action(exchange, context, now, answer.received)
    except DecodeError as error:
        context.registry.count(f"malformed answer: {error.field}")
        fault: Fault = InvalidSyntax(exchange=exchange.kind.name, detail=error)
    except Fault as raised:
        fault = raised
    return exchange.failed(context, now, fault)


def malformed(context: Context, now: float, received: Received) -> None:
    """A request that is authentic and cannot be read: the answer says so. Raises Fault."""
    error = received.of(Malformed).error
    if isinstance(error, errors.UnsupportedCriticalPayload):
        raise UnsupportedCriticalPayload(bytes((error.payload_type,)), detail=str(error))
    raise InvalidSyntax(detail=error)


def of_child(action: Callable[[Context, float, Child], Result]) -> Action:
    """A timer of a CHILD_SA, if that is still there."""

    @wraps(action)
    def act(context: Context, now: float, key: tuple[ChildTimer, int]) -> Result:
        child = context.children.find(key[1])
        return None if child is None else action(context, now, child)

    return act


ANSWERS: dict[tuple[type[Exchange], type[Message]], Callable[[Any, Context, float, Received], Result]] = {
    (sa_init.SaInitExchange, SaInitResponse): sa_init.SaInitExchange.accepted,
    (sa_init.SaInitExchange, Refusal): sa_init.SaInitExchange.refused,
    (auth.AuthExchange, AuthResponse): auth.AuthExchange.accepted,
    (auth.AuthExchange, Refusal): auth.AuthExchange.refused,
    (CreateChild, ChildResponse): CreateChild.accepted,
    (CreateChild, Refusal): CreateChild.refused,
    (rekey_child.RekeyChild, ChildResponse): rekey_child.RekeyChild.accepted,
    (rekey_child.RekeyChild, Refusal): rekey_child.RekeyChild.refused,
    (rekey_ike.RekeyIke, IkeRekeyResponse): rekey_ike.RekeyIke.accepted,
    (rekey_ike.RekeyIke, Refusal): rekey_ike.RekeyIke.refused,
    (Liveness, InformationalResponse): Liveness.accepted,
    (DeleteChildren, InformationalResponse): DeleteChildren.accepted,
    (DeleteIke, InformationalResponse): DeleteIke.accepted,
    (AuthenticationFailedNotice, InformationalResponse): AuthenticationFailedNotice.accepted,
}
"""What an answer means, by the exchange that asked: the one place that says which answers are legal."""

ENDING = (State.SUCCESSOR, State.REKEYED, State.CLOSING)
"""States in which nothing new begins on it."""
LASTING = (State.ESTABLISHED, *ENDING)

_FAILED: Step[Action, State] = Step("the attempt failed: {cause.diagnosis.code.value}", life.fail, State.GONE)
_WITHDRAWN: Step[Action, State] = Step(
    "the attempt failed: {cause.diagnosis.code.value}", life.withdraw, State.CLOSING
)
_FORGET: Step[Action, State] = Step("the IKE SA is forgotten", life.forget, State.GONE)

_ROWS: dict[tuple[State, ...], dict[Key, Step[Action, State]]] = {
    (State.NEW,): {
        causes.Begin: Step("begin IKEv2 with {sa.path.remote}", life.start, State.SENT_INIT),
        SaInitRequest: Step(
            "the peer began; chose a proposal and made the keys", sa_init.respond, State.ANSWERED_INIT
        ),
        causes.SuccessorAgreed: Step(
            "agreed on a successor of the IKE SA", life.wait_for_decision, State.SUCCESSOR
        ),
    },
    (State.NEW, State.SENT_INIT, State.SENT_AUTH, State.ANSWERED_INIT, State.HELD): {
        commands.Want: Step("a mapping waits", life.remember_wanted),
    },
    # --- initiator
    (State.SENT_INIT,): {
        causes.AskAgain: Step("the peer wants a cookie or another group", life.ask_again),
        causes.KeysAgreed: Step(
            "the peer chose a proposal; prove who we are", life.ask_auth, State.SENT_AUTH
        ),
        commands.Close: _FAILED,
        Timer.LISTEN: Step("no better answer", life.give_up),
    },
    (State.SENT_AUTH,): {
        causes.Authenticated: Step(
            "the peer proved who it is; the IKE SA is up", auth.begin, State.ESTABLISHED
        ),
        causes.AttemptWithdrawn: _WITHDRAWN,
        commands.Close: _WITHDRAWN,
    },
    (State.SENT_INIT, State.SENT_AUTH): {
        causes.AttemptFailed: _FAILED,
        Timer.RETRANSMIT: Step("no answer", life.retransmit_in_attempt),
    },
    # --- responder
    (State.ANSWERED_INIT, State.HELD): {
        AuthRequest: Step("the peer asks to be let in", auth.respond),
        causes.Authenticated: Step(
            "the peer proved who it is; the IKE SA is up", auth.admit, State.ESTABLISHED
        ),
        causes.Contested: Step(
            "hold the peer's attempt: ask the present peer of {sa.tunnel} for a sign of life",
            life.hold,
            State.HELD,
        ),
        causes.Refused: Step(
            "refuse the peer's attempt: {cause.fault.diagnosis.code.value}",
            life.refuse_attempt,
            State.REFUSED,
        ),
        commands.Close: _FORGET,
    },
    (State.HELD,): {Timer.HELD: Step("the present peer was asked", life.decide)},
    # --- established
    (State.SENT_INIT, State.SENT_AUTH, *LASTING): {Answered: Step("the peer answered", answered)},
    (State.ANSWERED_INIT, State.HELD, State.REFUSED, *LASTING): {
        Malformed: Step("cannot be read", malformed),
    },
    (State.REFUSED, *LASTING): {causes.Refused: Step("refuse the request", life.refuse)},
    LASTING: {InformationalRequest: Step("the peer informed us", informational.respond)},
    (State.ESTABLISHED,): {
        ChildRequest: Step("the peer asked for a CHILD_SA", rekey_child.respond),
        IkeRekeyRequest: Step("the peer asked to rekey the IKE SA", rekey_ike.respond),
        causes.Superseded: Step("a successor of the IKE SA has taken over", life.supersede, State.REKEYED),
        causes.Reinitiate: Step("begin another IKE SA beside this one", life.reinitiate),
        causes.PeerDead: Step("the peer is dead", life.dead, State.GONE),
        commands.Want: Step("bring a mapping up", life.want),
        commands.Close: Step("close the IKE SA: {cause.diagnosis.code.value}", life.leave, State.CLOSING),
        commands.CloseChild: Step("close a CHILD_SA", life.close_child),
        commands.RekeyNow: Step("rekey the IKE SA", life.rekey),
        commands.RekeyChildNow: Step("rekey a CHILD_SA", life.rekey_child),
        commands.PolicyChanged: Step("another policy holds", life.follow_policy),
        commands.Probe: Step("check that the peer is alive", life.probe),
        commands.Moved: Step("the peer sends from elsewhere", life.follow),
        Timer.RETRANSMIT: Step("no answer", life.retransmit),
        Timer.RETRY: Step("the peer was busy", life.resume),
        Timer.DPD: Step("is the peer alive?", life.check_life),
        Timer.REKEY: Step("rekey the IKE SA", life.rekey),
        Timer.REINITIATE: Step("it has no successor yet", life.ends_soon),
        Timer.LIFETIME: Step("its lifetime is over", life.lifetime),
        Timer.KEEPALIVE: Step("keep the NAT's mapping", life.keep_alive),
        Timer.DUPLICATE: Step("of two IKE SAs, which stays?", duplicates.review),
        ChildTimer.REKEY: Step("rekey a CHILD_SA", of_child(life.rekey_due)),
        ChildTimer.LIFETIME: Step("the lifetime of a CHILD_SA is over", of_child(life.child_lifetime)),
        ChildTimer.REMOVE: Step("remove a rekeyed CHILD_SA", of_child(life.remove_child)),
        ChildTimer.DUPLICATE: Step("a CHILD_SA is redundant", of_child(duplicates.close_child)),
    },
    # --- rekeying and closing
    (State.SUCCESSOR,): {
        causes.TakeOver: Step("the IKE SA is rekeyed", life.take_over, State.ESTABLISHED),
        causes.Discard: Step("close the redundant successor of the IKE SA", life.discard, State.CLOSING),
    },
    (State.ESTABLISHED, State.SUCCESSOR, State.REKEYED): {
        causes.PeerClosed: Step("the peer closed the IKE SA", life.closed_by_peer, State.CLOSING),
    },
    (State.CLOSING,): {
        causes.PeerClosed: Step("the peer closes it as well", life.closed_by_peer),
        causes.HandOver: Step("another IKE SA asks for its mappings", duplicates.hand_over),
    },
    (State.REKEYED, State.CLOSING): {
        causes.Finished: _FORGET,
        Timer.RETRANSMIT: Step("no answer", life.retransmit_last),
    },
    ENDING: {
        ChildRequest: Step("refused: the IKE SA is on its way out", life.refuse_for_now),
        IkeRekeyRequest: Step("refused: the IKE SA is on its way out", life.refuse_for_now),
    },
    (State.ANSWERED_INIT, State.HELD, State.REFUSED, *ENDING): {Timer.END: _FORGET},
}
STEPS = table(_ROWS)
