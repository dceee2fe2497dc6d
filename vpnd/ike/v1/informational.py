"""Informational exchanges: DELETE, errors, dead peer detection (RFC 2409 section 5.7, RFC 3706).

    HDR*, HASH(1), N or D   -->       one way, with a message ID and an IV chain of its own

Only a message whose HASH(1) verifies has an effect on what is established. A notify in clear is a hint for
the diagnosis of an attempt that gets nowhere.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from vpnd.ike.faults import Drop
from vpnd.ike.session import Phase
from vpnd.ike.v1 import diagnoses, succession
from vpnd.ike.v1.messages import Informational, PlainInformational
from vpnd.ike.v1.proposals import ESP_SPI_LENGTH, limited_phase1
from vpnd.ike.v1.quicks import UNREADABLE
from vpnd.ike.v1.received import State
from vpnd.wire.iana import Exchange1, Notify1, Protocol
from vpnd.wire.ikev1 import Delete, Hash, Notify, Payload, encode_payloads

if TYPE_CHECKING:
    from vpnd.ike.v1.received import Received
    from vpnd.ike.v1.session import Session

RIGHT_AFTER = 5.0
"""Seconds after our proof in which a DELETE, as the peer's first word, speaks of who we say we are."""
FIRST_STATUS = 16384
"""Notify types from here on report a state, below an error (RFC 2408 section 3.14.1)."""


def send(session: Session, *payloads: Payload) -> tuple[bytes, ...]:
    """One protected message of its own; its datagrams, for a repeated request.

    Nothing in it says which side it is from. Its message ID is used from now on, so that it means nothing to
    us should somebody send it back.
    """
    message_id = session.new_message_id()
    session.quicks.use(message_id)
    proof = Hash(session.keys.hash_1(message_id, encode_payloads(payloads)[1]))
    chain = session.phase2_chain(message_id)
    exchange = Exchange1.INFORMATIONAL
    return session.carrier.send(session.path, exchange, [proof, *payloads], message_id, chain)


def send_plain(session: Session, notify: int) -> tuple[bytes, ...]:
    """An error in clear, before there are keys; its datagrams, for a repeated request."""
    payload = Notify(notify, spi=session.cky_i + session.cky_r)
    message_id = session.new_message_id()
    return session.carrier.send(session.path, Exchange1.INFORMATIONAL, [payload], message_id)


def send_error(session: Session, notify: int) -> tuple[bytes, ...]:
    """Why something of an authenticated peer was refused; its datagrams, for a repeated request."""
    return send(session, Notify(notify, protocol=Protocol.ESP))


def send_delete_child(session: Session, spi_in: int) -> None:
    """DELETE for the inbound SA that the peer sends on (RFC 2408 section 3.15)."""
    send(session, Delete(Protocol.ESP, (spi_in.to_bytes(4, "big"),)))


def send_delete_ike(session: Session) -> None:
    """DELETE for the ISAKMP SA itself."""
    send(session, Delete(Protocol.IKE, (session.cky_i + session.cky_r,)))


def send_are_you_there(session: Session, sequence: int) -> tuple[bytes, ...]:
    """R-U-THERE with a sequence number that the ACK repeats (RFC 3706 section 5.3); its datagrams."""
    cookies = session.cky_i + session.cky_r
    return send(session, Notify(Notify1.R_U_THERE, sequence.to_bytes(4, "big"), Protocol.IKE, cookies))


def on_informational(session: Session, now: float, message_id: int, received: Received) -> None:
    """A message under the ISAKMP SA. Raises Drop if its hash is wrong."""
    message = _verified(session, message_id, received)
    session.quicks.use(message_id)
    first = not session.accepted and now < session.established_at + RIGHT_AFTER
    session.verified(now, alive=_says_life(session, message.notifies))
    session.moved(now, received.path)
    for notify in message.notifies:
        _on_notify(session, now, notify)
    for delete in message.deletes:
        _on_delete(session, now, delete, first)


def on_early(session: Session, now: float, message_id: int, received: Received) -> None:
    """A message under keys that are not proven yet: the peer has the same, and says why it will not go on.

    Raises Drop if its hash is wrong, or if it says anything else.
    """
    message = _verified(session, message_id, received)
    session.quicks.use(message_id)
    _note_errors(session, now, message, authentic=True)


