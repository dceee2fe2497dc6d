"""The running of a state table, which both versions have: an input is a cause, whose row has the action.

What the action comes to is an answer, or the cause of the next row. `_transition` is the one place where a
state moves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from enum import Enum
from typing import Any

from vpnd.ike.commands import Cause
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.message import Received
from vpnd.ike.registry import Registry
from vpnd.ike.session import Phase, Sa, SaState, Session
from vpnd.ike.steps import Step
from vpnd.wire.errors import DecodeError


def key_of(cause: object) -> Any:
    """What the row of a cause is looked up by: a message's, command's or outcome's type, or a timer."""
    match cause:
        case Received(message=message):
            return type(message)
        case (Enum() as timer, _):
            return timer
        case Enum():
            return cause
        case _:
            return type(cause)


class Engine(Session):
    """A session that runs the table of its version."""

    steps: Mapping[tuple[Any, Any], Step[Any, Any]]
    ends_half_open: bool
    """Whether a peer's attempt that moves on is not half-open any more."""

    def __init__(self, registry: Registry, sa: Sa[Any]) -> None:
        self._registry = registry
        self.sa = sa

    def command(self, now: float, cause: object) -> None:
        step = self.steps.get((self.sa.state, key_of(cause)))
        if step is not None:
            self._run(now, cause, step)

    def _run(self, now: float, cause: object, step: Step[Any, Any] | None = None) -> None:
        """The row of `cause`, which may be known, and those of what follows; then send what is to be sent.

        Raises Drop for a message that has no row, and what an action raises that no row refuses.
        """
        request: Received | None = None
        step = step or self._row(cause)
        while True:
            request = cause if isinstance(cause, Received) else request
            following: object = None
            try:
                result = step.action(self.context, now, cause)
            except (Fault, DecodeError) as error:
                following = self._refusal(error, cause, request)
                if following is None or (self.sa.state, type(following)) not in self.steps:
                    raise
            else:
                if step.to is not None:
                    self._transition(step.to, step.story.format(cause=cause, sa=self.sa))
                if request is None:
                    self._pump(now)
                if not isinstance(result, tuple):
                    following = result
                elif request is not None:
                    self._reply(request, result)
                    self._pump(now)
            if following is None:
                return
            cause, step = following, self._row(following)

    def _row(self, cause: object) -> Step[Any, Any]:
        key = key_of(cause)
        step = self.steps.get((self.sa.state, key))
        if step is None:
            raise Drop(f"no step: {key.__name__} in {self.sa.state.name}")
        return step

    @abstractmethod
    def _refusal(self, error: Fault | DecodeError, cause: object, request: Received | None) -> Cause | None:
        """What follows where an action has raised `error`; None: it is raised."""

    def _pump(self, now: float) -> None:
        """Send the next request, if there is one whose turn it is."""

    def _reply(self, request: Received, payloads: tuple[Any, ...]) -> None:
        """Send the answer to a request."""

    def _transition(self, to: SaState, story: str) -> None:
        """Move the state. What has no row in it is not waited for any more."""
        self.sa.state = to
        self.context.story(story)
        for key in self.context.timers.all():
            if (to, key_of(key)) not in self.steps:
                self.context.timers.disarm(key)
        if self.ends_half_open:
            self._registry.strangers.half_open.end(self)
        self._registry.sessions.phase_changed(self)
        if to.phase is Phase.GONE:
            self._registry.forget(self)
