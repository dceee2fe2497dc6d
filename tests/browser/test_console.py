"""A person's whole way through the steps, at two widths, in light and dark, in English and Chinese."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import LONG, Look, Played, Visit
from tests.browser.form import NEXT, begin, create, set_step

if TYPE_CHECKING:
    from playwright.sync_api import Route

LOOKS = [
    Look(width, scheme, locale)
    for width, scheme, locale in (
        *((1280, "light", "en"), (1280, "dark", "zh-CN")),
        *((400, "light", "en"), (400, "dark", "zh-CN"), (400, "dark", "en"), (1280, "light", "zh-CN")),
    )
]


@pytest.mark.parametrize("visit", LOOKS, indirect=True, ids=str)
def test_the_whole_way(visit: Visit, played: Played) -> None:
    _watch(visit)
    _basic(visit)
    _advanced_and_rules(visit)
    _algorithms_and_summary(visit)
    assert list(played.received) == ["branch-new"]
    _change(visit)
    _ask_before(visit)
    visit.check()


def _watch(visit: Visit) -> None:
    page = visit.page
    page.goto(visit.served.url)
    visit.picture("sign-in")
    visit.sign_in()
    with page.expect_response("**/rows*"):
        pass
    visit.picture("list")
    for name in ("branch-a", "branch-b", LONG):
        page.goto(f"{visit.served.url}/tunnel?name={name}")
        visit.picture(name if name != LONG else "long")
    page.goto(f"{visit.served.url}/events")
    visit.picture("events")
    page.goto(f"{visit.served.url}/tunnel?name=nobody")
    visit.picture("unknown")


def _basic(visit: Visit) -> None:
    page = visit.page
    page.goto(visit.served.url)
    begin(page)
    page.check("[name=generate]")
    values = {"name": "branch-new", "customer_gateway": "+", "communication": "spd-policy"}
    set_step(page, "basic", values)
    page.fill("[id='customer_gateway.address']", "203.0.113.300")
    page.wait_for_selector("#said-customer_gateway .bad")
    assert page.get_attribute("[id='customer_gateway.address']", "aria-invalid") == "true"
    visit.picture("basic")
    page.fill("[id='customer_gateway.address']", "203.0.113.9")
    page.wait_for_selector("#said-customer_gateway .bad", state="detached")
    page.click(NEXT)


def _advanced_and_rules(visit: Visit) -> None:
    page = visit.page
    page.wait_for_selector("[name='dpd.enabled']")
    assert page.is_hidden("[name='health_check.local']"), "it is asked for with a health check only"
    page.check("[name='health_check.enabled']")
    page.fill("[name='health_check.local']", "127.0.0.1")
    page.fill("[name='dpd.timeout']", "9")
    page.wait_for_selector("[id='said-dpd.timeout'] .bad")
    visit.picture("advanced")
    page.fill("[name='dpd.timeout']", "45")
    page.uncheck("[name='health_check.enabled']")
    page.click(NEXT)
    ranges = {"spd.0.local": "10.0.0.0/24", "spd.0.remote": "192.168.0.0/24\n192.168.1.0/24"}
    set_step(page, "communication", ranges)
    page.wait_for_selector("#mappings li:nth-child(2)")
    page.click("button[value=rule]")
    page.fill("[name='spd.1.local']", "10.0.0.0/25")
    page.fill("[name='spd.1.remote']", "192.168.1.0/25")
    page.wait_for_selector("[id='said-spd.1.remote'] .bad:has-text('E-OVERLAP')")
    visit.picture("rules")
    page.fill("[name='spd.1.local']", "10.0.1.0/24")
    page.fill("[name='spd.1.remote']", "192.168.2.0/24")
    page.wait_for_selector("#mappings li:nth-child(3)")
    page.click(NEXT)


def _algorithms_and_summary(visit: Visit) -> None:
    page = visit.page
    page.wait_for_selector("[name='ike.version']")
    assert page.is_hidden("[name='ike.negotiation_mode']"), "it means nothing in IKEv2"
    page.select_option("[name='ike.version']", "ikev1")
    assert page.is_visible("[name='ike.negotiation_mode']")
    page.select_option("[name='ike.version']", "ikev2")
    page.check("[name='ike.dh_group'][value='2']")
    page.wait_for_selector("[id='said-ike.dh_group'] .warn")
    visit.picture("ike")
    page.click(NEXT)
    page.check("[name='ipsec.pfs'][value='14']")
    page.fill("[name='ipsec.lifetime']", "1")
    page.wait_for_selector("[id='said-ipsec.lifetime'] .bad")
    visit.picture("ipsec")
    page.click(NEXT)
    page.wait_for_selector("[id='said-ipsec.lifetime'] .bad")
    page.wait_for_selector("[name='ipsec.lifetime']:focus")
    page.fill("[name='ipsec.lifetime']", "3600")
    page.click(NEXT)
    page.wait_for_selector("form[action*=finish]")
    visit.picture("summary")
    page.click("button.main")
    page.wait_for_selector("#key")
    visit.picture("done")


def _change(visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.served.url}/tunnel?name=branch-a")
    page.click("button[value=edit]")
    page.fill("[name='description']", "the other town")
    page.click("button[value=advanced]")
    page.fill("[name='dpd.timeout']", "60")
    page.click("p button[value=summary]")
    page.wait_for_selector(".changed")
    assert page.locator(".changed").count() == 2
    visit.picture("changed")


def _ask_before(visit: Visit) -> None:
    page = visit.page
    for action, name in (("[value=reset]", "confirm"), (".danger", "delete")):
        page.goto(f"{visit.served.url}/tunnel?name=branch-a")
        page.click(f"form.push button{action}")
        page.wait_for_selector(".danger")
        visit.picture(name)


@pytest.mark.parametrize("visit", LOOKS, indirect=True, ids=str)
def test_the_gateways(visit: Visit, played: Played) -> None:
    """This one gets its labels, and a customer gateway is made, changed and deleted; one in use stays."""
    page = visit.page
    visit.sign_in()
    page.click("nav a[href='/gateways']")
    assert page.is_hidden("#vpc"), "it is asked for with type VPC only"
    page.fill("#region", "x" * 201)
    page.select_option("#type", "vpc")
    page.fill("#vpc", "vpc-1")
    page.click("form[action='/gateways'] button")
    page.wait_for_selector("#region[aria-invalid]:focus")
    page.fill("#region", "eu-2")
    page.click("form[action='/gateways'] button")
    page.wait_for_selector(".notice.good")
    assert played.labels == {"region": "eu-2", "type": "vpc", "vpc": "vpc-1"}
    page.click("a[href='/customer-gateway']")
    page.fill("#name", "branch")
    page.fill("#address", "203.0.113.9")
    page.click("form.ask button.main")
    page.wait_for_selector("#name[aria-invalid]:focus")
    visit.picture("customer-gateway")
    page.fill("#name", LONG)
    page.click("form.ask button.main")
    page.wait_for_selector(".notice.good")
    visit.picture("gateways")
    assert played.gateways == {LONG: "203.0.113.9"}
    page.click("tr:has-text('203.0.113.9') a.button")
    page.fill("#address", "gw.example")
    page.click("form.ask button.main")
    page.wait_for_selector("td:has-text('gw.example')")
    page.click("tr:has-text('198.51.100.1'):has-text('site') a.button")
    page.wait_for_selector(".notice.warn")
    visit.picture("customer-gateway-used")
    page.goto(f"{visit.served.url}/gateways")
    page.click("tr:has-text('site') button.danger")
    page.wait_for_selector(f"main li a:has-text('{LONG}')")
    visit.picture("customer-gateway-stays")
    page.goto(f"{visit.served.url}/gateways")
    page.click("tr:has-text('gw.example') button.danger")
    page.wait_for_selector("form button.danger")
    visit.picture("customer-gateway-delete")
    page.click("form button.danger")
    page.wait_for_selector(".notice.good")
    assert played.gateways == {}
    visit.check()


def test_live_without_reload(visit: Visit, played: Played) -> None:
    """The list, a tunnel and its events change by themselves; nothing that is open is lost meanwhile."""
    page = visit.page
    visit.sign_in()
    page.evaluate("window.first = true")
    page.focus("[id='link-branch-b']")
    played.tunnels["branch-b"] = played.tunnels["branch-b"].model_copy(update={"state": "connecting"})
    page.wait_for_selector("tr:nth-child(2) .connecting")
    assert page.evaluate("[window.first, document.activeElement.id]") == [True, "link-branch-b"]
    page.fill("[name=q]", "branch-a")
    page.wait_for_selector("tr:nth-child(2)", state="detached")
    page.goto(f"{visit.served.url}/tunnel?name=branch-b")
    page.evaluate("window.first = true")
    page.focus("#ladder")
    played.tunnels["branch-b"] = played.tunnels["branch-b"].model_copy(update={"state": "up"})
    page.wait_for_selector("dl .state.up")
    assert page.evaluate("[window.first, document.activeElement.id]") == [True, "ladder"]


def test_a_daemon_that_is_gone_is_said(visit: Visit, played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    page = visit.page
    visit.sign_in()
    assert page.is_hidden("#stale")

    def fails() -> None:
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr(played, "status", fails)
        page.wait_for_selector("#stale", state="visible")
        visit.picture("stale")
    page.wait_for_selector("#stale", state="hidden")


def test_a_check_that_gives_way_to_the_next_is_no_failure(visit: Visit) -> None:
    """Who types on while the daemon is asked is not told that it does not answer."""
    page = visit.page
    visit.sign_in()
    begin(page)
    held: list[Route] = []
    page.route("**/draft/check*", lambda route: held.append(route))
    for place, name in enumerate(("branch-n", "branch-ne", "branch-new"), 1):
        page.fill("#name", name)
        while len(held) < place:
            page.wait_for_timeout(50)
    assert page.is_hidden("#stale")
    held[-1].abort()
    page.wait_for_selector("#stale", state="visible")


def test_a_tunnel_that_is_gone_is_said(visit: Visit, played: Played) -> None:
    visit.sign_in()
    visit.page.goto(f"{visit.served.url}/tunnel?name=branch-b")
    del played.tunnels["branch-b"]
    visit.page.wait_for_selector("h1:has-text('E-UNKNOWN-TUNNEL')")


def test_the_list_is_at_the_same_place_after_a_change(visit: Visit) -> None:
    """Other consoles jump to another tunnel after a save; this one stays with the one that was saved."""
    page = visit.page
    visit.sign_in()
    page.click("[id='link-branch-b']")
    page.click("button[value=edit]")
    page.fill("[name=description]", "changed")
    page.click("p button[value=summary]")
    create(page)
    page.wait_for_selector(".notice.good")
    assert page.url.endswith("/tunnel?name=branch-b")
    page.click("main a:has-text('Tunnels')")
    page.wait_for_selector("#rows")
    assert page.url.endswith("/#link-branch-b")
    assert page.locator("tr:has(:target)").inner_text().split("\n")[0].startswith("down")
