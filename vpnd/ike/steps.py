"""The rows of a state table, and their lookup.

A table is a dict from (state, message type) to `Step`. A missing key is a message that has no business in
that state: it is counted and dropped, and never reaches a handler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from vpnd.ike.faults import Drop

H = TypeVar("H")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Step(Generic[H, S]):
    """One row: the story that the log tells, the action, and the state it leads to (None: the same)."""

    story: str
    action: H
    to: S | None = None


def step_for(steps: Mapping[tuple[S, type], Step[H, S]], state: S, message: object) -> Step[H, S]:
    """The row for `message` in `state`. Raises Drop if there is none."""
    step = steps.get((state, type(message)))
    if step is None:
        raise Drop(f"no step: {type(message).__name__} in {getattr(state, 'name', state)}")
    return step
