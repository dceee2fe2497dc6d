"""A console in front of a daemon that is played: both within the test's own loop, with no socket between."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.types import ASGIApp

from tests.unit.control.fakes import FakeOperations
from vpnd.console.app import create_app
from vpnd.console.tokens import Role, Tokens
from vpnd.control.api import create_app as create_api
from vpnd.sdk import AsyncClient, DaemonUnreachable, Refused
from vpnd.sdk.transport import NOTHING, events_path

USER = 1000
"""Who the console is to the daemon."""


@dataclass
class Answer:
    """What an application answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


async def ask(
    app: ASGIApp,
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    user: int | None = None,
) -> Answer:
    """One request to an application, with nothing between; `user`: who asks over a Unix socket."""
    path, _, query = target.partition("?")
    sent: list[Any] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(key.lower().encode(), value.encode()) for key, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8642),
        "state": {} if user is None else {"user": user, "role": "admin"},
    }
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return pending.pop(0) if pending else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = next(message for message in sent if message["type"] == "http.response.start")
    content = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    return Answer(start["status"], [(k.decode(), v.decode()) for k, v in start["headers"]], content)


@dataclass
class Wire:
    """In place of the SDK's transport: the daemon's API within this loop."""

    api: ASGIApp
    down: bool = False
    asked: list[str] = field(default_factory=list)

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, wait_s: float = 0
    ) -> dict[str, Any]:
        if self.down:
            raise DaemonUnreachable(Path("/s"), "nobody listens", "start vpnd")
        self.asked.append(f"{method} {path}")
        content = b"" if body is None else json.dumps(body).encode()
        answer = await ask(self.api, method, path, {"content-type": "application/json"}, content, USER)
        document: dict[str, Any] = json.loads(answer.body)
        if answer.status >= 400:
            raise Refused(answer.status, document["error"])
        return document

    async def events(
        self, follow: bool, after: str | None = None, wanted: Mapping[str, Any] = NOTHING
    ) -> AsyncIterator[dict[str, Any]]:
        answer = await ask(self.api, "GET", events_path(False, after, wanted), user=USER)
        for line in answer.text.splitlines():
            yield json.loads(line)


class Clock:
    """Seconds that the test lets pass."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Browser:
    """One person's browser: cookies, and the token of the last page's forms."""

    app: Starlette
    wire: Wire
    operations: FakeOperations
    tokens: Tokens
    clock: Clock
    host: str = "127.0.0.1:8642"
    cookies: dict[str, str] = field(default_factory=dict)
    csrf: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    async def _ask(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"Host": self.host, **({"Cookie": cookies} if cookies else {}), **self.extra, **headers}
        answer = await ask(self.app, method, target, headers, body)
        for key, value in answer.headers:
            if key == "set-cookie":
                name, _, rest = value.partition("=")
                self.cookies[name] = rest.partition(";")[0].strip('"')
                if not self.cookies[name]:
                    del self.cookies[name]
        found = re.search(r'name="csrf" value="([^"]+)"', answer.body.decode("utf-8", "replace"))
        if found is not None:
            self.csrf = found[1]
        return answer

    async def get(self, target: str, **headers: str) -> Answer:
        return await self._ask("GET", target, headers)

    async def ask(self, method: str, target: str) -> Answer:
        """By another method."""
        return await self._ask(method, target, {})

    async def post(self, target: str, form: Mapping[str, Any] | None = None, **headers: str) -> Answer:
        """A form as a browser sends it; `csrf` is added unless the form has one."""
        fields = {"csrf": self.csrf, **(form or {})}
        sent = {"Origin": f"http://{self.host}", "Content-Type": "application/x-www-form-urlencoded"}
        return await self._ask("POST", target, sent | headers, urlencode(fields, doseq=True).encode())

    async def send(self, target: str, body: bytes) -> Answer:
        """What no browser sends as a form."""
        sent = {"Origin": f"http://{self.host}", "Content-Type": "application/x-www-form-urlencoded"}
        return await self._ask("POST", target, sent, body)

    async def follow(self, answer: Answer) -> Answer:
        """The page to which an answer leads."""
        assert answer.status == 303, answer.text
        return await self.get((answer.header("location") or "").partition("#")[0])

    async def sign_in(self, role: Role = Role.ADMIN) -> Answer:
        token = self.tokens.new(role)
        return await self.follow(await self.post("/sign-in", {"token": token}))

    def other(self) -> Browser:
        """Another browser at the same console."""
        return Browser(self.app, self.wire, self.operations, self.tokens, self.clock)


def browser_of(tmp_path: Path, **options: Any) -> Browser:
    operations, clock, tokens = FakeOperations(), Clock(), Tokens(tmp_path / "state")
    wire = Wire(create_api(operations))
    vpnd = AsyncClient(wire)  # type: ignore[arg-type] # in place of a socket
    return Browser(create_app(vpnd, tokens, clock=clock, **options), wire, operations, tokens, clock)


@pytest.fixture
def stranger(tmp_path: Path) -> Browser:
    """A browser that is not signed in."""
    return browser_of(tmp_path)


@pytest_asyncio.fixture
async def browser(stranger: Browser) -> Browser:
    """A browser that may change things."""
    await stranger.sign_in()
    stranger.clock.now += 100
    stranger.wire.asked.clear()
    return stranger
