"""The IPsec SAs of one tunnel: which is current, which lives on, when each ends, and what the peer is asked.

RFC 2409 section 5.5 ties IPsec SAs to the two peers, not to the ISAKMP SA of their quick mode: they go on
when another one succeeds it, and are negotiated and deleted under the one that is current.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from vpnd.crypto.entropy import Entropy, chance
from vpnd.ike.deadlines import Timers
from vpnd.ike.outputs import (
    ChildDown,
    ChildExpected,
    ChildLimited,
    ChildReplaced,
    ChildRetired,
    ChildSaInfo,
    ChildUp,
    OutboundReady,
)
from vpnd.ike.registry import Registry
from vpnd.ike.retransmit import LONGEST_WAIT, Schedule
from vpnd.ike.steps import Key
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import Lifetimes, Margin

S = TypeVar("S")

REKEY_AGAIN = 45.0
"""Seconds until a succession that has come to nothing is tried again; an attempt lasts up to 30."""
SETTLING = 0.2
"""Seconds until the first pair of a mapping is sent on, if we have begun it: the peer installs it when it has
worked on our third message, which nothing acknowledges, and what arrives sooner is lost."""
SETTLING_BESIDE = 2.0
"""Seconds until a successor of ours is sent on: the old pair carries everything meanwhile, so that it costs
nothing to give a busy peer time, or one that has lost our third message and repeats its own for that. Less
than what a pair that is one too many is kept for (`quicks.SURPLUS_KEPT`)."""
PAIRS_AT_MOST = 32
"""Pairs of one mapping: beyond, the oldest that is not sent on is deleted, or a peer could add up any number.

