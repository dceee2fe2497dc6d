"""The last events, and their live readers: a ring that a slow reader cannot hold up."""

from __future__ import annotations

import asyncio
import heapq
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from operator import itemgetter

from vpnd.control.schema import Event

KEPT_EVENTS = 1000
"""Ours: a day of a quiet gateway, and some 300 KB."""

KEPT_UNPROVEN = 100
"""Ours: events that anyone can cause from outside, beside those; they push out each other alone."""

READER_BACKLOG = 256
"""Ours: events that wait for one slow reader before the oldest are dropped."""


class EventLog:
    """Keeps the last events and hands new ones to each follower. Belongs to one event loop."""

    def __init__(self, kept: int = KEPT_EVENTS, backlog: int = READER_BACKLOG) -> None:
        self._events: deque[tuple[int, Event]] = deque(maxlen=kept)
        self._unproven: deque[tuple[int, Event]] = deque(maxlen=KEPT_UNPROVEN)
        self._published = 0
        self._life = secrets.token_hex(4)
        self._readers: set[_Reader] = set()
        self._backlog = backlog

    def publish(self, event: Event, unproven: bool = False) -> None:
        """Keep `event` and wake the followers; never waits for one. `unproven`: anyone can have caused it."""
        self._published += 1
        event = event.model_copy(update={"id": f"{self._life}-{self._published}"})
        (self._unproven if unproven else self._events).append((self._published, event))
        for reader in self._readers:
            reader.offer(event)

    def recent(self, after: str | None = None) -> tuple[Event, ...]:
        """What is kept, oldest first; `after`: only what came after the event with this id, if it is ours."""
        known = self._number(after)
        numbered = heapq.merge(self._events, self._unproven, key=itemgetter(0))
        return tuple(event for number, event in numbered if number > known)

    def _number(self, identifier: str | None) -> int:
        """The number in an event's id, 0 for what another daemon or nobody has given out."""
        life, _, number = (identifier or "").partition("-")
        return int(number) if life == self._life and number.isascii() and number.isdecimal() else 0

    def clear(self) -> None:
        """Forget what is kept."""
        self._events.clear()
        self._unproven.clear()

    @property
    def followers(self) -> int:
        """How many follow the new events."""
        return len(self._readers)

    async def stream(self, follow: bool, after: str | None = None) -> AsyncGenerator[Event, None]:
        """What is kept, then with `follow` each new event, until the reader closes the generator.

        `after`: the id of the last event that the reader has; one from before a restart leaves out nothing.

        A follower that fell behind gets an `events-missed` event with the number that it did not get.
        """
        reader = _Reader(self._backlog)
        if follow:
            self._readers.add(reader)
        try:
            for event in self.recent(after):
                yield event
            while follow:
                for event in await reader.take():
                    yield event
        finally:
            self._readers.discard(reader)


class _Reader:
    """The events that wait for one follower."""

    def __init__(self, backlog: int) -> None:
        self._waiting: deque[Event] = deque(maxlen=backlog)
        self._missed = 0
        self._wake = asyncio.Event()

    def offer(self, event: Event) -> None:
        if len(self._waiting) == self._waiting.maxlen:
            self._missed += 1
        self._waiting.append(event)
        self._wake.set()

    async def take(self) -> list[Event]:
        """Waits for at least one event; returns all that wait."""
        await self._wake.wait()
        self._wake.clear()
        taken = list(self._waiting)
        self._waiting.clear()
        if self._missed:
            lost = "1 event was" if self._missed == 1 else f"{self._missed} events were"
            text = f"{lost} dropped because this reader was too slow"
            taken.insert(0, Event(at=datetime.now(UTC), event="events-missed", text=text))
            self._missed = 0
        return taken
