"""A person's whole way through the steps, at two widths, in light and dark, in English and Chinese."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.lab.process import wait_until
from tests.unit.control.conftest import Remote
from vpnd.console.tokens import Role, Tokens

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "build/console"
CHROMIUM = "/usr/bin/chromium"
LOOKS = [(1280, "light", "en"), (1280, "dark", "zh-CN"), (400, "light", "en"), (400, "dark", "zh-CN")]


@dataclass(frozen=True)
class Served:
    """A console that runs, and a token for it."""

    url: str
    token: str


@pytest.fixture(scope="module")
def served(remote: Remote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The real program, before a daemon that is played."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    state = tmp_path_factory.mktemp("console")
    token = Tokens(state).new(Role.ADMIN)
    command = [sys.executable, "-m", "vpnd.daemon.main", "console", "--listen", listen]
    process = subprocess.Popen([*command, "--state", str(state), "--socket", str(remote.socket)], cwd=ROOT)
    url = f"http://{listen}"

    def answers() -> bool:
        try:
            return bool(urllib.request.urlopen(f"{url}/sign-in").status == 200)  # noqa: S310
        except urllib.error.URLError:
            return False

    try:
        wait_until(answers, "the console answers", 60.0)
        yield Served(url, token)
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize(("width", "scheme", "locale"), LOOKS)
def test_the_whole_way(served: Served, remote: Remote, width: int, scheme: str, locale: str) -> None:
    remote.operations.begin_anew()
    PICTURES.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            locale=locale,
        )
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))

        def picture(name: str) -> None:
            page.screenshot(path=PICTURES / f"{name}-{width}-{scheme}-{locale[:2]}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is too wide"

        _walk(page, served, picture)
        browser.close()
    assert said == [], "scripts and styles are within the Content-Security-Policy"
    assert [url for url in asked if not url.startswith(served.url + "/")] == []
    assert list(remote.operations.received) == ["branch-new"]


def _walk(page: Page, served: Served, picture: object) -> None:
    assert callable(picture)
    page.goto(served.url)
    page.fill("#token", served.token)
    page.keyboard.press("Enter")
    with page.expect_response("**/rows*"):
        pass
    picture("list")
    for name in ("branch-a", "branch-b"):
        page.goto(f"{served.url}/tunnel?name={name}")
        picture(name)
    page.goto(served.url)
    page.click("main button.main")
    page.fill("#name", "branch-new")
    page.select_option("#customer_gateway", "+")
    page.check("[name=generate]")
    page.select_option("#communication", "spd-policy")
    page.fill("[id='customer_gateway.address']", "203.0.113.300")
    page.wait_for_selector("#said-customer_gateway .bad")
    picture("basic")
    page.fill("[id='customer_gateway.address']", "203.0.113.9")
    page.click("button.main")
    page.wait_for_selector("[name='dpd.enabled']")
    page.click("button.main")
    page.fill("[name='spd.0.local']", "10.0.0.0/24")
    page.fill("[name='spd.0.remote']", "192.168.0.0/24\n192.168.1.0/24")
    page.wait_for_selector("#mappings li:nth-child(2)")
    picture("rules")
    page.click("button.main")
    page.wait_for_selector("[name='ike.version']")
    assert page.is_hidden("[name='ike.negotiation_mode']"), "it means nothing in IKEv2"
    page.check("[name='ike.dh_group'][value='2']")
    page.wait_for_selector("[id='said-ike.dh_group'] .warn")
    picture("ike")
    page.click("button.main")
    page.wait_for_selector("[name='ipsec.pfs']")
    page.click("button.main")
    page.wait_for_selector("form[action*=finish]")
    picture("summary")
    page.click("button.main")
    page.wait_for_selector("#key")
    picture("done")
