"""This machine as the tunnels use it: their interfaces, routes and rules, done in one thread of its own.

Netlink answers in half a millisecond and a thousand tunnels ask a few times each, so the loop never waits
for it. Calls are done in the order in which they were made.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from vpnd.host import forwarding, nftables
from vpnd.host.forwarding import Passed
from vpnd.host.netlink import Netlink, NetlinkFailed, RouteTo
from vpnd.host.nftables import Shield
from vpnd.host.routes import Route, Wanted
from vpnd.host.tun import open_tun
from vpnd.model.selectors import Address, Network

T = TypeVar("T")

BUSY_TRIES = 20
BUSY_PAUSE = 0.1
"""Ours: a killed daemon's interface goes with its process, which can take a moment."""


class HostFailed(Exception):
    """The machine refused; `str` says what, in words for an operator."""


class NameTaken(HostFailed):
    """Another program has made an interface of this name."""


class Host(Protocol):
    """What the gateway does to the machine. Every method raises HostFailed but where it says otherwise."""

    async def open_interface(self, name: str, mtu: int, segments: int) -> int:
        """Make a tunnel's TUN, up, with this MTU in bytes; returns its descriptor, which is the caller's.

        The kernel puts at most `segments` packets of TCP into one burst (`Engine.segments`).
        """

    async def rename_interface(self, name: str, to: str) -> None:
        """Give an interface another name; it stays up, with its addresses and routes.

        Raises HostFailed, with nothing changed: the name is taken, or the kernel is older than Linux 6.2.
        """

    async def close_interface(self, name: str, descriptor: int) -> None:
        """Close a TUN; the kernel takes its routes with it. Never raises."""

    async def close_interfaces(self, descriptors: Sequence[int]) -> None:
        """Close every TUN there is, all at once. Never raises."""

    async def set_links_up(self, names: frozenset[str]) -> frozenset[str]:
        """Set up those of these interfaces that are down; returns their names."""

    async def links(self) -> dict[int, tuple[str, bool]]:
        """Every interface by its index: its name, and whether packets pass by it."""

    async def set_mtu(self, name: str, mtu: int) -> None:
        """Change a TUN's MTU."""

    async def set_address(self, name: str, address: Address, present: bool) -> None:
        """Give a TUN a host address, or take it away."""

    async def reconcile(self, wanted: Wanted, present: Wanted | None = None) -> list[str]:
        """Make vpnd's routes and rules equal to `wanted`; returns what could not be done.

        `present` is what is there, where the caller has just asked.
        """

    async def replace(self, routes: tuple[Route, ...]) -> list[str]:
        """Make these routes, each in place of one with the same key; returns what could not be done."""

    async def shield(self, shield: Shield) -> bool:
        """Let what is protected arrive by tunnels only; it costs little where that is so already.

        Returns whether the filter was there before and has been removed by others.
        """

    async def present(self) -> Wanted:
        """The routes and rules of vpnd that are there."""

    async def route_to(self, destination: Address, mark: int) -> RouteTo | None:
        """How datagrams with this fwmark leave for `destination`."""

    async def networks_inside(
        self, own: frozenset[Address], peers: frozenset[Address], mark: int
    ) -> frozenset[Network]:
        """The networks on the inner side of this machine: all but those by the way to its peers."""

    async def allow_peer_sources(self, peers: frozenset[Address], mark: int) -> list[str]:
        """Let in what peers send that are in a tunnel's routes; returns the links where that was needed."""

    async def local_addresses(self) -> frozenset[Address]:
        """This machine's addresses."""

    async def interface_index(self, name: str) -> int | None:
        """The index of an interface, or None if there is none of that name."""

    async def forwards(self, name: str, version: int) -> bool:
        """Whether packets of this IP version that come by an interface are forwarded."""

    async def count_forwarded(self, name: str, seconds: float) -> Passed:
        """What comes by an interface for so long, and what becomes of it; one count at a time."""

    async def close(self) -> None:
        """Finish what was asked for; what was made stays."""


