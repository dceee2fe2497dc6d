"""What the gateway asks of the process around it."""

from __future__ import annotations

from typing import Protocol

from vpnd.model.child import ChildSa, Path
from vpnd.model.policy import TunnelPolicy
from vpnd.tunnel.failover import RouteMoved
from vpnd.tunnel.path_size import SendProbe


class Surroundings(Protocol):
    """What a gateway asks of the process around it."""

    def send_ike(self, path: Path, data: bytes) -> None:
        """Send from UDP port 500 of `path.local`."""

    def resolve(self, tunnel: TunnelPolicy) -> None:
        """Look the peer's name up; the answer comes as a command."""

    def state_changed(self, tunnel: str) -> None:
        """A tunnel came up, went down, or is sick: what is shown outside follows."""

    def interface_lost(self, tunnel: str) -> None:
        """The tunnel's interface was deleted by another program."""

    def path_changed(self, tunnel: str, mtu: int) -> None:
        """The path to a tunnel's peer carries datagrams of `mtu` bytes, IP header included."""

    def path_limited(self, tunnel: str, inner: int) -> int | None:
        """No inner packet of more than `inner` bytes gets through, and none is sent; what the path carries.

        None: the tunnel has no interface.
        """

    def inner_mtu(self, tunnel: str) -> int | None:
        """How many bytes of an inner packet the tunnel's interface takes; None: it has none."""

    def child_changed(self, child: ChildSa) -> None:
        """An SA pair was installed: the MTU of the tunnel's interface follows its algorithms."""

    def send_probe(self, probe: SendProbe) -> None:
        """Send a health check's echo request into its own tunnel; one that cannot be sent is lost."""

    def carry(self, change: RouteMoved) -> None:
        """Lead a route to another tunnel, in one step."""

    def look_at_forwarding(self, tunnel: str) -> None:
        """See whether this machine forwards what comes out of a tunnel; `Gateway.on_forwarding` hears it."""

    def interrupt(self, tunnel: str, interrupted: bool) -> None:
        """Stop a tunnel's business traffic, or let it go on; its health check goes on in any case."""
