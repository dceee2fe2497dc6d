"""What every request has to have before anything looks at it, and what every answer says to the browser."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE = frozenset({"GET", "HEAD"})

LOOPBACK_NAMES = ("localhost",)

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?")
"""Name or address, and a port (RFC 9110 section 7.2), in lower case."""


class Protection:
    """Refuses a foreign Host (DNS rebinding) and a foreign Origin; adds the headers, and a nonce for scripts.

    Any loopback address and `localhost` is a name of ours, with any port: a tunnel of ssh may have another.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] = (), secure: bool = False) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._scheme = "https" if secure else "http"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        nonce = secrets.token_urlsafe(18)
        scope.setdefault("state", {})["nonce"] = nonce

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _headers(nonce, self._scheme):
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await PlainTextResponse(refusal, 403)(scope, receive, send_protected)
            return
        await self._app(scope, receive, send_protected)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return "this console has another name: see --host"
        if scope["method"] in SAFE:
            return None
        origins = headers.getlist("origin")
        if origins != [f"{self._scheme}://{hosts[0]}"]:
            return "this came from another page"
        return None

    def _is_ours(self, host: str) -> bool:
        parts = _HOST.fullmatch(host.lower())
        if parts is None:
            return False
        name = parts[1].strip("[]")
        return name in self._hosts or name in LOOPBACK_NAMES or is_loopback(name)


def is_loopback(name: str) -> bool:
    """Whether this is an address that only this machine reaches."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _headers(nonce: str, scheme: str) -> Iterable[tuple[str, str]]:
    policy = (
        "default-src 'none'",
        f"script-src 'nonce-{nonce}'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
    yield "Content-Security-Policy", "; ".join(policy)
    yield "X-Content-Type-Options", "nosniff"
    # Not no-referrer, with which browsers send "Origin: null" with a form.
    yield "Referrer-Policy", "same-origin"
    yield "Cross-Origin-Opener-Policy", "same-origin"
    yield "Cross-Origin-Resource-Policy", "same-origin"
    yield "Permissions-Policy", "camera=(), geolocation=(), microphone=()"
    yield "Cache-Control", "no-store"
    if scheme == "https":
        yield "Strict-Transport-Security", "max-age=31536000"
