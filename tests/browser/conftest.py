"""Run by `make browser` alone, which installs what it takes: a console before a daemon that is played."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.control.conftest import Remote, remote
from tests.unit.control.fakes import AT, FakeOperations, mapping_up, tunnel_up
from vpnd.control.schema import (
    CustomerGatewayStatus,
    Event,
    HealthSample,
    MappingStatus,
    Trace,
    TraceLine,
    TunnelDetail,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

__all__ = ["remote"]

collect_ignore_glob = [] if os.environ.get("VPND_BROWSER") else ["test_*.py"]

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "build/console"
CHROMIUM = "/usr/bin/chromium"
LONG = "a-name-of-sixty-characters-which-is-the-most-that-there-can-b"[:60]


@dataclass(frozen=True)
class Look:
    """How wide a window is, and what its owner prefers."""

    width: int
    scheme: str
    locale: str

    def __str__(self) -> str:
        return f"{self.width}-{self.scheme}-{self.locale[:2]}"


@dataclass(frozen=True)
class Served:
    """A console that answers, and tokens for it."""

    url: str
    token: str
    read_token: str
    pid: int = 0


@dataclass
class Visit:
    """One person's page, and what it said and asked for."""

    page: Page
    served: Served
    look: Look
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def sign_in(self, token: str | None = None) -> None:
        self.page.goto(self.served.url)
        self.page.fill("#token", token or self.served.token)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#rows")

    def picture(self, name: str) -> None:
        """Keep it, and see that nothing is cut off at the side."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}-{self.look}.png", full_page=True)
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= self.look.width, f"{name} is too wide"

    def check(self) -> None:
        """Scripts and styles are within the Content-Security-Policy, and nothing came from elsewhere."""
        # htmx says so where a check gives way to the next one, or to the next page. Other namespaces of this
        # machine come and go meanwhile, and Chromium ends what is under way then.
        noise = ["422", "404", "503", "ERR_NETWORK_CHANGED", "htmx:afterRequest", "htmx:sendAbort"]
        if any("ERR_NETWORK_CHANGED" in text for text in self.said):
            noise.append("htmx:")
        assert [text for text in self.said if not any(word in text for word in noise)] == []
        assert [url for url in self.asked if not url.startswith(self.served.url + "/")] == []
        assert self.asked


class Played(FakeOperations):
    """Two tunnels with everything that a page can show."""

    def begin_again(self, *tunnels: Any) -> None:
        many = [
            mapping_up(),
            mapping_up("10.1.1.0/24", "10.2.1.0/24"),
            MappingStatus(local="10.1.2.0/24", remote="10.2.2.0/24", state="connecting"),
        ]
        super().begin_again(*(tunnels or (tunnel_up(mappings=many), *_others())))
        self.from_api = True
        for number, text in enumerate(("connecting to 198.51.100.1", "up with 198.51.100.1")):
            event = "tunnel-up" if number else "tunnel-connecting"
            self.log.publish(
                Event(at=AT + timedelta(seconds=number), tunnel="branch-a", event=event, text=text)
            )
        failure = "the pre-shared keys differ (IKE_AUTH); trying again in 5 s"
        self.log.publish(Event(at=AT, tunnel="branch-b", event="attempt-failed", text=failure, code="E-PSK"))

    def tunnel(self, name: str) -> TunnelDetail:
        if name in self.received and name not in self.tunnels:
            self.tunnels[name] = tunnel_up(name)
        found = super().tunnel(name)
        if found.health is None:
            return found
        history = [
            HealthSample(
                at=AT + timedelta(minutes=minute),
                sent=60,
                lost=(0, 0, 1, 6)[minute % 4] if minute > 20 else 0,
                rtt_ms=None if minute in (30, 31) else 12 + minute % 7,
                jitter_ms=None if minute in (30, 31) else 0.5 + minute % 3,
            )
            for minute in range(45)
        ]
        return found.model_copy(update={"health_history": history})

    def customer_gateways(self) -> list[CustomerGatewayStatus]:
        """One of a file, one that is used, and those that a test makes."""
        names = ["branch-a", LONG]
        used = CustomerGatewayStatus(name="site", address="198.51.100.1", tunnels=names, from_api=True)
        return [*super().customer_gateways(), used]

    def trace(self, name: str) -> Trace:
        texts = (
            ("out", "IKE_SA_INIT 0 request {SA, KE, Ni, N(NAT_DETECTION_SOURCE_IP)}"),
            ("in", "IKE_SA_INIT 0 response {SA, KE, Nr, N(NAT_DETECTION_SOURCE_IP)}"),
            ("out", "IKE_AUTH 1 request {IDi, AUTH, SA, TSi, TSr, N(INITIAL_CONTACT)}"),
            ("in", "IKE_AUTH 1 response {IDr, AUTH, SA, TSi, TSr}"),
        )
        lines = [
            TraceLine(
                at=AT + timedelta(seconds=number),
                direction=direction,
                text=text,
                size=300 + number,
                detail=["encryption aes-128, integrity sha256, DH group 14"] if "SA_INIT" in text else [],
            )
            for number, (direction, text) in enumerate(texts)
        ]
        return Trace(tunnel=name, lines=lines)


def _others() -> Iterator[Any]:
    from tests.unit.control.fakes import tunnel_failed

    yield tunnel_failed()
    yield tunnel_up(LONG, state="unhealthy", description="Ü " * 100, mappings=[mapping_up()])


@pytest.fixture(scope="module")
def played(remote: Remote) -> Played:
    """The daemon's operations, replaced within the daemon that answers."""
    remote.operations.__class__ = Played
    remote.operations.begin_again()
    assert isinstance(remote.operations, Played)
    return remote.operations


