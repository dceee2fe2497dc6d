"""How a message comes in: window, integrity, payloads, the row of the table, the answer.

    header -> message ID -> open (SK, SKF) -> chain -> typed message -> STEPS[state, type] -> handler
           -> for a request: seal the answer, keep it for repeats

Nothing before `open` moves any state: whatever fails there is counted and dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vpnd.ike.faults import Drop, Fault, Held
from vpnd.ike.outputs import Failed
from vpnd.ike.session import Phase
from vpnd.ike.steps import step_for
from vpnd.ike.v2 import informational, ladder
from vpnd.ike.v2.faults import InvalidKe, InvalidSyntax, TemporaryFailure, UnsupportedCriticalPayload
from vpnd.ike.v2.messages import Received, read
from vpnd.ike.v2.protect import Opened
from vpnd.ike.v2.state import State, Timer
from vpnd.ike.v2.table import STEPS
from vpnd.ike.v2.window import Arrival, Reply
from vpnd.model.child import Path
from vpnd.wire import errors
from vpnd.wire.chain import decode_chain
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange2, Notify2, name_of
from vpnd.wire.ikev2 import Notify, Payload

if TYPE_CHECKING:
    from vpnd.ike.v2.session import Session

PASSING = (TemporaryFailure, InvalidKe)
"""Refusals that are part of coming to terms: nobody has to be told of them."""


def handle_message(session: Session, now: float, path: Path, header: Header, data: bytes) -> None:
    """One message for this IKE SA. Raises Drop or DecodeError for what changes nothing."""
    session.received += 1
    _check_header(session, header)
    if header.exchange == Exchange2.IKE_SA_INIT:
        _handle_init_response(session, now, path, header, data)
    elif header.has(Flag.RESPONSE):
        _handle_response(session, now, path, header, data)
    else:
        _handle_request(session, now, path, header, data)


def answer_init(session: Session, now: float, path: Path, header: Header, data: bytes) -> None:
    """The first message of a peer, which has made `session`: read it and answer it, unprotected.

    Raises Drop, DecodeError or Fault, with nothing registered: the caller answers without state.
    """
    received = read(header, path, data, decode_chain(header.next_payload, data[HEADER_LENGTH:]))
    _draw(session, received)
    step = step_for(STEPS, session.state, received.message)
    payloads = step.handler(session, now, received)
    datagrams = session.outbox.protect(Exchange2.IKE_SA_INIT, 0, payloads, response=True)
    session.init.response = datagrams[0]
    text = ladder.text_of(Exchange2.IKE_SA_INIT, 0, payloads, response=True)
    session.window.answered(Reply(0, datagrams, text))
    session.outbox.transmit(path, datagrams, text, ladder.detail_of(payloads))
    if step.to is not None:
        session.enter(step.to, step.story)


def repeat_init(session: Session, path: Path, data: bytes) -> None:
    """The first message once more. Raises Drop unless it is the same to the byte, and not too often."""
    if data != session.init.request or session.state is not State.ANSWERED_INIT:
        raise Drop("repeated IKE_SA_INIT: too late or different")
    _repeat_reply(session, path)


def _check_header(session: Session, header: Header) -> None:
    """The rest of what finds an IKE SA: both SPIs and the sender's role (RFC 7296 sections 2.6 and 3.1)."""
    if header.has(Flag.INITIATOR) == session.initiator:
        raise Drop("the flag says that we sent it")
    if header.spi_i != session.spi_i:
        raise Drop("unknown IKE SPI")
    if session.state is not State.SENT_INIT and header.spi_r != session.spi_r:
        raise Drop("unknown IKE SPI")


def _handle_init_response(session: Session, now: float, path: Path, header: Header, data: bytes) -> None:
    """An answer to IKE_SA_INIT: anyone may have sent it, so no fault in it ends the attempt."""
    if not header.has(Flag.RESPONSE) or session.state is not State.SENT_INIT:
        raise Drop("IKE_SA_INIT: not now")
    outstanding = session.window.matches(header.message_id)
    received = read(header, path, data, decode_chain(header.next_payload, data[HEADER_LENGTH:]))
    _draw(session, received)
    step = step_for(STEPS, session.state, received.message)
    try:
        step.handler(session, now, received)
    except Fault as fault:
        outstanding.exchange.failed(session, now, fault)
        return
    if step.to is not None and session.state is State.SENT_INIT:
        session.window.settled()
        session.timers.disarm(Timer.RETRANSMIT)
        session.timers.disarm(Timer.LISTEN)
        session.hint = None
        session.enter(step.to, step.story)


