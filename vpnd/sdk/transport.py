"""The API as JSON documents: once for asyncio, once for a program that waits.

Every call makes a connection of its own. A daemon that has too many clients at the moment is asked again.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from vpnd.config.paths import DEFAULT_SOCKET
from vpnd.sdk.errors import DaemonUnreachable, Refused
from vpnd.sdk.http import CutOff, Exchange, Lines, NotHttp
from vpnd.sdk.place import Place

if TYPE_CHECKING:
    import asyncio

ANSWER_LIMIT = 30.0
"""Ours, in seconds: a daemon that says nothing for longer is not reachable."""

BUSY_LIMIT = 3.0
"""Ours, in seconds: how long to come back to a daemon that has too many clients."""

BUSY_WAIT = 0.1
"""Ours, in seconds: between two attempts at a busy daemon."""

BUSY = "E-BUSY"
"""The code of a daemon that admits no more clients at present."""

NOTHING: Mapping[str, Any] = {}

PIECE = 65536
"""Bytes that are received at once."""


def tunnel_path(name: str, *more: str) -> str:
    """`/v1/tunnels/NAME/...`, with anything unusual in the name encoded."""
    return "/".join(("/v1/tunnels", _quoted(name), *more))


def customer_gateway_path(name: str) -> str:
    """`/v1/customer-gateways/NAME`, likewise."""
    return f"/v1/customer-gateways/{_quoted(name)}"


def token_path(name: str) -> str:
    """`/v1/tokens/NAME`, likewise."""
    return f"/v1/tokens/{_quoted(name)}"


def _quoted(name: str) -> str:
    """An argument of a program may be any bytes."""
    return quote(name, safe="", errors="surrogatepass")


def with_query(path: str, wanted: Mapping[str, Any]) -> str:
    """The path with its query: a list repeats its key, and None is left out."""
    pairs = [
        (key, _query_value(one))
        for key, value in wanted.items()
        for one in (value if isinstance(value, Iterable) and not isinstance(value, str) else [value])
        if one is not None
    ]
    return f"{path}?{urlencode(pairs, quote_via=quote, errors='surrogatepass')}" if pairs else path


def _query_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def events_path(follow: bool, after: str | None, wanted: Mapping[str, Any]) -> str:
    """`/v1/events?...`; `after` is the id of the last event that is known already."""
    return with_query("/v1/events", {"follow": follow, "after": after, **wanted})


class AsyncTransport:
    """One daemon, for asyncio."""

    def __init__(self, place: Place | Path = DEFAULT_SOCKET) -> None:
        self._place = place if isinstance(place, Place) else Place(place)

    async def get(self, path: str) -> dict[str, Any]:
        """The answer's JSON object. Raises Refused, DaemonUnreachable."""
        return await self.call("GET", path)

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, wait_s: float = 0
    ) -> dict[str, Any]:
        """Likewise; `wait_s` is how many seconds the action itself may take."""
        return await self.call("POST", path, body, wait_s)

    async def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Likewise."""
        return await self.call("PUT", path, body)

    async def delete(self, path: str) -> dict[str, Any]:
        """Likewise."""
        return await self.call("DELETE", path)

    async def events(
        self, follow: bool, after: str | None = None, wanted: Mapping[str, Any] = NOTHING
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Each event; with `follow` until the daemon ends. Raises as `get` does."""
        lines = Lines()
        async with aclosing(self.stream("GET", events_path(follow, after, wanted))) as pieces:
            async for piece in pieces:
                for event in lines.add(piece):
                    yield event
        for event in lines.end():
            yield event

    async def stream(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The pieces of an answer as they come, however long that takes. Raises as `get` does."""
        import asyncio

        exchange = Exchange(method, path, self._place.headers, body)
        async with self._connected() as (reader, writer):
            # Only the answer's head is waited for: the next piece may be hours away.
            async with asyncio.timeout(ANSWER_LIMIT):
                await _send(writer, exchange)
                pieces = list(exchange.receive(await reader.read(PIECE)))
                while not exchange.status or (exchange.status >= 400 and not exchange.done):
                    pieces += exchange.receive(await reader.read(PIECE))
            if exchange.status >= 400:
                raise Refused(exchange.status, _error(b"".join(pieces)))
            while True:
                for piece in pieces:
                    yield piece
                if exchange.done:
                    return
                pieces = list(exchange.receive(await reader.read(PIECE)))

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, wait_s: float = 0
    ) -> dict[str, Any]:
        """Any request. Raises as `get` does."""
        import asyncio

        began = time.monotonic()
        while True:
            exchange, content = Exchange(method, path, self._place.headers, body), b""
            async with self._connected() as (reader, writer), asyncio.timeout(ANSWER_LIMIT + wait_s):
                await _send(writer, exchange)
                while not exchange.done:
                    content += b"".join(exchange.receive(await reader.read(PIECE)))
            if not _is_busy(exchange.status, content) or time.monotonic() - began > BUSY_LIMIT:
                return _document(self._place, exchange.status, content)
            await asyncio.sleep(BUSY_WAIT)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        import asyncio

        with _as_unreachable(self._place):
            async with asyncio.timeout(ANSWER_LIMIT):
                reader, writer = await self._place.open()
            try:
                yield reader, writer
            finally:
                writer.close()


async def _send(writer: asyncio.StreamWriter, exchange: Exchange) -> None:
    writer.write(exchange.request)
    # A daemon that refuses a large body does not read it to its end, and still says why.
    with suppress(ConnectionError):
        await writer.drain()


class Transport:
    """One daemon, for a program that waits for each answer."""

    def __init__(self, place: Place | Path = DEFAULT_SOCKET) -> None:
        self._place = place if isinstance(place, Place) else Place(place)

    def events(
        self, follow: bool, after: str | None = None, wanted: Mapping[str, Any] = NOTHING
    ) -> Generator[dict[str, Any], None, None]:
        """Each event; with `follow` until the daemon ends. Raises Refused, DaemonUnreachable."""
        lines = Lines()
        for piece in self.stream("GET", events_path(follow, after, wanted)):
            yield from lines.add(piece)
        yield from lines.end()

    def stream(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Generator[bytes, None, None]:
        """The pieces of an answer as they come, however long that takes. Raises as `events` does."""
        exchange = Exchange(method, path, self._place.headers, body)
        with self._connected() as connection:
            pieces = list(_answer(connection, exchange, ANSWER_LIMIT, head=True))
            if exchange.status >= 400:
                raise Refused(exchange.status, _error(b"".join(pieces)))
            connection.settimeout(None)
            while True:
                yield from pieces
                if exchange.done:
                    return
                pieces = list(exchange.receive(connection.recv(PIECE)))

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, wait_s: float = 0
    ) -> dict[str, Any]:
        """The answer's JSON object; `wait_s` is how many seconds the action itself may take.

        Raises Refused, DaemonUnreachable.
        """
        began = time.monotonic()
        while True:
            exchange = Exchange(method, path, self._place.headers, body)
            with self._connected() as connection:
                content = b"".join(_answer(connection, exchange, ANSWER_LIMIT + wait_s))
            if not _is_busy(exchange.status, content) or time.monotonic() - began > BUSY_LIMIT:
                return _document(self._place, exchange.status, content)
            time.sleep(BUSY_WAIT)

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with _as_unreachable(self._place), self._place.connect(ANSWER_LIMIT) as connection:
            yield connection


def _answer(
    connection: socket.socket, exchange: Exchange, seconds: float, head: bool = False
) -> Iterator[bytes]:
    """Send the request; the pieces of its answer, or with `head` those that came with an answer that goes on.

    Raises TimeoutError when it is not complete in time.
    """
    deadline = time.monotonic() + seconds
    with suppress(ConnectionError):
        connection.sendall(exchange.request)
    while not exchange.done:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        yield from exchange.receive(connection.recv(PIECE))
        if head and 0 < exchange.status < 400:
            return


@contextmanager
def _as_unreachable(place: Place) -> Iterator[None]:
    """Whatever becomes of the connection, as DaemonUnreachable."""
    stopping = "is the daemon stopping?"
    try:
        yield
    except TimeoutError:
        raise DaemonUnreachable(place.name, "no answer in time", "see the daemon's log") from None
    except NotHttp:
        raise DaemonUnreachable(place.name, "the answer is not vpnd's", _is_it_there(place)) from None
    except (CutOff, ConnectionResetError, BrokenPipeError):
        raise DaemonUnreachable(place.name, "the connection ended", stopping) from None
    except OSError as error:
        why_not = _why_not_remote if place.is_remote else _why_not
        raise DaemonUnreachable(place.name, *why_not(error)) from None


def _is_it_there(place: Place) -> str:
    return "is it vpnd's port?" if place.is_remote else "is it vpnd's socket?"


def _why_not_remote(error: OSError) -> tuple[str, str]:
    """Reason and hint of a connection over TCP that was not made."""
    reason = getattr(error, "verify_message", None)
    if reason is not None:
        return f"its certificate is not trusted: {reason}", "name the file of whom to trust: certificate=..."
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens", "[api] listen in its configuration, and vpnctl reload"
    return error.strerror or str(error), "is it the right address, and no filter in between?"


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


def _is_busy(status: int, content: bytes) -> bool:
    return status == 503 and _error(content).get("code") == BUSY


def _document(place: Place, status: int, content: bytes) -> dict[str, Any]:
    """The object that was answered. Raises Refused, DaemonUnreachable."""
    if status >= 400:
        raise Refused(status, _error(content))
    try:
        decoded = json.loads(content)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        raise DaemonUnreachable(place.name, "the answer is not vpnd's", _is_it_there(place))
    return decoded


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
