"""Informational exchanges: DELETE, errors, dead peer detection (RFC 2409 section 5.7, RFC 3706).

    HDR*, HASH(1), N or D   -->       one way, with a message ID and an IV chain of its own

Only a message whose HASH(1) verifies has an effect on what is established. A notify in clear is a hint for
the diagnosis of an attempt that gets nowhere.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from vpnd.ike.faults import Drop
from vpnd.ike.v1 import quick_mode
from vpnd.ike.v1.messages import Informational, PlainInformational
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.wire.iana import Exchange1, Notify1, Protocol, name_of
from vpnd.wire.ikev1 import Delete, Hash, Notify, Payload, encode_payloads

if TYPE_CHECKING:
    from vpnd.ike.v1.received import Received
    from vpnd.ike.v1.session import Session

FIRST_STATUS = 16384
"""Notify types from here on report a state, below an error (RFC 2408 section 3.14.1)."""


def send(session: Session, *payloads: Payload) -> None:
    """One protected message of its own."""
    message_id = session.new_message_id()
    proof = Hash(session.keys.hash_1(message_id, encode_payloads(payloads)[1]))
    chain = session.phase2_chain(message_id)
    session.carrier.send(session.path, Exchange1.INFORMATIONAL, [proof, *payloads], message_id, chain)


def send_plain(session: Session, notify: int) -> tuple[bytes, ...]:
    """An error in clear, before there are keys; its datagrams, for a repeated request."""
    payload = Notify(notify, spi=session.cky_i + session.cky_r)
    message_id = session.new_message_id()
    return session.carrier.send(session.path, Exchange1.INFORMATIONAL, [payload], message_id)


def send_error(session: Session, notify: int) -> None:
    """Why a quick mode of the peer was refused."""
    send(session, Notify(notify, protocol=Protocol.ESP))


def send_delete_child(session: Session, spi_in: int) -> None:
    """DELETE for the inbound SA that the peer sends on (RFC 2408 section 3.15)."""
    send(session, Delete(Protocol.ESP, (spi_in.to_bytes(4, "big"),)))


def send_delete_ike(session: Session) -> None:
    """DELETE for the ISAKMP SA itself."""
    send(session, Delete(Protocol.IKE, (session.cky_i + session.cky_r,)))


def send_are_you_there(session: Session, sequence: int) -> None:
    """R-U-THERE with a sequence number that the ACK repeats (RFC 3706 section 5.3)."""
    cookies = session.cky_i + session.cky_r
    send(session, Notify(Notify1.R_U_THERE, sequence.to_bytes(4, "big"), Protocol.IKE, cookies))


def on_informational(session: Session, now: float, message_id: int, received: Received) -> None:
    """A message under the ISAKMP SA. Raises Drop if its hash is wrong."""
    message: Informational = received.expect(Informational)
    wanted = session.keys.hash_1(message_id, received.behind_hash)
    if not hmac.compare_digest(wanted, message.hash.data):
        raise Drop("informational hash")
    session.quicks.use(message_id)
    session.heard(now)
    session.follow(received.path)
    for notify in message.notifies:
        _on_notify(session, now, notify)
    for delete in message.deletes:
        _on_delete(session, now, delete)


def on_plain(session: Session, now: float, received: Received) -> None:
    """A message in clear: believed only as a hint, and only while nothing is established."""
    message: PlainInformational = received.expect(PlainInformational)
    for notify in message.notifies:
        if notify.type < FIRST_STATUS:
            session.hint(now, name_of(Notify1, notify.type))


def _on_notify(session: Session, now: float, notify: Notify) -> None:
    if notify.type == Notify1.R_U_THERE:
        cookies = session.cky_i + session.cky_r
        send(session, Notify(Notify1.R_U_THERE_ACK, notify.data, Protocol.IKE, cookies))
    elif notify.type == Notify1.R_U_THERE_ACK:
        session.acknowledged(now, int.from_bytes(notify.data[:4], "big"))
    elif notify.type == Notify1.INITIAL_CONTACT:
        session.initial_contact(now)
    elif notify.type < FIRST_STATUS:
        word = name_of(Notify1, notify.type)
        quick = session.own_quick()
        if quick is not None:
            refused = Diagnosis.of(Code.PEER_REFUSED, notify=word)
            session.fail_quick(now, quick, quick_mode.refusal(refused, word, quick))


def _on_delete(session: Session, now: float, delete: Delete) -> None:
    """Only SAs of this peer's own tunnel can be named: an SPI of another tunnel is not found here."""
    if delete.protocol == Protocol.ESP:
        for spi in delete.spis:
            session.peer_deleted_child(now, int.from_bytes(spi, "big"))
    elif delete.protocol == Protocol.IKE and session.cky_i + session.cky_r in delete.spis:
        session.end(now, Diagnosis.of(Code.PEER_DELETED, peer=session.path.remote))
