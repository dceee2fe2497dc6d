"""The life of an IKE SA beside its exchanges: what its timers, commands and outcomes do."""

from __future__ import annotations

from vpnd.crypto.entropy import chance
from vpnd.ike import commands
from vpnd.ike.contest import ANSWER_WITHIN
from vpnd.ike.message import Received
from vpnd.ike.natt import KEEPALIVE_INTERVAL
from vpnd.ike.outputs import (
    ChildSaInfo,
    Established,
    Failed,
    IkeDown,
    IkeRekeyFailed,
    IkeReplaced,
    IkeSaInfo,
    Keepalive,
    PathMoved,
    PeerDead,
)
from vpnd.ike.retransmit import GIVE_UP_AFTER
from vpnd.ike.silence import question_due
from vpnd.ike.unanswered import unanswered
from vpnd.ike.v2 import causes, duplicates
from vpnd.ike.v2.children import Child, ChildTimer, Fate, lifetime_over
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.exchanges.create_child import CreateChild
from vpnd.ike.v2.exchanges.informational import DeleteChildren, DeleteIke, Liveness
from vpnd.ike.v2.exchanges.rekey_child import RekeyChild
from vpnd.ike.v2.exchanges.rekey_ike import RekeyIke
from vpnd.ike.v2.faults import InvalidKe, TemporaryFailure
from vpnd.ike.v2.requests import Exchange
from vpnd.ike.v2.state import State, Timer
from vpnd.model.diagnosis import Code, Diagnosis, Known
from vpnd.model.policy import NAT_T_PORT
from vpnd.wire.iana import IkeVersion
from vpnd.wire.ikev2 import Notify, Payload

SHORTEST_ASKING = 5.0
"""Seconds that a probe is given at least: after a pause of this machine silence proves nothing."""

UNANSWERED = 20.0
"""Seconds, six sends, after which a living peer will hardly answer any more, and another IKE SA is tried."""

REINITIATE_BEFORE = 120.0
REINITIATE_SHARE = 0.05
"""Seconds before its hard end, at most this share of its life, that an IKE SA which could not be rekeyed has
another made beside it: time for a second try, and late enough for the rekeying to be tried until then.
"""
REINITIATE_AGAIN = GIVE_UP_AFTER + 10.0
"""Seconds until another IKE SA is begun once more: the attempt before it is over by then."""

LONGEST_PATIENCE = 180.0
"""Seconds until a request is given up although the peer gives other signs of life (RFC 7296 section 2.4)."""

UNDECIDED = 2 * GIVE_UP_AFTER
"""Seconds that the loser of two successors of one IKE SA is kept for its creator's DELETE."""

PASSING = (TemporaryFailure, InvalidKe)
"""Refusals that are part of coming to terms: they are not reported."""


# --- an attempt


def start(context: Context, now: float, begin: causes.Begin) -> None:
    context.registry.policies.renewals.begins_here(now, context.sa.tunnel)
    context.sa.attempt.began_at = now
    context.requests.ask(begin.exchange)


def ask_again(context: Context, now: float, again: causes.AskAgain) -> None:
    """IKE_SA_INIT once more, with the same message ID and deadline."""
    context.requests.settled()
    context.requests.ask_next(again.exchange)


def ask_auth(context: Context, now: float, agreed: causes.KeysAgreed) -> None:
    """Initiator: the peer has chosen; nothing that came before from anyone counts any more."""
    context.requests.settled()
    context.timers.disarm(Timer.RETRANSMIT)
    context.sa.attempt.hint = None
    context.requests.ask(agreed.exchange)


def remember_wanted(context: Context, now: float, want: commands.Want) -> None:
    """A mapping that waits for the IKE SA."""
    context.sa.attempt.wanted[want.mapping] = None


def give_up(context: Context, now: float, timer: Timer) -> causes.AttemptFailed:
    """Enough was listened for a better answer."""
    return causes.AttemptFailed(diagnosis_of_silence(context))


def fail(context: Context, now: float, failed: causes.AttemptFailed | commands.Close) -> None:
    _report_failure(context, failed.diagnosis)
    forget(context, now, failed)


