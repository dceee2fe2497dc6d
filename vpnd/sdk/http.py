"""One HTTP request and its answer, as bytes that the caller sends and receives (RFC 9112, by h11)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h11


class NotHttp(Exception):
    """What came is no answer of an HTTP server."""


class CutOff(Exception):
    """The connection ended within the answer."""


class Exchange:
    """Make it, send `request`, and hand everything that comes to `receive` until `done`."""

    def __init__(
        self,
        method: str,
        path: str,
        named: Sequence[tuple[str, str]] = (("Host", "vpnd"),),
        body: Mapping[str, Any] | None = None,
    ) -> None:
        self._connection = h11.Connection(h11.CLIENT)
        self.status = 0
        """The HTTP status, 0 until it has come."""
        self.done = False
        content = b"" if body is None else json.dumps(body).encode()
        headers = [*named, ("Accept", "application/json"), ("Connection", "close")]
        if body is not None:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        elif method in ("POST", "PUT"):
            headers.append(("Content-Length", "0"))
        self.request = self._send(h11.Request(method=method, target=path, headers=headers))
        if content:
            self.request += self._send(h11.Data(data=content))
        self.request += self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> bytes:
        return self._connection.send(event) or b""

    def receive(self, data: bytes) -> Iterator[bytes]:
        """The pieces of the body that are complete with `data`; empty `data` is the connection's end.

        Raises NotHttp, CutOff.
        """
        try:
            self._connection.receive_data(data)
            while not self.done:
                event = self._connection.next_event()
                if isinstance(event, h11.Response):
                    self.status = event.status_code
                elif isinstance(event, h11.Data):
                    yield bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self.done = True
                elif event is h11.NEED_DATA:
                    break
                elif isinstance(event, h11.ConnectionClosed):
                    raise CutOff
        except h11.RemoteProtocolError as error:
            if not data:
                raise CutOff from None
            raise NotHttp(str(error)) from None


class Lines:
    """Newline-delimited JSON, put together from pieces."""

    def __init__(self) -> None:
        self._begun = b""

    def add(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """The objects that are complete with `piece`."""
        *lines, self._begun = (self._begun + piece).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)

    def end(self) -> Iterator[dict[str, Any]]:
        """The last object, which no newline follows."""
        yield from self.add(b"\n")
