"""One ISAKMP SA follows another: renewal, a peer that begins once more, and both sides beginning at once.

IKEv1 has no rekeying of an ISAKMP SA: a new phase 1 simply happens, and the IPsec SAs go on (RFC 2409
section 5.5 ties them to the peers, not to the ISAKMP SA). The successor becomes the current one of the peer;
the predecessor stays for what the peer still says under it.

When both sides begin at once, two ISAKMP SAs come up. Both sides keep the one whose initiator has the lower
identity, so that both keep the same one, and the other's initiator deletes it soon after. But the peer may
have dropped that one already without a word (strongSwan, when INITIAL_CONTACT comes on the other one): so it
stays only if it answers.

    both stand --0.2 s--> ask under the one that is kept, until it is heard: then the other one goes
               --1.7 s in silence--> ask under the other one as well; if that is heard, it stays
"""

from __future__ import annotations

from vpnd.ike.commands import Close
from vpnd.ike.natt import KEEPALIVE_INTERVAL
from vpnd.ike.outputs import Established, Failed, IkeDown, IkeReplaced, IkeSaInfo, PeerRenews
from vpnd.ike.session import Phase
from vpnd.ike.silence import ASKED_AGAIN
from vpnd.ike.v1 import diagnoses
from vpnd.ike.v1.causes import (
    Admitted,
    Authenticated,
    AwaitSuccessor,
    Crossed,
    Ended,
    Forgotten,
    PeerClosed,
    Restored,
    Settled,
    Superseded,
)
from vpnd.ike.v1.children import REKEY_AGAIN, soft_deadline
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.exchanges import quick_mode
from vpnd.ike.v1.state import State, Timer
from vpnd.model.diagnosis import Code, Diagnosis, Known
from vpnd.wire.iana import IkeVersion

REPLACED_AT_MOST = 1
"""Predecessors of one tunnel that are kept to the end of their lifetime: peers renew each that they hold."""
REPLACED_FOR_NOW = 8
"""Predecessors that are kept for a moment beside them, more than any race of both sides makes."""
STORM = 3
"""Young predecessors that no race leaves: the peer renews faster than it may hand its SAs on."""
MEND_AFTER = 2.0
"""Seconds after the last DELETE for such predecessors until each mapping gets a pair that is there."""
ASK_AFTER = 0.2
"""Seconds until the one of two that is kept is asked, unless it was heard: the peer knows both by then."""
ASK_AGAIN = 0.5
"""Seconds between its questions: three are sent."""
ANSWERS_WITHIN = 1.7
"""Seconds that it has to answer: after that the other one is asked as well."""

_LIVE = (State.ESTABLISHED, State.DELETED)

PROMISING = (State.ANSWERED_KE, State.HELD, State.ANSWERED_AGGRESSIVE)
"""Attempts of the peer of which only its proof is missing: a first message alone anyone can have sent."""


def admit(context: Context, now: float, cause: Authenticated) -> Admitted | Crossed:
    """Both sides are authenticated: find its place among the ISAKMP SAs of the tunnel."""
    sa = context.sa
    sa.attempt.confirmed_at = None if context.phase1.unconfirmed else now
    sa.attempt.hint = None
    sa.established_at = now
    sa.made_by = sa.policy
    sa.policy = context.registry.policies.by_name.get(sa.tunnel, sa.policy)
    sa.negotiation.shared = None
    context.timers.clear()
    arm_lifetime(context, now)
    context.registry.strangers.proved(sa.path.remote)
    psk = sa.psk or sa.policy.psk
    context.note_keys(now, psk, psk)
    older = context.siblings()
    predecessor = next((one for one in reversed(older) if one.sa.state in _LIVE), None)
    crossing = predecessor is not None and _crosses(context, predecessor)
    for one in older:
        if one.sa.initiator and one.sa.phase is Phase.CONNECTING:
            _is_outrun(one, context, now)
    if predecessor is not None and crossing and not sa.begun_by_the_lower:
        return Crossed(predecessor)
    if cause.initial_contact and not crossing:
        forget_older(context, now)
        predecessor = None
    return Admitted(predecessor, crossing)


