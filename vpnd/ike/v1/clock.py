"""What the passing of time does to an ISAKMP SA: repeats, succession, signs of life, the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from vpnd.ike import natt
from vpnd.ike.outputs import Keepalive, PeerDead
from vpnd.ike.v1 import informational, succession
from vpnd.ike.v1.children import REKEY_AGAIN, Limit
from vpnd.ike.v1.peer import DELETED_FOR
from vpnd.ike.v1.received import State, Timer
from vpnd.model.diagnosis import Code, Diagnosis

if TYPE_CHECKING:
    from vpnd.ike.v1.session import Session


def handle_timeout(session: Session, now: float) -> None:
    """Each timer that is due, those of the children, then the quick modes."""
    for timer in session.timers.expired(now):
        _on_timer(session, now, timer)
    for limit, spi_in in session.children.timers.expired(now) if session.is_current else ():
        _on_limit(session, now, limit, spi_in)
    if session.is_current:
        _on_deletes(session, now)
    session.quicks.handle_timeout(now)


def peer_is_dead(session: Session, now: float) -> None:
    """Nothing has been heard for too long."""
    silence = f"nothing heard for {now - session.liveness.last_heard:.0f} s"
    dead = Diagnosis.of(Code.PEER_DEAD, peer=session.path.remote, detail=silence)
    diagnosis = session.attempt.hint or dead
    session.registry.emit(PeerDead(session.tunnel, diagnosis))
    session.end(now, diagnosis)


def _on_timer(session: Session, now: float, timer: Timer) -> None:
    match timer:
        case Timer.RETRANSMIT:
            session.attempt.retransmit(now)
        case Timer.ERROR:
            session.attempt.believe(now)
        case Timer.HELD:
            session.decide_held(now)
        case Timer.HALF_OPEN:
            session.attempt.half_open_over(now)
        case Timer.FORGET if session.state is State.REPLACED and session.quicks.busy(now):
            # With it the peer's last message would be lost, and one side would send on what the other lacks.
            session.timers.arm(Timer.FORGET, now + session.registry.limits.closing)
        case Timer.FORGET if session.state is State.REPLACED:
            succession.tell_closed(session, now)
            session.close(now, Diagnosis.of(Code.LIFETIME, detail="both sides had begun an ISAKMP SA"))
        case Timer.FORGET:
            session.end(now, Diagnosis.of(Code.PEER_DELETED, peer=session.path.remote))
        case Timer.RENEW:
            session.rekey(now)
        case Timer.MEND:
            succession.mend(session, now)
        case Timer.EXPIRE:
            session.close(now, Diagnosis.of(Code.LIFETIME, detail="ISAKMP SA"))
        case Timer.LIVENESS:
            if not session.liveness.handle_timeout(now):
                peer_is_dead(session, now)
        case Timer.KEEPALIVE:
            session.registry.emit(Keepalive(session.tunnel, session.path))
            session.timers.arm(Timer.KEEPALIVE, now + natt.KEEPALIVE_INTERVAL)
        case _:
            assert_never(timer)


def _on_deletes(session: Session, now: float) -> None:
    """What is too many is deleted, and what was deleted is so once more: nothing acknowledges it."""
    diagnosis = Diagnosis.of(Code.LIFETIME, detail="both sides had begun a quick mode")
    for spi_in in session.peer.surplus_due(now):
        if session.has_child(spi_in):
            informational.send_delete_child(session, spi_in)
            session.child_deleted(now, spi_in, diagnosis)
        session.peer.repeat_delete(now, spi_in, session.registry.entropy, DELETED_FOR)
    for spi_in in session.peer.deletes_due(now):
        informational.send_delete_child(session, spi_in)


def _on_limit(session: Session, now: float, limit: Limit, spi_in: int) -> None:
    match limit:
        case Limit.SEND:
            session.send_on(spi_in)
        case Limit.HARD:
            session.close_child(now, spi_in, Diagnosis.of(Code.LIFETIME, detail="IPsec SA"))
        case Limit.REMOVE:
            gone = Diagnosis.of(Code.PEER_DELETED, peer=session.path.remote, detail="IPsec SA")
            session.remove_child(spi_in, gone)
        case Limit.SOFT:
            # Again for as long as it comes to nothing: a pair that was succeeded is not current any more.
            session.children.timers.arm((Limit.SOFT, spi_in), now + REKEY_AGAIN)
            session.rekey_child(now, spi_in)
        case _:
            assert_never(limit)
