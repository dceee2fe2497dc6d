"""The real console before a real daemon, strongSwan at the other end: made, broken, explained, mended."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import ROOT, Look, Served, Visit, visit_of
from tests.browser.form import NEXT, begin, create, go_through, set_step, set_value
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan, Suite
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import Wire, agreement, settle, two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd
from vpnd.console.tokens import Role, Tokens

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.root, pytest.mark.slow]

OTHER_KEY = "another-key-that-is-long-enough-for-all"
LOOKS = [Look(1280, "light", "en"), Look(400, "dark", "zh-CN")]
PLANS = [
    Plan(name="branch-s", negotiation="active"),
    Plan(name="branch-s", negotiation="active", version="ikev1", ike=Suite("aes-256", "sha384", 14), pfs=14),
]
WAYS = {
    "aggressive, names": Plan(
        name="branch-w",
        negotiation="active",
        version="ikev1",
        mode="aggressive",
        routed=True,
        local=replace(A, identity="hq.example"),
        remote=replace(B, identity="branch.example"),
    ),
    "aggressive, addresses": Plan(
        name="branch-w",
        negotiation="active",
        version="ikev1",
        mode="aggressive",
        local=replace(A, identity="203.0.113.1"),
        remote=replace(B, identity="203.0.113.2"),
    ),
    "IKEv2, a name and an address": Plan(
        name="branch-w",
        negotiation="active",
        routed=True,
        local=replace(A, identity="hq.example"),
        remote=replace(B, identity="203.0.113.2"),
    ),
}
"""What the other tests leave at its default: the mode, identities of each kind, destination routes."""


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
    make(visit, plan)
    _is_up(visit, ours, plan, "real-up")
    require_ping(wire.a.host, A.inside, B.inside)

    changed = plan.change(ike=Suite("aes-192", plan.ike.integrity, plan.ike.dh_group))
    code = _broken(visit, theirs, changed, "real-cipher")
    assert code.startswith("E-P1-"), code
    _to_the_change(visit, "ike")
    set_value(visit.page, "ike.encryption", ["aes-192"])
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


@pytest.mark.parametrize("way", WAYS)
def test_modes_identities_and_routes(
    way: str, chromium: Browser, console: Served, ours: Vpnd, wire: Wire
) -> None:
    plan = WAYS[way]
    theirs = StrongSwan(wire.b.gateway)
    theirs.add(plan.other())
    context, visit = visit_of(chromium, console, Look(1280, "light", "en"))
    visit.sign_in()
    make(visit, plan)
    _is_up(visit, ours, plan, f"real-{way.replace(' ', '-').replace(',', '')}")
    page = visit.page.inner_text("main")
    for shown in (plan.local.identity, plan.remote.identity, *plan.remote.networks):
        assert shown in page
    assert plan.version != "ikev1" or f"{plan.version} · {plan.mode}" in page
    require_ping(wire.a.host, A.inside, B.inside)
    agreement(ours, theirs, plan.name)
    visit.check()
    context.close()


def test_a_peer_that_is_refused_by_a_passive_tunnel(
    chromium: Browser, console: Served, ours: Vpnd, wire: Wire
) -> None:
    """Only the peer begins here, so only its attempts can say what is wrong; and its page does."""
    plan = Plan(name="branch-p")
    context, visit = visit_of(chromium, console, Look(1280, "light", "en"))
    visit.sign_in()
    make(visit, plan)
    visit.page.get_by_text("It waits for the peer to begin.").wait_for()
    theirs = StrongSwan(wire.b.gateway)
    for wrong, code in (
        (plan.change(ike=Suite("aes-256", "sha256", 14)), "E-P1-"),
        (plan.change(psk=OTHER_KEY), "E-PSK"),
        (plan.change(remote=replace(B, identity="stranger.example")), "E-ID"),
    ):
        theirs.replace(wrong.other())
        theirs.up(plan.name)
        visit.page.locator("#why", has_text=code).wait_for()
        visit.picture(f"real-passive-{code.strip('-')}")
        visit.page.locator("#field-why dd").first.wait_for()
    theirs.replace(plan.other())
    theirs.up(plan.name)
    _is_up(visit, ours, plan, "real-passive-up")
    assert visit.page.locator("#ladder li").last.is_visible()
    seen = (
        "one => one.getBoundingClientRect().bottom <= one.closest('.log').getBoundingClientRect().bottom + 1"
    )
    assert visit.page.locator("#ladder li").last.evaluate(seen), "the newest message is at the end, and seen"
    assert visit.page.locator("#why").count() == 0, "what is over is not shown as the reason"
    visit.check()
    context.close()


def test_a_save_disturbs_no_other_tunnel(chromium: Browser, console: Served, ours: Vpnd, wire: Wire) -> None:
    """Two tunnels are up, and one is changed so that it is negotiated again: the other loses nothing."""
    one = Plan(name="branch-one", negotiation="active")
    two = one.change(
        name="branch-two",
        local=replace(A, identity="two.example", networks=("10.1.9.0/24",), inside="10.1.9.1"),
        remote=replace(B, networks=("10.2.9.0/24",), inside="10.2.9.1"),
    )
    wire.a.gateway.add_address("10.1.9.1/32")
    wire.b.gateway.add_address("10.2.9.1/32")
    theirs = StrongSwan(wire.b.gateway)
    theirs.add(one.other())
    theirs.add(two.other())
    context, visit = visit_of(chromium, console, Look(1280, "light", "en"))
    visit.sign_in()
    for plan in (one, two):
        make(visit, plan)
        _is_up(visit, ours, plan, plan.name)
        settle(ours, theirs, plan)
    before, events = ours.get("/v1/tunnels/branch-one"), ours.told("branch-one")
    other = ours.get("/v1/tunnels/branch-two")
    page = visit.page
    page.goto(f"{console.url}/?q=branch&state=up")
    with pinging(lambda: require_ping(wire.a.host, A.inside, B.inside)) as pings:
        page.click("[id='link-branch-two']")
        page.click("button[value=edit]")
        set_value(page, "description", "changed")
        page.click("button[value=ipsec]")
        set_value(page, "ipsec.encryption", ["aes-128", "aes-256"])
        set_value(page, "ipsec.lifetime", "2400")
        _save(visit)
        ours.wait_state(two.name, "up")
        require_ping(wire.a.host, "10.1.9.1", "10.2.9.1")
        wait_until(lambda: pings[0] > 20, "pings after the change")
    after = ours.get("/v1/tunnels/branch-one")
    assert after["ike_sas"][0]["spi_i"] == before["ike_sas"][0]["spi_i"]
    (mapping,), (earlier,) = after["mappings"], before["mappings"]
    assert [mapping[key] for key in ("spi_in", "spi_out")] == [earlier[key] for key in ("spi_in", "spi_out")]
    assert mapping["packets_in"] >= earlier["packets_in"] + 3 * pings[0]
    assert mapping["packets_out"] >= earlier["packets_out"] + 3 * pings[0]
    assert ours.told("branch-one") == events
    again = ours.get("/v1/tunnels/branch-two")
    assert again["mappings"][0]["spi_in"] != other["mappings"][0]["spi_in"]
    page.click("main a:has-text('Tunnels')")
    page.wait_for_selector("#rows")
    assert page.url.partition("#")[0] == f"{console.url}/?q=branch&state=up", "the list is where it was"
    assert page.input_value("[name=q]") == "branch"
    assert page.evaluate("document.querySelector(':target').id") == "link-branch-two"
    visit.check()
    context.close()


def test_a_copy_says_why_it_does_not_come_up(
    chromium: Browser, console: Served, ours: Vpnd, wire: Wire
) -> None:
    """What it shares with the first is refused at its field, what the peer does not know is on its page."""
    plan = Plan(name="branch-one", negotiation="active")
    theirs = StrongSwan(wire.b.gateway)
    theirs.add(plan.other())
    context, visit = visit_of(chromium, console, Look(1280, "light", "en"))
    visit.sign_in()
    make(visit, plan)
    _is_up(visit, ours, plan, "real-first")
    settle(ours, theirs, plan)
    first = ours.agreed(plan.name)
    page = visit.page
    page.click("button[value=clone]")
    copy = values_of(plan) | {"name": "branch-copy", "ike.local_id": "copy.example"}
    go_through(page, copy, ["basic", "advanced"])
    set_step(page, "communication", copy)
    page.click(NEXT)
    overlap = page.locator("[id='said-spd.0.remote'] .bad", has_text="E-OVERLAP")
    overlap.filter(has_text="branch-one").wait_for()
    free = copy | {"spd.0.local": "10.1.9.0/24", "spd.0.remote": "10.2.9.0/24"}
    go_through(page, free, ["communication", "ike", "ipsec"])
    create(page)
    page.locator("#why", has_text="E-").wait_for()
    page.locator("#field-why .warn", has_text="Change").wait_for()
    visit.picture("real-copy")
    assert ours.agreed(plan.name) == first
    visit.check()
    context.close()


@contextmanager
def pinging(once: Callable[[], object]) -> Iterator[list[int]]:
    """Without end, beside what the block does; how often. Each has to be answered: else this raises."""
    count, failed, stop = [0], [], threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                once()
                count[0] += 1
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join(60)
    if failed:
        raise failed[0]


def values_of(plan: Plan) -> dict[str, Any]:
    """The plan as it is typed into the steps."""
    return {
        "name": plan.name,
        "customer_gateway": "+",
        "customer_gateway.address": plan.remote.address,
        "key": plan.psk,
        "key_again": plan.psk,
        "description": "made in the console",
        "negotiation": plan.negotiation,
        "communication": "destination-route" if plan.routed else "spd-policy",
        "dpd.timeout": "60",
        "dpd.action": "disconnect",
        **(
            {"routes": "\n".join(plan.remote.networks)}
            if plan.routed
            else {
                "spd.0.local": "\n".join(plan.local.networks),
                "spd.0.remote": "\n".join(plan.remote.networks),
            }
        ),
        "ike.version": plan.version,
        **({"ike.negotiation_mode": plan.mode} if plan.version == "ikev1" else {}),
        "ike.encryption": [plan.ike.encryption],
        "ike.integrity": [plan.ike.integrity],
        "ike.dh_group": [str(plan.ike.dh_group)],
        "ike.local_id": plan.local.identity if plan.local.identity != plan.local.address else "",
        "ike.remote_id": plan.remote.identity if plan.remote.identity != plan.remote.address else "",
        "ike.lifetime": "28800",
        "ipsec.encryption": [plan.esp.encryption],
        "ipsec.integrity": [plan.esp.integrity],
        "ipsec.pfs": [str(plan.pfs)] if plan.pfs else [],
        "ipsec.lifetime": "1800",
        "ipsec.lifetime_kb": "900000",
    }


def make(visit: Visit, plan: Plan) -> None:
    """Every step, with another value than the default where the plan has one."""
    visit.page.goto(visit.served.url)
    begin(visit.page)
    go_through(visit.page, values_of(plan))
    create(visit.page)


def _save(visit: Visit) -> None:
    visit.page.click("p button[value=summary]")
    visit.page.wait_for_selector("form[action*=finish]")
    visit.picture("real-summary")
    create(visit.page)


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
