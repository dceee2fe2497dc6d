"""What one request may cost: bytes of its body, seconds that it takes to send it, and a place."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vpnd.control.openapi import PROBLEM
from vpnd.control.places import UNKNOWN_USER, Full, Places, kind_of
from vpnd.control.schema import ErrorBody, ErrorResponse

MAX_BODY = 1024 * 1024
"""Ours, in bytes: a tunnel with 200 mappings takes 20 KB."""

BODY_TIMEOUT = 5.0
"""Ours, in seconds: for the whole body; a megabyte takes milliseconds on a Unix socket."""


class RequestLimits:
    """Refuses a body that is too large or too slow, before any of it is looked at, and who has no place left.

    The server says who asks in `scope["state"]["user"]`.
    """

    def __init__(self, app: ASGIApp, max_body: int = MAX_BODY, timeout: float = BODY_TIMEOUT) -> None:
        self._app = app
        self._max_body = max_body
        self._timeout = timeout
        self._places = Places()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout):
                body = await self._body(receive)
        except TimeoutError:
            await _refuse(send, _Refused(408, "E-TIMEOUT", "the body did not come in time"))
            return
        except _Refused as refusal:
            await _refuse(send, refusal)
            return
        if body is None:
            return
        sent = False

        async def replay() -> Message:
            """The body in one piece, then whatever the server says: the end of the connection."""
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        user = scope.get("state", {}).get("user", UNKNOWN_USER)
        try:
            with self._places.take(kind_of(scope), user):
                await self._app(scope, replay, send)
        except Full as full:
            await _refuse(send, _Refused(503, "E-BUSY", f"{full}: no more are admitted", "end one, or wait"))

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body, or None if the client went away. Raises _Refused."""
        pieces, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            size += len(message.get("body", b""))
            if size > self._max_body:
                raise _Refused(413, "E-TOO-LARGE", f"the body has more than {self._max_body} bytes")
            pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(pieces)


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.status = status
        self.code = code
        self.message = message


async def _refuse(send: Send, refusal: _Refused) -> None:
    error = ErrorBody(code=refusal.code, message=refusal.message, hint=refusal.hint)
    await answer(send, ErrorResponse.of(refusal.status, error))


async def answer(send: Send, problem: ErrorResponse, *headers: tuple[bytes, bytes]) -> None:
    """Send a problem document, with these headers besides, and end the connection."""
    body = problem.model_dump_json().encode()
    own = [
        (b"content-type", PROBLEM.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})
