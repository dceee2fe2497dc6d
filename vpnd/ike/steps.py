"""The rows of a state table: a dict from the state and what drives it to `Step`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

H = TypeVar("H")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Step(Generic[H, S]):
    """One row: the story that the log tells, the action, and the state it leads to (None: the same)."""

    story: str
    action: H
    to: S | None = None
