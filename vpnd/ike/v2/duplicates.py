"""Two IKE SAs of one tunnel: both ends began at once, or the peer began again. One stays.

Which one, a rule says that both ends share. But the peer may have dropped that one already without a word
(strongSwan, when INITIAL_CONTACT comes on the other one): so it stays only if it answers.

    both stand --0.2 s--> ask the one that is to stay
               it is heard: it sends, and the redundant one is closed after 1 s (6 s: by its responder)
               --1.7 s in silence--> ask the redundant one; if that is heard, it sends,
               and after 10 s in silence it stays and the other one is closed
"""

from __future__ import annotations

from vpnd.ike.commands import Close, Probe, Want
from vpnd.ike.outputs import OutboundReady, PeerRenews
from vpnd.ike.v2.causes import HandOver
from vpnd.ike.v2.children import (
    DUPLICATE_KEPT,
    DUPLICATE_KEPT_BY_PEER,
    INBOUND_KEPT,
    RACE,
    Child,
    ChildTimer,
    Fate,
    Yielding,
)
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.exchanges.create_child import CreateChild
from vpnd.ike.v2.exchanges.informational import DeleteChildren
from vpnd.ike.v2.exchanges.rekey_child import own_rekey
from vpnd.ike.v2.state import Timer
from vpnd.model.diagnosis import Code, Diagnosis

REKEY_ENDS = 0.5
"""Seconds until a rekey that was under way is looked at again."""
ASK_AFTER = 0.2
"""Seconds until the IKE SA that is to stay is asked, unless it was heard: the peer knows both by then."""
ANSWERS_WITHIN = 1.7
"""Seconds that it has to answer, in which the question is sent three times. Less than it takes for traffic
without an answer to begin a new IKE SA.
"""
LOST_AFTER = 10.0
"""Seconds of silence after which it is closed; the other one sends before that. Where answers are late by
seconds each end could else close the one that the other end keeps, and none would be left.
"""
KEPT_BESIDE = 2
"""IKE SAs that are held for a peer which begins again what is closed; more at once are refused."""


def settle(context: Context, now: float) -> None:
    """The IKE SA has just been established: one of it and its siblings stays, by a rule both ends share.

    No RFC has one. Each of the others is closed by its initiator, after a round trip, so that the peer has
    learned of all; the other side waits longer and does so only if the initiator did not. With a peer that
    makes another one of what is closed, all stay.
    """
    renewals, siblings = context.registry.policies.renewals, context.siblings()
    if not context.sa.initiator and siblings and renewals.begun(now, context.sa.tunnel):
        context.emit(PeerRenews(context.sa.tunnel))
    if renewals.expects(context.sa.tunnel):
        for other in siblings:
            _stay(other)
    elif siblings:
        every = [*siblings, context]
        # What was made by terms that hold no longer goes, whatever the rule of both ends says.
        _yield_to(_keeper([one for one in every if not one.sa.outdated] or [context]), every, now)
    excess = len(siblings) + 1 - context.registry.limits.ike_sas_per_tunnel
    for other in siblings[: max(0, excess)]:
        other.command(now, _close(other, siblings[-1], now))


def _keeper(established: list[Context]) -> Context:
    """The one of these that stays.

    Of those that one side has begun the newest counts. If the two that are left were made within a short
    time, the one with the lower initiator's SPI stays; else the newer. Compared in pairs, each of three could
    lose to another one, and none would stay.
    """
    newest = {one.sa.initiator: one for one in sorted(established, key=_made)}
    *_, newer = ranked = sorted(newest.values(), key=_made)
    racing = _made(newer) - _made(ranked[0]) < RACE
    return min(ranked, key=lambda one: one.sa.spi_i) if racing else newer


def _made(context: Context) -> float:
    return context.sa.established_at or 0.0


