"""The quick modes of one ISAKMP SA: one of ours at a time, repeats, and message IDs that are used once.

Peers keep state for very few quick modes at once (strongSwan for three), so wanted mappings wait in a queue.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from vpnd.ike.faults import Drop
from vpnd.ike.outputs import ChildFailed
from vpnd.ike.retransmit import Schedule
from vpnd.ike.v1 import quick_mode
from vpnd.ike.v1.quick_mode import QuickMode, State
from vpnd.model.diagnosis import Code, Diagnosis

if TYPE_CHECKING:
    from vpnd.ike.v1.session import Session

PEERS_AT_ONCE = 8
"""Unfinished quick modes that a peer may have with us; it begins one for each mapping, most often in turn."""
REMEMBERED_IDS = 1024
"""Message IDs of finished exchanges whose repeats are known as such."""
LINGER = 30.0
"""Seconds that a finished quick mode still answers repeats: a peer's whole retransmission."""


class Quicks:
    """Quick modes by message ID. `wanted` are the mappings that wait for their turn, in order."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._by_id: dict[int, QuickMode] = {}
        self._ends: dict[int, float] = {}
        self._used: deque[int] = deque(maxlen=REMEMBERED_IDS)
        self.wanted: dict[int, None] = {}

    # --- ours

    def want(self, now: float, mapping: int) -> None:
        """A pair of SAs for this mapping, as soon as none of ours is under way."""
        quick = self.own()
        if quick is None or quick.policy.index != mapping:
            self.wanted[mapping] = None
        self.next(now)

    def own(self) -> QuickMode | None:
        """The one that we began and that is not finished."""
        return next((q for q in self._by_id.values() if q.initiator and q.state is State.SENT_QUICK1), None)

    def next(self, now: float) -> None:
        """Begin the quick mode whose turn it is, if none of ours is under way."""
        policies = {policy.index: policy for policy in self._session.policy.children}
        while self.wanted and self.own() is None and self._session.may_begin:
            mapping = next(iter(self.wanted))
            del self.wanted[mapping]
            if mapping in policies:
                quick_mode.begin(self._session, now, policies[mapping])

    # --- all

    def add(self, quick: QuickMode) -> None:
        """Messages with its ID belong to it. Raises Drop if the peer has too many under way."""
        if not quick.initiator:
            theirs = [q for q in self._by_id.values() if not q.initiator and q.state is not State.DONE]
            if len(theirs) >= PEERS_AT_ONCE:
                raise Drop("too many quick modes")
        self._by_id[quick.message_id] = quick
        self._used.append(quick.message_id)

    def find(self, message_id: int) -> QuickMode | None:
        """The quick mode with this message ID. Raises Drop for an ID whose exchange is over."""
        quick = self._by_id.get(message_id)
        if quick is None and message_id in self._used:
            raise Drop("message ID used before")
        return quick

    def use(self, message_id: int) -> None:
        """An exchange of the peer had this message ID: a replay of it is known as such."""
        self._used.append(message_id)

    def is_used(self, message_id: int) -> bool:
        """Whether an exchange has or had this message ID."""
        return message_id in self._used

    def done(self, now: float, quick: QuickMode) -> None:
        """Both sides have the SAs; the exchange stays to answer repeats."""
        quick.state = State.DONE
        quick.schedule = None
        quick.key_pair = None
        self._ends[quick.message_id] = now + LINGER
        self.next(now)

    def fail(self, now: float, quick: QuickMode, diagnosis: Diagnosis) -> None:
        """It ends without SAs; the next mapping has its turn."""
        session = self._session
        self._by_id.pop(quick.message_id, None)
        if quick.child is not None:
            session.remove_child(quick.spi_in, diagnosis)
        session.registry.release_esp_spi(quick.spi_in)
        session.registry.emit(ChildFailed(session.tunnel, quick.policy.index, diagnosis))
        self.next(now)

    def repeat(self, quick: QuickMode) -> None:
        """Answer a repeated message with the last answer, a bounded number of times."""
        quick.repeats += 1
        if quick.repeats > self._session.registry.limits.repeats:
            raise Drop("repeated too often")
        self._session.carrier.repeat(self._session.path, quick.last_sent)

    # --- time

    def next_timeout(self) -> float | None:
        """The earliest deadline of all quick modes."""
        due = [quick.schedule.due for quick in self._by_id.values() if quick.schedule is not None]
        return min([*due, *self._ends.values()], default=None)

    def handle_timeout(self, now: float) -> bool:
        """Repeat what has no answer yet. False if a peer that must answer never has: it is gone."""
        for message_id in [one for one, end in self._ends.items() if end <= now]:
            del self._ends[message_id]
            self._by_id.pop(message_id, None)
        for quick in list(self._by_id.values()):
            schedule = quick.schedule
            if schedule is None or schedule.due > now:
                continue
            if schedule.exhausted(now):
                return self._unanswered(now, quick)
            schedule.again(now)
            self._session.repeat_unconfirmed()
            self._session.carrier.repeat(self._session.path, quick.last_sent)
        return True

    def _unanswered(self, now: float, quick: QuickMode) -> bool:
        diagnosis = Diagnosis.of(
            Code.SILENT, exchange="quick mode", mapping=str(quick.policy), peer=self._session.path.remote
        )
        self.fail(now, quick, diagnosis)
        return not quick.initiator

    def begin_schedule(self, now: float, quick: QuickMode) -> None:
        """Its last message waits for an answer."""
        quick.schedule = Schedule(now, self._session.registry.entropy)
