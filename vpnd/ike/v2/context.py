"""What an action may use of the IKE SA that it acts for."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from vpnd.ike.commands import Cause
from vpnd.ike.contest import Contest
from vpnd.ike.outputs import Output, Story
from vpnd.ike.registry import Registry
from vpnd.ike.session import Phase
from vpnd.ike.timers import Timers
from vpnd.ike.v2.children import Children
from vpnd.ike.v2.ike_sa import IkeSa
from vpnd.ike.v2.outbox import Outbox
from vpnd.ike.v2.requests import Requests
from vpnd.ike.v2.window import Window


@runtime_checkable
class Host(Protocol):
    """The owner of a context: an IKE SA that runs its table."""

    context: Context

    def command(self, now: float, cause: Cause) -> None:
        """Run the row of `cause`, and send what is to be sent."""

    def make_successor(self, now: float, sa: IkeSa) -> Context:
        """Another IKE SA of the tunnel, registered by its SPI."""

    def rearm(self) -> None:
        """Note the next deadline."""


class Context:
    """The facts of one IKE SA, its CHILD_SAs, requests and timers, and what it shares with all others.

    An action changes them, and returns its answer or its outcome: it never moves the state and never calls
    its own session. `command` is for another IKE SA of the tunnel.
    """

    def __init__(self, registry: Registry, sa: IkeSa, host: Host) -> None:
        self.registry = registry
        self.sa = sa
        self.timers: Timers[object] = Timers()
        self.children = Children(registry, self.timers)
        self.requests = Requests(Window(), self.timers)
        self.outbox = Outbox(registry, sa)
        self.contest = Contest(registry)
        self._host = host

    def emit(self, output: Output) -> None:
        """Append one effect for the caller of Endpoint."""
        self.registry.emit(output)

    def story(self, text: str) -> None:
        """Say what happened, for the log."""
        self.registry.emit(Story(self.sa.tunnel, text))

    def of_tunnel(self) -> list[Context]:
        """The IKEv2 SAs of the tunnel, oldest first."""
        return [one.context for one in self.registry.sessions(self.sa.tunnel) if isinstance(one, Host)]

    def siblings(self) -> list[Context]:
        """The other established ones."""
        return [one for one in self.of_tunnel() if one is not self and one.sa.phase is Phase.ESTABLISHED]

    def make_successor(self, now: float, sa: IkeSa) -> Context:
        """The IKE SA that may succeed this one, with these facts."""
        return self._host.make_successor(now, sa)

    def command(self, now: float, cause: Cause) -> None:
        """Have another IKE SA act: run the row of `cause` and send what is to be sent."""
        self._host.command(now, cause)

    def rearm(self) -> None:
        """Timers of another IKE SA have been changed: have its next deadline noted."""
        self._host.rearm()
