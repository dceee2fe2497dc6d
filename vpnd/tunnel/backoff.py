"""When to try again: the first retry at once, then after 1, 2, 4 ... 60 seconds, with jitter."""

from __future__ import annotations

from vpnd.crypto.entropy import Entropy

FIRST_DELAY = 1.0
"""Ours: seconds before the second retry."""

LONGEST_DELAY = 60.0
"""Ours: a peer that comes back is tried within a minute."""

JITTER_PERCENT = 20
"""Ours: how much earlier a retry may come, so that tunnels that failed together spread."""


ATTEMPT_LIMIT = 120.0
"""Ours: seconds after which an attempt without any result is given up; IKE itself gives up after about 30."""

PEER_FIRST = 3.0
"""Ours: seconds that a peer which begins again what we close is given after a reset, for one IKE SA each."""


class Backoff:
    """Counts the failures of one thing that is tried again without end."""

    __slots__ = ("failures",)

    def __init__(self) -> None:
        self.failures = 0

    def next_delay(self, entropy: Entropy) -> float:
        """Counts one failure; returns the seconds to wait before the next try."""
        self.failures += 1
        if self.failures == 1:
            return 0.0
        # The exponent is bounded so that a year of failures does not compute 2**500000.
        delay = min(LONGEST_DELAY, FIRST_DELAY * float(1 << min(self.failures - 2, 10)))
        return delay * (1.0 - entropy.below(JITTER_PERCENT * 10 + 1) / 1000.0)

    def reset(self) -> None:
        """It worked, or the operator asks for a fresh start."""
        self.failures = 0