def withdraw(context: Context, now: float, withdrawn: causes.AttemptWithdrawn | commands.Close) -> None:
    """As `fail`, but the peer may take it for an IKE SA: tell it otherwise."""
    _report_failure(context, withdrawn.diagnosis)
    _ask_last(context, now, DeleteIke() if isinstance(withdrawn, commands.Close) else withdrawn.notice)


def _report_failure(context: Context, diagnosis: Diagnosis) -> None:
    sa = context.sa
    # A death is reported by the IKE SA that found it: what was tried beside that one goes with it.
    alone = context.registry.sessions.established(sa.tunnel) is None and diagnosis.code is not Code.PEER_DEAD
    if not sa.attempt.begins_again and (not sa.attempt.beside or alone):
        context.emit(Failed(sa.tunnel, diagnosis, sa.initiator))
    elif any(one.sa.outdated for one in context.siblings()):
        # What was to take its place; it is tried again.
        context.emit(IkeRekeyFailed(sa.tunnel, diagnosis))
    context.children.all_down(diagnosis)


def hold(context: Context, now: float, contested: causes.Contested) -> None:
    context.sa.attempt.held = contested.received
    context.timers.arm(Timer.HELD, now + ANSWER_WITHIN)


def decide(context: Context, now: float, timer: Timer) -> Received | None:
    """The request that was held is looked at once more."""
    attempt = context.sa.attempt
    held, attempt.held = attempt.held, None
    return held


def refuse_attempt(context: Context, now: float, refused: causes.Refused) -> tuple[Payload, ...]:
    """The peer's attempt is refused; the answer is kept for repeats."""
    # Also a message that makes no sense is an attempt without proof, and has cost a key exchange.
    sa, limits = context.sa, context.registry.limits
    context.registry.strangers.not_proved(now, sa.tunnel, sa.path.remote)
    context.emit(Failed(sa.tunnel, refused.fault.diagnosis, sa.initiator, unproven=True))
    context.timers.arm(Timer.END, now + limits.refused_lifetime)
    return _notify(refused)


def refuse(context: Context, now: float, refused: causes.Refused) -> tuple[Payload, ...]:
    """A request under an IKE SA that stays as it is."""
    if not isinstance(refused.fault, PASSING):
        context.emit(Failed(context.sa.tunnel, refused.fault.diagnosis, initiator=False))
    return _notify(refused)


def refuse_for_now(context: Context, now: float, received: Received) -> tuple[Payload, ...]:
    """The IKE SA is on its way out: nothing new begins on it (RFC 7296 section 2.25.2)."""
    raise TemporaryFailure(exchange="CREATE_CHILD_SA")


def _notify(refused: causes.Refused) -> tuple[Payload, ...]:
    return (Notify(refused.fault.notify, refused.fault.data),)


# --- an IKE SA is up


def begin(context: Context, now: float) -> None:
    """Both sides are authenticated: the IKE SA is up, and what waited for it begins."""
    sa = context.sa
    sa.attempt.hint = None
    sa.made_by = sa.policy
    sa.policy = context.registry.policies.by_name.get(sa.tunnel, sa.policy)
    _arm_lifetime(context, now)
    context.emit(Established(sa.tunnel, info(context)))
    duplicates.settle(context, now)
    if not sa.initiator and not sa.policy.dpd.enabled:
        context.timers.arm(Timer.DPD, now + context.registry.limits.unproven)
    for mapping in sa.attempt.wanted:
        context.requests.ask(CreateChild(mapping))
    sa.attempt.wanted.clear()


def wait_for_decision(context: Context, now: float, cause: causes.SuccessorAgreed) -> None:
    """A successor that neither takes over nor is deleted by its creator, who may never have learned of it.

    It is forgotten once every request that could still decide has been given up.
    """
    context.timers.arm(Timer.END, now + UNDECIDED)


def supersede(
    context: Context, now: float, superseded: causes.Superseded
) -> tuple[Payload, ...] | causes.PeerClosed:
    """A successor takes over children and requests; this IKE SA waits for its DELETE."""
    successor, redundant = superseded.successor, superseded.redundant
    successor.children.adopt(context.children)
    successor.command(now, causes.TakeOver(context))
    context.sa.established_at = None
    context.timers.arm(Timer.END, now + GIVE_UP_AFTER)
    if redundant is not None:
        redundant.command(now, causes.Discard())
    elif successor.sa.initiator:
        context.requests.ask(DeleteIke())
    return superseded.then or superseded.answer


