"""The API's first client: HTTP over the Unix socket, and the errors as exceptions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

ANSWER_LIMIT = 30.0
"""Ours, in seconds: a daemon that says nothing for longer is not reachable."""

BUSY_LIMIT = 3.0
"""Ours, in seconds: how long to come back to a daemon that has too many clients."""


BUSY = "E-BUSY"
"""The code of a daemon that admits no more clients at present."""


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
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_LIMIT)
        path = f"/v1/events?follow={'true' if follow else 'false'}"
        async with self._session(timeout) as session:
            # Only the answer's head is waited for: the next event may be hours away.
            async with asyncio.timeout(ANSWER_LIMIT):
                answer = await session.get(f"http://vpnd{path}")
            async with answer:
                if answer.status >= 400:
                    raise Refused(answer.status, _error(await answer.read()))
                async for line in answer.content:
                    if line.strip():
                        yield json.loads(line)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, wait_s: float = 0
    ) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT + wait_s)
        deadline = asyncio.get_running_loop().time() + BUSY_LIMIT
        while True:
            async with (
                self._session(timeout) as session,
                session.request(method, f"http://vpnd{path}", json=body) as answer,
            ):
                content, status = await answer.read(), answer.status
            busy = status == 503 and _error(content).get("code") == BUSY
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
            raise DaemonUnreachable(self._path, "the answer is not vpnd's", "is it vpnd's socket?")
        return decoded

    @asynccontextmanager
    async def _session(self, limits: aiohttp.ClientTimeout) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.UnixConnector(path=str(self._path))
        try:
            async with aiohttp.ClientSession(
                connector=connector, timeout=limits, auto_decompress=False
            ) as session:
                yield session
        except aiohttp.ClientConnectorError as error:
            raise DaemonUnreachable(self._path, *_why_not(error.os_error)) from None
        except TimeoutError:
            raise DaemonUnreachable(self._path, "no answer in time", "see the daemon's log") from None
        except aiohttp.ClientPayloadError:
            raise DaemonUnreachable(self._path, "the connection ended", "is the daemon stopping?") from None
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error) or "the connection ended"
            raise DaemonUnreachable(self._path, reason, "is the daemon stopping?") from None


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
        "code": BUSY,
        "message": content[:200].decode("utf-8", "replace") or "no reason given",
        "hint": None,
    }
