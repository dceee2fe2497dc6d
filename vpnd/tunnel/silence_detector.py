"""Whether the peer still has the tunnel: packets leave, and nothing comes back.

A peer that was restarted drops ESP of SAs that it has forgotten without a word, and dead peer detection
takes its time. So a peer that does not answer packets is asked, and where it does not answer that either, a
new IKE SA is tried beside the old one, which stays until the new one is there.

    packets unanswered --1.5 s--> ASK --1.7 s without an answer--> REINITIATE ... anything comes: RECOVERED
"""

from __future__ import annotations

from enum import Enum

UNANSWERED = 1.5
"""Ours: seconds in which packets leave and none comes, before the peer is asked."""

SLACK = 0.25
"""Ours: seconds that a packet's answer may take."""

ASK_EVERY = 5.0
"""Ours: seconds between two questions, for a stream that only goes one way."""

NO_ANSWER = 1.7
"""Ours: seconds without an answer to a question, which IKEv2 sends three times in them."""

EVALUATE_EVERY = 1.0
"""Seconds between two evaluations."""


class Step(Enum):
    """What is to be done now."""

    ASK = "ask the peer for a sign of life"
    REINITIATE = "try a new IKE SA beside the old one"
    RECOVERED = "nothing more: the peer answers again"


class SilenceDetector:
    """What is known of one peer's silence. Times are seconds on the caller's clock."""

    __slots__ = ("_asked", "_evaluated", "_unanswered_since", "has_begun")

    def __init__(self) -> None:
        self._unanswered_since: float | None = None
        self._asked: float | None = None
        self._evaluated = 0.0
        self.has_begun = False
        """Whether a new IKE SA is being tried."""

    def evaluate(self, now: float, sent: float, heard: float) -> Step | None:
        """To be called every second and at `next_evaluation`.

        `sent` is when the last packet left, `heard` when anything authentic came.
        """
        self._evaluated = now
        if self._asked is not None and heard <= self._asked:
            self.has_begun |= now - self._asked >= NO_ANSWER
            return Step.REINITIATE if self.has_begun else None
        if self.has_begun:
            self.has_begun = False
            return Step.RECOVERED
        since = self._unanswered_since
        if since is None or heard > since:
            # If the packets since the last evaluation have no answer, they are the first.
            since = max(heard, now - EVALUATE_EVERY)
        self._unanswered_since = since if sent > heard + SLACK else None
        recently = self._asked is not None and now - self._asked < ASK_EVERY
        if self._unanswered_since is not None and now - since >= UNANSWERED and not recently:
            self._asked = now
            return Step.ASK
        return None

    def next_evaluation(self) -> float | None:
        """When another evaluation may find something to do, if that is not in the usual second."""
        asked, since = self._asked, self._unanswered_since
        evaluations = (
            asked + NO_ANSWER if asked is not None else 0.0,
            since + UNANSWERED if since is not None else 0.0,
        )
        return min((at for at in evaluations if at > self._evaluated), default=None)

    def is_settled(self, now: float) -> bool:
        """Whether nothing is to be remembered."""
        recently = self._asked is not None and now - self._asked < ASK_EVERY
        return self._unanswered_since is None and not self.has_begun and not recently
