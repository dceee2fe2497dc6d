"""When to send a request again, and when to stop.

    sent at  0   0.5   1.5   3.5   7.5   15.5   23.5   given up at 30   (seconds, each wait +-10 %)

The first waits are short because one lost datagram is the usual case; the cap keeps a peer that comes back
within reach. Seven sends leave a chance of 0.08 % to fail at 20 % loss each way.
"""

from __future__ import annotations

from vpnd.crypto.entropy import Entropy

FIRST_WAIT = 0.5
"""Seconds before the first repetition."""
LONGEST_WAIT = 8.0
"""Seconds between repetitions once doubling has reached it."""
GIVE_UP_AFTER = 30.0
"""Seconds from the first send to giving up."""
PAUSED = 2.0
"""Ours: seconds that a timer fires too late, from which on this machine must have stood still."""
JITTER_PERCENT = 10
"""Each wait is varied by up to this much, so that many tunnels do not send in step."""


class Schedule:
    """The sends of one request. Times are seconds on the caller's clock."""

    __slots__ = ("_entropy", "_longest", "_wait", "asked", "deadline", "due", "sent", "started")

    def __init__(
        self,
        now: float,
        entropy: Entropy,
        give_up_after: float = GIVE_UP_AFTER,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        self._entropy = entropy
        self._longest = longest_wait
        self._wait = FIRST_WAIT
        self.started = self.asked = now
        self.deadline = now + give_up_after
        self.sent = 1
        self.due = min(now + self._varied(FIRST_WAIT), self.deadline)

    def exhausted(self, now: float) -> bool:
        return now >= self.deadline

    def extend(self, deadline: float) -> None:
        """Go on until `deadline`, if that is later: the peer gives other signs of life."""
        self.deadline = max(self.deadline, deadline)

    def late(self, now: float) -> bool:
        """Whether the repetition comes so late that an answer may have been lost while nobody listened."""
        return now - self.due > PAUSED

    def resume(self, now: float, patience: float) -> None:
        """This machine stood still: silence until now proves nothing, and the question is asked again.

        `patience` is in seconds; `asked` tells since when the peer has had the chance to answer.
        """
        self.asked = now
        self._wait = FIRST_WAIT / 2
        self.extend(now + patience)

    def again(self, now: float) -> None:
        """The request was sent once more at `now`; `due` moves to the next time."""
        self.sent += 1
        self._wait = min(self._wait * 2, self._longest)
        self.due = min(now + self._varied(self._wait), self.deadline)

    def _varied(self, wait: float) -> float:
        spread = 2 * JITTER_PERCENT * 10 + 1
        return wait * (1 + (self._entropy.below(spread) - JITTER_PERCENT * 10) / 1000)
