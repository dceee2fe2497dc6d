"""Whether a path loses too much: a sequential test on single echo requests.

Loss of 20 % must never look like 30 %, and 30 % must be seen soon, yet a few probes cannot tell them apart.
So each outcome counts as evidence, by the logarithm of how much likelier it is at 30 % than at 20 %, and the
sum, which never falls below zero, decides (E. S. Page, Continuous inspection schemes, Biometrika 41, 1954).
At 20 % it is wrong once in 20 million echo requests or more, at 30 % it takes about 460 to be sure, at 50 %
about 100.
"""

from __future__ import annotations

from math import log

TOLERABLE = 0.20
TOO_MUCH = 0.30
"""Ours: loss of the first is borne, loss of the second moves traffic to a tunnel that loses less."""

IF_LOST = log(TOO_MUCH / TOLERABLE)
IF_ANSWERED = log((1 - TOO_MUCH) / (1 - TOLERABLE))

SURE = 13.0
"""Ours: evidence at which the path loses too much."""

CLEAR = SURE / 4
"""Ours: evidence at which it does not any more."""

PRESSING = 1.0
"""Ours: evidence from which on the decision is worth some haste; at 20 % loss it seldom gets there."""

RUN = 3
"""Ours: losses one after the other that count; of more of them, failed probes tell."""

OUTAGE = 8
"""Ours: losses one after the other from which on a closer look tells nothing new."""


PATIENCE = 20
"""Ours: answers in a row after which a loss is forgotten; at 30 % loss that many come once in 1,250 times."""


class LossTest:
    """The evidence about one path. Counts outcomes in the order in which they become known."""

    __slots__ = ("_answers", "_evidence", "_run", "lossy")

    def __init__(self) -> None:
        self.lossy = False
        """Whether the path loses too much."""
        self._evidence = 0.0
        self._run = 0
        self._answers = PATIENCE

    @property
    def silent(self) -> bool:
        """Whether nothing was answered for so long that this is an outage, which probes tell better."""
        return self._run >= OUTAGE

    @property
    def doubtful(self) -> bool:
        """Whether more echo requests would tell something: something was lost, and not all."""
        return not self.silent and (self._answers < PATIENCE or self._evidence > 0)

    @property
    def pressing(self) -> bool:
        """Whether what was seen so far speaks for too much loss."""
        return self._evidence >= PRESSING

    def count(self, lost: bool) -> None:
        """One echo request was lost, or answered in time."""
        self._run = self._run + 1 if lost else 0
        self._answers = 0 if lost else self._answers + 1
        if self._run <= RUN:
            step = IF_LOST if lost else IF_ANSWERED
            self._evidence = min(SURE, max(0.0, self._evidence + step))
        if self._evidence >= SURE:
            self.lossy = True
        elif self._evidence <= CLEAR:
            self.lossy = False
