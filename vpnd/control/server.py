"""The API on its Unix socket, within the daemon's own loop.

Who may open the socket may use it: its mode is 0660, its group `vpnd` where that exists. A client can
hold up nobody: connections are few, an idle one makes room for a new one, and one that does not send or
does not read is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

DEFAULT_SOCKET = Path("/run/vpnd/vpnd.sock")
SOCKET_GROUP = "vpnd"
SOCKET_MODE = 0o660

MAX_CONNECTIONS = 16
"""Ours: more than this is not an operator."""

IDLE_LIMIT = 5.0
"""Ours, in seconds: until a whole request has come, and between two of them."""

STALL_LIMIT = 30.0
"""Ours, in seconds: a client that does not read for this long is cut off."""

STOP_LIMIT = 2
"""Ours, in seconds: what a request may still take when the daemon stops."""


class SocketUnavailable(Exception):
    """The socket cannot be opened: another daemon has it, or the path cannot be used. The text says why."""


async def serve(app: FastAPI, socket_path: Path) -> None:
    """Answer on `socket_path` until cancelled. Raises SocketUnavailable before anything is answered."""
    await ApiServer(app, socket_path).run()


class ApiServer:
    """One listening socket. `run` opens it unless `open` has, and gives it up when it is cancelled."""

    def __init__(self, app: FastAPI, path: Path) -> None:
        self._app = app
        self._path = path
        self._socket: socket.socket | None = None
        self._inode = 0
        config = uvicorn.Config(
            app,
            http=LimitedConnection,
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
            backlog=128,
        )
        self._server = _EmbeddedServer(config)

    def open(self) -> None:
        """Begin to listen; clients wait until `run` answers. Raises SocketUnavailable."""
        self._socket = _listen(self._path)
        self._inode = self._path.stat().st_ino

    async def run(self) -> None:
        """Answer until cancelled; then end the followers, finish what is under way, remove the socket."""
        if self._socket is None:
            self.open()
        listening = self._socket
        answering = asyncio.ensure_future(self._server.serve(sockets=[listening] if listening else None))
        try:
            await asyncio.shield(answering)
        finally:
            self._app.state.closing.set()
            self._server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await answering
            self._remove()

    def _remove(self) -> None:
        """Unless a successor has put its own there."""
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


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

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        self._begun = self.loop.time()
        self._await_request()
        self._make_room()

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

    def _await_request(self) -> None:
        self._deadline = self.loop.call_later(IDLE_LIMIT, self.transport.close)

    def _make_room(self) -> None:
        """One connection too many: the oldest idle one goes; if all are busy, this one is answered 503."""
        if len(self.connections) <= MAX_CONNECTIONS:
            return
        others: list[Any] = [c for c in self.connections if c is not self]
        idle = [c for c in others if isinstance(c, LimitedConnection) and c.idle]
        if idle:
            oldest = min(idle, key=lambda connection: connection._begun)
            self.connections.discard(oldest)
            oldest.transport.close()

    def _disarm(self) -> None:
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()


# -------------------------------------------------------------------------------------- socket


def _listen(path: Path) -> socket.socket:
    """The listening socket, with its mode and group from the first moment on."""
    _clear_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _make_directory(path.parent)
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        _give_to_group(path)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise SocketUnavailable(f"cannot listen on {path}: {error.strerror or error}") from None
    return listening


def _make_directory(directory: Path) -> None:
    """A directory of our own is one that the socket's group can pass, whatever the umask."""
    if not directory.exists():
        directory.mkdir(parents=True)
        directory.chmod(0o755)


def _clear_stale(path: Path) -> None:
    """Remove what a daemon that was killed left behind; refuse if one still answers there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketUnavailable(f"cannot listen on {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise SocketUnavailable(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                raise SocketUnavailable(f"cannot listen on {path}: {error.strerror}") from None
    raise SocketUnavailable(f"another vpnd answers on {path}")


def _give_to_group(path: Path) -> None:
    """To the group `vpnd`, if it exists and we may; otherwise it stays with ours."""
    try:
        group = grp.getgrnam(SOCKET_GROUP).gr_gid
    except KeyError:
        return
    with contextlib.suppress(PermissionError):
        os.chown(path, -1, group)