def _is_outrun(attempt: Context, context: Context, now: float) -> None:
    """Our own attempt can end because the peer's has succeeded.

    But not once our proof is under way: the peer may have the ISAKMP SA of it, and drop its own for that.
    """
    if attempt.phase1.answered and attempt.sa.begun_by_the_lower:
        return
    context.peer.wanted = attempt.peer.wanted | context.peer.wanted
    attempt.peer.wanted = {}
    if attempt.sa.state is State.SENT_AUTH:
        attempt.sa.attempt.renews = True
        return
    attempt.command(now, Ended(Diagnosis.of(Code.PEER_DELETED, detail="the peer's own attempt was faster")))


def arm_lifetime(context: Context, now: float) -> None:
    """When the ISAKMP SA ends, and when its successor is due, unless it has one or needs none."""
    sa, timers = context.sa, context.timers
    timers.arm(Timer.EXPIRE, max(now, sa.established_at + sa.negotiation.lifetime))
    if sa.phase in (Phase.CONNECTING, Phase.ESTABLISHED):
        timers.arm(Timer.RENEW, now if sa.outdated else max(now, _soft_end(context)))
    if sa.nat.ours and sa.phase is Phase.CONNECTING:
        timers.arm(Timer.KEEPALIVE, now + KEEPALIVE_INTERVAL)


def _soft_end(context: Context) -> float:
    sa, entropy = context.sa, context.registry.entropy
    lifetime, margin = sa.negotiation.lifetime, sa.policy.margin
    return soft_deadline(sa.established_at, lifetime, margin, entropy, sa.initiator)


def begin_life(context: Context, now: float, cause: Admitted) -> Settled:
    """It speaks for the tunnel from now on."""
    context.liveness.begin(now, context.registry.entropy, context.registry.limits.unproven)
    return Settled(cause.predecessor, cause.crossing)


def yield_to(context: Context, now: float, cause: Crossed) -> Settled:
    """Both sides keep the other; what was wanted here is done there."""
    peer = cause.kept.peer
    peer.wanted = context.peer.wanted | peer.wanted
    context.peer = peer
    _retire(context, now, crossing=True)
    return Settled()


def settle(context: Context, now: float, cause: Settled) -> None:
    """Take over from the predecessor, let go of those that are too many, and begin what is wanted."""
    sa = context.sa
    if sa.state is State.ESTABLISHED and cause.predecessor is None:
        context.peer.current = context
        context.emit(Established(sa.tunnel, info(context)))
    elif sa.state is State.ESTABLISHED and cause.predecessor is not None:
        _succeed(context, cause.predecessor, now, cause.crossing)
        if not sa.initiator and context.registry.policies.renewals.begun(now, sa.tunnel):
            context.emit(PeerRenews(sa.tunnel))
    _limit(context.current, now)
    quick_mode.begin_next(context.current, now)
    unconfirmed = context.phase1.unconfirmed and context.quick_modes.own() is None
    if unconfirmed and sa.state is State.ESTABLISHED:
        # Nothing else would show whether the peer has our proof.
        context.ask(now)


def _succeed(context: Context, predecessor: Context, now: float, crossing: bool = False) -> None:
    """`context` is the current one of the peer from now on."""
    predecessor.peer.wanted |= context.peer.wanted
    quick_mode.hand_on(predecessor)
    context.peer, predecessor.peer.current = predecessor.peer, context
    predecessor.command(now, Superseded(crossing))
    old = predecessor.sa
    context.emit(IkeReplaced(context.sa.tunnel, old.spi_i, old.spi_r, info(context)))


def supersede(context: Context, now: float, cause: Superseded) -> None:
    """Another one speaks for the tunnel."""
    _retire(context, now, cause.crossing)


def supersede_deleted(context: Context, now: float, cause: Superseded) -> Ended:
    """The successor that the IPsec SAs have waited for is there."""
    _retire(context, now, cause.crossing)
    return Ended(Diagnosis.of(Code.PEER_DELETED))


