"""The IPsec SAs of one tunnel: which is current, which lives on, when each ends, and what the peer is asked.

RFC 2409 section 5.5 ties IPsec SAs to the two peers, not to the ISAKMP SA of their quick mode: they go on
when another one succeeds it, and are negotiated and deleted under the one that is current.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from vpnd.crypto.entropy import Entropy, chance
from vpnd.ike import children
from vpnd.ike.children import DELETED_KEPT, ESP_SPI_LENGTH, ChildTimer
from vpnd.ike.outputs import (
    ChildExpected,
    ChildLimited,
    ChildReplaced,
    ChildRetired,
    ChildSaInfo,
    ChildUp,
)
from vpnd.ike.registry import Registry
from vpnd.ike.retransmit import LONGEST_WAIT, Schedule
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
than what a pair that is one too many is kept for (`SURPLUS_KEPT`)."""
PAIRS_AT_MOST = 32
"""Pairs of one mapping: beyond, the oldest that is not sent on is deleted, or a peer could add up any number.

Replaced pairs live on to their end, so a peer that renews each second what it lets live for 30 s has 31. One
that renews still faster has moved 31 pairs on from the one that goes.
"""
CROSSING = 60.0
"""Seconds in which two quick modes for one mapping can have been under way at once."""
SURPLUS_KEPT = 3.0
"""Seconds that one pair of two still receives, once both sides send on the other."""
DELETED_FOR = 10.0
"""Seconds in which DELETE is repeated for a pair that is one too many; nothing acknowledges it."""


LIFE = (ChildTimer.SEND, ChildTimer.REKEY, ChildTimer.LIFETIME, ChildTimer.REMOVE)
"""What matters only while the pair is there."""


class Fate(Enum):
    """How the life of a pair goes on."""

    EXPECTED = "expected"
    """It receives. The peer, which has begun it, has still to confirm it, and its mapping has no other."""
    UNCONFIRMED = "unconfirmed"
    """Likewise, but it succeeds another one, which is sent on until then."""
    HELD = "held"
    """We began it; it is not sent on yet, for the peer may not have installed it."""
    LIVE = "live"
    DELETED = "deleted"
    """One side has deleted it: it only receives."""


PENDING = (Fate.EXPECTED, Fate.UNCONFIRMED)
USABLE = (Fate.HELD, Fate.LIVE)


@dataclass(slots=True, eq=False)
class Child(children.Child):
    """One SA pair. `limits`: what it lives and carries at most, which the peer may have lowered since."""

    fate: Fate
    limits: Lifetimes = field(init=False)

    def __post_init__(self) -> None:
        self.limits = self.sa.lifetimes


