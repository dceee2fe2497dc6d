"""Where a peer does not answer: whether this machine has a way to it, as its own routes are.

A datagram without a route comes to nothing, and so does one that is led into a tunnel: by a route that was
made by hand, or that a routing daemon has learnt through the tunnel. Neither is heard of from outside.
"""

from __future__ import annotations

import asyncio
from itertools import islice

from vpnd.daemon.events.journal import Journal
from vpnd.daemon.gateway import Gateway
from vpnd.host.host import Host, HostFailed
from vpnd.host.routes import MARK
from vpnd.model.child import Path
from vpnd.model.unreachable import Unreachable
from vpnd.tunnel.commands import TunnelState
from vpnd.tunnel.lifecycle import Tunnel

LOOK_EVERY = 2.0
"""Ours: seconds between two looks."""

SILENT_FOR = 1.5
"""Ours: seconds of an attempt without an answer that are worth a look."""

PEERS_IN_A_LOOK = 32
"""Ours: each is a question to the kernel; of many silent peers the others have their turn later."""

_CARRIES = (TunnelState.UP, TunnelState.UNHEALTHY)


class Ways:
    """Looks at the routes to the peers that do not answer."""

    def __init__(self, gateway: Gateway, host: Host, journal: Journal) -> None:
        self._gateway = gateway
        self._host = host
        self._journal = journal
        self._last: str | None = None

    async def watch(self) -> None:
        """Without end."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.look()
            except HostFailed as failure:
                self._journal.detail(None, str(failure))
            except Exception as error:  # whatever it is: the next look is due all the same
                self._journal.fault(None, "internal error in a look at the ways to peers", error)

    async def look(self) -> None:
        """One look. Raises HostFailed."""
        paths = self._silent()
        if not paths:
            return
        into: dict[int, Tunnel] | None = None
        for name, path in paths.items():
            route = await self._host.route_to(path.remote, MARK)
            if route is None:
                self._gateway.on_way(path, Unreachable.NO_ROUTE, None)
                continue
            if into is None:
                into = await self._tunnels()
            tunnel = into.get(route.link)
            # Through another tunnel, which is up, a peer may be reached.
            if tunnel is not None and (tunnel.name == name or tunnel.state not in _CARRIES):
                self._gateway.on_way(path, Unreachable.INTO_TUNNEL, tunnel.policy.interface)
            else:
                self._gateway.on_way(path, None, None)

    def _silent(self) -> dict[str, Path]:
        """The paths of attempts that nothing has answered, by tunnel, each in its turn."""
        now = self._gateway.clock.now()
        names = [tunnel.name for tunnel in self._gateway.tunnels if tunnel.attempt.mapping is not None]
        first = next((at for at, name in enumerate(names) if name == self._last), -1) + 1
        paths: dict[str, Path] = {}
        for name in islice((*names[first:], *names[:first]), PEERS_IN_A_LOOK):
            self._last = name
            progress = self._gateway.endpoint.progress(name)
            if progress is not None and now - progress.began >= SILENT_FOR:
                paths[name] = progress.path
        return paths

    async def _tunnels(self) -> dict[int, Tunnel]:
        """The tunnels by the index of their interface."""
        of = {tunnel.policy.interface: tunnel for tunnel in self._gateway.tunnels}
        links = await self._host.links()
        return {index: of[name] for index, (name, _) in links.items() if name in of}
