"""Lists of the API: what each filter leaves, how it is paged, and customer gateways as resources."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.unit.control.conftest import Daemon
from tests.unit.control.fakes import AT, tunnel_failed, tunnel_up
from tests.unit.control.test_api import ask
from vpnd.control.schema import Event, PeerStatus

pytestmark = pytest.mark.asyncio(loop_scope="module")

NORTH = tunnel_up("north", description="the Office", priority=0)
SOUTH = tunnel_up(
    "south",
    priority=100,
    carries_traffic=False,
    peer=PeerStatus(address="gw.South.example", vendor="Libreswan"),
)
EAST = tunnel_failed("east")
ANY = tunnel_up("any-one", state="waiting", negotiation="passive", peer=PeerStatus(address=None))


@pytest.fixture
def four(daemon: Daemon) -> Daemon:
    daemon.operations.begin_again(NORTH, SOUTH, EAST, ANY)
    return daemon


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ([], ["north", "south", "east", "any-one"]),
        ([("state", "up")], ["north", "south"]),
        ([("state", "down"), ("state", "waiting")], ["east", "any-one"]),
        ([("negotiation", "passive")], ["east", "any-one"]),
        ([("role", "primary")], ["north", "any-one"]),
        ([("role", "secondary")], ["south", "east"]),
        ([("carries_traffic", "true")], ["north", "any-one"]),
        ([("carries_traffic", "false")], ["south", "east"]),
        ([("peer", "gw.south.EXAMPLE")], ["south"]),
        ([("peer", "gw")], []),
        ([("peer", "any")], ["any-one"]),
        ([("code", "E-PSK")], ["east"]),
        ([("code", "E-DPD")], []),
        ([("code", "E-DPD"), ("code", "E-PSK")], ["east"]),
        ([("text", "OFFICE")], ["north"]),
        ([("text", "south.ex")], ["south"]),
        ([("text", "libreswan")], ["south"]),
        ([("text", "AS")], ["east"]),
        ([("state", "up"), ("role", "secondary")], ["south"]),
        ([("limit", "2")], ["north", "south"]),
        ([("limit", "2"), ("offset", "1")], ["south", "east"]),
        ([("offset", "9")], []),
        ([("state", "up"), ("limit", "1")], ["north"]),
    ],
)
async def test_tunnels_that_match(four: Daemon, query: list[tuple[str, str]], left: list[str]) -> None:
    _, body, _ = await ask(four, "GET", f"/v1/tunnels?{urlencode(query)}")
    assert [tunnel["name"] for tunnel in body["tunnels"]] == left
    unpaged = [one for one in query if one[0] not in ("limit", "offset")]
    _, everything, _ = await ask(four, "GET", f"/v1/tunnels?{urlencode(unpaged)}")
    assert body["total"] == everything["total"] == len(everything["tunnels"])
    _, status, _ = await ask(four, "GET", f"/v1/status?{urlencode(query)}")
    assert (status["tunnels"], status["total"]) == (body["tunnels"], body["total"])
    assert status["gateway"]["name"] == "hq"


async def test_the_newest_of_a_trace(daemon: Daemon) -> None:
    _, body, _ = await ask(daemon, "GET", "/v1/tunnels/branch-a/trace?limit=1")
    assert [line["direction"] for line in body["lines"]] == ["in"]


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("", ["out", "in"]),
        ("limit=1", ["in"]),
        ("exchange=ike_sa", ["out", "in"]),
        ("exchange=IKE_AUTH", []),
        ("exchange=IKE_AUTH&exchange=INIT", ["out", "in"]),
        ("after=1", ["in"]),
        ("after=2", []),
        ("since=2026-03-01T14:02:11Z", ["out", "in"]),
        ("since=2026-03-01T14:02:12Z", []),
        ("since=2026-03-01T15:02:11%2B01:00", ["out", "in"]),
    ],
)
async def test_messages_that_match(daemon: Daemon, query: str, left: list[str]) -> None:
    status, body, _ = await ask(daemon, "GET", f"/v1/tunnels/branch-a/trace?{query}")
    assert (status, [line["direction"] for line in body["lines"]]) == (200, left)


NO_MOMENT = ("since=yesterday", "since=2026-03-01", "since=0.5", "since=1772373731")


@pytest.mark.parametrize(
    ("list_of", "query"),
    [
        *(("tunnels/branch-a/trace", query) for query in (*NO_MOMENT, "after=-1", "exchanges=x", "limit=0")),
        *(("events", query) for query in (*NO_MOMENT, "kinds=x", "limit=0")),
    ],
)
async def test_filters_that_are_none(daemon: Daemon, list_of: str, query: str) -> None:
    status, body, _ = await ask(daemon, "GET", f"/v1/{list_of}?{query}")
    assert (status, body["error"]["code"]) == (422, "E-REQUEST")


# -------------------------------------------------------------------------------- customer gateways


async def test_customer_gateways_are_made_and_forgotten(daemon: Daemon) -> None:
    path = "/v1/customer-gateways/new"
    _, made, _ = await ask(daemon, "PUT", path, json={"address": "203.0.113.9"})
    assert (made["customer_gateway"], made["change"]) == ("new", "created")
    _, one, _ = await ask(daemon, "GET", path)
    assert one == {
        "name": "new",
        "address": "203.0.113.9",
        "tunnels": [],
        "source": "state",
        "from_api": True,
    }
    _, gone, _ = await ask(daemon, "DELETE", path)
    assert gone["change"] == "removed"
    assert (await ask(daemon, "GET", path))[0] == 404


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("", ["branch", "new"]),
        ("text=BRAN", ["branch"]),
        ("text=203.0", ["new"]),
        ("from_api=true", ["new"]),
        ("from_api=false", ["branch"]),
        ("used=false", ["branch", "new"]),
        ("used=true", []),
        ("limit=1", ["branch"]),
        ("offset=1", ["new"]),
    ],
)
async def test_customer_gateways_that_match(daemon: Daemon, query: str, left: list[str]) -> None:
    await ask(daemon, "PUT", "/v1/customer-gateways/new", json={"address": "203.0.113.9"})
    _, body, _ = await ask(daemon, "GET", f"/v1/customer-gateways?{query}")
    assert [one["name"] for one in body["customer_gateways"]] == left
    assert body["total"] == (2 if "limit" in query or "offset" in query else len(left))


# ------------------------------------------------------------------------------------------ events


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("", ["up", "down", "up again", "reloaded"]),
        ("tunnel=a", ["up", "up again"]),
        ("tunnel=a&tunnel=b", ["up", "down", "up again"]),
        ("event=tunnel-up", ["up", "up again"]),
        ("event=tunnel-up&event=reloaded", ["up", "up again", "reloaded"]),
        ("code=E-PSK", ["down"]),
        ("text=AGAIN", ["up again"]),
        ("tunnel=a&text=again", ["up again"]),
        ("limit=2", ["up", "down"]),
        ("tunnel=a&limit=1", ["up"]),
    ],
)
async def test_events_that_match(daemon: Daemon, query: str, left: list[str]) -> None:
    said: list[dict[str, Any]] = [
        {"tunnel": "a", "event": "tunnel-up", "text": "up"},
        {"tunnel": "b", "event": "tunnel-down", "text": "down", "code": "E-PSK"},
        {"tunnel": "a", "event": "tunnel-up", "text": "up again"},
        {"event": "reloaded", "text": "reloaded"},
    ]
    for number, one in enumerate(said):
        daemon.operations.log.publish(Event(at=AT + timedelta(seconds=number), **one))
    _, text, _ = await ask(daemon, "GET", f"/v1/events?follow=false&{query}")
    assert [Event.model_validate_json(line).text for line in text.splitlines()] == left


async def test_a_limit_ends_a_stream_that_follows(daemon: Daemon) -> None:
    for number in range(3):
        daemon.operations.log.publish(Event(at=AT, event="x", text=str(number)))
    _, text, _ = await ask(daemon, "GET", "/v1/events?limit=3")
    assert len(text.splitlines()) == 3
