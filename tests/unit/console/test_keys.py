"""The pre-shared key of a tunnel: which is in use, and the page on which it is replaced."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime

import pytest

from tests.unit.console.conftest import Browser
from vpnd.console.tokens import Role
from vpnd.control.operations import Conflict
from vpnd.control.schema import KeyRotation, RotateRequest

KEY = "the key from now on, of some length"


@pytest.fixture
def asked(browser: Browser) -> list[RotateRequest]:
    """What the daemon was asked for; the tunnel was made over the API."""
    found: list[RotateRequest] = []
    rotate = browser.operations.rotate_key

    async def note(name: str, request: RotateRequest) -> KeyRotation:
        found.append(request)
        return await rotate(name, request)

    browser.operations.from_api = True
    browser.operations.rotate_key = note  # type: ignore[method-assign] # the request is looked at
    return found


@pytest.mark.parametrize("role", Role)
async def test_which_key_is_in_use_stands_on_the_tunnels_page(stranger: Browser, role: Role) -> None:
    await stranger.sign_in(role)
    page = (await stranger.get("/tunnel?name=branch-a")).text
    assert "is being replaced" in page
    for fingerprint in ("3f9a-77c1", "51b2-0e9d"):
        assert fingerprint in page
    assert re.search(r"The peer uses</dt><dd><code>3f9a-77c1</code> <span class=\"soft\">since 20", page)
    stranger.operations.next_key = None
    assert "51b2-0e9d" not in (await stranger.get("/tunnel?name=branch-a")).text


async def test_a_key_is_typed(browser: Browser, asked: list[RotateRequest]) -> None:
    browser.operations.next_key = None
    assert "/tunnel/key?name=branch-a" in (await browser.get("/tunnel?name=branch-a")).text
    assert (await browser.get("/tunnel/key?name=branch-a")).status == 200
    form = {"name": "branch-a", "step": "begin", "key": KEY, "key_again": KEY}
    done = await browser.post("/tunnel/key", form | {"retire_after": "2031-01-01T12:30"})
    assert done.header("location") == "/tunnel/key?name=branch-a"
    (request,) = asked
    assert (request.step, request.key, request.force) == ("begin", f"plain:{KEY}", False)
    assert request.retire_after == datetime(2031, 1, 1, 12, 30, tzinfo=UTC)
    browser.operations.next_key = "51b2-0e9d"
    page = (await browser.follow(done)).text
    assert "Both keys are accepted from now on." in page
    assert KEY not in page


async def test_a_key_is_made_and_shown_once(browser: Browser, asked: list[RotateRequest]) -> None:
    browser.operations.next_key = None
    await browser.get("/tunnel/key?name=branch-a")
    form = {"name": "branch-a", "step": "begin", "generate": "yes"}
    done = await browser.post("/tunnel/key", form)
    assert done.header("location") == "/done?name=branch-a"
    (request,) = asked
    assert request.key is not None
    assert request.retire_after is None
    key = request.key.removeprefix("plain:")
    assert len(key) >= 32
    assert key in html.unescape((await browser.follow(done)).text)
    assert (await browser.get("/done?name=branch-a")).status == 303, "not again"


@pytest.mark.parametrize(
    ("typed", "field", "code"),
    [
        ({}, "next_pre_shared_key", "E-PSK"),
        ({"key": KEY}, "next_pre_shared_key", "E-PSK"),
        ({"key": KEY, "key_again": KEY + "x"}, "next_pre_shared_key", "E-PSK"),
        ({"key": "x" * 257, "key_again": "x" * 257}, "next_pre_shared_key", "E-PSK"),
        ({"generate": "yes", "retire_after": "tomorrow"}, "retire_after", "E-VALUE"),
    ],
)
async def test_what_is_typed_wrong_is_said_at_its_field(
    browser: Browser, asked: list[RotateRequest], typed: dict[str, str], field: str, code: str
) -> None:
    browser.operations.next_key = None
    await browser.get("/tunnel/key?name=branch-a")
    wrong = await browser.post("/tunnel/key", {"name": "branch-a", "step": "begin", **typed})
    assert wrong.status == 422
    said = re.search(rf'id="said-{field}".*?</div>', wrong.text, re.DOTALL)
    assert said is not None
    assert code in said[0]
    assert KEY not in wrong.text
    assert asked == []


async def test_the_steps_to_the_end(browser: Browser, asked: list[RotateRequest]) -> None:
    page = (await browser.get("/tunnel/key?name=branch-a")).text
    assert "was not seen with the next key" in page
    assert "Finish all the same" in page
    await browser.post("/tunnel/key", {"name": "branch-a", "step": "prove"})
    browser.operations.used_key = "51b2-0e9d"
    page = (await browser.get("/tunnel/key?name=branch-a")).text
    assert "The peer has shown the next key." in page
    assert "all the same" not in page
    assert 'name="force"' not in page
    done = await browser.post("/tunnel/key", {"name": "branch-a", "step": "finish"})
    assert done.header("location") == "/tunnel?name=branch-a"
    await browser.post("/tunnel/key", {"name": "branch-a", "step": "cancel"})
    await browser.post("/tunnel/key", {"name": "branch-a", "step": "finish", "force": "yes"})
    steps = [(request.step, request.force) for request in asked]
    assert steps == [("prove", False), ("finish", False), ("cancel", False), ("finish", True)]
    assert all(request.key is None for request in asked)


async def test_a_step_that_is_refused_says_why(browser: Browser) -> None:
    browser.operations.from_api = True
    await browser.get("/tunnel/key?name=branch-a")

    async def refuse(name: str, request: RotateRequest) -> KeyRotation:
        raise Conflict("E-NOT-PROVED", f"the peer of {name} was not seen with the next key, 51b2-0e9d")

    browser.operations.rotate_key = refuse  # type: ignore[method-assign] # as the daemon does
    done = await browser.post("/tunnel/key", {"name": "branch-a", "step": "finish"})
    assert done.header("location") == "/tunnel/key?name=branch-a"
    assert "E-NOT-PROVED" in (await browser.follow(done)).text
    assert (await browser.post("/tunnel/key", {"name": "branch-a", "step": "burn"})).status == 400
    assert (await browser.get("/tunnel/key?name=nobody")).status == 404
    assert (await browser.post("/tunnel/key", {"name": "nobody", "step": "cancel"})).status in (303, 404)


async def test_a_tunnel_of_a_file_is_changed_there(browser: Browser) -> None:
    browser.operations.from_api = False
    assert "/tunnel/key" not in (await browser.get("/tunnel?name=branch-a")).text
    page = (await browser.get("/tunnel/key?name=branch-a")).text
    assert "<pre>vpnctl psk rotate branch-a</pre>" in page
    assert 'action="/tunnel/key"' not in page


async def test_who_may_only_look_cannot_replace_it(stranger: Browser) -> None:
    await stranger.sign_in(Role.READ)
    stranger.operations.from_api = True
    assert "/tunnel/key" not in (await stranger.get("/tunnel?name=branch-a")).text
    assert (await stranger.get("/tunnel/key?name=branch-a")).status == 403
    for step in ("begin", "prove", "finish", "cancel"):
        assert (await stranger.post("/tunnel/key", {"name": "branch-a", "step": step})).status == 403
    assert stranger.operations.calls == []
