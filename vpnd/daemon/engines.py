"""The engine as the daemon uses it: addresses to receive on may come and change while it runs."""

from __future__ import annotations

import asyncio
from typing import Protocol

from vpnd.datapath.engine import EngineOptions, PythonEngine
from vpnd.datapath.interface import Engine, OnIke, OnNotice
from vpnd.datapath.sockets import SocketOptions
from vpnd.model.child import Path
from vpnd.model.selectors import Address
from vpnd.wire.udpencap import KEEPALIVE


class ListeningEngine(Engine, Protocol):
    """An engine that is told on which local addresses it receives, one of each family."""

    def listen(self, address: Address) -> None:
        """Receive UDP 4500 and ESP on `address`, no longer on another one of its family. Raises OSError."""


class DaemonEngine(PythonEngine):
    """The Python engine, which begins with no address."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_ike: OnIke, on_notice: OnNotice, mark: int
    ) -> None:
        options = EngineOptions(sockets=SocketOptions(mark=mark))
        super().__init__(loop, (), on_ike, on_notice, options)

    def listen(self, address: Address) -> None:
        """As `ListeningEngine.listen`."""
        before = self._udp.get(address.version)
        if before is not None and before.address == address:
            return
        for sock in (self._udp.pop(address.version, None), self._raw.pop(address.version, None)):
            if sock is not None:
                self._loop.remove_reader(sock.fileno())
                sock.close()
        self._open(address, self._options)
        self._own = frozenset(udp.address for udp in self._udp.values())

    def send_keepalive(self, path: Path) -> None:
        """One byte that tells the NAT on the way that this mapping is in use (RFC 3948 section 2.3)."""
        sock = self._udp.get(path.remote.version)
        if sock is not None:
            sock.send_one([KEEPALIVE], (str(path.remote), path.remote_port))
