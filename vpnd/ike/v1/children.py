"""The IPsec SAs of one tunnel: which is current, which lives on, and when each ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from vpnd.crypto.entropy import Entropy, chance
from vpnd.ike.outputs import (
    ChildDown,
    ChildExpected,
    ChildReplaced,
    ChildRetired,
    ChildSaInfo,
    ChildUp,
    OutboundReady,
    Output,
)
from vpnd.ike.timers import Timers
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import Margin

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


class Limit(Enum):
    """What a deadline of an SA pair is for: its first packet, the ends of its lifetime, its last packet."""

    SEND = "the peer has it"
    SOFT = "a successor is due"
    HARD = "over"
    REMOVE = "what was on its way has arrived"


@dataclass(slots=True)
class Child:
    """One SA pair. `pending`: the peer has not confirmed it yet (we answered its quick mode).

    `held`: it is not sent on yet, for the peer may not have installed it. `deleted`: one side has deleted it,
    and it only receives. `made`: when it was installed, on the caller's clock.
    """

    sa: ChildSa
    made: float
    pending: bool = False
    announced: bool = False
    held: bool = False
    deleted: bool = False


@dataclass(slots=True)
class Children:
    """All SA pairs of one tunnel; `current` has the inbound SPI that each mapping sends on.

    While the current pair is held, its mapping still sends on another: `sending` has the one that it does.
    Times are seconds on the caller's clock.
    """

    by_spi: dict[int, Child] = field(default_factory=dict)
    current: dict[int, int] = field(default_factory=dict)
    sending: dict[int, int] = field(default_factory=dict)
    timers: Timers[tuple[Limit, int]] = field(default_factory=Timers)

    def install(self, now: float, sa: ChildSa, pending: bool, soft: float) -> list[Output]:
        """A new SA pair: the successor of its mapping's current one, if there is one.

        A pair that is pending and succeeds none receives, and is announced once the peer has confirmed it: it
        may send on it right after its third message, which may come later than its packets, or not at all.
        """
        child = Child(sa, now, pending)
        self.by_spi[sa.spi_in] = child
        self.timers.arm((Limit.SOFT, sa.spi_in), soft)
        self.timers.arm((Limit.HARD, sa.spi_in), now + sa.lifetimes.seconds)
        old = self.current.get(sa.mapping)
        if old is None and pending:
            return [ChildExpected(sa)]
        child.announced = True
        self.current[sa.mapping] = sa.spi_in
        child.held = True
        if not pending:
            self.give_time(now, sa.spi_in)
        return [ChildUp(sa, outbound=False) if old is None else ChildReplaced(old, sa, outbound=False)]

    def limit(self, now: float, child: Child, seconds: int, soft: float) -> None:
        """The pair lives `seconds` from its beginning and no longer; `soft` is when its succession is due."""
        for limit, due in ((Limit.HARD, child.made + seconds), (Limit.SOFT, soft)):
            key = limit, child.sa.spi_in
            self.timers.arm(key, max(now, min(due, self.timers.deadline(key) or due)))

    def give_time(self, now: float, spi_in: int) -> None:
        """The peer may not have the pair yet: it is sent on later, unless it is already."""
        child = self.by_spi.get(spi_in)
        if child is not None and child.held:
            beside = self.sending.get(child.sa.mapping) is not None
            self.timers.arm((Limit.SEND, spi_in), now + (SETTLING_BESIDE if beside else SETTLING))

    def send_on(self, spi_in: int) -> list[Output]:
        """The pair is sent on: its time has come, or what was sent on until now is gone."""
        child = self.by_spi.get(spi_in)
        if child is None or not child.held or child.pending:
            return []
        child.held = False
        self.sending[child.sa.mapping] = spi_in
        self.timers.disarm((Limit.SEND, spi_in))
        return [OutboundReady(child.sa.tunnel, spi_in)]

    def confirm(self, spi_in: int) -> list[Output]:
        """The peer has the pair installed: send on it."""
        child = self.by_spi.get(spi_in)
        if child is None or not child.pending:
            return []
        child.pending = False
        if child.announced:
            return self.send_on(spi_in)
        child.announced = True
        old = self.current.get(child.sa.mapping)
        self.current[child.sa.mapping] = self.sending[child.sa.mapping] = spi_in
        if old is None:
            return [ChildUp(child.sa, expected=True)]
        return [ChildReplaced(old, child.sa, outbound=True, expected=True)]

    def remove(self, spi_in: int, diagnosis: Diagnosis) -> list[Output]:
        """The pair is gone. Its mapping falls back to the newest pair that is left, if there is one."""
        child = self.by_spi.pop(spi_in, None)
        if child is None:
            return []
        for limit in Limit:
            self.timers.disarm((limit, spi_in))
        sa = child.sa
        return [*self._fall_back(sa), ChildDown(sa.tunnel, sa.mapping, spi_in, diagnosis)]

    def deleted(self, now: float, spi_in: int, diagnosis: Diagnosis) -> list[Output]:
        """One side has deleted the pair: it still receives where its mapping has another, else it goes.

        A pair that is pending has not been used.
        """
        child = self.by_spi.get(spi_in)
        if child is None or child.deleted:
            return []
        if child.pending or not self._usable(child.sa.mapping, beside=child):
            return self.remove(spi_in, diagnosis)
        child.deleted, child.held = True, False
        end = self.timers.deadline((Limit.HARD, spi_in)) or now
        for limit in Limit:
            self.timers.disarm((limit, spi_in))
        self.timers.arm((Limit.REMOVE, spi_in), min(end, now + DELETED_KEPT))
        return [*self._fall_back(child.sa), ChildRetired(child.sa.tunnel, child.sa.mapping, spi_in)]

    def _usable(self, mapping: int, beside: Child | None = None) -> list[Child]:
        """The pairs of a mapping that can be sent on, the oldest first."""
        return [
            one
            for one in self.by_spi.values()
            if one.sa.mapping == mapping and not (one.pending or one.deleted or one is beside)
        ]

    def _fall_back(self, sa: ChildSa) -> list[Output]:
        """The pair is sent on no more. Its mapping falls back to the newest that is left, if there is one."""
        outputs: list[Output] = []
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
                outputs.append(OutboundReady(sa.tunnel, left[-1].sa.spi_in))
        elif was_sent_on:
            outputs += self.send_on(self.current.get(sa.mapping, spi_in))
        return outputs

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

    def info(self, renewing: Callable[[int], bool]) -> tuple[ChildSaInfo, ...]:
        """When each pair is rekeyed, and ends; `renewing`: whether the one with this inbound SPI is now."""
        found = []
        for spi_in, child in self.by_spi.items():
            due = self.timers.deadline((Limit.SOFT, spi_in))
            stays = self.is_current(spi_in) and not renewing(spi_in)
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
