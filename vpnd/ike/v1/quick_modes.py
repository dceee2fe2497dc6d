"""The quick modes of one ISAKMP SA by message ID: what they are for, how far they are, what was said last.

Peers keep state for very few quick modes at once (strongSwan for three): one of ours is under way at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vpnd.crypto.dh import KeyPair
from vpnd.ike.faults import Drop
from vpnd.ike.retransmit import Schedule
from vpnd.ike.v1.message_transport import Turn
from vpnd.ike.v1.messages import Quick2, Quick3
from vpnd.ike.v1.protect import IvChain
from vpnd.model.child import ChildSa
from vpnd.model.policy import ChildPolicy
from vpnd.model.proposals import NO_GROUP

PEERS_AT_ONCE = 8
"""Unfinished quick modes that a peer may have with us; it begins one for each mapping, most often in turn."""
REFUSALS_KEPT = 64
"""Refused quick modes of a peer whose repeats are answered alike: more than any peer begins at once."""
LINGER = 30.0
"""Seconds that a finished quick mode still answers repeats: a peer's whole retransmission."""
CROSSED = 3.0
"""Seconds in which copies of a peer's first message arrive; strongSwan repeats it after 4."""
UNREAD_WITHIN = 5.0
"""Seconds after our Quick3 in which an error without an SPI of ours, which says that a message did not
decrypt, is about it: nothing else tells us. strongSwan also says so of each copy of one that it has read."""
UNREAD_RENEWED = 3.0
"""Seconds until such a mapping gets another pair: the copies of its first quick mode have arrived by then.

strongSwan knows the exchange that it answered last. A late copy of an older Quick1 begins a quick mode there,
and the next copy of that ends it, so that strongSwan sends on keys that nobody else has."""
UNANSWERED = 2
"""Successions in a row that a living peer did not answer: then it may under a new ISAKMP SA."""


class Stage(Enum):
    """What has happened in a quick mode."""

    SENT_QUICK1 = "sent Quick1"
    SENT_QUICK2 = "sent Quick2"
    ABANDONED = "sent Quick1, not wanted any more"
    GIVEN_UP = "sent Quick2, never acknowledged, deleted"
    DONE = "done"


ANSWERS: dict[Stage, type] = {
    Stage.SENT_QUICK1: Quick2,
    Stage.ABANDONED: Quick2,
    Stage.SENT_QUICK2: Quick3,
}
"""The peer's next message in each."""

WAITING = (Stage.SENT_QUICK1, Stage.SENT_QUICK2)
"""Stages in which the peer is to answer."""


@dataclass(slots=True)
class QuickMode:
    """One quick mode; `spi_in` is the SPI that we chose.

    `replaces` is the inbound SPI of the pair that it is to succeed, `began` a time on the caller's clock,
    `refused` the groups that the peer has refused for it before.
    """

    message_id: int
    chain: IvChain
    policy: ChildPolicy
    initiator: bool
    spi_in: int
    stage: Stage
    began: float
    key_pair: KeyPair | None = None
    replaces: int | None = None
    refused: tuple[int, ...] = ()
    nonce_i: bytes = b""
    nonce_r: bytes = b""
    child: ChildSa | None = None
    schedule: Schedule | None = None
    last: Turn = field(default_factory=Turn)

    @property
    def group(self) -> int:
        """That of its KE payloads, NO_GROUP without PFS."""
        return self.key_pair.group if self.key_pair else NO_GROUP

    def abandon(self) -> None:
        """It is not wanted any more. The peer may have answered already, so its answer is still taken."""
        self.stage, self.schedule, self.last.ends = Stage.ABANDONED, None, self.began + LINGER


