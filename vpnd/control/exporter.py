"""Metrics on a TCP port, where `[metrics]` wants it: GET /metrics, and nothing else.

Anyone who reaches the port may ask, so that what is answered costs little: connections and questions have the
bounds of the API, and there is one text a second at most, however many ask.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vpnd.control import metrics
from vpnd.control.limits import RequestLimits
from vpnd.control.listening import Port
from vpnd.control.operations import Operations
from vpnd.control.server import ApiServer, TcpConnection
from vpnd.model.policy import ListenAt

FRESH = 1.0
"""Ours, in seconds: who asks within so long gets the same text. Prometheus asks every 15 to 60 s."""


class Exporter:
    """Serves metrics at one place, or nowhere. Belongs to one event loop."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._at: ListenAt | None = None
        self._port: Port | None = None
        self._answering: asyncio.Task[None] | None = None

    async def listen(self, at: ListenAt | None) -> bool:
        """Serve there from now on, None: nowhere. Returns whether it is another place than before.

        Raises PortUnavailable; then nothing is served.
        """
        if at == self._at:
            return False
        await self.close()
        if at is not None:
            self._port = Port(at, "metrics")
            server = ApiServer(create_app(self._operations), self._port, TcpConnection)
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
