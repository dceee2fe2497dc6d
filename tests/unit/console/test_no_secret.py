"""No key, and no token, on any page of a console in front of a whole daemon, done and refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.routing import Route

from tests.unit.console.conftest import Answer, Browser, Clock, Wire
from tests.unit.console.test_editing import ADVANCED, BASIC, IKE, IPSEC
from tests.unit.control.fakes import FakeOperations
from tests.unit.daemon.fakes import KEY
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_no_secret import NEXT, THIRD, Api, assert_none, secrets_of
from tests.unit.daemon.test_operations import BACK, ROUTED
from vpnd.console.app import create_app
from vpnd.console.tokens import Role, Tokens
from vpnd.sdk import AsyncClient

TYPED = "typed-by-a-person-and-never-seen-again"
OTHER = "and-the-next-one-that-is-typed-there"
ROUTES = {"routes": "10.9.0.0/16"}
STEPS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("basic", {**BASIC, "communication": "destination-route", "key": TYPED, "key_again": TYPED}),
    ("advanced", ADVANCED),
    ("communication", ROUTES),
    ("ike", {**IKE, "ike.version": "ikev2"}),
    ("ipsec", IPSEC),
)
WRONG = ({"key_again": THIRD}, {"key": THIRD}, {"name": "", "key": THIRD, "key_again": THIRD})
LAST = ("POST", "/sign-out")


class Person:
    """Who goes through all pages, and keeps what they hold."""

    def __init__(self, pair: Pair) -> None:
        self.api = Api(pair.hq)
        tokens, clock, wire = Tokens(pair.hq.directory / "console"), Clock(), Wire(self.api.app)
        vpnd = AsyncClient(wire)  # type: ignore[arg-type] # in place of a socket
        self.app = create_app(vpnd, tokens, clock=clock)
        self.token = tokens.new(Role.ADMIN)
        self.browser = Browser(self.app, wire, FakeOperations(), tokens, clock)
        self.said: list[str] = []
        self.asked: set[tuple[str, str]] = set()
        self.failed: list[tuple[str, int]] = []

    def keep(self, method: str, target: str, answer: Answer) -> Answer:
        self.asked.add((method, target.partition("?")[0]))
        self.said += [answer.text, *(value for key, value in answer.headers if key != "set-cookie")]
        if answer.status >= 400:
            self.failed.append((target.partition("&")[0].partition("?")[0], answer.status))
        return answer

    async def get(self, target: str) -> Answer:
        return self.keep("GET", target, await self.browser.get(target))

    async def post(self, target: str, form: Mapping[str, Any] | None = None) -> Answer:
        return self.keep("POST", target, await self.browser.post(target, form))

    async def begin(self, **form: str) -> str:
        answer = await self.post("/new", form)
        return (answer.header("location") or "").partition("&")[0]

    def pages(self) -> set[tuple[str, str]]:
        """Every page that there is, but those that the browser takes as files."""
        routes = [route for route in self.app.routes if isinstance(route, Route)]
        found = {(way, route.path) for route in routes for way in route.methods or ()}
        return {(way, path) for way, path in found if way != "HEAD" and not path.startswith("/static")}


async def make_a_tunnel(person: Person) -> None:
    """Every step, with a key that is typed, and then with one in the wrong places."""
    draft = await person.begin()
    for step, form in STEPS:
        await person.get(f"{draft}&step={step}")
        await person.post(draft.replace("/draft", "/draft/check") + f"&step={step}", form)
        for wrong in WRONG if step == "basic" else ():
            await person.post(f"{draft}&step={step}", {**form, **wrong, "go": "next"})
        await person.post(f"{draft}&step={step}", {**form, "go": "next"})
        await person.get(f"{draft}&step={step}")
    await person.get(f"{draft}&step=summary")
    done = await person.post(draft.replace("/draft", "/draft/finish"))
    await person.get(done.header("location") or "")
    await person.get("/done?name=branch-c")


async def change_and_delete_it(person: Person) -> None:
    for how in ("edit", "clone"):
        draft = await person.begin(name="branch-c", how=how)
        for step in ("basic", "summary"):
            await person.get(f"{draft}&step={step}")
    for action in ("rekey", "reset", "down", "disable", "enable", "up"):
        await person.post("/tunnel/act", {"name": "t", "action": action, "confirmed": "yes"})
    for confirmed in ({}, {"confirmed": "yes"}):
        await person.post("/tunnel/delete", {"name": "branch-c", **confirmed})


async def replace_its_key(person: Person) -> None:
    begin = {"name": "branch-c", "step": "begin"}
    for wrong in ({"key": THIRD}, {"key": THIRD, "key_again": THIRD, "retire_after": "soon"}):
        await person.post("/tunnel/key", {**begin, **wrong})
    for form in (
        {**begin, "key": OTHER, "key_again": OTHER},
        {**begin, "key": THIRD, "key_again": THIRD},
        {"step": "prove"},
        {"step": "finish"},
        {"step": "finish", "force": "yes"},
        {"step": "cancel"},
    ):
        await person.post("/tunnel/key", {"name": "branch-c", **form})
        await person.get("/tunnel/key?name=branch-c")
        await person.get("/")


async def decide(person: Person) -> None:
    for action in ("confirm", "roll-back"):
        await person.api.ask("apply", "POST", "/v1/apply", {"confirm_s": 60})
        await person.get("/configuration")
        await person.post("/configuration", {"action": action, "back": "/", "confirmed": "yes"})
        await person.get("/")


async def look_around(person: Person) -> None:
    name = "name=branch-c"
    for target in ("/", "/rows", "/events", "/events/list", "/gateways", "/customer-gateway", "/sign-in"):
        await person.get(target)
    for target in ("/tunnel", "/tunnel/live", "/tunnel/other-side", "/tunnel/peer-config", "/tunnel/key"):
        await person.get(f"{target}?{name}")
        await person.get(f"{target}?name=t")
    await person.post("/gateways", {"region": "eu-1", "type": "vpc", "vpc": THIRD[:10], "key": THIRD})
    await person.post("/customer-gateway", {"name": "site", "address": "203.0.113.44", "key": THIRD})
    await person.post("/customer-gateway/delete", {"name": "site", "confirmed": "yes"})
    await person.post("/preferences", {"language": "zh", "theme": "dark", "back": "/"})


@with_pair
async def test_no_page_has_one(
    pair: Pair, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    next_line = f'next_pre_shared_key = "plain:{NEXT}"\n'
    pair.configure({"t": next_line + ROUTED}, {"t": BACK})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    person, secrets = Person(pair), set(secrets_of(pair))
    await person.get("/sign-in")
    await person.post("/sign-in", {"token": THIRD})
    await person.post("/sign-in", {"token": person.token})
    await person.get("/")
    (session,) = person.browser.cookies.values()
    for part in (make_a_tunnel, replace_its_key, decide, look_around, change_and_delete_it):
        await part(person)
        secrets |= set(secrets_of(pair))
    assert person.failed == [("/sign-in", 403), *[("/draft", 422)] * len(WRONG), *[("/tunnel/key", 422)] * 2]
    for way, path in sorted(person.pages() - person.asked - {LAST}):
        await (person.get(f"{path}?name=t") if way == "GET" else person.post(path, {"name": "t"}))
    await person.post(LAST[1])
    said = "".join((*person.said, pair.hq.texts(), caplog.text, *capsys.readouterr()))
    assert KEY.encode() in secrets
    assert "branch-c" in said
    assert_none({*secrets, TYPED.encode(), OTHER.encode(), person.token.encode(), session.encode()}, said)