class LinuxHost:
    """A Host by netlink and /dev/net/tun."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netlink")
        self._netlink = Netlink()
        self._shield: Shield | None = None
        self._counting = asyncio.Lock()

    async def open_interface(self, name: str, mtu: int, segments: int) -> int:
        """As `Host.open_interface`; waits up to 2 s for an earlier process to let the name go."""
        for attempt in range(BUSY_TRIES):
            try:
                return await self._do(lambda netlink: _open_interface(netlink, name, mtu, segments))
            except HostFailed as failure:
                busy = isinstance(failure.__cause__, OSError) and failure.__cause__.errno in _BUSY
                if not busy:
                    raise
            if attempt < BUSY_TRIES - 1:
                await asyncio.sleep(BUSY_PAUSE)
        raise NameTaken(f"there is an interface {name} already, which another program has made")

    async def close_interface(self, name: str, descriptor: int) -> None:
        """As `Host.close_interface`."""
        await self._in_thread(lambda: _close_all([descriptor]))

    async def close_interfaces(self, descriptors: Sequence[int]) -> None:
        """As `Host.close_interfaces`."""
        with contextlib.suppress(HostFailed):
            await self._do(lambda netlink: netlink.delete_tunnels())
        await self._in_thread(lambda: _close_all(descriptors))

    async def rename_interface(self, name: str, to: str) -> None:
        """As `Host.rename_interface`."""
        await self._do(lambda netlink: netlink.rename(name, to))

    async def set_links_up(self, names: frozenset[str]) -> frozenset[str]:
        """As `Host.set_links_up`."""
        return await self._do(lambda netlink: netlink.set_links_up(names))

    async def links(self) -> dict[int, tuple[str, bool]]:
        """As `Host.links`."""
        return await self._do(lambda netlink: netlink.links())

    async def set_mtu(self, name: str, mtu: int) -> None:
        """As `Host.set_mtu`."""
        await self._do(lambda netlink: netlink.set_mtu(name, mtu))

    async def set_address(self, name: str, address: Address, present: bool) -> None:
        """As `Host.set_address`."""
        await self._do(lambda netlink: netlink.set_address(name, address, present))

    async def reconcile(self, wanted: Wanted, present: Wanted | None = None) -> list[str]:
        """As `Host.reconcile`."""
        return await self._do(lambda netlink: netlink.reconcile(wanted, present))

    async def replace(self, routes: tuple[Route, ...]) -> list[str]:
        """As `Host.replace`."""
        return await self._do(lambda netlink: netlink.replace(routes))

    async def shield(self, shield: Shield) -> bool:
        """As `Host.shield`."""
        return await self._do(lambda _: self._install(shield))

    async def present(self) -> Wanted:
        """As `Host.present`."""
        return await self._do(lambda netlink: netlink.present())

    async def route_to(self, destination: Address, mark: int) -> RouteTo | None:
        """As `Host.route_to`."""
        return await self._do(lambda netlink: netlink.route_to(destination, mark))

    async def networks_inside(
        self, own: frozenset[Address], peers: frozenset[Address], mark: int
    ) -> frozenset[Network]:
        """As `Host.networks_inside`."""
        return await self._do(lambda netlink: netlink.networks_inside(own, peers, mark))

    async def allow_peer_sources(self, peers: frozenset[Address], mark: int) -> list[str]:
        """As `Host.allow_peer_sources`."""
        return await self._do(lambda netlink: netlink.allow_peer_sources(peers, mark))

    async def local_addresses(self) -> frozenset[Address]:
        """As `Host.local_addresses`."""
        return await self._do(lambda netlink: netlink.local_addresses())

    async def interface_index(self, name: str) -> int | None:
        """As `Host.interface_index`."""
        return await self._do(lambda netlink: netlink.link_index(name))

    async def forwards(self, name: str, version: int) -> bool:
        """As `Host.forwards`."""
        return await self._in_thread(lambda: forwarding.forwards(socket.if_nametoindex(name), version))

    async def count_forwarded(self, name: str, seconds: float) -> Passed:
        """As `Host.count_forwarded`."""
        async with self._counting:
            await self._in_thread(lambda: forwarding.begin_count(name))
            try:
                await asyncio.sleep(seconds)
            finally:
                counted = await asyncio.shield(self._in_thread(forwarding.end_count))
        return counted

    async def close(self) -> None:
        """As `Host.close`."""
        self._thread.shutdown(wait=True)

    def _install(self, shield: Shield) -> bool:
        known = shield == self._shield
        # A firewall that is reloaded begins by flushing all tables, ours included.
        if known and nftables.installed() is bool(shield):
            return False
        nftables.install(shield)
        self._shield = shield
        return known and bool(shield)

    async def _do(self, call: Callable[[Netlink], T]) -> T:
        return await self._in_thread(lambda: call(self._netlink))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except NetlinkFailed as error:
            raise HostFailed(str(error)) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise HostFailed(f"{where}{error.strerror}" if error.strerror else str(error)) from error


_BUSY = (errno.EBUSY,)


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        # Whatever close(2) says, the descriptor is free afterwards.
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _open_interface(netlink: Netlink, name: str, mtu: int, segments: int) -> int:
    descriptor = open_tun(name).fd
    try:
        netlink.set_up(name, mtu, segments)
    except NetlinkFailed:
        os.close(descriptor)
        raise
    return descriptor