def take_over(context: Context, now: float, cause: causes.TakeOver) -> None:
    """Succeed an IKE SA whose children are ours already."""
    old = cause.old
    _arm_lifetime(context, now)
    context.sa.last_heard = max(context.sa.last_heard, old.sa.last_heard)
    for request in old.requests.take_all():
        if not isinstance(request, RekeyIke):
            context.requests.ask(request)
    redundant_until = old.timers.deadline(Timer.DUPLICATE)
    if redundant_until is not None:
        context.timers.arm(Timer.DUPLICATE, redundant_until)
    context.emit(IkeReplaced(old.sa.tunnel, old.sa.spi_i, old.sa.spi_r, info(context)))


def discard(context: Context, now: float, cause: causes.Discard) -> None:
    _ask_last(context, now, DeleteIke())


def reinitiate(context: Context, now: float, cause: causes.Reinitiate) -> None:
    """This IKE SA or a child of it ends without a successor: have another IKE SA made beside it first.

    Only the side that began the tunnel does, so that the two do not cross and one that only answers
    goes on to do so; and not for an IKE SA that another stands beside already.
    """
    sa = context.sa
    recently = sa.reinitiated_at is not None and now - sa.reinitiated_at < REINITIATE_AGAIN
    redundant = context.timers.deadline(Timer.DUPLICATE) is not None
    if sa.attempt.begun_here and not recently and not redundant:
        sa.reinitiated_at = now
        context.story(f"begin a new IKE SA beside this one: {cause.why}")
        context.registry.reinitiating.append(sa.tunnel)


def info(context: Context) -> IkeSaInfo:
    """What status shows of it, while it is established."""
    sa, timers = context.sa, context.timers
    established_at = sa.established_at or 0.0
    return IkeSaInfo(
        tunnel=sa.tunnel,
        version=IkeVersion.V2,
        mode=None,
        initiator=sa.initiator,
        spi_i=sa.spi_i,
        spi_r=sa.spi_r,
        suite=sa.suite,
        path=sa.path,
        nat=sa.nat.found,
        nat_at=sa.nat.at,
        vendor=sa.peer.vendor,
        established_at=established_at,
        rekey_at=timers.deadline(Timer.REKEY),
        expires_at=timers.deadline(Timer.LIFETIME) or established_at,
        last_heard=sa.last_heard,
    )


def child_sas(context: Context) -> tuple[ChildSaInfo, ...]:
    found = ((one, context.timers.deadline((ChildTimer.LIFETIME, one.spi_in))) for one in context.children)
    return tuple(
        ChildSaInfo(one.spi_in, _rekey_at(context, one), end) for one, end in found if end is not None
    )


def _rekey_at(context: Context, child: Child) -> float | None:
    due = context.timers.deadline((ChildTimer.REKEY, child.spi_in))
    return max(due, child.soft_end) if due is not None and context.children.is_redundant(child) else due


def _arm_lifetime(context: Context, now: float) -> None:
    sa, timers = context.sa, context.timers
    lifetime = float(sa.policy.lifetime)
    sa.established_at = sa.last_heard = now
    timers.arm(Timer.REKEY, now + sa.policy.margin.soft(lifetime, chance(context.registry.entropy)))
    timers.arm(Timer.LIFETIME, now + lifetime)
    _arm_succession(context, now)
    if sa.policy.dpd.enabled:
        timers.arm(Timer.DPD, _next_check(context, now))
    if sa.nat.ours:
        timers.arm(Timer.KEEPALIVE, now + KEEPALIVE_INTERVAL)


# --- commands to an IKE SA that is up


def want(context: Context, now: float, cause: commands.Want) -> None:
    """Ask for the CHILD_SA of a mapping, unless it is up or asked for."""
    asked = any(isinstance(e, CreateChild) and e.mapping == cause.mapping for e in context.requests.pending())
    if not asked and context.children.live(cause.mapping) is None:
        context.requests.ask(CreateChild(cause.mapping))


