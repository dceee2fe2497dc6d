"""By keyboard alone, and by axe-core."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.conftest import Look, Visit
from tests.browser.form import NEXT, set_step
from tests.unit.console.checklist import STEP

RULES = {
    "communication": "spd-policy",
    "spd.0.local": "10.0.0.0/24",
    "spd.0.remote": "192.168.0.0/24",
}

REACHED = """() => [...document.querySelectorAll(
  'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]')]
  .filter((one) => !one.disabled && one.tabIndex >= 0 && one.checkVisibility({visibilityProperty: true}))
  .map((one, place) => { one.dataset.place = place; return one.outerHTML.slice(0, 120); })"""

FOCUSED = """() => { const one = document.activeElement, style = getComputedStyle(one);
  if (one === document.body) return null;
  const box = one.getBoundingClientRect();
  return {place: one.dataset.place === undefined ? -1 : Number(one.dataset.place),
    html: one.outerHTML.slice(0, 120),
    outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
    seen: box.bottom > 0 && box.top < innerHeight}; }"""


def pages(visit: Visit) -> Any:
    """Each page in turn, by its name."""
    page, url = visit.page, visit.served.url
    page.goto(url)
    yield "sign-in"
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector(".sheet .bad")
    yield "wrong token"
    visit.sign_in()
    yield "list"
    paths = ("/tunnel?name=branch-a", "/tunnel?name=branch-b", "/events", "/nothing")
    more = ("/gateways", "/customer-gateway", "/customer-gateway?name=site", "/tunnel/key?name=branch-b")
    for path in (*paths, *more):
        page.goto(url + path)
        if path.endswith("a"):
            page.click("details summary")
        yield path
    page.goto(f"{url}/gateways")
    page.click("button.danger")
    yield "a customer gateway in use"
    for action in ("[value=reset]", ".danger"):
        page.goto(f"{url}/tunnel?name=branch-a")
        page.click(f"form.push button{action}")
        yield f"asks before {action}"
    page.goto(f"{url}/tunnel?name=branch-a")
    page.click("button[value=clone]")
    page.fill("#name", "a/b")
    page.click(NEXT)
    page.wait_for_selector(".said .bad")
    yield "refused"
    page.check("[name=generate]")
    for step in STEP:
        set_step(page, step, {"name": "branch-new", **RULES})
        yield step
        page.click(NEXT)
    page.wait_for_url("**step=summary*")
    yield "summary"
    page.click("button.main")
    page.wait_for_selector("#key")
    yield "done"


@pytest.mark.parametrize(
    "visit", [Look(1280, "light", "en"), Look(400, "dark", "zh-CN")], indirect=True, ids=str
)
def test_axe_has_nothing_serious(visit: Visit) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = []
    for name in pages(visit):
        visit.page.wait_for_load_state("load")
        for one in Axe().run(visit.page).response["violations"]:
            found.append((name, one["impact"], one["id"], [node["html"][:150] for node in one["nodes"][:3]]))
    for one in found:
        print(one)
    assert [one for one in found if one[1] in ("serious", "critical")] == []


@pytest.mark.parametrize(
    "visit", [Look(1280, "light", "en"), Look(400, "dark", "en")], indirect=True, ids=str
)
def test_everything_is_reached_by_tab_in_its_order_and_seen(visit: Visit) -> None:
    # Nothing is refreshed meanwhile: what is replaced cannot be compared.
    refreshed = re.compile(r"/(rows|tunnel/live|events/list|configuration)(\?|$)")
    visit.page.route(refreshed, lambda route: route.fulfill(status=204))
    for name in pages(visit):
        page = visit.page
        # Without the styles yet, what they hide would count.
        page.wait_for_load_state("load")
        all_of_them = page.evaluate(REACHED)
        page.evaluate("document.querySelector('.skip').focus()")
        reached = [page.evaluate(FOCUSED)["html"]]
        for _ in range(len(all_of_them) + 3):
            page.keyboard.press("Tab")
            focused = page.evaluate(FOCUSED)
            if focused is None or focused["html"] in reached[:1]:
                break
            assert focused["outline"], (name, focused)
            assert focused["seen"], (name, focused)
            reached.append(focused["html"])
        missing = [one for one in all_of_them if one not in reached]
        assert missing == [], name
        assert [one for one in reached if one in all_of_them] == all_of_them, (
            f"{name}: in the order of the page"
        )


def test_a_tunnel_is_made_and_deleted_by_keyboard_alone(visit: Visit, played: Any) -> None:
    page, press = visit.page, visit.page.keyboard.press
    page.goto(visit.served.url)
    page.keyboard.type(visit.served.token)
    press("Enter")
    page.wait_for_selector("#rows")

    def to(selector: str) -> None:
        for _ in range(80):
            if page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
                return
            press("Tab")
        raise AssertionError(f"{selector} is not reached")

    to("main form button.main")
    press("Enter")
    page.wait_for_selector("#name")
    to("#name")
    page.keyboard.type("branch-keys")
    to("#customer_gateway")
    page.keyboard.type("branch")
    to("[name=generate]")
    press("Space")
    to("#communication")
    press("ArrowDown")
    to(NEXT)
    press("Enter")
    page.wait_for_url("**step=advanced*")
    to("[name='dpd.timeout']")
    press("Control+a")
    page.keyboard.type("9")
    press("Enter")
    page.wait_for_selector("[id='said-dpd.timeout'] .bad")
    page.wait_for_selector("[name='dpd.timeout']:focus")
    press("Control+a")
    page.keyboard.type("45")
    press("Enter")
    page.wait_for_url("**step=communication*")
    to("[name='spd.0.local']")
    page.keyboard.type("10.0.0.0/24")
    to("[name='spd.0.remote']")
    page.keyboard.type("192.168.0.0/24")
    for step in ("ike", "ipsec", "summary"):
        to(NEXT)
        press("Enter")
        page.wait_for_url(f"**step={step}*")
    to("button.main")
    press("Enter")
    page.wait_for_selector("#key")
    assert played.received["branch-keys"]["dpd"] == {"timeout": 45}
    to("a.main")
    press("Enter")
    page.wait_for_selector("#live")
    to("button.danger")
    press("Enter")
    page.wait_for_selector("#typed")
    to("#typed")
    page.keyboard.type("branch-keys")
    press("Enter")
    page.wait_for_selector("h1")