def forget_older(context: Context, now: float) -> None:
    """INITIAL_CONTACT: the peer has no SA of this tunnel but what belongs to `context`.

    Attempts under way stay: they are not SAs yet, and both sides may have begun at once.
    """
    for one in context.siblings():
        if one.sa.state in (*_LIVE, State.REPLACED):
            facts: Known = {"notify": "INITIAL_CONTACT", "peer": context.sa.path.remote}
            one.command(now, Ended(Diagnosis.of(Code.PEER_RESTARTED, **facts)))


def peer_closed(context: Context, now: float, cause: PeerClosed) -> AwaitSuccessor | Ended:
    """The peer has deleted the ISAKMP SA: another takes over, if there is or may soon be one."""
    sa, siblings = context.sa, context.siblings()
    gone = Ended(Diagnosis.of(Code.PEER_DELETED, peer=sa.path.remote))
    spare = next((one for one in reversed(siblings) if one.sa.state is State.REPLACED), None)
    connecting = [one.sa for one in siblings if one.sa.phase is Phase.CONNECTING]
    if sa.state is not State.ESTABLISHED:
        return gone
    if spare is not None:
        _hand_back(context, spare, now)
        return gone
    if any(one.initiator or one.state in PROMISING for one in connecting):
        return AwaitSuccessor()
    if not cause.refuses_us:
        return gone
    refused = diagnoses.of_phase1_delete(sa, authentic=True)
    if not sa.initiator:
        # Of an attempt of ours the end of the ISAKMP SA tells.
        context.emit(Failed(sa.tunnel, refused, initiator=False))
    return Ended(refused)


def _hand_back(context: Context, spare: Context, now: float) -> None:
    """A predecessor speaks for the tunnel again, and does what was under way or wanted."""
    spare.command(now, Restored())
    _succeed(spare, context, now)
    quick_mode.begin_next(spare, now)
    spare.rearm()


def review(context: Context, now: float, timer: Timer) -> None:
    """It was to go because both sides had begun: does the peer have the one that is kept, or only this one?

    While neither answers neither goes. A peer that does not speak of its life cannot be asked.
    """
    kept, since = context.current, context.sa.yielded_at
    if kept.sa.last_message > since or not kept.liveness.spoken or kept is context:
        return
    overdue = since + ANSWERS_WITHIN
    if now < overdue:
        kept.ask(now)
        kept.rearm()
        context.timers.arm(Timer.REVIEW, min(now + ASK_AGAIN, overdue))
    elif context.sa.last_message > overdue:
        kept.command(now, Forgotten(context))
    else:
        context.ask(now)
        context.timers.arm(Timer.REVIEW, now + (ASK_AGAIN if now < overdue + ASKED_AGAIN else ASKED_AGAIN))


def forgotten(context: Context, now: float, cause: Forgotten) -> Ended:
    """The peer has dropped it without a DELETE, and perhaps its pairs: each mapping gets a new one."""
    context.transport.delete_ike()
    _hand_back(context, cause.kept, now)
    cause.kept.timers.arm(Timer.MEND, now)
    cause.kept.rearm()
    return Ended(Diagnosis.of(Code.PEER_DELETED, detail="the peer has kept another ISAKMP SA"))


def await_successor(context: Context, now: float, cause: AwaitSuccessor) -> None:
    """The DELETE may have overtaken the last message of the successor: the IPsec SAs wait for it."""
    context.timers.arm(Timer.FORGET, now + context.registry.limits.half_open_lifetime)


def restore(context: Context, now: float, cause: Restored) -> None:
    """What had a successor is without one again: it is renewed and kept alive as before."""
    context.timers.arm(Timer.RENEW, max(_soft_end(context), now + REKEY_AGAIN))
    if context.sa.nat.ours:
        context.timers.arm(Timer.KEEPALIVE, now + KEEPALIVE_INTERVAL)
    context.liveness.begin(now, context.registry.entropy, context.registry.limits.unproven)