def close_child(context: Context, now: float, close: commands.CloseChild) -> None:
    child = context.children.find(close.spi_in)
    if child is not None and child.fate in (Fate.LIVE, Fate.REKEYED):
        context.children.deleting(child, close.diagnosis)
        context.requests.ask(DeleteChildren((child.spi_in,)))


def rekey(context: Context, now: float, cause: commands.RekeyNow | Timer) -> None:
    """Rekey the IKE SA, unless that has begun."""
    if not any(isinstance(exchange, RekeyIke) for exchange in context.requests.pending()):
        context.timers.disarm(Timer.REKEY)
        context.requests.ask(RekeyIke())


def rekey_child(context: Context, now: float, cause: commands.RekeyChildNow) -> None:
    """Rekey a CHILD_SA. If that is refused it is tried again, without waiting for its time."""
    child = context.children.find(cause.spi_in)
    if child is not None and child.fate is Fate.LIVE:
        child.soft_end = min(child.soft_end, now)
        _rekey_child(context, child)


def _rekey_child(context: Context, child: Child) -> None:
    """Unless that has begun, or it cannot have a successor."""
    begun = any(isinstance(e, RekeyChild) and e.old is child for e in context.requests.pending())
    if child.fate is Fate.LIVE and child.successor is None and not begun:
        context.timers.disarm((ChildTimer.REKEY, child.spi_in))
        context.requests.ask(RekeyChild(child))


def follow_policy(context: Context, now: float, changed: commands.PolicyChanged) -> None:
    """Dead peer detection goes by the new policy, and an IKE SA that does not is succeeded."""
    if context.sa.policy.dpd.enabled:
        context.timers.arm(Timer.DPD, max(_next_check(context, now), now))
    _arm_succession(context, now)


def probe(context: Context, now: float, cause: commands.Probe) -> None:
    """Ask whether the peer is alive, unless a request is under way that shows it as well."""
    if context.requests.is_idle:
        context.requests.ask(Liveness())


def follow(context: Context, now: float, moved: commands.Moved) -> commands.Probe | None:
    """The peer may be at the other end of another path: it is asked."""
    sa = context.sa
    if not sa.follows(moved.path):
        return None
    context.emit(PathMoved(sa.tunnel, sa.path))
    return commands.Probe()


# --- the end


def lifetime(context: Context, now: float, timer: Timer) -> commands.Close:
    return commands.Close(lifetime_over())


def leave(context: Context, now: float, close: commands.Close) -> causes.HandOver | None:
    _end(context, close.diagnosis)
    _ask_last(context, now, DeleteIke(close.receiving))
    return close.handed_over if isinstance(close.handed_over, causes.HandOver) else None


def closed_by_peer(context: Context, now: float, closed: causes.PeerClosed) -> tuple[Payload, ...]:
    """The IKE SA stays a while to answer repeats of the DELETE."""
    duplicates.closed_by_peer(context, now)
    _end(context, closed.diagnosis)
    forget(context, now, closed)
    context.timers.arm(Timer.END, now + context.registry.limits.closing)
    return ()


def dead(context: Context, now: float, dead: causes.PeerDead) -> None:
    """The peer does not answer any more, at least not under this IKE SA."""
    if not duplicates.is_outlived(context):
        context.emit(PeerDead(context.sa.tunnel, dead.diagnosis))
    duplicates.hand_over_wanted(context, now)
    _end(context, dead.diagnosis)
    forget(context, now, dead)


def forget(context: Context, now: float, cause: object) -> None:
    """Nothing is left to say to the peer: no request and no timer matters any more."""
    context.requests.abandon_all(context)
    context.requests.settled()
    context.timers.clear()


def _end(context: Context, diagnosis: Diagnosis) -> None:
    """Everything on the IKE SA is gone for the rest of the gateway; said once."""
    sa = context.sa
    context.children.all_down(diagnosis)
    if sa.established_at is not None:
        sa.established_at = None
        context.emit(IkeDown(sa.tunnel, sa.spi_i, sa.spi_r, diagnosis))


