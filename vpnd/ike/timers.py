"""Deadlines of one session, keyed by what each is for."""

from __future__ import annotations

from collections.abc import Iterator
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
        """Forget every deadline."""
        self._deadlines.clear()

    def deadline(self, key: K) -> float | None:
        """When `key` is due, or None."""
        return self._deadlines.get(key)

    def all(self) -> dict[K, float]:
        """Every deadline: a copy."""
        return dict(self._deadlines)

    def next_timeout(self) -> float | None:
        """The earliest deadline, or None if nothing is armed."""
        return min(self._deadlines.values(), default=None)

    def expired(self, now: float) -> Iterator[K]:
        """Each key that is due, earliest first, disarmed as it is yielded.

        A key that is armed again while the caller works waits for the next call unless it is due already;
        the number of keys handed out is bounded by those that were due at the start.
        """
        due = sorted(
            (when, index, key) for index, (key, when) in enumerate(self._deadlines.items()) if when <= now
        )
        for when, _, key in due:
            if self._deadlines.get(key) == when:
                del self._deadlines[key]
                yield key
