"""The CHILD_SAs of one IKE SA: their records, lifetimes, and how they are announced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from vpnd.crypto.entropy import chance
from vpnd.ike.deadlines import Timers
from vpnd.ike.outputs import ChildDown, ChildReplaced, ChildRetired, ChildUp, OutboundReady, PeerRenews
from vpnd.ike.registry import Registry
from vpnd.ike.steps import Key
from vpnd.ike.v2.proposals import ESP_SPI_LENGTH
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Code, Diagnosis

INBOUND_KEPT = 5.0
"""Seconds that a succeeded SA still receives after its DELETE: packets on their way arrive."""
RACE = 30.0
"""Two SAs of one mapping made within this many seconds are a race of both ends, not a renewal."""
DUPLICATE_KEPT = 1.0
"""Seconds until the creator of a redundant SA deletes it: by then the peer has learned of both."""
DUPLICATE_KEPT_BY_PEER = 6.0
"""Seconds until the other side deletes it, should the creator not."""
RENEWED_FROM_HERE = 5.0
"""Seconds until a child whose successor the peer took back is renewed from this side, should the peer not."""
PFS_PROOF = 1.0
PFS_PROOF_OF_PEER = 4.0
"""Seconds until the first CHILD_SA, which has no key exchange of its own, is rekeyed to prove that it can be.