def _ask_last(context: Context, now: float, last: Exchange) -> None:
    """Only `last` is still to be sent, once the window is free; then, or after a while, it is over."""
    context.requests.abandon_all(context)
    context.timers.arm(Timer.END, now + context.registry.limits.closing)
    context.requests.ask(last)


# --- timers


def resume(context: Context, now: float, timer: Timer) -> None:
    """Requests that a busy peer has put off."""
    context.requests.resume(now)


def keep_alive(context: Context, now: float, timer: Timer) -> None:
    """The NAT in front of this side keeps its mapping."""
    context.emit(Keepalive(context.sa.tunnel, context.sa.path))
    context.timers.arm(Timer.KEEPALIVE, now + KEEPALIVE_INTERVAL)


def retransmit_in_attempt(context: Context, now: float, timer: Timer) -> causes.AttemptFailed | None:
    """Until the peer has had enough time, which the attempt has as a whole."""
    return None if _retransmitted(context, now) else give_up(context, now, timer)


def retransmit(context: Context, now: float, timer: Timer) -> causes.PeerDead | None:
    """The peer has longer if it gives other signs of life; and if it lives, another IKE SA may help."""
    outstanding, sa = context.requests.outstanding, context.sa
    if outstanding is None:  # pragma: no cover (its timer is disarmed with its answer)
        return None
    schedule = outstanding.schedule
    if schedule.late(now):
        schedule.resume(now, SHORTEST_ASKING)
    # Requests of the peer arrive, so it lives, and only our own or its answers are lost.
    schedule.extend(min(sa.last_heard + GIVE_UP_AFTER, schedule.started + LONGEST_PATIENCE))
    may_live = sa.last_heard > schedule.asked or not sa.policy.dpd.enabled
    if now - schedule.asked >= UNANSWERED and may_live:
        reinitiate(context, now, causes.Reinitiate(f"{outstanding.text} has no answer"))
    return None if _retransmitted(context, now) else causes.PeerDead(_diagnosis_of_death(context, now))


def retransmit_last(context: Context, now: float, timer: Timer) -> causes.Finished | None:
    """The DELETE of an IKE SA that is closed already."""
    return None if _retransmitted(context, now) else causes.Finished()


def _retransmitted(context: Context, now: float) -> bool:
    """The same bytes again (RFC 7296 section 2.1), unless the request is given up."""
    outstanding = context.requests.outstanding
    if outstanding is None or outstanding.schedule.exhausted(now):
        return False
    outstanding.schedule.again(now)
    context.timers.arm(Timer.RETRANSMIT, outstanding.schedule.due)
    for path in filter(None, (context.sa.path, context.sa.former)):
        context.outbox.transmit(path, outstanding.datagrams, f"{outstanding.text} again")
    return True


def check_life(context: Context, now: float, timer: Timer) -> commands.Probe | causes.PeerDead | None:
    """Dead peer detection (RFC 7296 section 2.4)."""
    sa, outstanding = context.sa, context.requests.outstanding
    if not sa.policy.dpd.enabled:
        # Asked once: the peer that has begun this IKE SA has not been heard on it.
        return commands.Probe() if sa.last_heard == sa.established_at else None
    if outstanding is not None and outstanding.schedule.late(now):
        # This machine stood still, and the retransmission is due as well: it asks again.
        outstanding.schedule.resume(now, SHORTEST_ASKING)
    due = _dead_or_asked_at(context)
    if now < due:
        context.timers.arm(Timer.DPD, max(_next_check(context, now), now + 0.1))
        return None
    if outstanding is not None:
        return causes.PeerDead(_diagnosis_of_death(context, now))
    context.timers.arm(Timer.DPD, now + SHORTEST_ASKING)
    return commands.Probe()


def _dead_or_asked_at(context: Context) -> float:
    """When the peer is asked whether it is alive, or is dead.

    Silence of half the timeout is followed by a probe; a request that is under way is as good as one. The
    timeout counts since the peer was last heard, and the question must have been out for a while.
    """
    sa, outstanding = context.sa, context.requests.outstanding
    timeout = float(sa.policy.dpd.timeout)
    if outstanding is not None:
        return max(sa.last_heard + timeout, outstanding.schedule.asked + SHORTEST_ASKING)
    return question_due(sa.last_heard, timeout, sa.initiator)


