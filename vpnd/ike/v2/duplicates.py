"""Two IKE SAs of one tunnel: both ends began at once, or the peer began anew. One stays."""

from __future__ import annotations

from vpnd.ike.outputs import PeerRenews
from vpnd.ike.v2.causes import Close, HandOver, Want
from vpnd.ike.v2.children import (
    DUPLICATE_KEPT,
    DUPLICATE_KEPT_BY_PEER,
    INBOUND_KEPT,
    RACE,
    Child,
    ChildTimer,
    Fate,
)
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.exchanges.create_child import CreateChild
from vpnd.ike.v2.exchanges.informational import DeleteChildren
from vpnd.ike.v2.exchanges.rekey_child import own_rekey
from vpnd.ike.v2.state import Timer
from vpnd.model.diagnosis import Code, Diagnosis

REKEY_ENDS = 0.5
"""Seconds until a rekey that was under way is looked at again."""
KEPT_BESIDE = 2
"""IKE SAs that are held for a peer which begins again what is closed; more at once are refused."""


def settle(context: Context, now: float) -> None:
    """The IKE SA has just been established: which of it and its siblings goes, by a rule both ends share.

    No RFC has one. If each side began one of the two within a short time, the one with the higher
    initiator's SPI goes; else the older. Its initiator closes it, after a round trip, so that the peer has
    learned of both; the other side waits longer and does so only if the initiator did not. With a peer that
    makes another one of what is closed, both stay.
    """
    renewals = context.registry.renewals
    if not context.sa.initiator and context.siblings() and renewals.begun(now, context.sa.tunnel):
        context.emit(PeerRenews(context.sa.tunnel))
    for other in context.siblings():
        if renewals.expects(context.sa.tunnel):
            other.children.yield_to = None
            other.timers.disarm(Timer.DUPLICATE)
            continue
        made = other.sa.established_at
        racing = other.sa.initiator != context.sa.initiator and made is not None and now - made < RACE
        loses = racing and context.sa.spi_i > other.sa.spi_i
        loser, keeper = (context, other) if loses else (other, context)
        loser.children.yield_to = keeper.children
        kept = DUPLICATE_KEPT if loser.sa.initiator else DUPLICATE_KEPT_BY_PEER
        loser.timers.arm(Timer.DUPLICATE, now + kept)
        loser.rearm()
    siblings = context.siblings()
    excess = len(siblings) + 1 - context.registry.limits.ike_sas_per_tunnel
    for other in siblings[: max(0, excess)]:
        close = _close(other, now)
        if close is not None:
            other.command(now, close)


def are_enough(context: Context, now: float) -> bool:
    """Whether a peer that makes another of what is closed has begun one too many.

    It has begun several at once for those that were closed together, or we hold all that we can.
    """
    if not context.registry.renewals.expects(context.sa.tunnel):
        return False
    siblings = context.siblings()
    fresh = sum(now - (other.sa.established_at or now) < RACE for other in siblings)
    return fresh >= KEPT_BESIDE or len(siblings) + 1 >= context.registry.limits.ike_sas_per_tunnel


def close_soon(context: Context, now: float) -> None:
    """It was established without a CHILD_SA, since there are enough: its DELETE makes no other."""
    context.timers.arm(Timer.DUPLICATE, now + DUPLICATE_KEPT)


def close_when_idle(context: Context, now: float, timer: Timer) -> Close | None:
    """Close the redundant IKE SA. A rekey of ours ends first: its answer makes an SA that the peer uses."""
    exchange = context.requests.exchange
    if exchange is not None and exchange.rekeys:
        context.timers.arm(Timer.DUPLICATE, now + REKEY_ENDS)
        return None
    return _close(context, now)


def _close(context: Context, now: float) -> Close | None:
    """Close the redundant IKE SA; the one that stays gets the mappings that only this one had.

    The peer may send on the CHILD_SAs of either. What is on its way until it has our DELETE still arrives.
    """
    siblings = context.siblings()
    if not siblings:
        return None
    keeper = siblings[-1]
    mappings = [child.sa.mapping for child in context.children if child.fate is Fate.LIVE]
    wanted = _wanted(context)
    context.registry.renewals.closing(context.sa.tunnel)
    kept = context.registry.limits.closing + INBOUND_KEPT
    receiving = keeper.children.receive_for(now, context.children, kept)
    keeper.rearm()
    diagnosis = Diagnosis.of(Code.LIFETIME, detail="another IKE SA of the tunnel stays")
    return Close(diagnosis, receiving, (*wanted, *(mappings if context.sa.initiator else ())))


def closed_by_peer(context: Context, now: float) -> None:
    """The peer has closed one of several IKE SAs: its DELETE may have overtaken what it sent before."""
    siblings = context.siblings()
    if siblings:
        siblings[-1].children.receive_for(now, context.children, INBOUND_KEPT)
    hand_over_wanted(context, now)


def hand_over_wanted(context: Context, now: float) -> None:
    """The IKE SA ends without an answer to what it was asked for: another one of the tunnel asks."""
    hand_over(context, now, HandOver(_wanted(context)))


def hand_over(context: Context, now: float, cause: HandOver) -> None:
    """Another IKE SA of the tunnel asks for these mappings."""
    siblings = context.siblings()
    for mapping in cause.mappings if siblings else ():
        siblings[-1].command(now, Want(mapping))
    if siblings:
        siblings[-1].rearm()


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
    context.registry.renewals.closing(context.sa.tunnel)
    child.fate = Fate.REKEYED
    context.children.retire(child)
    context.requests.ask(DeleteChildren((child.spi_in,)))


def is_outlived(context: Context) -> bool:
    """Whether the peer was heard under another IKE SA of the tunnel since it was under this one.

    Then it lives, and has only forgotten this one: what is said of a dead peer would end the other as well.
    """
    return any(other.sa.last_heard > context.sa.last_heard for other in context.siblings())
