"""One ISAKMP SA follows another: renewal, a peer that starts anew, and both sides beginning at once.

IKEv1 has no rekeying of an ISAKMP SA: a new phase 1 simply happens, and the IPsec SAs go on (RFC 2409
section 5.5 ties them to the peers, not to the ISAKMP SA). The successor becomes the current one of the peer;
the predecessor stays for what the peer still says under it.

When both sides begin at once, two ISAKMP SAs come up. Both sides keep the one whose initiator has the lower
identity, so that both keep the same one, and the other's initiator deletes it soon after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vpnd.ike.natt import KEEPALIVE_INTERVAL, initial_path
from vpnd.ike.outputs import Established, Failed, IkeReplaced, PeerRenews
from vpnd.ike.session import Phase
from vpnd.ike.v1 import diagnoses
from vpnd.ike.v1.children import REKEY_AGAIN, soft_deadline
from vpnd.ike.v1.received import State, Timer
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity

if TYPE_CHECKING:
    from vpnd.ike.v1.session import Session

REPLACED_AT_MOST = 1
"""Predecessors of one tunnel that are kept to the end of their lifetime: peers renew each that they hold."""
REPLACED_FOR_NOW = 8
"""Predecessors that are kept for a moment beside them, more than any race of both sides makes."""
STORM = 3
"""Predecessors at one moment that no race leaves: the peer renews faster than it may hand its SAs on."""
MEND_AFTER = 2.0
"""Seconds after the last DELETE for such predecessors until each mapping gets a pair that is there."""

ID_PREFIX = 4
"""Bytes before the value in the body of an Identification payload (RFC 2407 section 4.6.2)."""

_LIVE = (State.ESTABLISHED, State.DELETED)

PROMISING = (State.ANSWERED_KE, State.ANSWERED_AGGRESSIVE)
"""Attempts of the peer of which only its proof is missing: a first message alone anyone can have sent."""


def establish(session: Session, now: float, initial_contact: bool) -> None:
    """Both sides of `session` are authenticated: find its place among the ISAKMP SAs of the tunnel."""
    session.registry.proved(session.path.remote)
    older = session.siblings()
    predecessor = next((one for one in reversed(older) if one.state in _LIVE), None)
    crossing = predecessor is not None and _crosses(session, predecessor)
    for one in older:
        if one.initiator and one.phase is Phase.CONNECTING and _is_superfluous(one):
            session.peer.wanted = one.peer.wanted | session.peer.wanted
            one.end(now, Diagnosis.of(Code.PEER_DELETED, detail="the peer's own attempt was faster"))
    if predecessor is not None and crossing and not begun_by_the_lower(session):
        session.to(State.REPLACED, "established beside another that both sides keep")
        predecessor.peer.wanted = session.peer.wanted | predecessor.peer.wanted
        session.peer = predecessor.peer
        _retire(session, now, crossing)
        predecessor.quicks.next(now)
        _limit(predecessor, now)
        return
    if initial_contact and not crossing:
        forget_older(session, now)
        predecessor = None
    session.to(State.ESTABLISHED, "established with a pre-shared key")
    session.liveness.begin(now)
    if predecessor is None:
        session.peer.current = session
        session.registry.emit(Established(session.tunnel, session.describe()))
    else:
        succeed(session, predecessor, now, crossing)
        if not session.initiator and session.registry.renewals.begun(now, session.tunnel):
            session.registry.emit(PeerRenews(session.tunnel))
    _limit(session, now)


def path_of_successor(session: Session) -> Path:
    """Where a new phase 1 begins: as this one where there is a NAT, unless the peer's name moved since."""
    remote = session.policy.remote_address
    if session.nat.found and remote == session.configured_remote:
        return session.path
    return initial_path(session.policy.local_address, remote or session.path.remote)


def succeed(session: Session, predecessor: Session, now: float, crossing: bool = False) -> None:
    """`session` is the current one of the peer from now on."""
    deleted = predecessor.state is State.DELETED
    predecessor.to(State.REPLACED, "a successor has taken over")
    predecessor.quicks.hand_on()
    predecessor.peer.wanted |= session.peer.wanted
    session.peer, predecessor.peer.current = predecessor.peer, session
    _retire(predecessor, now, crossing)
    session.registry.emit(
        IkeReplaced(session.tunnel, predecessor.cky_i, predecessor.cky_r, session.describe())
    )
    if deleted:
        predecessor.end(now, Diagnosis.of(Code.PEER_DELETED))


def forget_older(session: Session, now: float) -> None:
    """INITIAL_CONTACT: the peer has no SA of this tunnel but what belongs to `session`.

    Attempts under way stay: they are not SAs yet, and both sides may have begun at once.
    """
    for one in session.siblings():
        if one.state in (*_LIVE, State.REPLACED):
            facts = {"notify": "INITIAL_CONTACT", "peer": session.path.remote}
            one.end(now, Diagnosis.of(Code.PEER_RESTARTED, **facts))


