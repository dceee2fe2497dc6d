"""The state table of IKEv2: what each message means in each state. A missing row is a counted drop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vpnd.ike.faults import Drop
from vpnd.ike.steps import Step
from vpnd.ike.v2 import auth, informational, rekey, sa_init
from vpnd.ike.v2.faults import TemporaryFailure
from vpnd.ike.v2.messages import (
    AuthRequest,
    AuthResponse,
    ChildRequest,
    ChildResponse,
    IkeRekeyRequest,
    IkeRekeyResponse,
    InformationalRequest,
    InformationalResponse,
    Received,
    Refusal,
    SaInitRequest,
    SaInitResponse,
)
from vpnd.ike.v2.state import State
from vpnd.wire.ikev2 import Payload

if TYPE_CHECKING:
    from vpnd.ike.v2.session import Session

Handler = Callable[["Session", float, Received], tuple[Payload, ...]]


def answered(session: Session, now: float, received: Received) -> tuple[Payload, ...]:
    """A response belongs to the exchange that asked."""
    outstanding = session.window.outstanding
    if outstanding is None:
        raise Drop("response to no request")
    outstanding.exchange.answered(session, now, received)
    return ()


def not_now(session: Session, now: float, received: Received) -> tuple[Payload, ...]:
    """The IKE SA is on its way out: nothing new begins on it (RFC 7296 section 2.25.2)."""
    raise TemporaryFailure(exchange="CREATE_CHILD_SA")


_ANSWERED: Step[Handler, State] = Step("the peer answered", answered)
_NOT_NOW: Step[Handler, State] = Step("refused: the IKE SA is on its way out", not_now)
_INFORMED: Step[Handler, State] = Step("the peer informed us", informational.respond)

STEPS: dict[tuple[State, type], Step[Handler, State]] = {
    (State.NEW, SaInitRequest): Step(
        "the peer began; chose a proposal and made the keys", sa_init.respond, State.ANSWERED_INIT
    ),
    (State.SENT_INIT, SaInitResponse): Step(
        "the peer chose a proposal; prove who we are", answered, State.SENT_AUTH
    ),
    (State.SENT_INIT, Refusal): _ANSWERED,
    (State.SENT_AUTH, AuthResponse): Step(
        "the peer proved who it is; the IKE SA is up", answered, State.ESTABLISHED
    ),
    (State.SENT_AUTH, Refusal): _ANSWERED,
    (State.ANSWERED_INIT, AuthRequest): Step(
        "the peer proved who it is; the IKE SA is up", auth.respond, State.ESTABLISHED
    ),
    (State.ESTABLISHED, ChildRequest): Step("the peer asked for a CHILD_SA", rekey.respond_child),
    (State.ESTABLISHED, IkeRekeyRequest): Step("the peer asked to rekey the IKE SA", rekey.respond_ike),
    (State.ESTABLISHED, InformationalRequest): _INFORMED,
    (State.ESTABLISHED, ChildResponse): _ANSWERED,
    (State.ESTABLISHED, IkeRekeyResponse): _ANSWERED,
    (State.ESTABLISHED, InformationalResponse): _ANSWERED,
    (State.ESTABLISHED, Refusal): _ANSWERED,
}
"""Rows of the states with which an IKE SA ends follow: requests are refused, answers free the window."""

for _state in (State.SUCCESSOR, State.REKEYED, State.CLOSING):
    STEPS[_state, ChildRequest] = _NOT_NOW
    STEPS[_state, IkeRekeyRequest] = _NOT_NOW
    STEPS[_state, InformationalRequest] = _INFORMED
    for _message in (AuthResponse, ChildResponse, IkeRekeyResponse, InformationalResponse, Refusal):
        STEPS[_state, _message] = _ANSWERED