def on_plain(session: Session, now: float, received: Received) -> None:
    """A message in clear: a hint, and only while nothing is established. Raises Drop otherwise."""
    message: PlainInformational = received.expect(PlainInformational)
    if not session.attempt.listens:
        raise Drop("informational in clear")
    _note_errors(session, now, message, authentic=False)


def _note_errors(
    session: Session, now: float, message: Informational | PlainInformational, authentic: bool
) -> None:
    """Errors and DELETE are hints for the diagnosis; before the proofs nothing else is. Raises Drop then."""
    errors = [notify.type for notify in message.notifies if notify.type < FIRST_STATUS]
    for error in errors:
        session.attempt.note(now, diagnoses.of_phase1_error(session, error, authentic))
    cookies = session.cky_i + session.cky_r
    if any(delete.protocol == Protocol.IKE and cookies in delete.spis for delete in message.deletes):
        session.attempt.note(now, diagnoses.of_phase1_delete(session, authentic))
    elif not errors:
        raise Drop("informational before the proofs")


def _verified(session: Session, message_id: int, received: Received) -> Informational:
    message: Informational = received.expect(Informational)
    wanted = session.keys.hash_1(message_id, received.behind_hash)
    if not hmac.compare_digest(wanted, message.hash.data):
        raise Drop("informational hash")
    return message


def _says_life(session: Session, notifies: tuple[Notify, ...]) -> bool:
    """Every message does, but for an ACK of what was not asked."""
    acks = [notify.data for notify in notifies if notify.type == Notify1.R_U_THERE_ACK]
    return not acks or any(session.liveness.expects(int.from_bytes(data[:4], "big")) for data in acks)


def _on_notify(session: Session, now: float, notify: Notify) -> None:
    if notify.type == Notify1.R_U_THERE:
        cookies = session.cky_i + session.cky_r
        send(session, Notify(Notify1.R_U_THERE_ACK, notify.data, Protocol.IKE, cookies))
    elif notify.type == Notify1.R_U_THERE_ACK:
        session.current_sa.liveness.acknowledged(now, int.from_bytes(notify.data[:4], "big"))
    elif notify.type == Notify1.INITIAL_CONTACT:
        if session.state is State.ESTABLISHED:
            succession.forget_older(session, now)
    elif notify.type == Notify1.RESPONDER_LIFETIME:
        _limit_lifetime(session, now, notify)
    elif notify.type in UNREADABLE and session.quicks.last_unread(now):
        return
    elif notify.type < FIRST_STATUS:
        quick = session.quicks.meant_by(notify.spi)
        refused = None if quick is None else diagnoses.of_quick_mode_error(notify.type, quick.policy)
        if quick is not None and refused is not None:
            session.quicks.peer_refused(now, quick, notify.type, refused)


def _limit_lifetime(session: Session, now: float, notify: Notify) -> None:
    """The responder keeps the ISAKMP SA, or an IPsec SA, no longer than it says (RFC 2407 section 4.6.3.1).

    Of an IPsec SA the seconds; its kilobytes are agreed in quick mode.
    """
    if session.phase is Phase.GONE:
        return
    if notify.protocol == Protocol.IKE and session.initiator:
        session.limit_lifetime(now, limited_phase1(session.negotiation.lifetime, [notify]))
    elif notify.protocol == Protocol.ESP and len(notify.spi) == ESP_SPI_LENGTH:
        session.current_sa.limit_child(now, int.from_bytes(notify.spi, "big"), notify)


def _on_delete(session: Session, now: float, delete: Delete, refuses_us: bool) -> None:
    """Only SAs of this peer's own tunnel can be named: an SPI of another tunnel is not found here."""
    if session.phase is Phase.GONE:
        return
    if delete.protocol == Protocol.ESP:
        session.peer_deleted_children(now, {int.from_bytes(spi, "big") for spi in delete.spis})
    elif delete.protocol == Protocol.IKE and session.cky_i + session.cky_r in delete.spis:
        succession.peer_deleted(session, now, refuses_us)
