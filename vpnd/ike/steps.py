"""The rows of a state table: what follows, by the state and by what drives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

H = TypeVar("H")
S = TypeVar("S")
K = TypeVar("K")


class Key(Enum):
    """A state, or what a deadline is for: rows and deadlines are looked up by it, several times a message.

    Each is one object, so that it is hashed as such, which costs a fifth of what Enum does, by name.
    """

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Step(Generic[H, S]):
    """One row: the story that the log tells, the action, and the state it leads to (None: the same)."""

    story: str
    action: H
    to: S | None = None


def table(parts: Mapping[tuple[S, ...], Mapping[K, Step[H, S]]]) -> dict[tuple[S, K], Step[H, S]]:
    """The rows by state and cause; a part stands for several states. Raises ValueError for a row twice."""
    every = ((state, part) for states, part in parts.items() for state in states)
    rows = [((state, cause), step) for state, part in every for cause, step in part.items()]
    if len(found := dict(rows)) < len(rows):
        raise ValueError("two rows for one cause in a state")
    return found