Replaced pairs live on to their end, so a peer that renews each second what it lets live for 30 s has 31. One
that renews still faster has moved 31 pairs on from the one that goes.
"""
DELETED_KEPT = 5.0
"""Seconds that one of several pairs of a mapping still receives after its DELETE: that names what its sender
receives on, and may overtake, or cross, packets that the peer sent on the other half before."""
CROSSING = 60.0
"""Seconds in which two quick modes for one mapping can have been under way at once."""
SURPLUS_KEPT = 3.0
"""Seconds that one pair of two still receives, once both sides send on the other."""
DELETED_FOR = 10.0
"""Seconds in which DELETE is repeated for a pair that is one too many; nothing acknowledges it."""


class Limit(Key):
    """What a deadline of an SA pair is for: its first packet, the ends of its lifetime, its last packet."""

    SEND = "the peer has it"
    SOFT = "a successor is due"
    HARD = "over"
    REMOVE = "what was on its way has arrived"
    SURPLUS = "it is one too many"
    DELETE = "its DELETE is repeated"


LIFE = (Limit.SEND, Limit.SOFT, Limit.HARD, Limit.REMOVE)
"""What matters only while the pair is there."""


@dataclass(slots=True)
class Child:
    """One SA pair. `pending`: the peer has not confirmed it yet (we answered its quick mode).

    `held`: it is not sent on yet, for the peer may not have installed it. `doubted`: the peer may have
    dropped it without a word. `deleted`: one side has deleted it, and it only receives. `made`: when it was
    installed, on the caller's clock. `limits`: what it lives and carries at most, which the peer may have
    lowered since.
    """

    sa: ChildSa
    made: float
    pending: bool = False
    announced: bool = False
    held: bool = False
    doubted: bool = False
    deleted: bool = False
    limits: Lifetimes = field(init=False)

    def __post_init__(self) -> None:
        self.limits = self.sa.lifetimes


class Children:
    """All SA pairs of one tunnel; `current` has the inbound SPI that each mapping sends on.

    While the current pair is held, its mapping still sends on another: `sending` has the one that it does.
    Times are seconds on the caller's clock.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.by_spi: dict[int, Child] = {}
        self.current: dict[int, int] = {}
        self.sending: dict[int, int] = {}
        self.timers: Timers[tuple[Limit, int]] = Timers()

    def install(self, now: float, sa: ChildSa, pending: bool) -> None:
        """A new SA pair: the successor of its mapping's current one, if there is one.

        A pair that is pending and succeeds none receives, and is announced once the peer has confirmed it: it
        may send on it right after its third message, which may come later than its packets, or not at all.
        """
        child = Child(sa, now, pending)
        self.by_spi[sa.spi_in] = child
        self.timers.arm((Limit.SOFT, sa.spi_in), self._soft(child, sa.lifetimes.seconds))
        self.timers.arm((Limit.HARD, sa.spi_in), now + sa.lifetimes.seconds)
        old = self.current.get(sa.mapping)
        if old is None and pending:
            self._registry.emit(ChildExpected(sa))
            return
        child.announced = True
        self.current[sa.mapping] = sa.spi_in
        child.held = True
        if not pending:
            self.give_time(now, sa.spi_in)
        self._registry.emit(
            ChildUp(sa, outbound=False) if old is None else ChildReplaced(old, sa, outbound=False)
        )

    def limit(self, now: float, child: Child, lifetimes: Lifetimes) -> None:
        """The pair lives and carries so much from its beginning and no more, as the peer has said since."""
        if lifetimes.kilobytes is not None and lifetimes.kilobytes != child.limits.kilobytes:
            self._registry.emit(ChildLimited(child.sa.tunnel, child.sa.spi_in, lifetimes.kilobytes))
        if lifetimes.seconds < child.limits.seconds:
            self._limit_seconds(now, child, lifetimes.seconds)
        child.limits = lifetimes

    def _limit_seconds(self, now: float, child: Child, seconds: int) -> None:
        for limit, due in (
            (Limit.HARD, child.made + seconds),
            (Limit.SOFT, self._soft(child, seconds)),
        ):
            key = limit, child.sa.spi_in
            self.timers.arm(key, max(now, min(due, self.timers.deadline(key) or due)))

    def give_time(self, now: float, spi_in: int) -> None:
        """The peer may not have the pair yet: it is sent on later, unless it is already."""
        child = self.by_spi.get(spi_in)
        if child is not None and child.held:
            sent_on = self.by_spi.get(self.sending.get(child.sa.mapping, spi_in))
            beside = sent_on is not None and sent_on is not child and not sent_on.doubted
            self.timers.arm((Limit.SEND, spi_in), now + (SETTLING_BESIDE if beside else SETTLING))

    def keep_only(self, now: float, kept: ChildSa, replaces: int | None) -> None:
        """Both sides had begun: what was made beside `kept` and the pair that it replaces is deleted soon."""
        for spi_in, other in self.by_spi.items():
            young = other.made >= now - CROSSING
            if young and other.sa.mapping == kept.mapping and spi_in not in (kept.spi_in, replaces):
                self.timers.arm((Limit.SURPLUS, spi_in), now + SURPLUS_KEPT)

    def time_given(self, spi_in: int) -> None:
        """The peer has had time to install the pair: it is sent on, unless its successor is already."""
        child = self.by_spi[spi_in]
        sent_on = self.sending.get(child.sa.mapping)
        if sent_on is not None and sent_on == self.current.get(child.sa.mapping):
            child.held = False
        else:
            self.send_on(spi_in)

    def send_on(self, spi_in: int) -> None:
        """The pair is sent on: its time has come, or what was sent on until now is gone."""
        child = self.by_spi.get(spi_in)
        if child is None or not child.held or child.pending:
            return
        child.held = False
        self.sending[child.sa.mapping] = spi_in
        self.timers.disarm((Limit.SEND, spi_in))
        self._registry.emit(OutboundReady(child.sa.tunnel, spi_in))

    def confirm(self, spi_in: int) -> None:
        """The peer has the pair installed: send on it, unless the peer sends on a later one of its own."""
        child = self.by_spi.get(spi_in)
        if child is None or not child.pending:
            return
        child.pending = False
        later = self._sent_on_since(child)
        if child.announced:
            if later is None:
                self.send_on(spi_in)
            child.held = False
            return
        child.announced = True
        if later is not None:
            self._registry.emit(ChildReplaced(later, child.sa, outbound=False, expected=True))
            self._registry.emit(OutboundReady(child.sa.tunnel, later))
            return
        old = self.current.get(child.sa.mapping)
        self.current[child.sa.mapping] = self.sending[child.sa.mapping] = spi_in
        if old is None:
            self._registry.emit(ChildUp(child.sa, expected=True))
        else:
            self._registry.emit(ChildReplaced(old, child.sa, outbound=True, expected=True))

    def _sent_on_since(self, child: Child) -> int | None:
        """The pair that its mapping sends on, if the peer began it after `child` and has confirmed it before.

        Their third messages came in another order than they were sent in.
        """
        spi_in = self.sending.get(child.sa.mapping)
        if spi_in is None or child.sa.initiator or self.by_spi[spi_in].sa.initiator:
            return None
        oldest_first = list(self.by_spi)
        return spi_in if oldest_first.index(spi_in) > oldest_first.index(child.sa.spi_in) else None

    def remove(self, spi_in: int, diagnosis: Diagnosis) -> None:
        """The pair is gone, or never came to be. Its mapping falls back to the newest one that is left."""
        child = self.by_spi.pop(spi_in, None)
        self._registry.release_esp_spi(spi_in)
        if child is None:
            return
        self._disarm(spi_in)
        self._fall_back(child.sa)
        self._registry.emit(ChildDown(child.sa.tunnel, child.sa.mapping, spi_in, diagnosis))

    def deleted(self, now: float, spi_in: int, diagnosis: Diagnosis) -> None:
        """One side has deleted the pair: it still receives where its mapping has another, else it goes.

        A pair that is pending has not been used.
        """
        child = self.by_spi.get(spi_in)
        if child is None or child.deleted:
            return
        if child.pending or not self._usable(child.sa.mapping, beside=child):
            self.remove(spi_in, diagnosis)
            return
        child.deleted, child.held = True, False
        end = self.timers.deadline((Limit.HARD, spi_in)) or now
        self._disarm(spi_in)
        self.timers.arm((Limit.REMOVE, spi_in), min(end, now + DELETED_KEPT))
        self._fall_back(child.sa)
        self._registry.emit(ChildRetired(child.sa.tunnel, child.sa.mapping, spi_in))

    def _disarm(self, spi_in: int) -> None:
        for limit in LIFE:
            self.timers.disarm((limit, spi_in))

    def _soft(self, child: Child, seconds: int) -> float:
        margin, entropy = child.sa.lifetimes.margin, self._registry.entropy
        return soft_deadline(child.made, seconds, margin, entropy, child.sa.initiator)

    def _usable(self, mapping: int, beside: Child | None = None) -> list[Child]:
        """The pairs of a mapping that can be sent on, the oldest first."""
        return [
            one
            for one in self.by_spi.values()
            if one.sa.mapping == mapping and not (one.pending or one.deleted or one is beside)
        ]

    def _fall_back(self, sa: ChildSa) -> None:
        """The pair is sent on no more. Its mapping falls back to the newest that is left, if there is one."""
        spi_in = sa.spi_in
        was_sent_on = self.sending.get(sa.mapping) == spi_in
        if was_sent_on:
            del self.sending[sa.mapping]
        if self.current.get(sa.mapping) == spi_in:
            del self.current[sa.mapping]
            left = self._usable(sa.mapping)
            if left:
                self.current[sa.mapping] = self.sending[sa.mapping] = left[-1].sa.spi_in
                left[-1].held = False
                self._registry.emit(OutboundReady(sa.tunnel, left[-1].sa.spi_in))
        elif was_sent_on:
            self.send_on(self.current.get(sa.mapping, spi_in))

    def surplus(self, mapping: int) -> list[int]:
        """The inbound SPIs of the mapping's pairs that are too many, the oldest first.

        Never those that it sends on or is about to, and never one that is pending: it ends with its quick
        mode, and those are bounded.
        """
        pairs = [child for child in self.by_spi.values() if child.sa.mapping == mapping]
        used = (self.current.get(mapping), self.sending.get(mapping))
        spare = [child for child in pairs if not child.pending and child.sa.spi_in not in used]
        spare.sort(key=lambda child: child.made)
        return [child.sa.spi_in for child in spare[: max(0, len(pairs) - PAIRS_AT_MOST)]]

    def named(self, spis: set[int]) -> list[int]:
        """The inbound SPIs of the pairs that a peer's DELETE names.

        It names the SPIs that it receives on (RFC 2408 section 3.15); some peers name the others.
        """
        outbound = {child.sa.spi_out: spi_in for spi_in, child in self.by_spi.items()}
        meant = [spi_in for spi_out, spi_in in outbound.items() if spi_out in spis]
        return meant + [
            one for one in self.by_spi if one in spis and one not in outbound and one not in meant
        ]

    def up(self, mapping: int) -> bool:
        """Whether the mapping has a pair to send on."""
        return mapping in self.current

    def pending(self, mapping: int) -> bool:
        """Whether the peer is making a pair for the mapping."""
        return any(child.pending and child.sa.mapping == mapping for child in self.by_spi.values())

    def settled(self, mapping: int, replaces: int | None) -> bool:
        """Whether a pair that is to succeed `replaces` (None: to be the first) is not needed."""
        return self.up(mapping) if replaces is None else not self.is_current(replaces)

    def info(self, renewing: Container[int | None]) -> tuple[ChildSaInfo, ...]:
        """When each pair is rekeyed, and ends; `renewing`: the pairs whose successor is being made."""
        found = []
        for spi_in, child in self.by_spi.items():
            due = self.timers.deadline((Limit.SOFT, spi_in))
            stays = self.is_current(spi_in) and spi_in not in renewing
            over = Limit.REMOVE if child.deleted else Limit.HARD
            end = self.timers.deadline((over, spi_in)) or child.made
            found.append(ChildSaInfo(spi_in, due if stays else None, end))
        return tuple(found)

    def deadlines(self) -> dict[str, float]:
        """When something happens to a pair, by what: one that has its successor asks for no other."""
        return {
            f"{limit.name} {spi_in:08x}": at
            for (limit, spi_in), at in self.timers.all().items()
            if limit is not Limit.SOFT or self.is_current(spi_in)
        }

    def is_current(self, spi_in: int) -> bool:
        """Whether its mapping sends on the pair with this inbound SPI."""
        child = self.by_spi.get(spi_in)
        return child is not None and self.current.get(child.sa.mapping) == spi_in


