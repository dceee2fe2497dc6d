"""What the passing of time does to an IKE SA: repetition, signs of life, succession, the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from vpnd.ike.natt import KEEPALIVE_INTERVAL
from vpnd.ike.outputs import Keepalive
from vpnd.ike.retransmit import GIVE_UP_AFTER
from vpnd.ike.session import Phase, Unreachable
from vpnd.ike.silence import question_due
from vpnd.ike.v2 import duplicates, reception
from vpnd.ike.v2.children import Child, ChildTimer, lifetime_over
from vpnd.ike.v2.state import State, Timer
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import NAT_T_PORT

if TYPE_CHECKING:
    from vpnd.ike.v2.session import Session

SHORTEST_ASKING = 5.0
"""Seconds that a probe is given at least: after a pause of this machine silence proves nothing."""

UNANSWERED = 20.0
"""Seconds, six sends, after which a living peer will hardly answer any more, and another IKE SA is tried."""

ANEW_BEFORE = 120.0
ANEW_SHARE = 0.05
"""Seconds before its hard end, at most this share of its life, that an IKE SA which could not be rekeyed has
another made beside it: time for a second try, and late enough for the rekeying to be tried until then.
"""
ANEW_AGAIN = GIVE_UP_AFTER + 10.0
"""Seconds until another IKE SA is begun once more: the attempt before it is over by then."""

LONGEST_PATIENCE = 180.0
"""Seconds until a request is given up although the peer gives other signs of life (RFC 7296 section 2.4)."""


def handle_timeout(session: Session, now: float) -> None:
    """Everything that is due, in the order of its deadlines."""
    for key in session.timers.expired(now):
        match key:
            case Timer() as timer:
                _expired(session, now, timer)
            case (ChildTimer() as timer, int() as spi_in):
                _child_expired(session, now, timer, spi_in)
        if session.state is State.GONE:
            return


def next_dpd(session: Session) -> float:
    """When to look again whether the peer lives.

    Silence of half the timeout is followed by a probe; a request that is under way is as good as one.
    The peer is dead when the timeout has passed since it was last heard, and the question has been out for
    a while.
    """
    timeout = float(session.policy.dpd.timeout)
    outstanding = session.window.outstanding
    if outstanding is not None:
        return max(session.last_heard + timeout, outstanding.schedule.asked + SHORTEST_ASKING)
    return question_due(session.last_heard, timeout, session.initiator)


def next_look(session: Session, now: float) -> float:
    """As `next_dpd`, and soon where a request is under way: its answer moves the moment, and no timer."""
    due = next_dpd(session)
    return due if session.window.outstanding is None else min(due, now + SHORTEST_ASKING)


def _expired(session: Session, now: float, timer: Timer) -> None:
    match timer:
        case Timer.RETRANSMIT:
            _repeat(session, now)
        case Timer.LISTEN:
            if session.phase is Phase.CONNECTING:
                session.fail(now, _diagnosis_of_silence(session))
        case Timer.END:
            session.finish()
        case Timer.DPD:
            _check_life(session, now)
        case Timer.REKEY:
            session.rekey(now)
        case Timer.ANEW:
            _ends_soon(session, now)
        case Timer.LIFETIME:
            session.close(now, lifetime_over())
        case Timer.KEEPALIVE:
            session.registry.emit(Keepalive(session.tunnel, session.path))
            session.timers.arm(Timer.KEEPALIVE, now + KEEPALIVE_INTERVAL)
        case Timer.RETRY:
            session.outbox.resume(now)
        case Timer.HELD:
            reception.answer_held(session, now)
        case Timer.DUPLICATE:
            duplicates.close_when_idle(session, now)
        case _:
            assert_never(timer)


def anew_before(lifetime: float) -> float:
    """How many seconds before its end an IKE SA that could not be rekeyed has another made beside it."""
    return min(ANEW_BEFORE, ANEW_SHARE * lifetime)


def _ends_soon(session: Session, now: float) -> None:
    """The hard end is near: another IKE SA is begun beside this one.

    A rekey that was begun a moment ago may still be answered, and has half of the time that is left.
    """
    outstanding, end = session.window.outstanding, session.timers.deadline(Timer.LIFETIME)
    is_young = outstanding is not None and now - outstanding.schedule.started < UNANSWERED
    if session.rekeying is not None and is_young and end is not None:
        half = anew_before(session.policy.lifetime) / 2
        if now < end - half:
            session.timers.arm(Timer.ANEW, end - half)
            return
    session.begin_anew(now, "it could not be rekeyed and ends soon")
    session.timers.arm(Timer.ANEW, now + ANEW_AGAIN)


def _child_expired(session: Session, now: float, timer: ChildTimer, spi_in: int) -> None:
    child = session.children.find(spi_in)
    if child is None:
        return
    match timer:
        case ChildTimer.REKEY:
            _renew(session, now, child)
        case ChildTimer.LIFETIME:
            session.close_child(now, spi_in, lifetime_over())
        case ChildTimer.REMOVE:
            session.children.down(child, Diagnosis.of(Code.LIFETIME, detail="rekeyed"))
        case ChildTimer.DUPLICATE:
            duplicates.close_child(session, now, child)
        case _:
            assert_never(timer)


def _renew(session: Session, now: float, child: Child) -> None:
    """Its succession is due. One that comes early is to prove that it can be: once, and of what stays."""
    if now < child.soft_end and session.children.is_redundant(child):
        session.children.postpone_rekey(child, child.soft_end)
    else:
        session.renew_child(now, child.spi_in)


def _repeat(session: Session, now: float) -> None:
    """Send the request that waits for its answer once more, the same bytes (RFC 7296 section 2.1)."""
    outstanding = session.window.outstanding
    if outstanding is None:
        return
    if session.phase is Phase.ESTABLISHED and outstanding.schedule.late(now):
        outstanding.schedule.resume(now, SHORTEST_ASKING)
    if session.phase is Phase.ESTABLISHED:
        # Requests of the peer arrive, so it lives, and only our own or its answers are lost.
        heard_again = session.last_heard + GIVE_UP_AFTER
        outstanding.schedule.extend(min(heard_again, outstanding.schedule.started + LONGEST_PATIENCE))
        if now - outstanding.schedule.asked >= UNANSWERED and _lives(session, outstanding.schedule.asked):
            session.begin_anew(now, f"{outstanding.text} has no answer")
    if not outstanding.schedule.exhausted(now):
        outstanding.schedule.again(now)
        session.timers.arm(Timer.RETRANSMIT, outstanding.schedule.due)
        for path in filter(None, (session.path, session.former)):
            session.outbox.transmit(path, outstanding.datagrams, f"{outstanding.text} again")
    elif session.phase is Phase.CONNECTING:
        session.fail(now, _diagnosis_of_silence(session))
    elif session.phase is Phase.ESTABLISHED:
        session.dead(now, _diagnosis_of_death(session, now))
    else:
        session.finish()


def _lives(session: Session, since: float) -> bool:
    """Whether the peer may be alive: it was heard, or nobody listens for signs of life."""
    return session.last_heard > since or not session.policy.dpd.enabled


def _check_life(session: Session, now: float) -> None:
    """Dead peer detection (RFC 7296 section 2.4)."""
    if session.phase is not Phase.ESTABLISHED:
        return
    if not session.policy.dpd.enabled:
        # Asked once: the peer that has begun this IKE SA has not been heard on it.
        if session.last_heard == session.established_at:
            session.probe(now)
        return
    outstanding = session.window.outstanding
    if outstanding is not None and outstanding.schedule.late(now):
        # This machine stood still, and the repetition is due as well: it asks anew.
        outstanding.schedule.resume(now, SHORTEST_ASKING)
    due = next_dpd(session)
    if now >= due and outstanding is not None:
        session.dead(now, _diagnosis_of_death(session, now))
        return
    if now >= due:
        session.probe(now)
    session.timers.arm(Timer.DPD, max(next_look(session, now), now + 0.1))


def _diagnosis_of_death(session: Session, now: float) -> Diagnosis:
    outstanding = session.window.outstanding
    return Diagnosis.of(
        Code.PEER_DEAD,
        exchange=None if outstanding is None else outstanding.text.split(" ", 1)[0],
        sent=None if outstanding is None else outstanding.schedule.sent,
        detail=f"nothing heard for {now - session.last_heard:.0f} s",
        peer=session.path.remote,
    )


def _diagnosis_of_silence(session: Session) -> Diagnosis:
    """Why an attempt ended without an authentic answer: the best that is known."""
    if session.hint is not None:
        return session.hint
    in_auth = session.state is State.SENT_AUTH
    exchange = "IKE_AUTH" if in_auth else "IKE_SA_INIT"
    on_4500 = in_auth and session.path.local_port == NAT_T_PORT
    code = Code.UDP_4500 if on_4500 else Code.SILENT
    if session.unreachable is Unreachable.HOST:
        code = Code.UNREACHABLE
    elif session.unreachable is Unreachable.PORT and not on_4500:
        code = Code.PORT_CLOSED
    return Diagnosis.of(
        code,
        exchange=exchange,
        peer=session.path.remote,
        port=session.path.remote_port,
        sent=session.sent,
        received=session.received,
        detail=None if session.unreachable is None else session.unreachable.value,
    )
