"""Deadlines: the few of one session, and the earliest of many, for sessions, tunnels and health checks."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")


class Timers(Generic[K]):
    """At most one deadline for each key, in seconds on the caller's clock. Keys are enums or tuples."""

    __slots__ = ("_deadlines",)

    def __init__(self) -> None:
        self._deadlines: dict[K, float] = {}

    def arm(self, key: K, deadline: float) -> None:
        """Set or move the deadline of `key`."""
        self._deadlines[key] = deadline

    def disarm(self, key: K) -> None:
        """Forget the deadline of `key`; an unarmed key is left alone."""
        self._deadlines.pop(key, None)

    def clear(self) -> None:
        self._deadlines.clear()

    def deadline(self, key: K) -> float | None:
        return self._deadlines.get(key)

    def all(self) -> dict[K, float]:
        """Every deadline: a copy."""
        return dict(self._deadlines)

    def next_timeout(self) -> float | None:
        return min(self._deadlines.values(), default=None)

    def expired(self, now: float) -> Iterator[K]:
        """Each key that is due, earliest first, disarmed as it is yielded.

        A key that is armed again meanwhile waits for the next call, unless it is due already.
        """
        due = sorted(
            (when, index, key) for index, (key, when) in enumerate(self._deadlines.items()) if when <= now
        )
        for when, _, key in due:
            if self._deadlines.get(key) == when:
                del self._deadlines[key]
                yield key


OUTDATED = 1024
"""Ours: entries of the heap that nothing waits for, beside as many as there are deadlines, until they are
removed; each attempt of a flood leaves one for half a minute."""


class Deadlines(Generic[K]):
    """At most one deadline for each of thousands of keys, in seconds on the caller's clock.

    Keys that are due at the same moment come in the order in which they were armed.
    """

    __slots__ = ("_armed", "_heap", "_keys", "_number")

    def __init__(self) -> None:
        self._armed: dict[K, tuple[float, int]] = {}
        self._keys: dict[int, K] = {}
        self._heap: list[tuple[float, int]] = []
        """Each deadline with the number of its key, so that an outdated entry keeps no session alive."""
        self._number = 0

    def __len__(self) -> int:
        return len(self._armed)

    @property
    def entries(self) -> int:
        """How many entries the heap holds, outdated ones among them: a bound for memory."""
        return len(self._heap)

    def arm(self, key: K, deadline: float | None) -> None:
        """Set or move the deadline of `key`; None: it waits for nothing."""
        armed = self._armed.get(key)
        if armed is not None and armed[0] == deadline:
            return
        self.disarm(key)
        if deadline is None:
            return
        self._number += 1
        self._armed[key] = deadline, self._number
        self._keys[self._number] = key
        heapq.heappush(self._heap, self._armed[key])

    def disarm(self, key: K) -> None:
        armed = self._armed.pop(key, None)
        if armed is not None:
            del self._keys[armed[1]]
        if len(self._heap) > 2 * len(self._keys) + OUTDATED:
            self._heap = [entry for entry in self._heap if entry[1] in self._keys]
            heapq.heapify(self._heap)

    def next_timeout(self) -> float | None:
        while self._heap:
            deadline, number = self._heap[0]
            if number in self._keys:
                return deadline
            heapq.heappop(self._heap)
        return None

    def serve(self, now: float, serve: Callable[[K], object]) -> None:
        """Call `serve` with each key that is due, earliest first, disarmed before all of them.

        What `serve` raises is raised: the key that it was about, and those after it, are due still.
        """
        due = self._take_due(now)
        try:
            while due:
                serve(due[0])
                due.popleft()
        finally:
            for key in due:
                self.arm(key, now)

    def _take_due(self, now: float) -> deque[K]:
        due: deque[K] = deque()
        while (deadline := self.next_timeout()) is not None and deadline <= now:
            key = self._keys[heapq.heappop(self._heap)[1]]
            self.disarm(key)
            due.append(key)
        return due
