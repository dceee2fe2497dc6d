"""What every page says of a configuration that waits to be confirmed or was rolled back, and its buttons."""

from __future__ import annotations

import re

import pytest

from tests.unit.console.conftest import Browser
from tests.unit.control.fakes import AT
from vpnd.console.tokens import Role
from vpnd.control.operations import Conflict
from vpnd.control.schema import Fault

WAITS = {"confirm_in_s": 87}
DIFFERS = {
    "rolled_back": Fault(
        code="E-ROLLED-BACK",
        message="the files differ from what runs: they hold a version that was rolled back "
        "(it was not confirmed in time)",
        at=AT,
    )
}
PAGES = ("/", "/tunnel?name=branch-a", "/gateways", "/events", "/tunnel/key?name=branch-a")


async def look(browser: Browser, path: str = "/") -> str:
    browser.clock.now += 2
    return (await browser.get(path)).text


async def test_every_page_says_that_it_waits(browser: Browser) -> None:
    assert "waits to be confirmed" not in await look(browser)
    browser.operations.standing = dict(WAITS)
    await look(browser)
    for path in PAGES:
        page = await look(browser, path)
        assert "The configuration waits to be confirmed." in page, path
        assert re.search(r'<span id="confirm-in">1 min 27 s</span>|<span id="confirm-in">87 s</span>', page)
        assert 'value="confirm"' in page
        assert 'value="roll-back"' in page


async def test_the_part_alone_changes_the_seconds_and_leaves_the_buttons(browser: Browser) -> None:
    browser.operations.standing = dict(WAITS)
    page = await look(browser, "/events")
    assert 'hx-get="/configuration?seen=&amp;page=%2Fevents"' in page or "seen=waits" in page
    browser.clock.now += 2
    same = await browser.get("/configuration?seen=waits&page=/events")
    assert same.header("hx-reswap") == "none"
    assert same.text.strip().startswith('<span id="confirm-in" hx-swap-oob="true">')
    browser.clock.now += 2
    other = await browser.get("/configuration?seen=&page=/events")
    assert other.header("hx-reswap") is None
    assert '<input type="hidden" name="back" value="/events">' in other.text
    browser.operations.standing = {}
    browser.clock.now += 2
    gone = await browser.get("/configuration?seen=waits&page=/events")
    assert gone.header("hx-reswap") is None
    assert "waits" not in gone.text
    browser.clock.now += 2
    assert (await browser.get("/configuration?seen=")).text.strip() == ""
    for back in ("//elsewhere", "https://elsewhere/", "/\\elsewhere"):
        browser.operations.standing = dict(WAITS)
        assert "elsewhere" not in await look(browser, f"/configuration?page={back}")


async def test_it_is_confirmed(browser: Browser) -> None:
    browser.operations.standing = dict(WAITS)
    await look(browser)
    done = await browser.post("/configuration", {"action": "confirm", "back": "/events"})
    assert (done.status, done.header("location")) == (303, "/events")
    assert browser.operations.calls == [("confirm",)]
    browser.operations.standing = {}
    assert "The configuration is confirmed." in await look(browser, "/events")


async def test_a_rollback_is_asked_for_first(browser: Browser) -> None:
    browser.operations.standing = dict(WAITS)
    await look(browser)
    asked = await browser.post("/configuration", {"action": "roll-back", "back": "/events"})
    assert asked.status == 200
    assert "may be negotiated again" in asked.text
    assert browser.operations.calls == []
    form = {"action": "roll-back", "back": "/events", "confirmed": "yes"}
    assert (await browser.post("/configuration", form)).header("location") == "/events"
    assert browser.operations.calls == [("rollback", None)]
    assert "in force again" in await look(browser)


async def test_what_the_daemon_refuses_is_said(browser: Browser) -> None:
    await look(browser)

    async def refuse() -> None:
        raise Conflict("E-NOT-PENDING", "no configuration waits to be confirmed", "vpnctl rollback --list")

    browser.operations.confirm = refuse  # type: ignore[method-assign, assignment] # it was over meanwhile
    done = await browser.post("/configuration", {"action": "confirm", "back": "//elsewhere"})
    assert done.header("location") == "/"
    page = await look(browser)
    assert "E-NOT-PENDING: no configuration waits to be confirmed – vpnctl rollback --list" in page
    assert (await browser.post("/configuration", {"action": "apply"})).status == 400


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_the_files_differ(browser: Browser, language: str) -> None:
    browser.cookies["language"] = language
    browser.operations.standing = dict(DIFFERS)
    page = await look(browser)
    assert "E-ROLLED-BACK" in page
    assert ("The files differ from what runs." in page) is (language == "en")
    assert '<span lang="en">' not in page, "it is in the catalogue"
    assert 'value="confirm"' not in page


async def test_who_may_only_look_sees_no_button(stranger: Browser) -> None:
    await stranger.sign_in(Role.READ)
    stranger.operations.standing = dict(WAITS)
    page = await look(stranger)
    assert "The configuration waits to be confirmed." in page
    assert 'action="/configuration"' not in page
    for action in ("confirm", "roll-back"):
        done = await stranger.post("/configuration", {"action": action, "confirmed": "yes"})
        assert done.status == 403
    assert stranger.operations.calls == []
