"""What an action may use of the ISAKMP SA that it acts for."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from vpnd.ike.commands import Cause
from vpnd.ike.contest import Contest
from vpnd.ike.outputs import Output
from vpnd.ike.registry import Registry
from vpnd.ike.session import Phase
from vpnd.ike.timers import Timers
from vpnd.ike.v1.isakmp_sa import IsakmpSa
from vpnd.ike.v1.liveness import Liveness
from vpnd.ike.v1.message_transport import MessageTransport
from vpnd.ike.v1.peer import Ikev1Peer
from vpnd.ike.v1.phase1_messages import Phase1Messages
from vpnd.ike.v1.quick_modes import QuickModes


@runtime_checkable
class Host(Protocol):
    """The owner of a context: an ISAKMP SA that runs its table."""

    context: Context

    def command(self, now: float, cause: Cause) -> None:
        """Run the row of `cause`."""

    def begin_successor(self, now: float) -> None:
        """Begin another phase 1 with the peer."""

    def prove_address(self) -> None:
        """The peer receives at its address. Raises Drop if that has too many attempts."""

    def proven(self) -> None:
        """The peer has proved that it has the key."""

    def rearm(self) -> None:
        """Note the next deadline."""


class Context:
    """The facts of one ISAKMP SA, its messages and timers, its peer, and what it shares with all others.

    An action changes them, and returns its outcome: it never moves the state and never calls its own
    session. `command` is for another ISAKMP SA of the tunnel.
    """

    def __init__(self, registry: Registry, sa: IsakmpSa, host: Host) -> None:
        self.registry = registry
        self.sa = sa
        self.timers: Timers[object] = Timers()
        self.transport = MessageTransport(registry, sa)
        self.phase1 = Phase1Messages(sa, registry.entropy, self.timers, self.transport)
        self.quick_modes = QuickModes()
        self.liveness = Liveness(sa, self.timers, self.transport, self.phase1)
        self.contest = Contest(registry)
        self.peer: Ikev1Peer[Context] = Ikev1Peer(registry)
        """That of the tunnel, once authenticated."""
        self._host = host

    @property
    def is_current(self) -> bool:
        """Whether it speaks for the tunnel: a predecessor, and an attempt at another one, do not."""
        return self.peer.current is self

    @property
    def current(self) -> Context:
        """The ISAKMP SA that speaks for the tunnel; an attempt at the first one knows only itself."""
        return self.peer.current or self

    def emit(self, output: Output) -> None:
        """Append one effect for the caller of Endpoint."""
        self.registry.emit(output)

    def siblings(self) -> list[Context]:
        """The other ISAKMP SAs of the tunnel, and the attempts at one, oldest first."""
        found = [one.context for one in self.registry.sessions(self.sa.tunnel) if isinstance(one, Host)]
        return [one for one in found if one is not self]

    @property
    def is_renewing(self) -> bool:
        """Whether a phase 1 of ours is under way that will succeed this one."""
        return any(one.sa.initiator and one.sa.phase is Phase.CONNECTING for one in self.siblings())

    def ask(self, now: float) -> None:
        """Ask whether the peer is there."""
        self.liveness.ask(now, sparing=not (self.sa.initiator or self.peer.children.by_spi))

    def begin_successor(self, now: float) -> None:
        """Begin another phase 1 with the peer."""
        self._host.begin_successor(now)

    def prove_address(self) -> None:
        """The peer receives at its address. Raises Drop if that has too many half-open attempts."""
        self._host.prove_address()

    def proven(self) -> None:
        """The peer has proved that it has the key, and that the address is its own."""
        self.transport.proven = True
        self._host.proven()

    def command(self, now: float, cause: Cause) -> None:
        """Have another ISAKMP SA act: run the row of `cause`, and note its next deadline."""
        self._host.command(now, cause)
        self._host.rearm()

    def rearm(self) -> None:
        """Timers of another ISAKMP SA or of the peer have been changed: have the next deadline noted."""
        self._host.rearm()