def _next_check(context: Context, now: float) -> float:
    """Soon where a request is under way: its answer moves the moment, and no timer."""
    due = _dead_or_asked_at(context)
    return due if context.requests.outstanding is None else min(due, now + SHORTEST_ASKING)


def ends_soon(context: Context, now: float, timer: Timer) -> commands.RekeyNow | None:
    """The hard end is near, or what it was made by holds no longer: another one is begun beside this one.

    Where only its algorithms hold no longer a rekey will do, which leaves its CHILD_SAs as they are. A rekey
    that was begun a moment ago may still be answered, and has half of the time that is left.
    """
    if context.sa.outdated:
        context.timers.arm(Timer.REINITIATE, now + REINITIATE_AGAIN)
        if context.sa.can_be_rekeyed:
            return commands.RekeyNow()
        context.registry.reinitiating.append(context.sa.tunnel)
        return None
    outstanding, end = context.requests.outstanding, context.timers.deadline(Timer.LIFETIME)
    if outstanding is not None and isinstance(outstanding.exchange, RekeyIke) and end is not None:
        is_young = now - outstanding.schedule.started < UNANSWERED
        half = _reinitiate_before(context.sa.policy.lifetime) / 2
        if is_young and now < end - half:
            context.timers.arm(Timer.REINITIATE, end - half)
            return None
    reinitiate(context, now, causes.Reinitiate("it could not be rekeyed and ends soon"))
    context.timers.arm(Timer.REINITIATE, now + REINITIATE_AGAIN)
    return None


def _arm_succession(context: Context, now: float) -> None:
    """When it is succeeded if nothing else does that: shortly before its end, at once if it is outdated."""
    end = context.timers.deadline(Timer.LIFETIME) or now
    before_end = end - _reinitiate_before(context.sa.policy.lifetime)
    context.timers.arm(Timer.REINITIATE, now if context.sa.outdated else max(now, before_end))


def _reinitiate_before(lifetime: float) -> float:
    """How many seconds before its end an IKE SA that could not be rekeyed has another made beside it."""
    return min(REINITIATE_BEFORE, REINITIATE_SHARE * lifetime)


# --- timers of a CHILD_SA


def rekey_due(context: Context, now: float, child: Child) -> None:
    """Its time to be rekeyed has come, or earlier to prove that it can be: once, and of what stays."""
    if now < child.soft_end and context.children.is_redundant(child):
        context.children.postpone_rekey(child, child.soft_end)
    else:
        _rekey_child(context, child)


def child_lifetime(context: Context, now: float, child: Child) -> commands.CloseChild:
    return commands.CloseChild(child.spi_in, lifetime_over())


def remove_child(context: Context, now: float, child: Child) -> None:
    """What was on its way under a rekeyed CHILD_SA has arrived."""
    context.children.down(child, Diagnosis.of(Code.LIFETIME, detail="rekeyed"))


# --- diagnoses


def _diagnosis_of_death(context: Context, now: float) -> Diagnosis:
    outstanding = context.requests.outstanding
    return Diagnosis.of(
        Code.PEER_DEAD,
        exchange=None if outstanding is None else outstanding.exchange.kind.name,
        sent=None if outstanding is None else outstanding.schedule.sent,
        detail=f"nothing heard for {now - context.sa.last_heard:.0f} s",
        peer=context.sa.path.remote,
    )


def diagnosis_of_silence(context: Context) -> Diagnosis:
    """Why an attempt ended without an authentic answer: the best that is known."""
    sa, attempt = context.sa, context.sa.attempt
    if attempt.hint is not None:
        return attempt.hint
    in_auth = sa.state is State.SENT_AUTH
    on_4500 = in_auth and sa.path.local_port == NAT_T_PORT
    exchange = "IKE_AUTH" if in_auth else "IKE_SA_INIT"
    facts: Known = {"exchange": exchange, "sent": attempt.sent, "received": attempt.received}
    return unanswered(sa, Code.UDP_4500 if on_4500 else Code.SILENT, facts)
