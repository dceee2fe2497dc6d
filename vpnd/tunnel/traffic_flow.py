"""Whether what goes through a tunnel is answered, by its counters, which are read once a second.

packets leave, none comes for 10 s                     ONE_WAY
the same, and what comes fails the integrity check     UNREADABLE
packets come out, none goes back for 10 s              UNANSWERED
packets both ways                                      PASSES
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

WINDOW = 10.0
"""Ours: seconds that are looked at: a connection is tried three times in them (RFC 6298 section 2)."""

FEWEST = 3
"""Ours: packets, and seconds in which one passed, from which on silence means something."""

SLACK = 2
"""Ours: packets of the health check that may be under way at either end of the window."""


class Flow(Enum):
    """What the last seconds show."""

    PASSES = "packets pass both ways"
    ONE_WAY = "packets leave and none comes"
    UNREADABLE = "packets come and none can be read"
    UNANSWERED = "packets come and none goes back"
    IDLE = "no packets"


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts since some moment: packets that came out, that left, that failed the integrity check.

    `probes` are echo requests of our health check, which the peer's answers and its own ones match.
    """

    came: int = 0
    left: int = 0
    unreadable: int = 0
    probes: int = 0


class FlowDetector:
    """Of one tunnel. Times are seconds on the caller's clock."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Counted]] = deque()

    def evaluate(self, now: float, counted: Counted) -> Flow | None:
        """To be called every second with the counts of that moment; None: too little to say."""
        samples = self._samples
        samples.append((now, counted))
        while len(samples) > 1 and now - samples[1][0] >= WINDOW:
            samples.popleft()
        began, first = samples[0]
        came, left = counted.came - first.came, counted.left - first.left
        # The health check sends as much each way as the peer's does, and shows nothing of other packets.
        probes = counted.probes - first.probes
        own = 2 * probes + SLACK if probes else 0
        if came > own and left > own:
            return Flow.PASSES
        if now - began < WINDOW:
            return None
        return self._judge(came, left, counted.unreadable - first.unreadable, own)

    def _judge(self, came: int, left: int, unreadable: int, own: int) -> Flow | None:
        if came == 0 and unreadable >= FEWEST:
            return Flow.UNREADABLE
        if came == 0 and left >= FEWEST and self._active(lambda counted: counted.left) >= FEWEST:
            return Flow.ONE_WAY
        if came >= FEWEST + own and left <= own and self._active(lambda counted: counted.came) >= FEWEST:
            return Flow.UNANSWERED
        return Flow.IDLE if came == left == 0 else None

    def _active(self, count: Callable[[Counted], int]) -> int:
        """In how many of the looks at it the count had risen."""
        counts = [count(counted) for _, counted in self._samples]
        return sum(after > before for before, after in pairwise(counts))
