"""`vpnd guard`: the routes, rules and filter that keep protected traffic in, without a daemon."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vpnd.daemon.routing import guard, shield, spared, tables_of
from vpnd.daemon.upkeep.interfaces import inside
from vpnd.host import nftables
from vpnd.host.host import HostFailed, LinuxHost
from vpnd.host.nftables import FilterFailed
from vpnd.host.routes import Wanted
from vpnd.model.policy import TunnelPolicy


async def set_guard(tunnels: Sequence[TunnelPolicy], remove: bool, complete: bool = True) -> list[str]:
    """Add the guard, or take it away; what a running daemon has besides it stays.

    Returns what could not be done, which keeps nothing else from being done: blackholes without a filter
    still keep everything in. Where these are not all tunnels (`complete`), a filter that stands stays.
    """
    host = LinuxHost()
    failures: list[str] = []
    try:
        set_routes = partial(_set_routes, host, tunnels, remove, failures)
        for part in (set_routes, partial(_set_filter, host, tunnels, complete)):
            try:
                await part()
            except HostFailed as failure:
                failures.append(str(failure))
    finally:
        await host.close()
    return failures


async def _set_filter(host: LinuxHost, tunnels: Sequence[TunnelPolicy], complete: bool) -> None:
    """The guard's filter. Raises HostFailed."""
    try:
        stays = not complete and nftables.installed()
    except FilterFailed as failure:
        raise HostFailed(str(failure)) from failure
    if not stays:
        await host.shield(shield(tunnels))


async def _set_routes(
    host: LinuxHost, tunnels: Sequence[TunnelPolicy], remove: bool, failures: list[str]
) -> None:
    """The guard's blackholes and rules. Raises HostFailed."""
    present = await host.present()
    if remove:
        wanted = Wanted(frozenset(route for route in present.routes if route.device is not None))
    else:
        wanted = present | guard(tunnels, tables_of(tunnel.name for tunnel in tunnels))
        try:
            wanted |= spared(tunnels, await inside(host, tunnels))
        except HostFailed as failure:
            failures.append(str(failure))
    failures += await host.reconcile(wanted)
