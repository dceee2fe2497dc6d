"""The real console before a real daemon, strongSwan at the other end: made, broken, explained, mended."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import ROOT, Look, Served, Visit, visit_of
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan, Suite
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import Wire, two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd
from vpnd.console.tokens import Role, Tokens

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.root, pytest.mark.slow]

OTHER_KEY = "another-key-that-is-long-enough-for-all"
LOOKS = [Look(1280, "light", "en"), Look(400, "dark", "zh-CN")]
PLANS = [
    Plan(name="branch-s"),
    Plan(name="branch-s", version="ikev1", ike=Suite("aes-256", "sha384", 14), pfs=14),
]


@pytest.fixture
def wire(lab: Lab) -> Wire:
    return two_gateways(lab)


@pytest.fixture
def ours(wire: Wire) -> Vpnd:
    """A gateway without tunnels."""
    return Vpnd(wire.a.gateway, A.address)


@pytest.fixture
def console(ours: Vpnd, tmp_path: Path) -> Iterator[Served]:
    """`vpnd console`, as its unit starts it."""
    tokens = Tokens(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "vpnd.daemon.main", "console", "--listen", listen]
    process = subprocess.Popen([*command, "--state", str(tmp_path), "--socket", str(ours.socket)], cwd=ROOT)
    host, _, port = listen.rpartition(":")

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    try:
        wait_until(answers, "the console answers", 60.0)
        yield Served(f"http://{listen}", tokens.new(Role.ADMIN), tokens.new(Role.READ), process.pid)
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize(("plan", "look"), list(zip(PLANS, LOOKS, strict=True)), ids=["ikev2", "ikev1"])
def test_made_broken_explained_and_mended(
    plan: Plan, look: Look, chromium: Browser, console: Served, ours: Vpnd, wire: Wire
) -> None:
    theirs = StrongSwan(wire.b.gateway)
    theirs.add(plan.other())
    context, visit = visit_of(chromium, console, look)
    visit.sign_in()
    _make(visit, plan)
    _is_up(visit, ours, plan, "real-up")
    require_ping(wire.a.host, A.inside, B.inside)

    changed = plan.change(ike=Suite("aes-192", plan.ike.integrity, plan.ike.dh_group))
    code = _broken(visit, theirs, changed, "real-cipher")
    assert code.startswith("E-P1-"), code
    _to_the_change(visit, "ike")
    _choose(visit, "ike.encryption", "aes-192")
    visit.picture("real-change")
    _save(visit)
    _is_up(visit, ours, plan, "real-again")

    code = _broken(visit, theirs, changed.change(psk=OTHER_KEY), "real-key")
    assert code in ("E-PSK", "E-UDP-4500"), "IKEv1 has no word for a wrong key, and strongSwan is silent"
    _to_the_change(visit, "basic")
    if code == "E-PSK":
        visit.page.wait_for_selector("#key:focus")
    visit.page.fill("#key", OTHER_KEY)
    visit.page.fill("#key_again", OTHER_KEY)
    _save(visit)
    _is_up(visit, ours, plan, "real-mended")
    require_ping(wire.a.host, A.inside, B.inside)
    assert OTHER_KEY not in visit.page.content()
    visit.check()
    context.close()


def _make(visit: Visit, plan: Plan) -> None:
    """Every step, with another value than the default where the plan has one."""
    page = visit.page
    page.click("main form button.main")
    page.fill("#name", plan.name)
    page.select_option("#customer_gateway", "+")
    page.fill("[id='customer_gateway.address']", plan.remote.address)
    page.fill("#key", plan.psk)
    page.fill("#key_again", plan.psk)
    page.fill("[name=description]", "made in the console")
    page.select_option("[name=negotiation]", "active")
    page.select_option("[name=communication]", "spd-policy")
    page.click("p button.main")
    page.wait_for_url("**step=advanced*")
    page.fill("[name='dpd.timeout']", "60")
    page.select_option("[name='dpd.action']", "disconnect")
    page.click("p button.main")
    page.wait_for_url("**step=communication*")
    page.fill("[name='spd.0.local']", "\n".join(plan.local.networks))
    page.fill("[name='spd.0.remote']", "\n".join(plan.remote.networks))
    page.click("p button.main")
    page.wait_for_url("**step=ike*")
    page.select_option("[name='ike.version']", plan.version)
    for key, value in (("encryption", plan.ike.encryption), ("integrity", plan.ike.integrity)):
        _choose(visit, f"ike.{key}", value)
    _choose(visit, "ike.dh_group", str(plan.ike.dh_group))
    page.fill("[name='ike.lifetime']", "28800")
    page.click("p button.main")
    page.wait_for_url("**step=ipsec*")
    for key, value in (("encryption", plan.esp.encryption), ("integrity", plan.esp.integrity)):
        _choose(visit, f"ipsec.{key}", value)
    if plan.pfs:
        _choose(visit, "ipsec.pfs", str(plan.pfs))
    page.fill("[name='ipsec.lifetime']", "1800")
    page.fill("[name='ipsec.lifetime_kb']", "900000")
    page.click("p button.main")
    page.wait_for_selector("form[action*=finish]")
    page.click("button.main")
    page.wait_for_selector("#live")


def _choose(visit: Visit, key: str, value: str) -> None:
    """This one alone."""
    boxes = visit.page.locator(f"[name='{key}']")
    for place in range(boxes.count()):
        boxes.nth(place).set_checked(boxes.nth(place).get_attribute("value") == value)


def _save(visit: Visit) -> None:
    visit.page.click("p button[value=summary]")
    visit.page.wait_for_selector("form[action*=finish]")
    visit.picture("real-summary")
    visit.page.click("button.main")
    visit.page.wait_for_selector("#live")


def _is_up(visit: Visit, ours: Vpnd, plan: Plan, name: str) -> None:
    """The page says so without a reload."""
    ours.wait_state(plan.name, "up")
    visit.page.wait_for_selector("dl .state.up")
    visit.picture(name)


def _broken(visit: Visit, theirs: StrongSwan, plan: Plan, name: str) -> str:
    """The peer is configured in another way, and the tunnel is reset: the code that its page shows then."""
    page = visit.page
    theirs.replace(plan.other())
    page.click("button[value=reset]")
    page.click("button.danger")
    page.wait_for_selector("#live")
    page.locator("#why", has_text=re.compile("E-(P1|PSK|ID|UDP)")).wait_for()
    visit.picture(name)
    why: str = page.inner_text("#why")
    return why.rpartition(": ")[2]


def _to_the_change(visit: Visit, step: str) -> None:
    """By the button beside the change; where the failure has several reasons, as one edits otherwise."""
    page = visit.page
    if page.locator("#change-it").count():
        page.click("#change-it")
    else:
        page.click("button[value=edit]")
    page.wait_for_url(f"**step={step}*")
