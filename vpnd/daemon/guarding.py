"""`vpnd guard`: the routes, rules and filter that keep protected traffic in, without a daemon."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vpnd.daemon import nftables
from vpnd.daemon.box import BoxFailed, LinuxBox
from vpnd.daemon.interfaces import inside
from vpnd.daemon.nftables import FilterFailed
from vpnd.daemon.routes import Wanted, guard, shield, spared, tables_of
from vpnd.model.policy import TunnelPolicy


async def set_guard(tunnels: Sequence[TunnelPolicy], remove: bool, complete: bool = True) -> list[str]:
    """Add the guard, or take it away; what a running daemon has besides it stays.

    Returns what could not be done, which keeps nothing else from being done: blackholes without a filter
    still keep everything in. Where these are not all tunnels (`complete`), a filter that stands stays.
    """
    box = LinuxBox()
    failures: list[str] = []
    try:
        set_routes = partial(_set_routes, box, tunnels, remove, failures)
        for part in (set_routes, partial(_set_filter, box, tunnels, complete)):
            try:
                await part()
            except BoxFailed as failure:
                failures.append(str(failure))
    finally:
        await box.close()
    return failures


async def _set_filter(box: LinuxBox, tunnels: Sequence[TunnelPolicy], complete: bool) -> None:
    """The guard's filter. Raises BoxFailed."""
    try:
        stays = not complete and nftables.installed()
    except FilterFailed as failure:
        raise BoxFailed(str(failure)) from failure
    if not stays:
        await box.shield(shield(tunnels))


async def _set_routes(
    box: LinuxBox, tunnels: Sequence[TunnelPolicy], remove: bool, failures: list[str]
) -> None:
    """The guard's blackholes and rules. Raises BoxFailed."""
    present = await box.present()
    if remove:
        wanted = Wanted(frozenset(route for route in present.routes if route.device is not None))
    else:
        wanted = present | guard(tunnels, tables_of(tunnel.name for tunnel in tunnels))
        try:
            wanted |= spared(tunnels, await inside(box, tunnels))
        except BoxFailed as failure:
            failures.append(str(failure))
    failures += await box.reconcile(wanted)