def end(context: Context, now: float, cause: Ended) -> None:
    """It is gone. If it spoke for the tunnel, so are the IPsec SAs, and the predecessors.

    What the peer would begin under one of those would belong to nothing.
    """
    sa, peer, was_current = context.sa, context.peer, context.is_current
    quick_mode.end_all(context, now, cause.diagnosis)
    for spi_in in list(peer.children.by_spi) if was_current else ():
        peer.children.remove(spi_in, cause.diagnosis)
    if was_current:
        peer.clear()
        context.emit(IkeDown(sa.tunnel, sa.spi_i, sa.spi_r, cause.diagnosis))
        for one in context.siblings():
            if one.sa.state is State.REPLACED and one.peer is peer:
                one.command(now, Close(cause.diagnosis))


def _crosses(context: Context, other: Context) -> bool:
    """Whether the two sides began one each, this one before its initiator knew of `other`."""
    if context.sa.initiator == other.sa.initiator:
        return False
    known = other.sa.attempt.confirmed_at
    return known is None or context.sa.attempt.began < known


def _retire(context: Context, now: float, crossing: bool) -> None:
    """It is not the current one; its lifetime runs on, unless both sides began at once."""
    current, closing = context.current, now + context.registry.limits.closing
    if context.timers.deadline(Timer.MEND) is not None:
        current.timers.arm(Timer.MEND, closing + MEND_AFTER)
    if context.sa.outdated:
        # What it was made by holds no longer, at this end at least.
        context.timers.arm(Timer.FORGET, closing)
    if crossing:
        context.sa.yielded_at = now
        context.timers.arm(Timer.REVIEW, now + ASK_AFTER)
        if context.sa.initiator:
            context.timers.arm(Timer.FORGET, closing)
    current.rearm()


def _limit(context: Context, now: float) -> None:
    """The predecessors that are too many go, but not at once.

    A peer that has several of them hands its IPsec SAs from one to the next after it has established that: a
    DELETE that comes in between takes them along (strongSwan). With a peer that makes another one of what is
    closed, they stay.
    """
    renewals, closing = context.registry.policies.renewals, context.registry.limits.closing
    replaced = [one for one in context.siblings() if one.sa.state is State.REPLACED]
    young = [one for one in replaced if now - one.sa.established_at < closing]
    if len(young) > STORM:
        context.timers.arm(Timer.MEND, now + closing + MEND_AFTER)
    for one in replaced[:-REPLACED_FOR_NOW]:
        note_closed(one, now)
        one.command(now, Close(Diagnosis.of(Code.LIFETIME, detail="ISAKMP SA")))
    if renewals.expects(context.sa.tunnel):
        for one in replaced:
            one.timers.disarm(Timer.FORGET)
        return
    for one in replaced[-REPLACED_FOR_NOW:-REPLACED_AT_MOST]:
        # Of those that the peer may have kept instead the newest is enough.
        one.timers.disarm(Timer.REVIEW)
        if one.timers.deadline(Timer.FORGET) is None:
            one.timers.arm(Timer.FORGET, now + closing)
            one.rearm()


def note_closed(context: Context, now: float) -> None:
    """A predecessor is closed because another ISAKMP SA has its part; a DELETE of IKEv1 has no answer."""
    context.registry.policies.renewals.closing(context.sa.tunnel)
    context.registry.policies.renewals.closed(now, context.sa.tunnel)


def info(context: Context) -> IkeSaInfo:
    """What status shows of it. Raises Drop before a suite has been chosen."""
    sa = context.sa
    return IkeSaInfo(
        tunnel=sa.tunnel,
        version=IkeVersion.V1,
        mode=sa.mode.value,
        initiator=sa.initiator,
        spi_i=sa.spi_i,
        spi_r=sa.spi_r,
        suite=sa.suite,
        path=sa.path,
        nat=sa.nat.found,
        nat_at=sa.nat.at,
        vendor=sa.negotiation.peer.vendor,
        established_at=sa.established_at,
        rekey_at=None if context.is_renewing else context.timers.deadline(Timer.RENEW),
        expires_at=sa.established_at + sa.negotiation.lifetime,
        last_heard=context.liveness.last_heard,
    )