class Children(children.Children[Child]):
    """All SA pairs of one tunnel. The newest of a mapping is current, and the newest LIVE one is sent on."""

    def install(self, now: float, sa: ChildSa, pending: bool) -> None:
        """A new SA pair: the successor of its mapping's current one, if there is one.

        A pair that is pending and succeeds none receives, and is announced once the peer has confirmed it: it
        may send on it right after its third message, which may come later than its packets, or not at all.
        """
        old = self.current(sa.mapping)
        unconfirmed = Fate.EXPECTED if old is None else Fate.UNCONFIRMED
        child = Child(sa, now, unconfirmed if pending else Fate.HELD)
        self.keep(child, self._soft(child, sa.lifetimes.seconds))
        self.give_time(now, child)
        if child.fate is Fate.EXPECTED:
            self._registry.emit(ChildExpected(sa))
        elif old is None:
            self._registry.emit(ChildUp(sa, outbound=False))
        else:
            self._registry.emit(ChildReplaced(old.spi_in, sa, outbound=False))

    def limit(self, now: float, child: Child, lifetimes: Lifetimes) -> None:
        """The pair lives and carries so much from its beginning and no more, as the peer has said since."""
        if lifetimes.kilobytes is not None and lifetimes.kilobytes != child.limits.kilobytes:
            self._registry.emit(ChildLimited(child.sa.tunnel, child.spi_in, lifetimes.kilobytes))
        if lifetimes.seconds < child.limits.seconds:
            ends = child.made + lifetimes.seconds
            for timer, due in (
                (ChildTimer.LIFETIME, ends),
                (ChildTimer.REKEY, self._soft(child, lifetimes.seconds)),
            ):
                self.arm(timer, child, max(now, min(due, self.deadline(timer, child) or due)))
        child.limits = lifetimes

    def give_time(self, now: float, child: Child) -> None:
        """The peer may not have the pair yet: it is sent on later, unless it is already."""
        if child.fate is Fate.HELD:
            beside = self._sending(child.sa.mapping)
            self.arm(ChildTimer.SEND, child, now + (SETTLING_BESIDE if beside else SETTLING))

    def keep_only(self, now: float, kept: ChildSa, replaces: int | None) -> None:
        """Both sides had begun: what was made beside `kept` and the pair that it replaces is deleted soon."""
        for other in self:
            young = other.made >= now - CROSSING
            if young and other.sa.mapping == kept.mapping and other.spi_in not in (kept.spi_in, replaces):
                self.arm(ChildTimer.DUPLICATE, other, now + SURPLUS_KEPT)

    def confirm(self, child: Child) -> None:
        """The peer has the pair installed, or has had time to: send on it."""
        if child.fate is Fate.EXPECTED:
            old = self.current(child.sa.mapping)
            self._live(child)
            if old is None:
                self._registry.emit(ChildUp(child.sa, expected=True))
            else:
                self._registry.emit(ChildReplaced(old.spi_in, child.sa, outbound=True, expected=True))
        elif child.fate in (Fate.UNCONFIRMED, Fate.HELD):
            self.send_on(child)

    def remove(self, spi_in: int, diagnosis: Diagnosis) -> None:
        """The pair is gone, or never came to be. Its mapping falls back to the newest one that is left."""
        child = self.find(spi_in)
        if child is None:
            self._registry.release_esp_spi(spi_in)
            return
        self._end(child)
        self.forget(child)
        self._say_down(child, diagnosis)

    def deleted(self, now: float, child: Child, diagnosis: Diagnosis) -> None:
        """One side has deleted the pair: it still receives where its mapping has another, else it goes.

        A pair that is pending has not been used.
        """
        if child.fate is Fate.DELETED:
            return
        if child.fate in PENDING or len(self._of(child.sa.mapping, *USABLE)) == 1:
            self.remove(child.spi_in, diagnosis)
            return
        end = self.deadline(ChildTimer.LIFETIME, child) or now
        self._end(child)
        self.arm(ChildTimer.REMOVE, child, min(end, now + DELETED_KEPT))
        self._registry.emit(ChildRetired(child.sa.tunnel, child.sa.mapping, child.spi_in))

    def _end(self, child: Child) -> None:
        """It is sent on no more; if it was, or was to be, the newest that is left takes its part."""
        mapping = child.sa.mapping
        leads = child in (self.current(mapping), *self._sending(mapping))
        child.fate = Fate.DELETED
        self.disarm(child, *LIFE)
        left = self._of(mapping, *USABLE)
        if leads and left:
            self.send_on(left[-1])

    def send_on(self, child: Child) -> None:
        self._live(child)
        super().send_on(child)

    def _live(self, child: Child) -> None:
        """It is sent on. Of several what the peer has confirmed last counts: as the newest."""
        child.fate = Fate.LIVE
        self.disarm(child, ChildTimer.SEND)
        if child not in self._sending(child.sa.mapping):
            self._children[child.spi_in] = self._children.pop(child.spi_in)

    def _sending(self, mapping: int) -> list[Child]:
        """The pair that a mapping sends on, if there is one."""
        return self._of(mapping, Fate.LIVE)[-1:]

    def _soft(self, child: Child, seconds: int) -> float:
        margin, entropy = child.sa.lifetimes.margin, self._registry.entropy
        return soft_deadline(child.made, seconds, margin, entropy, child.sa.initiator)

    def _of(self, mapping: int, *fates: Fate) -> list[Child]:
        """The pairs of a mapping with one of these fates, the oldest first."""
        return [one for one in self if one.sa.mapping == mapping and one.fate in fates]

    def surplus(self, mapping: int) -> list[Child]:
        """The mapping's pairs that are too many, the oldest first."""
        pairs = [child for child in self if child.sa.mapping == mapping]
        used = (self.current(mapping), *self._sending(mapping))
        spare = [child for child in pairs if child.fate not in PENDING and child not in used]
        return spare[: max(0, len(pairs) - PAIRS_AT_MOST)]

    def named(self, spis: Container[bytes]) -> list[Child]:
        """The pairs that a peer's DELETE names.

        It names the SPIs that it receives on (RFC 2408 section 3.15); some peers name the others.
        """
        theirs = self.by_peer()
        ours = {child.spi_in.to_bytes(ESP_SPI_LENGTH, "big"): child for child in self}
        meant = (child for spi, child in (theirs | ours | theirs).items() if spi in spis)
        return list(dict.fromkeys(meant))

    def current(self, mapping: int) -> Child | None:
        """The pair that a mapping sends on, or will as soon as the peer has it."""
        found = self._of(mapping, Fate.UNCONFIRMED, *USABLE)
        return found[-1] if found else None

    def each_current(self) -> list[Child]:
        """The current pair of each mapping."""
        return [child for child in self if self.is_current(child)]

    def is_current(self, child: Child | None) -> bool:
        """Whether it is the current pair of its mapping."""
        return child is not None and self.current(child.sa.mapping) is child

    def pending(self, mapping: int) -> bool:
        """Whether the peer is making a pair for the mapping."""
        return bool(self._of(mapping, *PENDING))

    def settled(self, mapping: int, replaces: int | None) -> bool:
        """Whether a pair that is to succeed `replaces` (None: to be the first) is not needed."""
        if replaces is None:
            return self.current(mapping) is not None
        return not self.is_current(self.find(replaces))

    def info(self, renewing: Container[int | None]) -> tuple[ChildSaInfo, ...]:
        """When each pair is rekeyed, and ends; `renewing`: the pairs whose successor is being made."""
        found = []
        for child in self:
            stays = self.is_current(child) and child.spi_in not in renewing
            over = ChildTimer.REMOVE if child.fate is Fate.DELETED else ChildTimer.LIFETIME
            end = self.deadline(over, child) or child.made
            due = self.deadline(ChildTimer.REKEY, child) if stays else None
            found.append(ChildSaInfo(child.spi_in, due, end))
        return tuple(found)

    def deadlines(self) -> dict[str, float]:
        """One that has its successor asks for no other."""
        waits = super().deadlines()
        for child in self:
            if not self.is_current(child):
                waits.pop(f"{ChildTimer.REKEY.name} {child.spi_in:08x}", None)
        return waits


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
        self._entropy = registry.entropy
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
        seconds: float = DELETED_FOR,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        """DELETE was sent for the pair with this inbound SPI: it is repeated for so many seconds."""
        schedule = self._deletes[spi_in] = Schedule(now, self._entropy, seconds, longest_wait)
        self.children.timers.arm((ChildTimer.DELETE, spi_in), schedule.due)

    def repeats_delete(self, now: float, spi_in: int) -> bool:
        """Whether it is to be sent once more: nothing acknowledges it."""
        schedule = self._deletes[spi_in]
        if schedule.exhausted(now):
            del self._deletes[spi_in]
            return False
        schedule.again(now)
        self.children.timers.arm((ChildTimer.DELETE, spi_in), schedule.due)
        return True