def soft_deadline(now: float, lifetime: float, margin: Margin, entropy: Entropy, initiator: bool) -> float:
    """When to begin the succession of an SA that lives `lifetime` seconds from `now`.

    The side that did not begin comes later, so that both do not begin at once.
    """
    late = 0.0 if initiator else margin.length(lifetime) / 2
    return now + margin.soft(lifetime, chance(entropy)) + late


class Ikev1Peer(Generic[S]):
    """`current` is the ISAKMP SA that speaks for the tunnel, None before there is one; an attempt that is to
    be the first has a peer of its own until then.

    `wanted` are the mappings that wait for their quick mode, in order, each with the inbound SPI of the pair
    that is to be succeeded, or None where the mapping has none. Times are seconds on the caller's clock.
    """

    def __init__(self, registry: Registry) -> None:
        self.current: S | None = None
        self.children = Children(registry)
        self.wanted: dict[int, int | None] = {}
        self._deletes: dict[int, Schedule] = {}

    def clear(self) -> None:
        """The last ISAKMP SA is gone: nothing is to be done any more."""
        self.current = None
        self.wanted.clear()
        self._deletes.clear()
        self.children.timers.clear()

    def deleted(
        self,
        now: float,
        spi_in: int,
        entropy: Entropy,
        seconds: float = DELETED_FOR,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        """DELETE was sent for the pair with this inbound SPI: it is repeated for so many seconds."""
        schedule = self._deletes[spi_in] = Schedule(now, entropy, seconds, longest_wait)
        self.children.timers.arm((Limit.DELETE, spi_in), schedule.due)

    def repeats_delete(self, now: float, spi_in: int) -> bool:
        """Whether it is to be sent once more: nothing acknowledges it."""
        schedule = self._deletes[spi_in]
        if schedule.exhausted(now):
            del self._deletes[spi_in]
            return False
        schedule.again(now)
        self.children.timers.arm((Limit.DELETE, spi_in), schedule.due)
        return True
