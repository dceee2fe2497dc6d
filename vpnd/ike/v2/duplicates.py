"""Two IKE SAs of one tunnel: both ends began at once, or the peer began anew. One stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vpnd.ike.outputs import PeerRenews
from vpnd.ike.session import Phase
from vpnd.ike.v2.children import DUPLICATE_KEPT, DUPLICATE_KEPT_BY_PEER, RACE, Fate
from vpnd.ike.v2.state import Timer
from vpnd.model.diagnosis import Code, Diagnosis

if TYPE_CHECKING:
    from vpnd.ike.v2.session import Session

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
    if not session.initiator and _siblings(session) and renewals.begun(now, session.tunnel):
        session.registry.emit(PeerRenews(session.tunnel))
    for other in _siblings(session):
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
    siblings = _siblings(session)
    excess = len(siblings) + 1 - session.registry.limits.ike_sas_per_tunnel
    for other in siblings[: max(0, excess)]:
        close(other, now)


def are_enough(session: Session, now: float) -> bool:
    """Whether `session`, which a peer that makes another of what is closed has begun, is one too many.

    It has begun several at once for those that were closed together, or we hold all that we can.
    """
    if not session.registry.renewals.expects(session.tunnel):
        return False
    siblings = _siblings(session)
    fresh = sum(now - (other.established_at or now) < RACE for other in siblings)
    return fresh >= KEPT_BESIDE or len(siblings) + 1 >= session.registry.limits.ike_sas_per_tunnel


def close_soon(session: Session, now: float) -> None:
    """`session` was established without a CHILD_SA, since there are enough: its DELETE makes no other."""
    session.timers.arm(Timer.DUPLICATE, now + DUPLICATE_KEPT)


def close(session: Session, now: float) -> None:
    """Close the redundant IKE SA; the one that stays gets the mappings that only this one had."""
    siblings = _siblings(session)
    if not siblings:
        return
    keeper = siblings[-1]
    mappings = [child.sa.mapping for child in session.children if child.fate is Fate.LIVE]
    session.registry.renewals.closing(session.tunnel)
    session.close(now, Diagnosis.of(Code.LIFETIME, detail="another IKE SA of the tunnel stays"))
    if session.initiator:
        for mapping in mappings:
            keeper.want(now, mapping)
    session.registry.arm(keeper)


def is_outlived(session: Session) -> bool:
    """Whether the peer was heard under another IKE SA of the tunnel since it was under this one.

    Then it lives, and has only forgotten this one: what is said of a dead peer would end the other as well.
    """
    return any(other.last_heard > session.last_heard for other in _siblings(session))


def _siblings(session: Session) -> list[Session]:
    """The other established IKEv2 SAs of the tunnel, oldest first."""
    return [
        other
        for other in session.registry.sessions(session.tunnel)
        if isinstance(other, type(session)) and other is not session and other.phase is Phase.ESTABLISHED
    ]
