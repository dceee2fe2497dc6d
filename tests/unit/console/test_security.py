"""Who gets in, from where, and for how long; and what every answer says to the browser."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from tests.unit.console.conftest import Browser, browser_of
from vpnd.console import serve, sessions
from vpnd.console.app import STATIC
from vpnd.console.requests import MAX_FORM, own_path
from vpnd.console.serve import Options, Unusable
from vpnd.console.tokens import Role, Tokens, TokensUnavailable

PUBLIC = {"/static/{name}", "/sign-in", "/preferences"}


def paths(browser: Browser) -> list[tuple[str, str]]:
    """Every page with its methods."""
    found = []
    for route in browser.app.routes:
        assert isinstance(route, Route)
        found += [(method, route.path) for method in route.methods or ()]
    return found


async def test_a_part_of_a_page_leads_to_the_sign_in(stranger: Browser) -> None:
    part = await stranger.get("/rows", **{"HX-Request": "true"})
    assert (part.status, part.header("hx-redirect")) == (401, "/sign-in")
    assert stranger.wire.asked == []


HOSTS = [
    ("127.0.0.1:8642", True),
    ("localhost:9000", True),
    ("[::1]:8642", True),
    ("127.8.8.8", True),
    ("gw.example:8642", True),
    ("GW.example", True),
    ("evil.example", False),
    ("localhost.evil.example", False),
    ("127.0.0.1.evil.example", False),
    ("192.0.2.1", False),
    ("evil@localhost/x", False),
    ("[::1", False),
    ("", False),
]


async def test_the_name_in_the_address_line(tmp_path: Path) -> None:
    """A page elsewhere that lets its own name lead to 127.0.0.1 (DNS rebinding) sees nothing."""
    browser = browser_of(tmp_path, hosts=["gw.example"])
    for host, served in HOSTS:
        browser.host = host
        for method, path in paths(browser):
            target = path.replace("{name}", "console.css")
            answer = await (browser.post(target) if method == "POST" else browser.get(target))
            assert (answer.status == 403 and "another name" in answer.text) is not served, (host, path)


ORIGINS = ("http://evil.example", "null", "https://127.0.0.1:8642", "http://127.0.0.1:1", "")


async def test_a_form_of_another_page_changes_nothing(browser: Browser) -> None:
    for origin in ORIGINS:
        for path in (path for method, path in paths(browser) if method == "POST"):
            answer = await browser.post(path, {"name": "branch-a", "action": "up"}, Origin=origin)
            assert (answer.status, answer.text) == (403, "this came from another page")
    assert browser.operations.calls == []


async def test_a_form_without_its_token_changes_nothing(browser: Browser) -> None:
    other = browser.other()
    await other.sign_in(Role.READ)
    for csrf in ("", other.csrf, "x"):
        for method, path in paths(browser):
            if method == "POST" and path not in PUBLIC:
                answer = await browser.post(path, {"name": "branch-a", "action": "up", "csrf": csrf})
                assert answer.status == 403, path
    assert browser.operations.calls == []
    assert (await browser.get("/")).status == 200, "it is signed in still"


# Method and path, and what is answered to who is not signed in, to who may only look, to who may change.
SIGN_IN, FORBIDDEN, DONE, PAGE, NO_DRAFT = "303 /sign-in", "403", "303", "200", "404"
MATRIX = {
    ("GET", "/static/{name}"): (PAGE, PAGE, PAGE),
    ("HEAD", "/static/{name}"): (PAGE, PAGE, PAGE),
    ("GET", "/sign-in"): (PAGE, DONE, DONE),
    ("HEAD", "/sign-in"): (PAGE, DONE, DONE),
    ("POST", "/sign-in"): (FORBIDDEN, FORBIDDEN, FORBIDDEN),
    ("POST", "/preferences"): (DONE, DONE, DONE),
    ("POST", "/sign-out"): (SIGN_IN, SIGN_IN, SIGN_IN),
    **{
        (method, path): (SIGN_IN, PAGE, PAGE)
        for path in (
            "/",
            "/rows",
            "/events",
            "/events/list",
            "/tunnel",
            "/tunnel/live",
            "/tunnel/other-side",
            "/tunnel/peer-config",
            "/gateways",
            "/configuration",
        )
        for method in ("GET", "HEAD")
    },
    ("POST", "/tunnel/act"): (SIGN_IN, FORBIDDEN, DONE),
    ("POST", "/tunnel/delete"): (SIGN_IN, FORBIDDEN, PAGE),
    ("POST", "/new"): (SIGN_IN, FORBIDDEN, DONE),
    **{(method, "/draft"): (SIGN_IN, FORBIDDEN, NO_DRAFT) for method in ("GET", "HEAD", "POST")},
    ("POST", "/draft/check"): (SIGN_IN, FORBIDDEN, NO_DRAFT),
    ("POST", "/draft/finish"): (SIGN_IN, FORBIDDEN, NO_DRAFT),
    **{(method, "/tunnel/key"): (SIGN_IN, FORBIDDEN, PAGE) for method in ("GET", "HEAD")},
    ("POST", "/tunnel/key"): (SIGN_IN, FORBIDDEN, DONE),
    ("POST", "/configuration"): (SIGN_IN, FORBIDDEN, "400"),
    ("POST", "/gateways"): (SIGN_IN, FORBIDDEN, DONE),
    **{(method, "/customer-gateway"): (SIGN_IN, FORBIDDEN, "404") for method in ("GET", "HEAD")},
    ("POST", "/customer-gateway"): (SIGN_IN, FORBIDDEN, DONE),
    ("POST", "/customer-gateway/delete"): (SIGN_IN, FORBIDDEN, PAGE),
    **{(method, "/done"): (SIGN_IN, FORBIDDEN, DONE) for method in ("GET", "HEAD")},
}


@pytest.mark.parametrize("who", [None, Role.READ, Role.ADMIN])
async def test_every_page_and_everyone(stranger: Browser, who: Role | None) -> None:
    known = paths(stranger)
    assert set(known) == set(MATRIX), "a page is in here or does not exist"
    form = {"name": "branch-a", "action": "rekey", "back": "/", "how": "clone", "token": "wrong"}
    form |= {"address": "203.0.113.9", "step": "cancel"}
    place = [None, Role.READ, Role.ADMIN].index(who)
    for method, path in sorted(known, key=lambda one: one[1] == "/sign-out"):
        if who is not None:
            await stranger.sign_in(who)
        answers = MATRIX[method, path]
        target = path.replace("{name}", "console.css") + "?name=branch-a"
        stranger.wire.asked.clear()
        answer = await (stranger.post(target, form) if method == "POST" else stranger.ask(method, target))
        status, _, to = answers[place].partition(" ")
        assert str(answer.status) == status, (method, path)
        assert not to or answer.header("location") == to, (method, path)
        if who is not Role.ADMIN:
            assert [call for call in stranger.wire.asked if not call.startswith("GET ")] == [], path
        if who is None:
            assert stranger.wire.asked == [], path
    assert bool(stranger.operations.calls) is (who is Role.ADMIN)


async def test_who_may_only_look_sees_no_button_that_changes_something(stranger: Browser) -> None:
    page = await stranger.sign_in(Role.READ)
    assert "read only" in page.text
    stranger.operations.from_api = True
    for path in ("/", "/tunnel?name=branch-a", "/tunnel?name=branch-b", "/gateways", "/events"):
        actions = re.findall(r'action="([^"]+)"', (await stranger.get(path)).text)
        assert set(actions) <= {"/", "/preferences", "/sign-out"}, path


async def test_every_answer_protects_itself(browser: Browser) -> None:
    nonces = set()
    for path in (
        "/",
        "/sign-in",
        "/tunnel?name=branch-a",
        "/nothing",
        "/static/console.css",
        "/static/nothing",
    ):
        answer = await browser.get(path)
        policy = answer.header("content-security-policy") or ""
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        nonce = re.search(r"script-src 'nonce-([\w-]{20,})'", policy)
        assert nonce is not None
        nonces.add(nonce[1])
        assert set(re.findall(r'nonce="([^"]*)"', answer.text)) <= {nonce[1]}
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("referrer-policy") == "same-origin"
        static = path.startswith("/static/") and answer.status == 200
        assert (answer.header("cache-control") == "no-store") is not static
    assert len(nonces) == 6, "a nonce is for one answer"


async def test_pages_have_no_script_or_style_within_and_nothing_from_elsewhere(browser: Browser) -> None:
    for path in ("/", "/sign-in", "/tunnel?name=branch-b", "/gateways", "/customer-gateway", "/events"):
        text = (await browser.get(path)).text
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|hx-on|javascript:", text)
        assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", text)
    for name in STATIC:
        content = (await browser.get(f"/static/{name}")).text
        if name != "htmx.min.js":
            assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", content)


async def test_what_the_daemon_says_is_text_and_no_html(browser: Browser) -> None:
    page = await browser.get("/tunnel?name=<script>alert(1)</script>")
    assert page.status == 404
    assert "<script>alert" not in page.text


# --------------------------------------------------------------------------------------------- tokens


async def test_a_wrong_token_and_a_guesser(stranger: Browser) -> None:
    good = stranger.tokens.new(Role.ADMIN)
    for token in ("", "x", good[:-1], "é\ud800".encode("utf-8", "replace").decode(), "a" * 100_000):
        answer = await stranger.post("/sign-in", {"token": token})
        assert (answer.status, answer.header("set-cookie")) == (403, None)
    for _ in range(sessions.FAILURES):
        answer = await stranger.post("/sign-in", {"token": "x"})
    assert answer.status == 429
    assert (await stranger.post("/sign-in", {"token": good})).status == 429, "nothing is looked at"
    stranger.clock.now += sessions.FAILURES_WITHIN
    assert (await stranger.post("/sign-in", {"token": good})).status == 303


async def test_the_cookie(tmp_path: Path) -> None:
    browser = browser_of(tmp_path)
    answer = await browser.post("/sign-in", {"token": browser.tokens.new(Role.ADMIN)})
    cookie = (answer.header("set-cookie") or "").lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    secure = browser_of(tmp_path, secure=True)
    token = secure.tokens.new(Role.ADMIN)
    answer = await secure.post("/sign-in", {"token": token}, Origin="https://127.0.0.1:8642")
    cookie = answer.header("set-cookie") or ""
    assert cookie.startswith("__Host-vpnd=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert answer.header("strict-transport-security")


async def test_a_session_is_new_with_each_sign_in_and_ends_with_sign_out(browser: Browser) -> None:
    first = dict(browser.cookies)
    await browser.sign_in()
    assert browser.cookies != first
    old = browser.other()
    old.cookies = first
    assert (await old.get("/")).status == 303
    kept = dict(browser.cookies)
    await browser.post("/sign-out")
    assert "vpnd-console" not in browser.cookies
    browser.cookies = kept
    assert (await browser.get("/")).status == 303


async def test_sessions_end_by_themselves(browser: Browser) -> None:
    await browser.get("/")
    browser.clock.now += sessions.IDLE_LIMIT - 1
    assert (await browser.get("/rows", **{"HX-Request": "true"})).status == 200
    browser.clock.now += 2
    assert (await browser.get("/")).status == 303, "a page that refreshes itself is nobody"
    await browser.sign_in()
    for _ in range(int(sessions.WHOLE_LIMIT / sessions.IDLE_LIMIT) + 1):
        browser.clock.now += sessions.IDLE_LIMIT - 1
        answer = await browser.get("/")
    assert answer.status == 303, "a working day is over"


async def test_a_new_token_ends_what_the_old_one_began(browser: Browser) -> None:
    looking = browser.other()
    await looking.sign_in(Role.READ)
    old = browser.tokens.new(Role.ADMIN)
    assert (await browser.get("/")).status == 303
    assert (await looking.get("/")).status == 200, "the other role's is as it was"
    browser.tokens.new(Role.ADMIN)
    assert (await browser.post("/sign-in", {"token": old})).status == 403


async def test_there_are_so_many_sessions_at_most(browser: Browser) -> None:
    token = browser.tokens.new(Role.READ)
    for count in range(sessions.MAX_SESSIONS):
        browser.clock.now += 1
        assert (await browser.other().post("/sign-in", {"token": token})).status == 303, count
    assert (await browser.get("/")).status == 303, "the longest unused one made room"


def test_tokens_are_kept_as_hashes_for_their_owner(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "a" / "b")
    token = tokens.new(Role.ADMIN)
    file = tmp_path / "a" / "b" / "tokens.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert token not in file.read_text()
    assert tokens.role_of(f" {token}\n") is not None
    assert tokens.role_of("") is None
    reader = tokens.new(Role.READ)
    assert {role for role, _ in tokens.valid()} == {Role.ADMIN, Role.READ}
    assert role_of(tokens.role_of(reader)) is Role.READ


def role_of(known: tuple[Role, str] | None) -> Role | None:
    return None if known is None else known[0]


def test_a_token_as_a_credential(tmp_path: Path) -> None:
    (tmp_path / "console-token").write_text("from systemd\n")
    (tmp_path / "console-read-token").write_text("\n")
    tokens = Tokens(tmp_path / "none", credentials=tmp_path)
    assert role_of(tokens.role_of("from systemd")) is Role.ADMIN
    assert tokens.role_of("") is None, "an empty credential is none"


@pytest.mark.parametrize("content", ["{", "[]", '{"admin": 1, "other": "x"}', '{"x": []}'])
def test_a_file_of_tokens_that_is_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokens.json").write_text(content)
    tokens = Tokens(tmp_path)
    if content == "{":
        with pytest.raises(TokensUnavailable, match=r"tokens\.json cannot be read"):
            tokens.valid()
    else:
        assert tokens.role_of("x") is None


# --------------------------------------------------------------------------------------------- requests


async def test_forms_that_are_none(browser: Browser) -> None:
    big = await browser.post("/tunnel/act", {"name": "x" * MAX_FORM})
    assert big.status == 413
    many = await browser.post("/tunnel/act", {f"f{n}": "" for n in range(1001)})
    assert many.status == 400
    kind = await browser.post("/tunnel/act", {}, **{"Content-Type": "application/json"})
    assert kind.status == 415
    assert browser.operations.calls == []


@pytest.mark.parametrize(
    ("back", "to"),
    [
        ("/tunnel?name=a", "/tunnel?name=a"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/a\r\nSet-Cookie: x", "/"),
        ("", "/"),
    ],
)
async def test_a_preference_leads_back_to_a_page_of_ours(stranger: Browser, back: str, to: str) -> None:
    assert own_path(back) == to
    answer = await stranger.post("/preferences", {"back": back, "theme": "dark", "language": "xx"})
    assert answer.header("location") == to
    assert stranger.cookies == {"theme": "dark"}
    assert 'data-theme="dark"' in (await stranger.get("/sign-in")).text


# ----------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"listen": "0.0.0.0:8642"}, "no TLS"),
        ({"listen": "192.0.2.1:8642"}, "no TLS"),
        ({"listen": "8642"}, "no address and port"),
        ({"listen": "127.0.0.1:0"}, "no address and port"),
        ({"certificate": Path("/nothing")}, "certificate and its key"),
        ({"certificate": Path("/nothing"), "key": Path("/nothing")}, "cannot be used"),
    ],
)
def test_it_does_not_start_where_that_is_unsafe(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Unusable, match=said) as unusable:
        serve.serve(Options(Path("/s"), **options))
    assert unusable.value.hint


def test_addresses() -> None:
    assert serve.address("[::1]:8642") == ("::1", 8642)
    serve.check(Options(Path("/s"), listen="[::1]:8642"), "::1")
    assert Options(Path("/s")).listen.startswith("127.0.0.1:")


def test_a_token_is_printed_once_and_made_for_the_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve.print_token(tmp_path / "console", Role.READ)
    token = capsys.readouterr().out.strip()
    assert role_of(Tokens(tmp_path / "console").role_of(token)) is Role.READ
    kept = json.loads((tmp_path / "console/tokens.json").read_text())
    assert list(kept) == ["read"]
    assert os.stat(tmp_path / "console").st_mode & 0o777 == 0o700
