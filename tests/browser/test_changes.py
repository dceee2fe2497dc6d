"""A configuration that waits to be confirmed, and a key that is replaced, in a browser."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Played, Visit
from tests.browser.test_console import LOOKS
from tests.unit.control.fakes import AT
from vpnd.control.schema import Fault

WAITING = "#configuration .notice.warn"
DIFFERS = Fault(
    code="E-ROLLED-BACK",
    message="the files differ from what runs: they hold a version that was rolled back "
    "(branch-a was up and did not come up again: not up after 30 s)",
    at=AT,
)
SECONDS = """(text) => document.querySelector('#confirm-in').textContent.includes(text)"""


@pytest.mark.parametrize("visit", LOOKS, indirect=True, ids=str)
def test_a_change_waits_is_confirmed_and_goes_back(visit: Visit, played: Played) -> None:
    page = visit.page
    visit.sign_in()
    page.goto(f"{visit.served.url}/events")
    assert page.locator(WAITING).count() == 0
    played.standing = {"confirm_in_s": 87}
    page.wait_for_selector(WAITING)
    visit.picture("waits")
    button = page.locator("button[value=confirm]").element_handle()
    assert button is not None
    button.focus()
    played.standing = {"confirm_in_s": 41}
    page.wait_for_function(SECONDS, arg="41")
    assert button.evaluate("one => one.isConnected && document.activeElement === one"), "it stays"
    page.goto(visit.served.url)
    visit.picture("list-waits")
    page.click("button[value=roll-back]")
    page.wait_for_selector("input[name=confirmed]", state="attached")
    visit.picture("roll-back")
    assert ("rollback", None) not in played.calls
    page.click(".sheet a.button")
    page.wait_for_selector("#rows")
    page.click("button[value=confirm]")
    page.wait_for_selector(".notice.good")
    assert ("confirm",) in played.calls
    played.standing = {}
    page.wait_for_selector(WAITING, state="detached")
    played.standing = {"rolled_back": DIFFERS}
    page.wait_for_selector("#configuration .notice.bad")
    visit.picture("rolled-back")
    visit.check()


@pytest.mark.parametrize("visit", LOOKS, indirect=True, ids=str)
def test_a_key_is_replaced(visit: Visit, played: Played) -> None:
    page = visit.page
    played.next_key = None
    visit.sign_in()
    page.goto(f"{visit.served.url}/tunnel?name=branch-a")
    page.click("a[href^='/tunnel/key']")
    page.fill("#key", "one")
    page.click("button[value=begin]")
    page.wait_for_selector("#said-next_pre_shared_key .bad")
    visit.picture("key-wrong")
    page.check("[name=generate]")
    page.fill("#retire_after", "2031-01-01T12:30")
    visit.picture("key-begin")
    page.click("button[value=begin]")
    page.wait_for_selector("pre#key")
    assert len(page.inner_text("pre#key")) >= 32
    played.next_key = "51b2-0e9d"
    page.goto(f"{visit.served.url}/tunnel/key?name=branch-a")
    assert page.is_visible("input[name=force] + button, .notice.warn")
    visit.picture("key-steps")
    page.click("button[value=prove]")
    played.used_key = "51b2-0e9d"
    page.goto(f"{visit.served.url}/tunnel/key?name=branch-a")
    assert page.locator("input[name=force]").count() == 0
    visit.picture("key-proved")
    page.click("button[value=finish]")
    page.wait_for_selector(".notice.good")
    visit.picture("key-in-use")
    steps = [call[2] for call in played.calls if call[0] == "rotate_key"]
    assert steps == ["begin", "prove", "finish"]
    visit.check()


def test_who_may_only_look(visit: Visit, played: Played) -> None:
    played.standing = {"confirm_in_s": 87}
    visit.sign_in(visit.served.read_token)
    page = visit.page
    assert page.is_visible(WAITING)
    assert page.locator("button[value=confirm]").count() == 0
    page.goto(f"{visit.served.url}/tunnel?name=branch-a")
    assert page.locator("a[href^='/tunnel/key']").count() == 0
    assert "51b2-0e9d" in page.inner_text("#live")
    visit.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/tunnel?name=branch-a", "/tunnel/key?name=branch-a"])
@pytest.mark.parametrize("what", ["waits", "differs", "begin"])
def test_axe_finds_nothing(visit: Visit, played: Played, scheme: str, path: str, what: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    played.standing = {"rolled_back": DIFFERS} if what == "differs" else {"confirm_in_s": 87}
    if what == "begin":
        played.next_key = None
    visit.page.emulate_media(color_scheme=scheme)
    visit.sign_in()
    visit.page.goto(visit.served.url + path)
    found = Axe().run(visit.page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
