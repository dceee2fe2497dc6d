"""Metrics on a TCP port, where `[metrics]` wants it: GET /metrics, and nothing else.

Anyone who reaches the port may ask, so that what is answered costs little: connections and questions have the
bounds of the API, and there is one text a second at most, however many ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vpnd.control import metrics
from vpnd.control.limits import RequestLimits
from vpnd.control.listening import BACKLOG
from vpnd.control.operations import Operations
from vpnd.control.server import ApiServer
from vpnd.model.policy import ListenAt

FRESH = 1.0
"""Ours, in seconds: who asks within so long gets the same text. Prometheus asks every 15 to 60 s."""


class PortUnavailable(Exception):
    """The port cannot be opened; the text says why."""


class Exporter:
    """Serves metrics where it is told to, or nowhere. Belongs to one event loop."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._at: ListenAt | None = None
        self._port: _Port | None = None
        self._answering: asyncio.Task[None] | None = None

    async def listen(self, at: ListenAt | None) -> bool:
        """Serve there from now on, None: nowhere. Returns whether it is another place than before.

        Raises PortUnavailable; then nothing is served.
        """
        if at == self._at:
            return False
        await self.close()
        if at is not None:
            self._port = _Port(at)
            server = ApiServer(create_app(self._operations), self._port)
            self._answering = asyncio.get_running_loop().create_task(server.run())
        self._at = at
        return True

    async def close(self) -> None:
        """Serve nothing any more."""
        answering, self._answering, self._at = self._answering, None, None
        if answering is not None:
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
        if self._port is not None:
            self._port.close()  # Also where the task has never had its turn.


def create_app(operations: Operations) -> Starlette:
    """What answers. `app.state.closing` is as the API has it."""
    making = asyncio.Lock()
    text, made = b"", float("-inf")

    async def prometheus(request: Request) -> Response:
        nonlocal text, made
        async with making:
            now = asyncio.get_running_loop().time()
            if now - made >= FRESH:
                text, made = await metrics.exposition(operations), now
        return Response(text, media_type=metrics.CONTENT_TYPE)

    app = Starlette(routes=[Route("/metrics", prometheus)], middleware=[Middleware(RequestLimits)])
    app.state.closing = asyncio.Event()
    return app


class _Port:
    """A TCP port that listens as soon as it is made. Raises PortUnavailable."""

    def __init__(self, at: ListenAt) -> None:
        family = socket.AF_INET6 if at.address.version == 6 else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # The address may come later, as that of an interface that is not up yet (ip(7)).
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            self.socket.bind((str(at.address), at.port))
            self.socket.listen(BACKLOG)
        except OSError as error:
            self.socket.close()
            raise PortUnavailable(f"metrics cannot be served at {at}: {error.strerror or error}") from None

    def close(self) -> None:
        """Listen no more."""
        self.socket.close()


_IP_FREEBIND = 15
"""linux/in.h; it is for IPv6 sockets too. Python's socket module has no name for it."""
