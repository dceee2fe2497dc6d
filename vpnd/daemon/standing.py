"""Which configuration counts: the confirmed one, one that waits to be confirmed, one that was rolled back.

Nothing here asks for the time or the disk. `History` keeps a `Standing`; `Commits` acts by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Moment:
    """The time in both ways: seconds since the boot that is called so, if it is, and the calendar's."""

    now: float
    boot: str
    wall: datetime


@dataclass(frozen=True, slots=True)
class Pending:
    """A configuration that is in force until `deadline`, unless it is confirmed.

    `number` and `digest` are its own, `seconds` what was asked for. `deadline` counts from the boot that is
    called `boot`; `deadline_wall` is for after another one. `up` are the tunnels that were up before.
    """

    number: int
    digest: str
    seconds: float
    deadline: float
    boot: str
    deadline_wall: datetime
    up: tuple[str, ...] = ()

    def remaining(self, moment: Moment) -> float:
        """Seconds until it ends; never more than were asked for, wherever the calendar was set to.

        Where boots have no names, a count that is behind that of the beginning is of another one.
        """
        if moment.boot == self.boot and moment.now >= self.deadline - self.seconds:
            return self.deadline - moment.now
        return min(self.seconds, (self.deadline_wall - moment.wall).total_seconds())


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A version of the files that is not in force: its digest, why and since when. They may still hold it."""

    digest: str
    reason: str
    at: datetime


class Choice(StrEnum):
    """What a start uses."""

    FILES = "files"
    CONFIRMED = "confirmed"
    """The confirmed configuration, since the files hold a version that was rolled back."""
    PENDING = "pending"
    """The one that waits to be confirmed, until its deadline."""
    OVERDUE = "overdue"
    """The confirmed one, since the other was not confirmed in time."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is kept over a restart. `confirmed` is the number of a configuration; None before the first."""

    confirmed: int | None = None
    pending: Pending | None = None
    rolled_back: RolledBack | None = None

    def at_start(self, moment: Moment, files: str) -> Choice:
        """What a start uses where the files have the digest `files`."""
        if self.confirmed is None:
            return Choice.FILES
        if self.pending is not None:
            return Choice.PENDING if self.pending.remaining(moment) > 0 else Choice.OVERDUE
        if self.rolled_back is not None and self.rolled_back.digest == files:
            return Choice.CONFIRMED
        return Choice.FILES

    def applied(self, number: int) -> Standing:
        """A configuration is in force for good: the files hold it."""
        return Standing(confirmed=number)

    def tried(self, pending: Pending) -> Standing:
        """A configuration is in force until it is confirmed, or its time is over."""
        return replace(self, pending=pending, rolled_back=None)

    def confirm(self) -> Standing:
        """What waited to be confirmed is."""
        return self if self.pending is None else self.applied(self.pending.number)

    def went_back(self, reason: str, at: datetime) -> Standing:
        """What waited was not confirmed: the confirmed one is in force again."""
        if self.pending is None:
            return self
        return replace(self, pending=None, rolled_back=RolledBack(self.pending.digest, reason, at))

    def rolled(self, number: int, files: str | None, reason: str, at: datetime) -> Standing:
        """An older configuration is in force, and confirmed, while the files hold `files`.

        None: they hold that one.
        """
        return Standing(number, rolled_back=RolledBack(files, reason, at) if files is not None else None)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        document = asdict(self)
        if self.pending is not None:
            document["pending"]["deadline_wall"] = self.pending.deadline_wall.isoformat()
        if self.rolled_back is not None:
            document["rolled_back"]["at"] = self.rolled_back.at.isoformat()
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Standing:
        """Raises KeyError, TypeError or ValueError for what `document` has not made."""
        pending, rolled_back = document["pending"], document["rolled_back"]
        if pending is not None:
            deadline = _time(pending["deadline_wall"])
            pending = Pending(**{**pending, "deadline_wall": deadline, "up": tuple(pending["up"])})
        if rolled_back is not None:
            rolled_back = RolledBack(**{**rolled_back, "at": _time(rolled_back["at"])})
        return cls(document["confirmed"], pending, rolled_back)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