def _handle_response(session: Session, now: float, path: Path, header: Header, data: bytes) -> None:
    """An answer to the request that waits for one."""
    outstanding = session.window.matches(header.message_id)
    if outstanding.exchange.kind != header.exchange:
        raise Drop("response of another exchange")
    opened = _open(session, header, data)
    session.heard_from(now, path, answer=True)
    if opened.inside is None:
        return
    session.timers.disarm(Timer.RETRANSMIT)
    session.timers.disarm(Timer.LISTEN)
    before = session.state
    try:
        received = read(header, path, data, opened.chain())
        _draw(session, received)
        step = step_for(STEPS, session.state, received.message)
        step.handler(session, now, received)
    except DecodeError as error:
        session.registry.count(f"malformed answer: {error.field}")
        fault = InvalidSyntax(exchange=name_of(Exchange2, header.exchange), detail=error)
        outstanding.exchange.failed(session, now, fault)
    except Fault as fault:
        outstanding.exchange.failed(session, now, fault)
    else:
        if step.to is not None and session.state is before:
            session.enter(step.to, step.story)
    finally:
        if session.window.outstanding is outstanding:
            session.window.settled()
    informational.settle_early_deletes(session, now)


def _handle_request(session: Session, now: float, path: Path, header: Header, data: bytes) -> None:
    """A request of the peer: the next one, or a repeat of the last."""
    if session.held is not None:
        raise Drop("held until the present peer has answered")
    arrival = session.window.arrived(header.message_id)
    opened = _open(session, header, data)
    if arrival is Arrival.REPEATED:
        # A fragmented request is repeated in all its fragments; the first of them gets the answer.
        if opened.fragment in (None, 1):
            _repeat_reply(session, path)
        return
    session.heard_from(now, path, answer=False)
    if opened.inside is None:
        return
    answer_with(session, path, header, _answer(session, now, path, header, data, opened))


def answer_held(session: Session, now: float) -> None:
    """The request that was held for the present peer's answer is decided now, or held once more."""
    received, session.held = session.held, None
    if received is not None:
        answer_with(session, received.path, received.header, _handle(session, now, received))


def answer_with(session: Session, path: Path, header: Header, payloads: tuple[Payload, ...] | None) -> None:
    """Send the answer to a request, and keep it for repeats; None: the request is held."""
    if payloads is None:
        return
    exchange, message_id = header.exchange, header.message_id
    datagrams = session.outbox.protect(exchange, message_id, payloads, response=True)
    text = ladder.text_of(exchange, message_id, payloads, response=True)
    session.window.answered(Reply(message_id, datagrams, text))
    session.outbox.transmit(path, datagrams, text, ladder.detail_of(payloads))


def _answer(
    session: Session, now: float, path: Path, header: Header, data: bytes, opened: Opened
) -> tuple[Payload, ...] | None:
    """The payloads of the answer: the handler's, or the notify of what was wrong with the request."""
    try:
        received = read(header, path, data, opened.chain())
    except errors.UnsupportedCriticalPayload as error:
        kind = bytes((error.payload_type,))
        return _refuse(session, now, UnsupportedCriticalPayload(kind, detail=str(error)))
    except DecodeError as error:
        return _refuse(session, now, InvalidSyntax(detail=error))
    _draw(session, received)
    return _handle(session, now, received)


def _handle(session: Session, now: float, received: Received) -> tuple[Payload, ...] | None:
    """As `_answer`, of a request that was read."""
    before = session.state
    try:
        step = step_for(STEPS, session.state, received.message)
        payloads = step.handler(session, now, received)
    except Held:
        session.hold(now, received)
        return None
    except DecodeError as error:
        return _refuse(session, now, InvalidSyntax(detail=error))
    except Fault as fault:
        return _refuse(session, now, fault)
    if step.to is not None and session.state is before:
        session.enter(step.to, step.story)
    return payloads


def _refuse(session: Session, now: float, fault: Fault) -> tuple[Payload, ...]:
    """The error notify for a request. Before authentication it ends the peer's attempt."""
    if session.phase is Phase.CONNECTING:
        # Also a message that makes no sense is an attempt without proof, and has cost a key exchange.
        session.registry.not_proved(now, session.tunnel, session.path.remote)
        session.refuse(now, fault.diagnosis)
    elif not isinstance(fault, PASSING):
        session.registry.emit(Failed(session.tunnel, fault.diagnosis, initiator=False))
    return (Notify(fault.notify or Notify2.INVALID_SYNTAX, fault.data),)


def _open(session: Session, header: Header, data: bytes) -> Opened:
    if session.protection is None:
        raise Drop("no keys yet")
    return session.protection.open(header, data)


def _repeat_reply(session: Session, path: Path) -> None:
    reply = session.window.repeat(session.registry.limits.repeats)
    session.outbox.transmit(path, reply.datagrams, f"{reply.text} again")


def _draw(session: Session, received: Received) -> None:
    """The message as a rung of the ladder."""
    header, payloads = received.header, received.payloads
    text = ladder.text_of(header.exchange, header.message_id, payloads, header.has(Flag.RESPONSE))
    detail = ladder.detail_of(payloads)
    session.registry.draw(session.tunnel, False, text, len(received.datagram), detail, session.is_stranger)
