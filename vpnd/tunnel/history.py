"""What the probes of one tunnel measured: counts since the start, a recent window, and the last hour."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

WINDOW = 60
"""Ours: echo requests over which the loss, round trip and jitter of the moment are taken."""

MINUTE = 60.0

KEPT_MINUTES = 60
"""The last hour, one sample a minute: about 8 KB for each tunnel."""

BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Ours, in seconds: by these round trips and their differences are counted, from a rack to a satellite."""


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute: `start` in seconds on the caller's clock; `rtt` and `jitter` are means in seconds.

    `rtt` is None if nothing was answered, `jitter` if fewer than two were.
    """

    start: float
    sent: int
    lost: int
    rtt: float | None
    jitter: float | None


class Distribution:
    """Counts durations by their size: as many numbers as `BOUNDS`, and one more for what is above them."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        """The sum of all, in seconds."""

    def count(self, seconds: float) -> None:
        """One that took so long."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Tally:
    """Counts echo requests, with sums from which mean and jitter follow."""

    __slots__ = ("answered", "last", "lost", "rtts", "steps")

    def __init__(self) -> None:
        self.answered = self.lost = 0
        self.rtts = 0.0
        self.steps = 0.0
        self.last: float | None = None

    def count(self, rtt: float | None) -> None:
        """One echo request was answered after `rtt` seconds, or is lost (None)."""
        if rtt is None:
            self.lost += 1
            return
        if self.last is not None:
            self.steps += abs(rtt - self.last)
        self.answered += 1
        self.rtts += rtt
        self.last = rtt

    @property
    def sent(self) -> int:
        """Echo requests whose fate is known."""
        return self.answered + self.lost

    @property
    def rtt(self) -> float | None:
        """The mean round trip in seconds."""
        return self.rtts / self.answered if self.answered else None

    @property
    def jitter(self) -> float | None:
        """The mean difference between one round trip and the next, in seconds (RFC 3550 section 6.4.1)."""
        return self.steps / (self.answered - 1) if self.answered > 1 else None


class History:
    """The measurements of one tunnel. All times are in seconds on the caller's clock."""

    __slots__ = ("_before", "_minute", "_minutes", "_now", "_recent", "jitters", "lost", "rtts", "sent")

    def __init__(self) -> None:
        self.sent = 0
        """Echo requests since the start whose fate is known."""
        self.lost = 0
        """Those that were not answered in time."""
        self.rtts = Distribution()
        """Round trips since the start."""
        self.jitters = Distribution()
        """The differences between one round trip and the next, since the start."""
        self._before: float | None = None
        self._recent: deque[float | None] = deque(maxlen=WINDOW)
        self._minutes: deque[Minute] = deque(maxlen=KEPT_MINUTES)
        self._minute = 0.0
        self._now = Tally()

    def count(self, now: float, rtt: float | None) -> None:
        """One echo request was answered after `rtt` seconds, or is lost (None)."""
        start = now - now % MINUTE
        if start != self._minute:
            self._close_minute()
            self._minute = start
        self.sent += 1
        self.lost += rtt is None
        self._recent.append(rtt)
        self._now.count(rtt)
        if rtt is None:
            return
        self.rtts.count(rtt)
        if self._before is not None:
            self.jitters.count(abs(rtt - self._before))
        self._before = rtt

    def recent(self) -> Tally:
        """The last `WINDOW` echo requests."""
        tally = Tally()
        for rtt in self._recent:
            tally.count(rtt)
        return tally

    def last_hour(self, now: float) -> tuple[Minute, ...]:
        """The minutes of the last hour in which something was sent, oldest first, with the current one."""
        oldest = now - KEPT_MINUTES * MINUTE
        kept = [minute for minute in self._minutes if minute.start >= oldest]
        if self._now.sent and self._minute >= oldest:
            kept.append(self._sample())
        return tuple(kept)

    def _close_minute(self) -> None:
        if self._now.sent:
            self._minutes.append(self._sample())
            self._now = Tally()

    def _sample(self) -> Minute:
        tally = self._now
        return Minute(self._minute, tally.sent, tally.lost, tally.rtt, tally.jitter)
