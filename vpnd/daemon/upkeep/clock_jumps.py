"""Jumps of the clocks: the machine was suspended, the process stopped, the calendar set.

No timer needs this, for all go by a clock that counts through it (`clock.py`); an operator who reads of peers
that were asked, or of times that do not follow each other, does.
"""

from __future__ import annotations

import asyncio

from vpnd.daemon.events.journal import Journal
from vpnd.host.clock import Clock

LOOK_EVERY = 1.0
"""Ours: seconds between two looks."""

SHORTEST = 5.0
"""Ours: seconds; less than this is a busy machine, or a calendar that is kept right."""


class ClockJumpMonitor:
    """Compares the three clocks with what they said the last time."""

    def __init__(self, clock: Clock, journal: Journal) -> None:
        self._clock = clock
        self._journal = journal

    async def watch(self) -> None:
        """Without end: log the time that is missing."""
        ran, counted, calendar = self._read()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            before = ran, counted, calendar
            ran, counted, calendar = self._read()
            self._log(ran - before[0], counted - before[1], calendar - before[2])

    def _read(self) -> tuple[float, float, float]:
        """Seconds: those in which the machine was awake, all of them, and what the calendar says."""
        return asyncio.get_running_loop().time(), self._clock.now(), self._clock.wall().timestamp()

    def _log(self, ran: float, counted: float, calendar: float) -> None:
        # Between two looks it may have been stopped at any moment.
        asleep, still, ahead = counted - ran, ran - LOOK_EVERY / 2, calendar - counted
        if asleep >= SHORTEST:
            text = (
                f"this machine was suspended for {_words(asleep)}: the peers are asked whether they are there"
            )
            self._journal.event(None, "resumed", text)
        if still >= SHORTEST:
            text = (
                f"vpnd did not run for {_words(still)}: it was stopped, or the processor had no time for it"
            )
            self._journal.event(None, "stood-still", text)
        if abs(ahead) >= SHORTEST:
            where = "ahead" if ahead > 0 else "back"
            text = f"the calendar was set {where} by {_words(abs(ahead))}: no tunnel depends on it"
            self._journal.event(None, "calendar-set", text)


def _words(seconds: float) -> str:
    """`40 s`, `10 min`, `3 h`, `12 d`: to the largest unit of which there are enough to say it by."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if round(seconds) >= (size if seconds % size < size / 60 else 2 * size):
            return f"{round(seconds) // size} {unit}"
    return f"{round(seconds)} s"
