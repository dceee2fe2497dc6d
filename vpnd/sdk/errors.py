"""What can go wrong with a call, as exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vpnd.sdk.models import Problem


class VpndError(Exception):
    """Any of them."""


class DaemonUnreachable(VpndError):
    """Nobody answers there, or not as vpnd does. The text says why, `hint` what to do."""

    def __init__(self, place: Path | str, reason: str, hint: str) -> None:
        super().__init__(f"vpnd cannot be reached on {place}: {reason}")
        self.reason = reason
        self.hint = hint


class UnexpectedAnswer(VpndError):
    """The answer lacks a field that this version of the client needs: the daemon is another version."""


class Refused(VpndError):
    """The daemon answered with an error: its HTTP status, and the `error` object as it came."""

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message", f"HTTP status {status}")))
        self.status = status
        self.error = error

    @property
    def code(self) -> str:
        """The stable code, such as `E-PSK`."""
        return str(self.error.get("code", ""))

    @property
    def message(self) -> str:
        """One line for people."""
        return str(self)

    @property
    def hint(self) -> str | None:
        """What to change or to try, or None."""
        return self.error.get("hint")

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The findings of the configuration check, each with its `key`, where they are the reason."""
        from vpnd.sdk.decoding import decode
        from vpnd.sdk.models import Problem

        return tuple(decode(Problem, problem) for problem in self.error.get("problems") or ())

    @property
    def field(self) -> str | None:
        """The dotted path of the first value that was refused, `tunnels.branch-a.ike.lifetime`, or None."""
        return next((problem.key for problem in self.problems if problem.severity == "error"), None)
