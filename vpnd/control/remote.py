"""The API on a TCP port, where `[api]` wants it: TLS only, each request with a token.

Who reaches the port is hostile until the token is proved. Handshakes are bounded in time, number and
pace, so that nobody fills the daemon's file descriptors or its processor with them; then a connection has the
limits of the socket's, with its address in place of a user.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpnd.config.configuration import Configuration
from vpnd.config.tls import TlsUnusable, server_context
from vpnd.control.access import network_of
from vpnd.control.api import create_app
from vpnd.control.listening import Port, PortUnavailable
from vpnd.control.operations import Operations
from vpnd.control.server import ApiServer, TcpConnection
from vpnd.control.tokens import Tokens
from vpnd.model.policy import ListenAt

HANDSHAKE_LIMIT = 5.0
"""Ours, in seconds: for a handshake; it takes two round trips."""

MAX_HANDSHAKES = 16
"""Ours: handshakes at once, each with a file descriptor; one more ends the oldest, of who has most."""

HANDSHAKE_PACE = 0.02
"""Ours, in seconds: from one connection to the next. A handshake costs 1 to 2 ms of the daemon's only thread,
so that a flood of them takes at most a tenth of it."""

FAREWELL = 1.0
"""Ours, in seconds: how long a client may take to confirm the end of TLS."""

AGAIN = 1.0
"""Ours, in seconds: until the next connection is accepted where the system has no descriptor for one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where to serve, and with which files."""

    at: ListenAt
    certificate: Path
    key: Path

    @classmethod
    def of(cls, configuration: Configuration) -> Wanted | None:
        """What `[api]` says; None: nowhere."""
        api, source = configuration.api, configuration.api_source
        if api is None or source is None:
            return None
        return cls(api.listen, source.beside(api.certificate), source.beside(api.key))


class Remote:
    """Serves the API over TCP at one place, or nowhere. Belongs to one event loop."""

    def __init__(self, operations: Operations, tokens: Tokens) -> None:
        self._operations = operations
        self._tokens = tokens
        self._at: ListenAt | None = None
        self._port: Port | None = None
        self._server: TlsServer | None = None
        self._answering: asyncio.Task[None] | None = None

    async def listen(self, wanted: Wanted | None) -> bool:
        """Serve there from now on, None: nowhere; new connections get the files as they are now.

        Returns whether it is another place than before. Raises PortUnavailable; then what was served still is
        where only its files cannot be used, and else nothing.
        """
        try:
            context = server_context(wanted.certificate, wanted.key) if wanted is not None else None
        except TlsUnusable as error:
            raise PortUnavailable(f"the API cannot be served over TCP: {error}") from None
        at = wanted.at if wanted is not None else None
        if at == self._at:
            if self._server is not None and context is not None:
                self._server.context = context
            return False
        await self.close()
        if at is not None and context is not None:
            self._port = Port(at, "the API")
            self._server = TlsServer(create_app(self._operations, self._tokens), self._port, context)
            self._answering = asyncio.get_running_loop().create_task(self._server.run())
        self._at = at
        return True

    async def close(self) -> None:
        """Serve nothing any more."""
        answering, self._answering, self._server, self._at = self._answering, None, None, None
        if answering is not None:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
        if self._port is not None:
            self._port.close()  # Also where the task has never had its turn.


class TlsServer(ApiServer):
    """Accepts connections itself, for the handshake comes before anything that the HTTP server bounds."""

    def __init__(self, app: Any, port: Port, context: ssl.SSLContext) -> None:
        super().__init__(app, port, TcpConnection)
        self.context = context
        self._port = port
        self._shaking: dict[asyncio.Task[None], str] = {}

    def sockets(self) -> list[socket.socket]:
        """None: they are accepted here."""
        return []

    async def run(self) -> None:
        """Answer until cancelled; then as `ApiServer.run`."""
        accepting = asyncio.get_running_loop().create_task(self._accept())
        try:
            await super().run()
        finally:
            for task in (accepting, *self._shaking):
                task.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._port.socket)
            except OSError:
                await asyncio.sleep(AGAIN)
                continue
            self._make_room()
            task = loop.create_task(self._shake(connection))
            self._shaking[task] = network_of(str(peer[0]))
            task.add_done_callback(self._shaking.pop)
            await asyncio.sleep(HANDSHAKE_PACE)

    def _make_room(self) -> None:
        """The oldest handshake goes, of the network that has most, where there is one too many."""
        shaking = {task: peer for task, peer in self._shaking.items() if not task.cancelling()}
        if len(shaking) < MAX_HANDSHAKES:
            return
        of_peers = Counter(shaking.values())
        most = max(of_peers.values())
        next(task for task, peer in shaking.items() if of_peers[peer] == most).cancel()

    async def _shake(self, connection: socket.socket) -> None:
        """Do the handshake; a client that fails has cost a moment, and is not worth a word."""
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self.protocol,
                connection,
                ssl=self.context,
                ssl_handshake_timeout=HANDSHAKE_LIMIT,
                ssl_shutdown_timeout=FAREWELL,
            )
        except (OSError, ssl.SSLError):
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise
