"""Informational exchanges: DELETE, errors, dead peer detection (RFC 2409 section 5.7, RFC 3706).

    HDR*, HASH(1), N or D   -->       one way, with a message ID and an IV chain of its own

Only a message whose HASH(1) verifies has an effect on what is established. A notify in clear is a hint for
the diagnosis of an attempt that gets nowhere.
"""

from __future__ import annotations

import hmac

from vpnd.ike.faults import Drop
from vpnd.ike.session import Phase
from vpnd.ike.v1 import diagnoses, reauthentication
from vpnd.ike.v1.causes import PeerClosed
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.exchanges import quick_mode
from vpnd.ike.v1.exchanges.phase1 import wrong_key
from vpnd.ike.v1.messages import Informational, PlainInformational, Received
from vpnd.ike.v1.proposals import ESP_SPI_LENGTH, limited, limited_phase1
from vpnd.ike.v1.protect import Undecryptable
from vpnd.ike.v1.state import State, Timer
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.wire.iana import Notify1, Protocol
from vpnd.wire.ikev1 import Notify

RIGHT_AFTER = 5.0
"""Seconds after our proof in which a DELETE, as the peer's first word, speaks of who we say we are."""
FIRST_STATUS = 16384
"""Notify types from here on report a state, below an error (RFC 2408 section 3.14.1)."""
UNREADABLE = frozenset(
    (Notify1.PAYLOAD_MALFORMED, Notify1.INVALID_HASH_INFORMATION, Notify1.INVALID_PAYLOAD_TYPE)
)
"""What peers say of a message that does not decrypt: they keep an IV chain for very few exchanges."""


def on_informational(context: Context, now: float, received: Received) -> PeerClosed | None:
    """A message under the ISAKMP SA. Raises Drop if its hash is wrong."""
    message, sa = _verified(context, received), context.sa
    first = not sa.attempt.accepted and now < sa.established_at + RIGHT_AFTER
    quick_mode.verified(context, now, alive=_says_life(context, message.notifies))
    quick_mode.follow(context, now, received)
    for notify in message.notifies:
        _on_notify(context, now, notify)
    # Only SAs of this peer's own tunnel can be named: an SPI of another tunnel is not found here.
    named = {spi for one in message.deletes if one.protocol == Protocol.ESP for spi in one.spis}
    gone = Diagnosis.of(Code.PEER_DELETED, peer=sa.path.remote, detail="IPsec SA")
    children = context.peer.children
    for spi_in in children.named({int.from_bytes(spi, "big") for spi in named}):
        children.deleted(now, spi_in, gone)
    context.current.rearm()
    return PeerClosed(refuses_us=first) if _deletes_this(context, message) else None


def on_early(context: Context, now: float, received: Received) -> None:
    """Under keys not proven yet: why the peer goes no further. Raises Drop for anything else."""
    _note_errors(context, now, _verified(context, received), authentic=True)


def on_unopened(context: Context, now: float, received: Received) -> None:
    """As `on_early`, but our keys do not open it. Raises Drop."""
    detail = "the peer answered our proof with what our key does not open"
    note(context, now, wrong_key(context, detail=detail).diagnosis)
    raise Undecryptable


def on_plain(context: Context, now: float, received: Received) -> None:
    """A message in clear: a hint, and only while nothing is established. Raises Drop otherwise."""
    if context.sa.phase is not Phase.CONNECTING and not context.phase1.unconfirmed:
        raise Drop("informational in clear")
    _note_errors(context, now, received.of(PlainInformational), authentic=False)


def note(context: Context, now: float, diagnosis: Diagnosis) -> None:
    """Something speaks against the attempt: believed unless an answer comes soon.

    To our first message it must be said twice, once after a repetition: who has no state yet says it to
    each, and who has may say it once.
    """
    sa, sent = context.sa, context.phase1.sent
    # Also of one whose peer has proved itself and does not accept our proof, if nothing comes of it.
    sa.attempt.hint = diagnosis
    answered_in_vain(context)
    if sa.attempt.doubted is None or sa.attempt.doubted[0] is not sa.state:
        sa.attempt.doubted = sa.state, now, sent
    _, since, sent_then = sa.attempt.doubted
    if sa.state in (State.SENT_SA, State.SENT_AGGRESSIVE) and sent == sent_then:
        return
    if sa.phase is Phase.CONNECTING and context.timers.deadline(Timer.ERROR) is None:
        context.timers.arm(Timer.ERROR, max(now, since + context.registry.limits.error_listening))