def _yield_to(keeper: Context, others: list[Context], now: float) -> None:
    _stay(keeper)
    for one in others:
        yielding = one.children.yielding
        if one is not keeper and (yielding is None or yielding.stays is not keeper.children):
            _yield(one, keeper, now)


def heard(context: Context, now: float) -> None:
    """An authentic message came on this IKE SA: it answers, so others yield to it; or it answers instead."""
    for other in context.siblings():
        yielding = other.children.yielding
        if yielding is not None and not yielding.answered and yielding.stays is context.children:
            yielding.answered = True
            _send_on(context, other)
            other.timers.arm(Timer.DUPLICATE, max(now, _due(other, yielding)))
            other.rearm()
    own = context.children.yielding
    if own is not None and not own.answered and now > own.since + ANSWERS_WITHIN:
        context.timers.arm(Timer.DUPLICATE, now)


def _send_on(keeper: Context, redundant: Context) -> None:
    """The IKE SA that stays has answered: its CHILD_SAs send, and those of the redundant one no more."""
    for child in redundant.children:
        stays = keeper.children.live(child.sa.mapping)
        if stays is not None and child.fate is Fate.LIVE:
            keeper.emit(OutboundReady(stays.sa.tunnel, stays.spi_in))


def are_enough(context: Context, now: float) -> bool:
    """Whether a peer that makes another of what is closed has begun one too many.

    It has begun several at once for those that were closed together, or we hold all that we can.
    """
    if not context.registry.policies.renewals.expects(context.sa.tunnel):
        return False
    siblings = context.siblings()
    fresh = sum(now - (other.sa.established_at or now) < RACE for other in siblings)
    return fresh >= KEPT_BESIDE or len(siblings) + 1 >= context.registry.limits.ike_sas_per_tunnel


def close_soon(context: Context, now: float) -> None:
    """It was established without a CHILD_SA, since there are enough: its DELETE makes no other."""
    context.timers.arm(Timer.DUPLICATE, now + DUPLICATE_KEPT)


def review(context: Context, now: float, timer: Timer) -> Close | Probe | None:
    """The redundant IKE SA: ask which of the two answers, close it, or keep it.

    A rekey of ours ends first: its answer makes an SA that the peer uses.
    """
    yielding, siblings, exchange = context.children.yielding, context.siblings(), context.requests.exchange
    if exchange is not None and exchange.rekeys:
        context.timers.arm(Timer.DUPLICATE, now + REKEY_ENDS)
        return None
    if yielding is None:
        return _close(context, siblings[-1], now) if siblings else None
    keeper = next((one for one in siblings if one.children is yielding.stays), None)
    if keeper is None:
        _without_keeper(context, now)
        return None
    if not yielding.answered:
        return _ask(context, keeper, yielding, now)
    if now < (due := _due(context, yielding)):
        context.timers.arm(Timer.DUPLICATE, due)
        return None
    return _close(context, keeper, now)


def _yield(context: Context, keeper: Context, now: float) -> None:
    """It is redundant, if `keeper` answers."""
    context.children.yielding = Yielding(keeper.children, now)
    context.timers.arm(Timer.DUPLICATE, now + ASK_AFTER)
    context.rearm()


def _stay(context: Context) -> None:
    """It is not redundant any more."""
    context.children.yielding = None
    context.timers.disarm(Timer.DUPLICATE)


def _without_keeper(context: Context, now: float) -> None:
    """The IKE SA that was to stay is gone: yield to another one, which does not yield itself."""
    others = [one for one in context.siblings() if one.children.yielding is None]
    if others:
        _yield(context, others[-1], now)
    else:
        _stay(context)


def _due(context: Context, yielding: Yielding) -> float:
    """When it is closed: by its initiator, or by the other side should the initiator not.

    One that is outdated is closed from here, as the peer may keep it.
    """
    first = context.sa.initiator or context.sa.outdated
    return yielding.since + (DUPLICATE_KEPT if first else DUPLICATE_KEPT_BY_PEER)


