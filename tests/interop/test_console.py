"""`vpnd console` in front of a real daemon: a tunnel is made, watched, broken and explained in its pages."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest

from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.topology import Wire, two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd
from vpnd.console.tokens import Role, Tokens
from vpnd.sdk import Client

pytestmark = [pytest.mark.root, pytest.mark.slow]

PLAN = Plan(name="branch-c")
WRONG = "another-key-that-is-long-enough"


class Browser:
    """One person at the console: cookies, and the token of the last page's forms."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))
        self._csrf = ""
        self.at = ""

    def get(self, path: str) -> str:
        return self._read(Request(self._url + path))  # noqa: S310 (a port of this test)

    def post(self, path: str, form: Mapping[str, object]) -> str:
        """A form, and the page to which its answer leads."""
        body = urlencode({"csrf": self._csrf, **form}, doseq=True).encode()
        return self._read(Request(self._url + path, body, {"Origin": self._url}))  # noqa: S310 (of this machine)

    def _read(self, request: Request) -> str:
        with self._opener.open(request, timeout=60) as answer:
            page: str = answer.read().decode()
            self.at = answer.url.removeprefix(self._url)
        found = re.search(r'name="csrf" value="([^"]+)"', page)
        self._csrf = found[1] if found else self._csrf
        return page


@pytest.fixture
def wire(lab: Lab) -> Wire:
    return two_gateways(lab)


@pytest.fixture
def theirs(wire: Wire) -> Vpnd:
    """The peer, which knows the tunnel."""
    return Vpnd(wire.b.gateway, B.address, plans=[PLAN.other()])


@pytest.fixture
def ours(wire: Wire, theirs: Vpnd) -> Vpnd:
    """A gateway without tunnels."""
    return Vpnd(wire.a.gateway, A.address)


@pytest.fixture
def browser(ours: Vpnd, tmp_path: Path) -> Iterator[Browser]:
    """Signed in at `vpnd console`."""
    token = Tokens(tmp_path).new(Role.ADMIN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "vpnd.daemon.main", "console", "--listen", listen]
    process = subprocess.Popen([*command, "--state", str(tmp_path), "--socket", str(ours.socket)])
    browser = Browser(f"http://{listen}")

    def answers() -> bool:
        try:
            return bool(browser.get("/sign-in"))
        except URLError:
            return False

    try:
        wait_until(answers, "the console answers", 60.0)
        browser.post("/sign-in", {"token": token})
        yield browser
    finally:
        process.terminate()
        process.wait(60)


def fill(browser: Browser, plan: Plan) -> str:
    """The steps of a new tunnel, or of one that is changed; the summary after the last one."""
    basic = {
        "name": plan.name,
        "customer_gateway": "+",
        "customer_gateway.address": plan.remote.address,
        "key": plan.psk,
        "key_again": plan.psk,
        "profile": "default",
        "negotiation": "active",
        "communication": "spd-policy",
        "priority": "0",
    }
    ike = {
        "ike.version": plan.version,
        "ike.encryption": plan.ike.encryption,
        "ike.integrity": plan.ike.integrity,
        "ike.dh_group": str(plan.ike.dh_group),
        "ike.lifetime": "86400",
    }
    ipsec = {
        "ipsec.encryption": plan.esp.encryption,
        "ipsec.integrity": plan.esp.integrity,
        "ipsec.pfs": "disable",
        "ipsec.lifetime": "3600",
        "ipsec.lifetime_kb": "1843200",
        "ipsec.encapsulation": plan.encapsulation,
    }
    rules = {"spd.0.local": "\n".join(plan.local.networks), "spd.0.remote": "\n".join(plan.remote.networks)}
    page = ""
    for form in (
        basic,
        {"dpd.enabled": "yes", "dpd.timeout": "45", "dpd.action": "retry"},
        rules,
        ike,
        ipsec,
    ):
        page = browser.post(browser.at, {**form, "go": "next"})
    assert "step=summary" in browser.at, page
    return page


def finish(browser: Browser) -> str:
    """The last button of the steps; the tunnel's page."""
    return browser.post(browser.at.partition("&")[0].replace("/draft", "/draft/finish"), {})


def test_a_tunnel_is_made_broken_explained_and_mended(
    browser: Browser, wire: Wire, ours: Vpnd, theirs: Vpnd
) -> None:
    browser.post("/new", {})
    summary = fill(browser, PLAN)
    assert PLAN.psk not in summary
    page = finish(browser)
    assert browser.at == "/tunnel?name=branch-c", page
    ours.wait_state(PLAN.name, "up")
    require_ping(wire.a.host, A.inside, B.inside)
    page = browser.get("/tunnel/live?name=branch-c")
    assert "10.1.0.0/24" in page
    assert B.address in page

    theirs.replace(PLAN.change(psk=WRONG).other())
    page = browser.post("/tunnel/act", {"name": PLAN.name, "action": "reset", "confirmed": "yes"})
    assert "E-PSK" in page, page
    assert ours.tunnel(PLAN.name)["state"] != "up"

    browser.post("/new", {"name": PLAN.name, "how": "edit"})
    fill(browser, PLAN.change(psk=WRONG))
    finish(browser)
    ours.wait_state(PLAN.name, "up")
    pages = browser.get("/") + browser.get("/tunnel?name=branch-c") + browser.get("/events")
    assert WRONG not in pages
    assert PLAN.psk not in pages


def test_gateways_are_labelled_made_used_and_deleted(browser: Browser, ours: Vpnd) -> None:
    labels = {"type": "vpc", "vpc": "vpc-1", "region": "eu-2"}
    browser.get("/gateways")
    assert "changed" in browser.post("/gateways", labels)
    shown = ours.status()["gateway"]
    assert {label: shown[label] for label in labels} == labels
    assert "site: created" in browser.post("/customer-gateway", {"name": "site", "address": "192.0.2.77"})
    client = Client(ours.socket)
    table = {"customer_gateway": "site", "pre_shared_key": f"plain:{WRONG}", "routes": ["10.7.0.0/16"]}
    client.put_tunnel("to-site", table)
    assert '<a href="/tunnel?name=to-site">to-site</a>' in browser.get("/gateways")
    refused = browser.post("/customer-gateway/delete", {"name": "site"})
    assert "It cannot be deleted" in refused
    assert "to-site</a>" in refused
    changed = {"known": "yes", "name": "site", "address": "192.0.2.78"}
    assert "site: changed" in browser.post("/customer-gateway", changed)
    assert ours.tunnel("to-site")["peer"]["address"] == "192.0.2.78"
    client.delete_tunnel("to-site")
    gone = browser.post("/customer-gateway/delete", {"name": "site", "confirmed": "yes"})
    assert "site: removed" in gone
    assert client.customer_gateways(from_api=True).customer_gateways == ()