def peer_deleted(session: Session, now: float, refuses_us: bool = False) -> None:
    """The peer has deleted the ISAKMP SA: another takes over, if there is or may soon be one.

    `refuses_us`: it is the first that the peer says to our proof, so that it does not take it.
    """
    gone = Diagnosis.of(Code.PEER_DELETED, peer=session.path.remote)
    siblings = session.siblings()
    spare = next((one for one in reversed(siblings) if one.state is State.REPLACED), None)
    if session.state is not State.ESTABLISHED:
        session.end(now, gone)
    elif spare is not None:
        _take_up(spare, now)
        succeed(spare, session, now)
        session.end(now, gone)
    elif any(one.initiator or one.state in PROMISING for one in siblings if one.phase is Phase.CONNECTING):
        # A successor is being made: the DELETE may have overtaken its last message.
        session.timers.clear()
        session.timers.arm(Timer.FORGET, now + session.registry.limits.half_open_lifetime)
        session.to(State.DELETED, "deleted by the peer while a successor is being made")
    elif refuses_us:
        refused = diagnoses.of_phase1_delete(session, authentic=True)
        session.end(now, refused)
        if not session.initiator:
            # Of an attempt of ours the end of the ISAKMP SA tells.
            session.registry.emit(Failed(session.tunnel, refused, initiator=False))
    else:
        session.end(now, gone)


def _take_up(session: Session, now: float) -> None:
    """What had a successor is without one again: it is renewed and kept alive as before."""
    session.timers.disarm(Timer.FORGET)
    entropy, lifetime = session.registry.entropy, session.negotiation.lifetime
    margin = session.policy.margin
    soft = soft_deadline(session.established_at, lifetime, margin, entropy, session.initiator)
    session.timers.arm(Timer.RENEW, max(soft, now + REKEY_AGAIN))
    if session.nat.ours:
        session.timers.arm(Timer.KEEPALIVE, now + KEEPALIVE_INTERVAL)
    session.to(State.ESTABLISHED, "taken up again")
    session.liveness.begin(now)


def end_predecessors(session: Session, now: float, diagnosis: Diagnosis) -> None:
    """`session` is gone. What the peer would begin under a predecessor of it would belong to nothing."""
    for one in session.siblings():
        if one.state is State.REPLACED and one.peer is session.peer:
            one.close(now, diagnosis)


def begun_by_the_lower(session: Session) -> bool:
    """Whether the side with the lower identity has begun `session`: both sides find the same."""
    return session.initiator == we_are_lower(session)


def we_are_lower(session: Session) -> bool:
    """Whether our identity comes before the peer's, as it said it: that is what the peer compares with."""
    negotiation, policy = session.negotiation, session.policy
    body = negotiation.id_r if session.initiator else negotiation.id_i
    said = (one for one in policy.peer_ids if len(body) == ID_PREFIX + len(one.value))
    theirs = next((one for one in said if body.endswith(one.value)), policy.remote_id)
    return _order(policy.local_id) < _order(theirs)


def _order(identity: Identity) -> tuple[int, bytes]:
    return identity.type, identity.value.lower().rstrip(b".")


def _crosses(session: Session, other: Session) -> bool:
    """Whether the two sides began one each, `session` before its initiator knew of `other`."""
    if session.initiator == other.initiator:
        return False
    known = other.attempt.confirmed_at
    return known is None or session.attempt.began < known


def _is_superfluous(own: Session) -> bool:
    """Whether our attempt can end because the peer's has succeeded."""
    return own.attempt.answers == 0 or not begun_by_the_lower(own)


def _retire(old: Session, now: float, crossing: bool) -> None:
    """`old` is not the current one; its lifetime runs on, unless both sides began at once."""
    current = old.current_sa
    if old.timers.deadline(Timer.MEND) is not None:
        current.timers.arm(Timer.MEND, now + old.registry.limits.closing + MEND_AFTER)
    for timer in (Timer.RENEW, Timer.MEND, Timer.LIVENESS, Timer.KEEPALIVE):
        old.timers.disarm(timer)
    if crossing and old.initiator:
        old.timers.arm(Timer.FORGET, now + old.registry.limits.closing)
    old.registry.arm(old)
    current.registry.arm(current)


def tell_closed(session: Session, now: float) -> None:
    """A predecessor is closed because another ISAKMP SA has its part; a DELETE of IKEv1 has no answer."""
    session.registry.renewals.closing(session.tunnel)
    session.registry.renewals.closed(now, session.tunnel)


def mend(session: Session, now: float) -> None:
    """After a storm of new ISAKMP SAs: the DELETE for one may have taken IPsec SAs along at the peer.

    Nothing would say so: the peer lives, and drops what we send. Each mapping gets a successor.
    """
    if session.state is State.ESTABLISHED:
        for mapping, spi_in in list(session.children.current.items()):
            session.quicks.want(now, mapping, spi_in)


def _limit(session: Session, now: float) -> None:
    """The predecessors that are too many go, but not at once.

    A peer that has several of them hands its IPsec SAs from one to the next after it has established that: a
    DELETE that comes in between takes them along (strongSwan). With a peer that makes another one of what is
    closed, they stay.
    """
    replaced = [one for one in session.siblings() if one.state is State.REPLACED]
    if len(replaced) > STORM:
        session.timers.arm(Timer.MEND, now + session.registry.limits.closing + MEND_AFTER)
    for one in replaced[:-REPLACED_FOR_NOW]:
        tell_closed(one, now)
        one.close(now, Diagnosis.of(Code.LIFETIME, detail="ISAKMP SA"))
    if session.registry.renewals.expects(session.tunnel):
        for one in replaced:
            one.timers.disarm(Timer.FORGET)
        return
    for one in replaced[-REPLACED_FOR_NOW:-REPLACED_AT_MOST]:
        if one.timers.deadline(Timer.FORGET) is None:
            one.timers.arm(Timer.FORGET, now + session.registry.limits.closing)
            session.registry.arm(one)
