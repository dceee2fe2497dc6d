"""Two IKE SAs of one tunnel: both ends began at once, or the peer began anew. One stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vpnd.ike.outputs import PeerRenews
from vpnd.ike.v2.children import (
    DUPLICATE_KEPT,
    DUPLICATE_KEPT_BY_PEER,
    INBOUND_KEPT,
    RACE,
    Child,
    ChildTimer,
    Fate,
)
from vpnd.ike.v2.informational import DeleteChildren
from vpnd.ike.v2.state import Timer
from vpnd.model.diagnosis import Code, Diagnosis

if TYPE_CHECKING:
    from vpnd.ike.v2.session import Session

REKEY_ENDS = 0.5
"""Seconds until a rekey that was under way is looked at again."""
KEPT_BESIDE = 2
"""IKE SAs that are held for a peer which begins again what is closed; more at once are refused."""


def settle(session: Session, now: float) -> None:
    """`session` has just been established: which of it and its siblings goes, by a rule both ends share.

    No RFC has one. If each side began one of the two within a short time, the one with the higher
    initiator's SPI goes; else the older. Its initiator closes it, after a round trip, so that the peer has
    learned of both; the other side waits longer and does so only if the initiator did not. With a peer that
    makes another one of what is closed, both stay.
    """
    renewals = session.registry.renewals
    if not session.initiator and session.siblings() and renewals.begun(now, session.tunnel):
        session.registry.emit(PeerRenews(session.tunnel))
    for other in session.siblings():
        if renewals.expects(session.tunnel):
            other.children.yield_to = None
            other.timers.disarm(Timer.DUPLICATE)
            continue
        made = other.established_at
        racing = other.initiator != session.initiator and made is not None and now - made < RACE
        loser, keeper = (session, other) if racing and session.spi_i > other.spi_i else (other, session)
        loser.children.yield_to = keeper.children
        kept = DUPLICATE_KEPT if loser.initiator else DUPLICATE_KEPT_BY_PEER
        loser.timers.arm(Timer.DUPLICATE, now + kept)
        loser.registry.arm(loser)
    siblings = session.siblings()
    excess = len(siblings) + 1 - session.registry.limits.ike_sas_per_tunnel
    for other in siblings[: max(0, excess)]:
        close(other, now)


def are_enough(session: Session, now: float) -> bool:
    """Whether `session`, which a peer that makes another of what is closed has begun, is one too many.

    It has begun several at once for those that were closed together, or we hold all that we can.
    """
    if not session.registry.renewals.expects(session.tunnel):
        return False
    siblings = session.siblings()
    fresh = sum(now - (other.established_at or now) < RACE for other in siblings)
    return fresh >= KEPT_BESIDE or len(siblings) + 1 >= session.registry.limits.ike_sas_per_tunnel


def close_soon(session: Session, now: float) -> None:
    """`session` was established without a CHILD_SA, since there are enough: its DELETE makes no other."""
    session.timers.arm(Timer.DUPLICATE, now + DUPLICATE_KEPT)


def close_when_idle(session: Session, now: float) -> None:
    """Close the redundant IKE SA. A rekey of ours ends first: its answer makes an SA that the peer uses."""
    if session.is_rekeying:
        session.timers.arm(Timer.DUPLICATE, now + REKEY_ENDS)
    else:
        close(session, now)


def close(session: Session, now: float) -> None:
    """Close the redundant IKE SA; the one that stays gets the mappings that only this one had.

    The peer may send on the CHILD_SAs of either. What is on its way until it has our DELETE still arrives.
    """
    siblings = session.siblings()
    if not siblings:
        return
    keeper = siblings[-1]
    mappings = [child.sa.mapping for child in session.children if child.fate is Fate.LIVE]
    wanted = session.wanted_children
    session.registry.renewals.closing(session.tunnel)
    kept = session.registry.limits.closing + INBOUND_KEPT
    receiving = keeper.children.receive_for(now, session.children, kept)
    session.close(now, Diagnosis.of(Code.LIFETIME, detail="another IKE SA of the tunnel stays"), receiving)
    for mapping in (*wanted, *(mappings if session.initiator else ())):
        keeper.want(now, mapping)
    session.registry.arm(keeper)


def closed_by_peer(session: Session, now: float) -> None:
    """The peer has closed one of several IKE SAs: its DELETE may have overtaken what it sent before."""
    siblings = session.siblings()
    if siblings:
        siblings[-1].children.receive_for(now, session.children, INBOUND_KEPT)
    hand_over(session, now)


def hand_over(session: Session, now: float) -> None:
    """`session` ends without an answer to what it was asked for: another IKE SA of the tunnel asks."""
    siblings = session.siblings()
    for mapping in session.wanted_children if siblings else ():
        siblings[-1].want(now, mapping)
    if siblings:
        session.registry.arm(siblings[-1])


def close_child(session: Session, now: float, child: Child) -> None:
    """Close the redundant CHILD_SA, unless the other one has gone meanwhile. It receives a little longer."""
    if child.fate is not Fate.LIVE or session.children.other(child) is None:
        return
    if child.rekeying is not None:
        session.timers.arm((ChildTimer.DUPLICATE, child.spi_in), now + REKEY_ENDS)
        return
    session.registry.renewals.closing(session.tunnel)
    child.fate = Fate.REKEYED
    session.children.retire(child)
    session.outbox.enqueue(DeleteChildren((child.spi_in,)))


def is_outlived(session: Session) -> bool:
    """Whether the peer was heard under another IKE SA of the tunnel since it was under this one.

    Then it lives, and has only forgotten this one: what is said of a dead peer would end the other as well.
    """
    return any(other.last_heard > session.last_heard for other in session.siblings())
