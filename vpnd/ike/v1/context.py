"""What an action may use of the ISAKMP SA that it acts for."""

from __future__ import annotations

from vpnd.ike import context
from vpnd.ike.commands import Cause
from vpnd.ike.registry import Registry
from vpnd.ike.session import Phase, Session
from vpnd.ike.v1.children import Ikev1Peer
from vpnd.ike.v1.isakmp_sa import IsakmpSa
from vpnd.ike.v1.liveness import Liveness
from vpnd.ike.v1.message_transport import MessageTransport
from vpnd.ike.v1.phase1_messages import Phase1Messages
from vpnd.ike.v1.quick_modes import QuickModes


class Context(context.Context[IsakmpSa]):
    """Besides, its messages, and its peer."""

    def __init__(self, registry: Registry, sa: IsakmpSa, session: Session) -> None:
        super().__init__(registry, sa, session)
        self.transport = MessageTransport(registry, sa)
        self.phase1 = Phase1Messages(sa, registry.entropy, self.timers, self.transport)
        self.quick_modes = QuickModes()
        self.liveness = Liveness(sa, self.timers, self.transport, self.phase1)
        self.peer: Ikev1Peer[Context] = Ikev1Peer(registry)
        """That of the tunnel, once authenticated."""

    def command(self, now: float, cause: Cause) -> None:
        """As of every IKE SA, and its next deadline is noted."""
        super().command(now, cause)
        self.rearm()

    @property
    def is_current(self) -> bool:
        """Whether it speaks for the tunnel: a predecessor, and an attempt at another one, do not."""
        return self.peer.current is self

    @property
    def current(self) -> Context:
        """The ISAKMP SA that speaks for the tunnel; an attempt at the first one knows only itself."""
        return self.peer.current or self

    def siblings(self) -> list[Context]:
        """The other ISAKMP SAs of the tunnel, and the attempts at one, oldest first."""
        return [one for one in self.of_tunnel() if one is not self]

    @property
    def is_renewing(self) -> bool:
        """Whether a phase 1 of ours is under way that will succeed this one."""
        return any(one.sa.initiator and one.sa.phase is Phase.CONNECTING for one in self.siblings())

    def ask(self, now: float) -> None:
        """Ask whether the peer is there."""
        self.liveness.ask(now, sparing=not (self.sa.initiator or self.peer.children.by_spi))

    def prove_address(self) -> None:
        """The peer receives at its address. Raises Drop if that has too many half-open attempts."""
        self.registry.strangers.address_proved(self._session, self.sa.path.remote)

    def proven(self) -> None:
        """The peer has proved that it has the key, and that the address is its own."""
        self.transport.proven = True
        self.registry.strangers.half_open.end(self._session)
