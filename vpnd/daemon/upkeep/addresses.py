"""From which of this machine's addresses each peer is reached, and the sockets that listen there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from vpnd.daemon.events.journal import Journal
from vpnd.datapath.interface import Engine
from vpnd.host.host import Host, HostFailed
from vpnd.host.routes import ANYWHERE, MARK
from vpnd.model.child import Path
from vpnd.model.identity import Identity
from vpnd.model.policy import TunnelPolicy
from vpnd.model.selectors import Address
from vpnd.model.unreachable import Unreachable


class IkePort(Protocol):
    """UDP port 500 of one local address."""

    async def start(self) -> None:
        """Begin to receive. Raises OSError; it can be closed then as well."""

    def send(self, path: Path, data: bytes) -> None:
        """Send one message."""

    def close(self) -> None:
        """Stop."""


OnDatagram = Callable[[Path, bytes], None]
OnUnreachable = Callable[[Path, Unreachable], None]
OpenPort = Callable[[Address, OnDatagram, OnUnreachable], IkePort]


class Addresses:
    """This machine's addresses, and at most one of each family that is listened on."""

    def __init__(
        self,
        host: Host,
        engine: Engine,
        journal: Journal,
        open_port: Callable[[Address], IkePort],
    ) -> None:
        self._host = host
        self._engine = engine
        self._journal = journal
        self._open_port = open_port
        self._local: frozenset[Address] = frozenset()
        self._ports: dict[int, tuple[Address, IkePort]] = {}
        self._by_default: dict[int, Address | None] = {}
        """By IP version: from where the default route leads, as it was at the last refresh."""

    async def refresh(self) -> None:
        """Ask the kernel; what was known stays if it does not say."""
        self._by_default.clear()
        try:
            self._local = await self._host.local_addresses()
        except HostFailed as failure:
            self._journal.warn(None, str(failure))

    def has(self, address: Address) -> bool:
        """Whether it is an address of this machine."""
        return address in self._local

    def send(self, path: Path, data: bytes) -> None:
        """Send from port 500; from an address that is not listened on any more it is a lost datagram."""
        local, port = self._ports.get(path.local.version, (None, None))
        if port is not None and local == path.local:
            port.send(path, data)

    async def bind(self, policy: TunnelPolicy) -> TunnelPolicy:
        """The policy with the address of this machine from which its peer is reached.

        `gateway.address` where it is ours and of the peer's family, else what the route to the peer says.
        One address of each family is used for all peers, as long as this machine has it. Of `auto` it is
        the default route's, and unspecified while there is none; the default identity is that address.
        """
        configured, local = policy.peer.local_address, await self._local_for(policy)
        peer = replace(policy.peer, local_address=local)
        if configured.is_unspecified and peer.local_id == Identity.of_address(configured):
            peer = replace(peer, local_id=Identity.of_address(local))
        return replace(policy, peer=peer)

    async def by_default(self, version: int) -> Address | None:
        """From which address the default route of this IP version leads; None: there is none."""
        if version not in self._by_default:
            try:
                route = await self._host.route_to(ANYWHERE[version], MARK)
            except HostFailed:
                route = None
            self._by_default[version] = route.source if route is not None else None
        return self._by_default[version]

    async def listen(self, address: Address) -> None:
        """Receive IKE and ESP on `address`, no longer on another of its family. Raises OSError."""
        used, old = self._ports.get(address.version, (None, None))
        if used == address:
            return
        with contextlib.ExitStack() as undo:
            port = self._open_port(address)
            undo.callback(port.close)
            # Only what is read counts as listened on, else nobody would try again.
            await port.start()
            self._engine.listen(address)
            undo.pop_all()
        if old is not None:
            old.close()
        self._ports[address.version] = (address, port)

    def close(self) -> None:
        """Stop listening."""
        for _, port in self._ports.values():
            port.close()
        self._ports.clear()

    async def _local_for(self, policy: TunnelPolicy) -> Address:
        configured, remote = policy.peer.local_address, policy.peer.remote_address
        if configured.is_unspecified:
            # What is in use stays while there is no default route, as long as this machine has it.
            used, _ = self._ports.get(configured.version, (None, None))
            known = used if used is not None and used in self._local else configured
            return await self.by_default(configured.version) or known
        if policy.peer.any_address:
            remote = ANYWHERE[configured.version]
        if remote is None or (configured in self._local and configured.version == remote.version):
            return configured
        used, _ = self._ports.get(remote.version, (None, None))
        if used is not None and used in self._local:
            return used
        try:
            route = await self._host.route_to(remote, MARK)
        except HostFailed:
            route = None
        if route is None or route.source is None:
            return configured
        if configured not in self._local:
            self._journal.warn(
                policy.name,
                f"gateway.address {configured} is not an address of this machine: "
                f"sending from {route.source}, as the route to {remote} says",
            )
        return route.source
