"""What this machine does with packets that come out of a tunnel and are not answered."""

from __future__ import annotations

from vpnd.daemon.gateway import Gateway
from vpnd.host.host import Host, HostFailed
from vpnd.tunnel.lifecycle import Tunnel

LOOK = 3.0
"""Ours: seconds of counting: three packets of a ping, or the second try of a connection."""


class Forwarding:
    """Asks the kernel, and tells the gateway."""

    def __init__(self, gateway: Gateway, host: Host) -> None:
        self._gateway = gateway
        self._host = host

    async def look(self, name: str) -> None:
        """Why what comes out of a tunnel does not go on, if it does not."""
        tunnel = self._gateway.tunnels.get(name)
        if tunnel is None:
            return
        try:
            found = await self._found(tunnel)
        except HostFailed as failure:
            found = None, f"not known whether this machine forwards: {failure}"
        if found is not None:
            self._gateway.on_forwarding(name, *found)

    async def _found(self, tunnel: Tunnel) -> tuple[str | None, str | None] | None:
        """The cause, and words beside it; None: nothing came meanwhile."""
        interface = tunnel.policy.interface
        passed = await self._host.count_forwarded(interface, LOOK)
        if passed.came == 0:
            return None
        counts = f"{passed.came} came in {LOOK:.0f} s, {passed.went_on} went on"
        if passed.went_on:
            return None, counts
        if passed.stayed:
            return None, f"{passed.stayed} were for this machine itself"
        versions = {child.local.version for child in tunnel.policy.peer.children}
        if not all([await self._host.forwards(interface, version) for version in sorted(versions)]):
            return "forwarding", counts
        return "firewall", counts