def _ask(context: Context, keeper: Context, yielding: Yielding, now: float) -> Probe | None:
    """Which of the two does the peer have? It answers for each; if for neither, neither is closed."""
    overdue = yielding.since + ANSWERS_WITHIN
    if now >= overdue and context.sa.last_message > overdue:
        _answers_instead(context, keeper, yielding, now)
        return None
    keeper.command(now, Probe())
    keeper.rearm()
    context.timers.arm(Timer.DUPLICATE, overdue if now < overdue else now + REKEY_ENDS)
    return None if now < overdue else Probe()


def _answers_instead(context: Context, keeper: Context, yielding: Yielding, now: float) -> None:
    """The one that is to stay does not answer, and this one does: it sends, and stays if that goes on."""
    if not yielding.instead:
        context.story("the other IKE SA of the tunnel does not answer, and this one does: it sends")
        yielding.instead = True
        _send_on(context, keeper)
    if now < (lost := yielding.since + LOST_AFTER):
        context.timers.arm(Timer.DUPLICATE, lost)
        return
    _stay(context)
    keeper.command(now, _close(keeper, context, now))


def _close(context: Context, keeper: Context, now: float) -> Close:
    """Close the redundant IKE SA; the one that stays gets the mappings that only this one had.

    The peer may send on the CHILD_SAs of either. What is on its way until it has our DELETE still arrives.
    """
    mappings = [child.sa.mapping for child in context.children if child.fate is Fate.LIVE]
    wanted = _wanted(context)
    context.registry.policies.renewals.closing(context.sa.tunnel)
    kept = context.registry.limits.closing + INBOUND_KEPT
    receiving = keeper.children.receive_for(now, context.children, kept)
    diagnosis = Diagnosis.of(Code.LIFETIME, detail="another IKE SA of the tunnel stays")
    return Close(diagnosis, receiving, HandOver(keeper, (*wanted, *mappings)))


def closed_by_peer(context: Context, now: float) -> None:
    """The peer has closed one of several IKE SAs: its DELETE may have overtaken what it sent before."""
    siblings = context.siblings()
    if siblings:
        siblings[-1].children.receive_for(now, context.children, INBOUND_KEPT)
    hand_over_wanted(context, now)


def hand_over_wanted(context: Context, now: float) -> None:
    """The IKE SA ends without an answer to what it was asked for: another one of the tunnel asks."""
    siblings = context.siblings()
    if siblings:
        hand_over(context, now, HandOver(siblings[-1], _wanted(context)))


def hand_over(context: Context, now: float, cause: HandOver) -> None:
    """Another IKE SA of the tunnel asks for these mappings."""
    for mapping in cause.mappings:
        cause.keeper.command(now, Want(mapping))
    cause.keeper.rearm()


def _wanted(context: Context) -> tuple[int, ...]:
    """The mappings for which the peer was asked, or is to be, for their first CHILD_SA."""
    return tuple(one.mapping for one in context.requests.pending() if isinstance(one, CreateChild))


def close_child(context: Context, now: float, child: Child) -> None:
    """Close the redundant CHILD_SA, unless the other one has gone meanwhile. It receives a little longer."""
    if child.fate is not Fate.LIVE or context.children.other(child) is None:
        return
    if own_rekey(context, child) is not None:
        context.timers.arm((ChildTimer.DUPLICATE, child.spi_in), now + REKEY_ENDS)
        return
    context.registry.policies.renewals.closing(context.sa.tunnel)
    child.fate = Fate.REKEYED
    context.children.retire(child)
    context.requests.ask(DeleteChildren((child.spi_in,)))


def is_outlived(context: Context) -> bool:
    """Whether the peer was heard under another IKE SA of the tunnel since it was under this one.

    Then it lives, and has only forgotten this one: what is said of a dead peer would end the other as well.
    """
    return any(other.sa.last_heard > context.sa.last_heard for other in context.siblings())