@pytest.fixture(scope="module")
def served(remote: Remote, played: Played, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A console in a thread, which has watched for some minutes."""
    import uvicorn

    from vpnd.console.app import create_app
    from vpnd.console.tokens import Role, Tokens
    from vpnd.console.watch import Rate
    from vpnd.sdk import AsyncClient

    tokens = Tokens(tmp_path_factory.mktemp("console"))
    app = create_app(AsyncClient(remote.socket), tokens)
    watch = app.routes[0].endpoint.__self__.watch  # type: ignore[attr-defined]  # the console is behind each route
    for number in range(120):
        rate = Rate(3e6 + 2e6 * (number % 9), 1e6 + 1e5 * (number % 5))
        watch.rates.add(["branch-a"], {"branch-a": rate} if number not in (50, 51) else {})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, ws="none", log_level="warning", access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield Served(f"http://127.0.0.1:{port}", tokens.new(Role.ADMIN), tokens.new(Role.READ))
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One for all tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def visit_of(chromium: Browser, served: Served, look: Look) -> tuple[BrowserContext, Visit]:
    """A window of its own."""
    context = chromium.new_context(
        viewport={"width": look.width, "height": 900},
        color_scheme="dark" if look.scheme == "dark" else "light",
        locale=look.locale,
    )
    context.set_default_timeout(60_000)
    visit = Visit(context.new_page(), served, look)
    visit.page.on("pageerror", lambda error: visit.said.append(str(error)))
    visit.page.on("console", lambda one: visit.said.append(one.text) if one.type == "error" else None)
    visit.page.on("request", lambda request: visit.asked.append(request.url))
    return context, visit


@pytest.fixture
def visit(
    chromium: Browser, served: Served, played: Played, request: pytest.FixtureRequest
) -> Iterator[Visit]:
    """A visitor with the look of the test's parameter, before a daemon as new."""
    played.begin_again()
    look = getattr(request, "param", Look(1280, "light", "en"))
    context, found = visit_of(chromium, served, look)
    yield found
    context.close()