def answered_in_vain(context: Context) -> None:
    """In aggressive mode we answer before the peer shows its key: it does not go on with this one."""
    sa = context.sa
    if sa.state is State.ANSWERED_AGGRESSIVE:
        context.registry.shared_keys.answered_in_vain(sa.policy, sa.psk)


def _note_errors(
    context: Context, now: float, message: Informational | PlainInformational, authentic: bool
) -> None:
    """Errors and DELETE are hints for the diagnosis; before the proofs nothing else is. Raises Drop then."""
    errors = [notify.type for notify in message.notifies if notify.type < FIRST_STATUS]
    for error in errors:
        note(context, now, diagnoses.of_phase1_error(context.sa, error, authentic))
    if _deletes_this(context, message):
        note(context, now, diagnoses.of_phase1_delete(context.sa, authentic))
    elif not errors:
        raise Drop("informational before the proofs")


def _deletes_this(context: Context, message: Informational | PlainInformational) -> bool:
    cookies = context.sa.cookies
    return any(one.protocol == Protocol.IKE and cookies in one.spis for one in message.deletes)


def _verified(context: Context, received: Received) -> Informational:
    message, message_id = received.of(Informational), received.header.message_id
    wanted = context.sa.keys.hash_1(message_id, received.behind_hash)
    if not hmac.compare_digest(wanted, message.hash.data):
        raise Drop("informational hash")
    context.transport.use(message_id)
    return message


def _says_life(context: Context, notifies: tuple[Notify, ...]) -> bool:
    """Every message does, but for an ACK of what was not asked."""
    acks = [notify.data for notify in notifies if notify.type == Notify1.R_U_THERE_ACK]
    return not acks or any(context.liveness.expects(int.from_bytes(data[:4], "big")) for data in acks)


def _on_notify(context: Context, now: float, notify: Notify) -> None:
    if notify.type == Notify1.R_U_THERE:
        context.transport.are_you_there(notify.data, Notify1.R_U_THERE_ACK)
    elif notify.type == Notify1.R_U_THERE_ACK:
        context.current.liveness.acknowledged(now, int.from_bytes(notify.data[:4], "big"))
    elif notify.type == Notify1.INITIAL_CONTACT:
        if context.sa.state is State.ESTABLISHED:
            reauthentication.forget_older(context, now)
    elif notify.type == Notify1.RESPONDER_LIFETIME:
        _limit_lifetime(context, now, notify)
    elif notify.type in UNREADABLE and quick_mode.unread(context, now, notify.spi):
        return
    elif notify.type < FIRST_STATUS:
        quick = context.quick_modes.meant_by(notify.spi)
        refused = None if quick is None else diagnoses.of_quick_mode_error(notify.type, quick.policy)
        if quick is not None and refused is not None:
            quick_mode.refused_by_peer(context, now, quick, notify.type, refused)


def _limit_lifetime(context: Context, now: float, notify: Notify) -> None:
    """The responder keeps the ISAKMP SA, or an IPsec SA, no longer than it says (RFC 2407 section 4.6.3.1).

    Of the ISAKMP SA the seconds: it carries few messages, and nothing here counts their kilobytes.
    """
    sa, children = context.sa, context.peer.children
    if notify.protocol == Protocol.IKE and sa.initiator:
        seconds = limited_phase1(sa.negotiation.lifetime, [notify])
        if seconds < sa.negotiation.lifetime:
            sa.negotiation.lifetime = seconds
            reauthentication.arm_lifetime(context, now)
    elif notify.protocol == Protocol.ESP and len(notify.spi) == ESP_SPI_LENGTH:
        for spi_in in children.named({int.from_bytes(notify.spi, "big")}):
            child = children.by_spi[spi_in]
            if child.sa.initiator and not child.deleted:
                children.limit(now, child, limited(child.limits, [notify]))
                context.current.rearm()
