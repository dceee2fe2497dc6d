"""Whether a tunnel goes down again and again when its SAs are to be renewed.

Of three losses in a row each came when a renewal was due or had failed, or after the same time, as by a timer
of the peer's; and as much time lies between the first two as between the last two.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import Lifetimes

LOSSES = 3
"""Losses in a row that are no accident."""

TOGETHER = 5.0
"""Ours: seconds within which the losses of several mappings are one."""

SHORTEST = 10.0
"""Ours: seconds; who goes down sooner never came to a renewal."""

ALIKE = 0.05
"""Ours: the part by which times may differ that one timer has made."""

STEADY = 0.25
"""Ours: the part by which the times between losses may differ: a renewal is begun earlier by chance."""

HEALED = 1.25
"""Ours: how many times as long as before the tunnel has to stay up to be steady again."""


@dataclass(frozen=True, slots=True)
class _Loss:
    """When, after how many seconds up, why, and whether a renewal was due or had failed."""

    at: float
    after: float
    why: Diagnosis
    due: bool


class Flaps:
    """The last losses of one tunnel. Times are seconds on the caller's clock."""

    __slots__ = ("_losses", "_refused", "every")

    def __init__(self) -> None:
        self._losses: tuple[_Loss, ...] = ()
        self._refused: Diagnosis | None = None
        self.every: float | None = None
        """Seconds from one loss to the next; None: it is steady."""

    def renewal_failed(self, diagnosis: Diagnosis) -> None:
        """What is up has found no successor."""
        self._refused = diagnosis

    def renewed(self, now: float, up_since: float | None) -> bool:
        """What is up has a successor. Returns whether the tunnel, up since then, is steady again by that."""
        self._refused = None
        if self.every is None or up_since is None or now - up_since < HEALED * self.every:
            return False
        self.forget()
        return True

    def forget(self) -> None:
        """What was lost before does not count."""
        self._losses = ()
        self._refused = self.every = None

    def lost(
        self, now: float, up_since: float | None, age: float, lifetimes: Lifetimes, why: Diagnosis
    ) -> Diagnosis | None:
        """A mapping is down whose SAs were made `age` seconds ago; E-FLAP, if it is one time too often."""
        after = now - up_since if up_since is not None else age
        refused, self._refused = self._refused, None
        if self._losses and now - self._losses[-1].at < TOGETHER:
            return None
        due = refused is not None or why.code is Code.LIFETIME
        due = due or age >= lifetimes.margin.soft(lifetimes.seconds, 1.0)
        self._losses = (*self._losses, _Loss(now, after, refused or why, due))[-LOSSES:]
        self.every = self._period()
        if self.every is None:
            return None
        behind = refused or why
        return Diagnosis.of(
            Code.FLAPPING,
            seconds=round(self.every),
            count=LOSSES,
            reason=behind.code.value,
            exchange=behind.fact("exchange"),
            notify=behind.fact("notify"),
            theirs=behind.fact("theirs"),
            ours=behind.fact("ours"),
        )

    def _period(self) -> float | None:
        """The seconds from one loss to the next, if they are no accident."""
        losses = self._losses
        if len(losses) < LOSSES or min(loss.after for loss in losses) < SHORTEST:
            return None
        if not (all(loss.due for loss in losses) or _alike([loss.after for loss in losses], ALIKE)):
            return None
        between = [later.at - earlier.at for earlier, later in pairwise(losses)]
        return sum(between) / len(between) if _alike(between, STEADY) else None


def _alike(times: list[float], part: float) -> bool:
    return max(times) - min(times) <= part * max(times)
