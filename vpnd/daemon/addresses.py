"""From which of this machine's addresses each peer is reached, and the sockets that listen there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from vpnd.daemon.box import Box, BoxFailed
from vpnd.daemon.journal import Journal
from vpnd.daemon.routes import ANYWHERE, MARK
from vpnd.datapath.interface import Engine
from vpnd.ike.session import Unreachable
from vpnd.model.child import Path
from vpnd.model.policy import TunnelPolicy
from vpnd.model.selectors import Address


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
        box: Box,
        engine: Engine,
        journal: Journal,
        open_port: Callable[[Address], IkePort],
    ) -> None:
        self._box = box
        self._engine = engine
        self._journal = journal
        self._open_port = open_port
        self._local: frozenset[Address] = frozenset()
        self._ports: dict[int, tuple[Address, IkePort]] = {}

    async def refresh(self) -> None:
        """Ask the kernel; what was known stays if it does not say."""
        try:
            self._local = await self._box.local_addresses()
        except BoxFailed as failure:
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
        One address of each family is used for all peers, as long as this machine has it.
        """
        local = await self._local_for(policy)
        return replace(policy, peer=replace(policy.peer, local_address=local))

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
        if policy.peer.any_address:
            remote = ANYWHERE[configured.version]
        if remote is None or (configured in self._local and configured.version == remote.version):
            return configured
        used, _ = self._ports.get(remote.version, (None, None))
        if used is not None and used in self._local:
            return used
        try:
            route = await self._box.route_to(remote, MARK)
        except BoxFailed:
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
