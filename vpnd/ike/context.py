"""What an action of either version may use of the IKE SA that it acts for."""

from __future__ import annotations

from typing import Any, Generic, Self, TypeVar

from vpnd.ike.commands import Cause
from vpnd.ike.contest import Contest
from vpnd.ike.deadlines import Timers
from vpnd.ike.outputs import KeysChanged, NextKeyProved, Output, Story
from vpnd.ike.registry import Registry
from vpnd.ike.session import Sa, Session
from vpnd.model.secret import Secret

S = TypeVar("S", bound=Sa[Any])


class Context(Generic[S]):
    """The facts and timers of one IKE SA, and what it shares with all others.

    An action changes them, and returns its answer or its outcome: it never moves the state and never calls
    its own session. `command` is for another IKE SA of the tunnel.
    """

    def __init__(self, registry: Registry, sa: S, session: Session) -> None:
        self.registry = registry
        self.sa = sa
        self.timers: Timers[object] = Timers()
        self.contest = Contest(registry)
        self._session = session

    def emit(self, output: Output) -> None:
        """Append one effect for the caller of Endpoint."""
        self.registry.emit(output)

    def story(self, text: str) -> None:
        """Say what happened, for the log."""
        self.registry.emit(Story(self.sa.tunnel, self.sa.about + text))

    def note_keys(self, now: float, ours: Secret, theirs: Secret) -> None:
        """Both sides are authenticated, with these pre-shared keys."""
        shared_keys, tunnel = self.registry.shared_keys, self.sa.tunnel
        before = shared_keys.in_use(tunnel)
        is_next = shared_keys.proved(now, self.sa.policy, ours, theirs)
        if shared_keys.in_use(tunnel) != before:
            self.emit(KeysChanged(tunnel))
        if is_next:
            self.emit(NextKeyProved(tunnel))

    def of_tunnel(self) -> list[Self]:
        """The IKE SAs of the tunnel and the attempts at one, of this version, oldest first."""
        found = [one.context for one in self.registry.sessions.of(self.sa.tunnel)]
        return [one for one in found if isinstance(one, type(self))]

    def beside(self, sa: S) -> Self:
        """Another IKE SA of the tunnel, with these facts, which messages find from now on."""
        make: Any = type(self._session)
        session: Session = make(self.registry, sa)
        self.registry.sessions.add(session)
        context: Self = session.context
        return context

    def command(self, now: float, cause: Cause) -> None:
        """Have another IKE SA act: run the row of `cause`, and send what is to be sent."""
        self._session.command(now, cause)

    def rearm(self) -> None:
        """Timers of another IKE SA have been changed: have its next deadline noted."""
        self.registry.sessions.arm(self._session)