A mismatch of the groups shows then and not an hour later; where PFS is off only the peer may want it, and
once for a peer and configuration is enough. The IKE SA's initiator does it; the other side only if it did
not.
"""


class Fate(Enum):
    """How the life of a CHILD_SA goes on."""

    LIVE = "live"
    REKEYED = "rekeyed"
    """A successor is there; a DELETE follows from the side that made it."""
    DELETING = "deleting"
    """Our DELETE is sent, or about to be."""
    DELETED = "deleted"
    """Deleted on both sides; only the inbound half still waits for stragglers."""


class ChildTimer(Key):
    """What a deadline of a CHILD_SA is for."""

    REKEY = "rekey"
    LIFETIME = "lifetime"
    REMOVE = "remove"
    DUPLICATE = "duplicate"


@dataclass(slots=True, eq=False)
class Child:
    """One CHILD_SA. `lowest_nonce` is the lower of the two of the exchange that made it.

    `soft_end` is when its succession is due, on the caller's clock.
    """

    sa: ChildSa
    lowest_nonce: bytes
    made_at: float
    soft_end: float
    fate: Fate = Fate.LIVE
    successor: Child | None = None
    outbound: bool = True

    @property
    def spi_in(self) -> int:
        """The SPI that we receive on."""
        return self.sa.spi_in


@dataclass(slots=True, eq=False)
class Yielding:
    """This IKE SA is the redundant of two: its children yield `to` those of the one that is to stay.

    They do so once that one has `answered`: it was heard after `since`, when both stood, in seconds on the
    caller's clock. Until then the newest of ours sends, or what sent before one that the peer has begun. Its
    own send if it is heard `instead`.
    """

    to: Children
    since: float
    answered: bool = False
    instead: bool = False

    @property
    def stays(self) -> Children:
        """The children that stay, under the latest successor of their IKE SA."""
        found = self.to
        while found.heir is not None:
            found = found.heir
        return found


class Children:
    """The records by inbound SPI, with their timers in those of the session.

    `yielding`: while this IKE SA is the redundant of two. `heir`: the children of the successor of this IKE
    SA, once it was rekeyed.
    """

    def __init__(self, registry: Registry, timers: Timers[object]) -> None:
        self._registry = registry
        self._timers = timers
        self._children: dict[int, Child] = {}
        self.early_deletes: list[bytes] = []
        """SPIs that the peer has deleted, and which its answer to a request of ours may still name."""
        self.yielding: Yielding | None = None
        self.heir: Children | None = None

    def __iter__(self) -> Iterator[Child]:
        return iter(tuple(self._children.values()))

    def __len__(self) -> int:
        return len(self._children)

    def find(self, spi_in: int) -> Child | None:
        """The child that receives on this SPI."""
        return self._children.get(spi_in)

    def by_peer(self) -> dict[bytes, Child]:
        """Every child by the SPI that the peer receives on, as it travels; of two with one SPI the older."""
        newest_first = reversed(self._children.values())
        return {child.sa.spi_out.to_bytes(ESP_SPI_LENGTH, "big"): child for child in newest_first}

    def live(self, mapping: int) -> Child | None:
        """The newest usable child of a mapping."""
        found = [c for c in self if c.sa.mapping == mapping and c.fate is Fate.LIVE]
        return found[-1] if found else None

    def add(self, now: float, sa: ChildSa, lowest_nonce: bytes) -> Child:
        """A new child is up and owns its mapping, unless a race has another win."""
        child = self._keep(now, sa, lowest_nonce)
        sends = self._registry.sends(sa.tunnel, sa.mapping)
        self._registry.emit(ChildUp(sa))
        if sends is not None and not sa.initiator:
            # The peer has it only once it has worked on our answer, and until then another one will do.
            self._registry.emit(OutboundReady(sa.tunnel, sends))
        for other in self:
            if other is not child and other.fate is Fate.LIVE and _same_selectors(other.sa, sa):
                self._settle_duplicate(now, other, child)
        keeper = self._keeper(sa.mapping)
        if keeper is not None:
            self._registry.emit(OutboundReady(keeper.sa.tunnel, keeper.spi_in))
        return child

    def add_first(self, now: float, sa: ChildSa, lowest_nonce: bytes, prove: bool) -> None:
        """The CHILD_SA of IKE_AUTH; with `prove` its succession comes at once."""
        child = self.add(now, sa, lowest_nonce)
        if prove and child.fate is Fate.LIVE:
            self.postpone_rekey(child, now + (PFS_PROOF if sa.initiator else PFS_PROOF_OF_PEER))

    def replace(self, now: float, old: Child, sa: ChildSa, lowest_nonce: bytes, outbound: bool) -> Child:
        """`sa` succeeds `old`; with `outbound` it is sent on at once, else when the peer's DELETE comes.

        The successor of a redundant child is redundant as well, and never sent on.
        """
        outbound = outbound and not self.is_redundant(old)
        child = self._keep(now, sa, lowest_nonce, outbound)
        redundant_until = self._timers.deadline((ChildTimer.DUPLICATE, old.spi_in))
        if redundant_until is not None:
            self._timers.arm((ChildTimer.DUPLICATE, child.spi_in), redundant_until)
        old.successor = child
        self._timers.disarm((ChildTimer.REKEY, old.spi_in))
        self._registry.emit(ChildReplaced(old.spi_in, sa, outbound))
        return child

    def use_outbound(self, child: Child) -> None:
        """Send on this child from now on, unless we do already, or it is gone itself or redundant."""
        if not child.outbound and child.fate is not Fate.DELETING and not self.is_redundant(child):
            child.outbound = True
            self._registry.emit(OutboundReady(child.sa.tunnel, child.spi_in))

    def mark_deleted(self, now: float, child: Child) -> None:
        """Deleted on both sides after a succession: receive a little longer, then forget."""
        child.fate = Fate.DELETED
        for timer in ChildTimer:
            self._timers.disarm((timer, child.spi_in))
        if child.successor is not None:
            self.use_outbound(child.successor)
        self._timers.arm((ChildTimer.REMOVE, child.spi_in), now + INBOUND_KEPT)

    def other(self, child: Child) -> Child | None:
        """The newest usable child of the same mapping beside this one."""
        found = [
            c for c in self if c is not child and c.fate is Fate.LIVE and _same_selectors(c.sa, child.sa)
        ]
        return found[-1] if found else None

    def retire(self, child: Child) -> None:
        """Send on it no more: another child has its mapping, and this one only receives to its end."""
        for timer in (ChildTimer.REKEY, ChildTimer.DUPLICATE):
            self._timers.disarm((timer, child.spi_in))
        self._registry.emit(ChildRetired(child.sa.tunnel, child.sa.mapping, child.spi_in))

    def receive_for(self, now: float, closed: Children, seconds: float) -> tuple[int, ...]:
        """The IKE SA of `closed` goes: receive what is on its way under its children for so many seconds.

        Those whose mapping has no child here stay where they are. Returns the inbound SPIs of the others.
        """
        taken = []
        for child in closed:
            child.successor = None
            if child.fate is Fate.DELETED:
                self._take(closed, child)
            elif child.fate is not Fate.DELETING and self.live(child.sa.mapping) is not None:
                closed.retire(child)
                self._take(closed, child)
                self.mark_deleted(now, child)
                self._timers.arm((ChildTimer.REMOVE, child.spi_in), now + seconds)
                taken.append(child.spi_in)
        return tuple(taken)

    def make_room(self) -> bool:
        """Forget the oldest child that both sides have deleted; False: there is none.

        In a storm of rekeys many still wait for stragglers, and a peer that is refused for them may close
        the IKE SA (strongSwan authenticates again).
        """
        oldest = next((child for child in self if child.fate is Fate.DELETED), None)
        if oldest is not None:
            self.down(oldest, Diagnosis.of(Code.LIFETIME, detail="rekeyed"))
        return oldest is not None

    def down(self, child: Child, diagnosis: Diagnosis) -> None:
        """The child is gone; its successor, if it waited, carries on."""
        if child.fate is not Fate.DELETING:
            self.deleting(child, diagnosis)
        self.forget(child)

    def deleting(self, child: Child, diagnosis: Diagnosis) -> None:
        """The child is gone here; its record stays until the peer has answered our DELETE."""
        child.fate = Fate.DELETING
        for timer in ChildTimer:
            self._timers.disarm((timer, child.spi_in))
        successor = child.successor
        if successor is not None and self.find(successor.spi_in) is successor:
            self.use_outbound(successor)
        self._registry.emit(ChildDown(child.sa.tunnel, child.sa.mapping, child.spi_in, diagnosis))

    def restore(self, now: float, successor: Child) -> None:
        """The peer deletes a successor that it made and did not settle on: the child before it goes on.

        The peer could not use it, and will want another.
        """
        if successor.outbound or successor.sa.initiator:
            return
        for old in self:
            if old.successor is successor and old.fate in (Fate.LIVE, Fate.REKEYED):
                old.successor, old.fate = None, Fate.LIVE
                self.postpone_rekey(old, max(old.soft_end, now + RENEWED_FROM_HERE))
                if old.outbound and not self.is_redundant(old):
                    self._registry.emit(OutboundReady(old.sa.tunnel, old.spi_in))

    def is_redundant(self, child: Child) -> bool:
        """Whether another child has the mapping, and this one or its IKE SA is about to be closed."""
        marked = self._timers.deadline((ChildTimer.DUPLICATE, child.spi_in)) is not None
        return marked or self._keeper(child.sa.mapping) is not None

    def forget(self, child: Child) -> None:
        """Drop the record of a child that is gone."""
        del self._children[child.spi_in]
        self._registry.release_esp_spi(child.spi_in)

    def all_down(self, diagnosis: Diagnosis) -> None:
        """Every child is gone."""
        for child in self:
            self.down(child, diagnosis)

    def postpone_rekey(self, child: Child, deadline: float) -> None:
        """Try the succession again at `deadline`."""
        self._timers.arm((ChildTimer.REKEY, child.spi_in), deadline)

    def adopt(self, other: Children) -> None:
        """Take over every child, with its timers: the IKE SA was rekeyed (RFC 7296 section 2.18)."""
        other.heir, self.yielding = self, other.yielding
        for child in other:
            self._take(other, child)

    def _take(self, other: Children, child: Child) -> None:
        del other._children[child.spi_in]
        self._children[child.spi_in] = child
        for timer in ChildTimer:
            deadline = other._timers.deadline((timer, child.spi_in))
            other._timers.disarm((timer, child.spi_in))
            if deadline is not None:
                self._timers.arm((timer, child.spi_in), deadline)

    def _keep(self, now: float, sa: ChildSa, lowest_nonce: bytes, outbound: bool = True) -> Child:
        seconds = sa.lifetimes.seconds
        soft_end = now + sa.lifetimes.margin.soft(seconds, chance(self._registry.entropy))
        child = Child(sa, lowest_nonce, now, soft_end, outbound=outbound)
        self._children[child.spi_in] = child
        self._timers.arm((ChildTimer.LIFETIME, child.spi_in), now + seconds)
        self._timers.arm((ChildTimer.REKEY, child.spi_in), soft_end)
        return child

    def _keeper(self, mapping: int) -> Child | None:
        """The child that stays for a mapping while this IKE SA is the redundant of two."""
        yielding = self.yielding
        return yielding.stays.live(mapping) if yielding is not None and yielding.answered else None

    def _settle_duplicate(self, now: float, older: Child, newer: Child) -> None:
        """Two children of one mapping: which stays, by a rule that both ends apply alike.

        Made by the same side, the newer is wanted. Made by both sides at once, the one with the lowest
        nonce goes, as in a rekey collision (RFC 7296 section 2.8.1). Its creator deletes it; the other
        side waits longer and does so only if the creator did not. With a peer that makes another one of what
        is deleted, both stay.
        """
        renewals, tunnel = self._registry.policies.renewals, newer.sa.tunnel
        if not newer.sa.initiator and renewals.begun(now, tunnel):
            self._registry.emit(PeerRenews(tunnel))
        if renewals.expects(tunnel):
            return
        racing = older.sa.initiator != newer.sa.initiator and now - older.made_at < RACE
        loser = newer if racing and newer.lowest_nonce < older.lowest_nonce else older
        if loser is newer:
            self._registry.emit(OutboundReady(older.sa.tunnel, older.spi_in))
        kept = DUPLICATE_KEPT if loser.sa.initiator else DUPLICATE_KEPT_BY_PEER
        self._timers.arm((ChildTimer.DUPLICATE, loser.spi_in), now + kept)


def lifetime_over() -> Diagnosis:
    """Why an SA goes that has reached its hard end."""
    return Diagnosis.of(Code.LIFETIME)


def _same_selectors(one: ChildSa, other: ChildSa) -> bool:
    return (
        one.mapping == other.mapping
        and set(one.ts_local) == set(other.ts_local)
        and set(one.ts_remote) == set(other.ts_remote)
    )