class QuickModes:
    """Those of one ISAKMP SA. Times are seconds on the caller's clock."""

    def __init__(self) -> None:
        self._by_id: dict[int, QuickMode] = {}
        self._refusals: dict[int, Turn] = {}
        self._crossed: dict[int, float] = {}
        self._unread: set[int] = set()
        self.unanswered_successions = 0
        self.done_at = float("-inf")

    def all(self) -> tuple[QuickMode, ...]:
        """Every one that is not forgotten, the oldest first: a copy."""
        return tuple(self._by_id.values())

    def add(self, quick: QuickMode) -> None:
        self._by_id[quick.message_id] = quick

    def forget(self, quick: QuickMode) -> None:
        self._by_id.pop(quick.message_id, None)

    def find(self, message_id: int) -> QuickMode | None:
        return self._by_id.get(message_id)

    def own(self) -> QuickMode | None:
        """The one that we began and that waits for its answer."""
        return next((q for q in self._by_id.values() if q.stage is Stage.SENT_QUICK1), None)

    def cross(self, now: float, message_id: int, under_way: bool) -> None:
        """The peer's quick mode meets ours for the same mapping, which counts: Raises Drop.

        Copies of the peer's message that are still in the network when ours is done are dropped as well.
        A peer that does not know the rule repeats its message later, and finds it answered.
        """
        first = self._crossed.get(message_id)
        if under_way and first is None:
            self._crossed = {message_id: now}
        if under_way or (first is not None and now < first + CROSSED):
            raise Drop("crossing quick mode")

    def check_room(self) -> None:
        """Raises Drop if the peer has too many under way."""
        if sum(q.stage is Stage.SENT_QUICK2 for q in self._by_id.values()) >= PEERS_AT_ONCE:
            raise Drop("too many quick modes")

    def busy(self, now: float, seconds: float) -> bool:
        """Whether one is under way, or over for so few seconds that its last message may not have arrived."""
        return now < self.done_at + seconds or any(q.stage in WAITING for q in self._by_id.values())

    def meant_by(self, spi: bytes) -> QuickMode | None:
        """The quick mode that an error of the peer is about: by an SPI of it, else ours, else its latest."""
        return self.named(spi) or self.own() or next(reversed(self._waiting()), None)

    def named(self, spi: bytes) -> QuickMode | None:
        """The one that is under way, and has this SPI."""
        for quick in self._waiting():
            spis = {quick.spi_in, quick.child.spi_out if quick.child is not None else quick.spi_in}
            if spi in {one.to_bytes(4, "big") for one in spis}:
                return quick
        return None

    def _waiting(self) -> list[QuickMode]:
        return [quick for quick in self._by_id.values() if quick.stage in WAITING]

    def sent_quick3(self, now: float) -> list[QuickMode]:
        """Those whose Quick3 the peer may just have failed to read, the oldest first.

        Under load strongSwan handles a Quick3 after what we sent next, and by then knows its IV no more. A
        Quick1 is read with the IV of phase 1, so that such an error is not about one.
        """
        return [
            quick
            for quick in self._by_id.values()
            if quick.initiator and quick.stage is Stage.DONE
            if quick.last.ends is not None and now < quick.last.ends - LINGER + UNREAD_WITHIN
        ]

    def renews(self, quicks: list[QuickMode]) -> QuickMode | None:
        """The latest of these whose mapping is to have another pair, since its Quick3 was not read.

        Once for a mapping: a peer that reads no Quick3 of ours would have quick modes without end.
        """
        first = [quick for quick in quicks if quick.policy.index not in self._unread]
        if first:
            self._unread.add(first[-1].policy.index)
        return first[-1] if first else None

    def successions_are_unanswered(self) -> bool:
        """One more has had no answer: whether there have been enough in a row for another ISAKMP SA."""
        self.unanswered_successions = (self.unanswered_successions + 1) % UNANSWERED
        return self.unanswered_successions == 0

    def refused(self, now: float, message_id: int, received: bytes, sent: tuple[bytes, ...]) -> None:
        """A quick mode of the peer was refused; a repeat of its message is answered alike."""
        self._refusals[message_id] = Turn(received, sent, ends=now + LINGER)
        if len(self._refusals) > REFUSALS_KEPT:
            del self._refusals[next(iter(self._refusals))]

    def refusal(self, message_id: int) -> Turn | None:
        return self._refusals.get(message_id)

    def next_timeout(self) -> float | None:
        due = [quick.schedule.due for quick in self._by_id.values() if quick.schedule is not None]
        ends = [quick.last.ends for quick in self._by_id.values()]
        ends += [turn.ends for turn in self._refusals.values()]
        return min(due + [end for end in ends if end is not None], default=None)

    def over(self, now: float) -> list[QuickMode]:
        """Those whose repeats need no answer any more; such refusals are forgotten."""
        self._refusals = {
            number: turn for number, turn in self._refusals.items() if turn.ends is None or turn.ends > now
        }
        return [q for q in self._by_id.values() if q.last.ends is not None and q.last.ends <= now]

    def clear(self) -> None:
        self._by_id.clear()
        self._refusals.clear()
