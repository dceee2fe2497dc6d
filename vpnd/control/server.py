"""The API on its Unix socket, within the daemon's own loop.

A client can hold up nobody: one without a whole request makes room for a new one, one that does not send or
does not read is closed, and what lasts has places of its own (`vpnd.control.places`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from vpnd.control.access import network_of
from vpnd.control.listening import BACKLOG, Listening, role_of, user_of
from vpnd.control.openapi import PROBLEM
from vpnd.control.places import ALL_PLACES, UNKNOWN_USER
from vpnd.control.schema import ErrorBody, ErrorResponse

MAX_WITHOUT_REQUEST = 16
"""Ours: connections whose request has not come as a whole, with its body; to send one takes milliseconds."""

MAX_CONNECTIONS = MAX_WITHOUT_REQUEST + ALL_PLACES
"""All that there can be, each with a file descriptor."""

IDLE_LIMIT = 5.0
"""Ours, in seconds: until a whole request has come, and between two of them."""

STALL_LIMIT = 30.0
"""Ours, in seconds: a client that does not read for this long is cut off."""

STOP_LIMIT = 2
"""Ours, in seconds: what a request may still take when the daemon stops."""


class ApiServer:
    """Answers on a listening socket, which it gives up when it is cancelled."""

    def __init__(
        self, app: Starlette, listening: Listening, connection: type[LimitedConnection] | None = None
    ) -> None:
        self._app = app
        self._listening = listening
        config = uvicorn.Config(
            app,
            http=connection or LimitedConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS + 1,
            timeout_keep_alive=int(IDLE_LIMIT),
            timeout_graceful_shutdown=STOP_LIMIT,
            backlog=BACKLOG,
        )
        self._server = _EmbeddedServer(config)

    async def run(self) -> None:
        """Answer until cancelled; then end the followers, finish what is under way, remove the socket."""
        answering = asyncio.ensure_future(self._server.serve(sockets=self.sockets()))
        try:
            await asyncio.shield(answering)
        finally:
            self._app.state.closing.set()
            self._server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await answering
            self._listening.close()

    def protocol(self) -> asyncio.Protocol:
        """What speaks on one connection that was accepted elsewhere."""
        made: asyncio.Protocol = self._server.config.http_protocol_class(  # type: ignore[call-arg] # as uvicorn does
            config=self._server.config, server_state=self._server.server_state, app_state={}
        )
        return made

    def sockets(self) -> list[socket.socket]:
        """What the server accepts connections from by itself."""
        return [self._listening.socket]


class _EmbeddedServer(uvicorn.Server):
    """A server that leaves the process's signals alone: they are the daemon's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class LimitedConnection(H11Protocol):
    """One client's connection, with limits on silence in both directions."""

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _begun: float = 0.0
    _user: Hashable = UNKNOWN_USER

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        self._begun = self.loop.time()
        self._user, state = self.other_end()
        self.app_state = {**self.app_state, **state}
        self._await_request()
        self._make_room()

    def other_end(self) -> tuple[Hashable, dict[str, Any]]:
        """Whose connection this is, and what `Access` needs to know of it."""
        connection = self.transport.get_extra_info("socket")
        user = user_of(connection)
        return user, {"user": user, "role": role_of(connection)}

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets an answer as any other error does, which repeats nothing of it."""
        error = ErrorBody(code="E-HTTP", message="the request is not HTTP/1.1 (RFC 9112)")
        body = ErrorResponse.of(400, error).model_dump_json().encode()
        headers = [("content-type", PROBLEM), ("content-length", str(len(body))), ("connection", "close")]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._deadline is not None and not self.idle:
            self._deadline.cancel()
            self._deadline = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.idle and self._deadline is None:
            self._await_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(STALL_LIMIT, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def without_request(self) -> bool:
        """Whether no request is under way that has come as a whole."""
        return self.idle or (self.cycle is not None and self.cycle.more_body)

    def _await_request(self) -> None:
        self._deadline = self.loop.call_later(IDLE_LIMIT, self.transport.close)

    def _make_room(self) -> None:
        """One connection too many without a request: the oldest goes, of the user who has most of them."""
        waiting = [c for c in self.connections if isinstance(c, LimitedConnection) and c.without_request]
        if len(waiting) <= MAX_WITHOUT_REQUEST:
            return
        of_users = Counter(connection._user for connection in waiting)
        most = max(of_users.values())
        others = [c for c in waiting if c is not self and of_users[c._user] == most]
        if others:
            oldest = min(others, key=lambda connection: connection._begun)
            self.connections.discard(oldest)
            oldest.transport.close()

    def _disarm(self) -> None:
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()


class TcpConnection(LimitedConnection):
    """A client that comes over TCP: it has an address, and no rights before its token."""

    def other_end(self) -> tuple[Hashable, dict[str, Any]]:
        """The address; in place of a user, the network that it stands for."""
        peer = self.transport.get_extra_info("peername")
        address = str(peer[0]) if peer else "unknown"
        return network_of(address), {"peer": address}
