"""The API's first client: HTTP over the Unix socket, and the errors as exceptions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h11

ANSWER_LIMIT = 30.0
"""Ours, in seconds: a daemon that says nothing for longer is not reachable."""

BUSY_LIMIT = 3.0
"""Ours, in seconds: how long to come back to a daemon that has too many clients."""

READ_SIZE = 65536
"""Ours: bytes that are taken from the socket at once."""


class DaemonUnreachable(Exception):
    """Nobody answers on the socket, or not as vpnd does. The text says why."""

    def __init__(self, socket_path: Path, reason: str, hint: str) -> None:
        super().__init__(f"vpnd cannot be reached on {socket_path}: {reason}")
        self.hint = hint


class Refused(Exception):
    """The daemon answered with an error: HTTP status and the `error` object."""

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message", f"HTTP status {status}")))
        self.status = status
        self.error = error


def tunnel_path(name: str, *more: str) -> str:
    """`/v1/tunnels/NAME/...`, with anything unusual in the name encoded."""
    return "/".join(("/v1/tunnels", quote(name, safe=""), *more))


class Client:
    """One daemon, by its socket. Every call makes a connection of its own."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    async def get(self, path: str) -> dict[str, Any]:
        """The answer's JSON object. Raises Refused, DaemonUnreachable."""
        return await self._call("GET", path)

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, wait_s: float = 0
    ) -> dict[str, Any]:
        """Likewise; `wait_s` is how long the action itself may take."""
        return await self._call("POST", path, body, wait_s)

    async def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Likewise."""
        return await self._call("PUT", path, body)

    async def delete(self, path: str) -> dict[str, Any]:
        """Likewise."""
        return await self._call("DELETE", path)

    async def events(self, follow: bool) -> AsyncIterator[dict[str, Any]]:
        """Each event; with `follow` until the daemon ends. Raises as `get` does."""
        path = f"/v1/events?follow={'true' if follow else 'false'}"
        async with self._exchange() as exchange:
            # Only the answer's head is waited for: the next event may be hours away.
            async with asyncio.timeout(ANSWER_LIMIT):
                status = await exchange.ask("GET", path)
                if status >= 400:
                    raise Refused(status, _error(await exchange.read()))
            async for line in exchange.lines():
                if line.strip():
                    yield json.loads(line)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, wait_s: float = 0
    ) -> dict[str, Any]:
        deadline = asyncio.get_running_loop().time() + BUSY_LIMIT
        while True:
            async with self._exchange() as exchange, asyncio.timeout(ANSWER_LIMIT + wait_s):
                status = await exchange.ask(method, path, body)
                content = await exchange.read()
            busy = status == 503 and not content.startswith(b"{")
            if not busy or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.1)
        if status >= 400:
            raise Refused(status, _error(content))
        return self._object(content)

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            decoded = json.loads(content)
        except ValueError:
            decoded = None
        if not isinstance(decoded, dict):
            raise DaemonUnreachable(self._path, *_FOREIGN)
        return decoded

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[_Exchange]:
        """A connection for one request; what fails on it is a DaemonUnreachable."""
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                reader, writer = await asyncio.open_unix_connection(self._path)
        except TimeoutError:
            raise DaemonUnreachable(self._path, *_SILENT) from None
        except OSError as error:
            raise DaemonUnreachable(self._path, *_why_not(error)) from None
        try:
            yield _Exchange(reader, writer)
        except TimeoutError:
            raise DaemonUnreachable(self._path, *_SILENT) from None
        except OSError as error:
            raise DaemonUnreachable(self._path, error.strerror or str(error), _STOPPING) from None
        except h11.RemoteProtocolError:
            if reader.at_eof():
                raise DaemonUnreachable(self._path, "the connection ended", _STOPPING) from None
            raise DaemonUnreachable(self._path, *_FOREIGN) from None
        finally:
            writer.close()


class _Exchange:
    """One request and its answer. Raises OSError, h11.RemoteProtocolError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> int:
        """Send the request, `body` as JSON; returns the status as soon as the answer's head is here."""
        headers, content = [("Host", "vpnd"), ("Connection", "close")], b""
        if body is not None:
            content = json.dumps(body).encode()
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        self._send(h11.Request(method=method, target=path, headers=headers))
        if content:
            self._send(h11.Data(data=content))
        self._send(h11.EndOfMessage())
        while not isinstance(event := await self._next(), h11.Response):
            pass
        return event.status_code

    async def read(self) -> bytes:
        """The whole content of the answer."""
        return b"".join([part async for part in self._content()])

    async def lines(self) -> AsyncIterator[bytes]:
        """Each line of the content as soon as it is complete."""
        begun = b""
        async for part in self._content():
            *whole, begun = (begun + part).split(b"\n")
            for line in whole:
                yield line
        yield begun

    async def _content(self) -> AsyncIterator[bytes]:
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)

    def _send(self, event: h11.Event) -> None:
        # What a daemon does not read stays in memory: an answer that refuses it may be there already.
        self._writer.write(self._http.send(event) or b"")

    async def _next(self) -> object:
        """An event of h11, or what it calls the end of them."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(READ_SIZE))
        return event


_SILENT = "no answer in time", "see the daemon's log"
_FOREIGN = "the answer is not vpnd's", "is it vpnd's socket?"
_STOPPING = "is the daemon stopping?"


def _why_not(error: OSError) -> tuple[str, str]:
    """Reason and hint of a connection that was not made."""
    if isinstance(error, PermissionError):
        return "permission denied", "use sudo, or join the group vpnd"
    if isinstance(error, FileNotFoundError):
        return (
            "there is no such socket",
            "start vpnd (systemctl start vpnd), or name its socket with --socket",
        )
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens", "start vpnd (systemctl start vpnd)"
    return error.strerror or str(error), "is vpnd running?"


def _error(content: bytes) -> Mapping[str, Any]:
    """The `error` object of an answer, or one made of whatever came."""
    try:
        error = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        error = None
    if isinstance(error, dict):
        return error
    return {
        "code": "E-BUSY",
        "message": content[:200].decode("utf-8", "replace") or "no reason given",
        "hint": None,
    }
