"""The API over its socket: routes, errors, streams, the document, and clients that misbehave."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.unit.control.conftest import Daemon, running
from tests.unit.control.fakes import AT, FakeOperations, tunnel_up
from vpnd.control import limits, server
from vpnd.control.api import create_app
from vpnd.control.listening import ApiSocket, SocketUnavailable, user_of
from vpnd.control.openapi import PROBLEM
from vpnd.control.places import ROOT
from vpnd.control.schema import Event, Status
from vpnd.control.server import ApiServer
from vpnd.sdk.errors import DaemonUnreachable, Refused
from vpnd.sdk.transport import AsyncTransport

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPTLY = 10.0
"""Seconds: generous for a machine that does other things; the answer itself takes some 5 ms."""


async def ask(daemon: Daemon, method: str, path: str, **more: Any) -> tuple[int, Any, dict[str, str]]:
    """One request: status, decoded body and headers."""
    connector = aiohttp.UnixConnector(path=str(daemon.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://vpnd{path}", **more) as answer,
    ):
        text = await answer.text()
        is_json = answer.content_type in ("application/json", PROBLEM)
        return answer.status, json.loads(text) if is_json else text, dict(answer.headers)


# -------------------------------------------------------------------------------------- routes


async def test_status_has_the_shape_of_the_interface(daemon: Daemon) -> None:
    code, body, _ = await ask(daemon, "GET", "/v1/status")
    assert code == 200
    assert (
        body["gateway"].items()
        >= {
            "name": "hq",
            "address": "192.0.2.1",
            "version": "0.1.0",
            "engine": "python",
            "uptime_s": 61,
        }.items()
    )
    up, failed = body["tunnels"]
    assert up["name"] == "branch-a"
    assert up["peer"] == {
        "address": "198.51.100.1",
        "port": 4500,
        "vendor": "strongSwan",
        "nat": True,
        "nat_at": "here",
    }
    assert set(up["ike"]) == {
        "version",
        "mode",
        "spi_i",
        "spi_r",
        "encryption",
        "integrity",
        "dh_group",
        "age_s",
        "rekey_in_s",
        "expires_in_s",
    }
    assert set(up["mappings"][0]) == {
        "local",
        "remote",
        "protocol",
        "local_port",
        "remote_port",
        "state",
        "reason",
        "spi_in",
        "spi_out",
        "encryption",
        "integrity",
        "pfs",
        "encapsulation",
        "packets_in",
        "packets_out",
        "bytes_in",
        "bytes_out",
        "age_s",
        "rekey_in_s",
        "expires_in_s",
    }
    assert (
        up["health"].items()
        >= {"state": "healthy", "sent": 12, "lost": 0, "rtt_ms": 0.7, "jitter_ms": 0.1}.items()
    )
    assert up["dpd"] == {"enabled": True, "last_heard_s": 3}
    assert up["drops"].items() >= {"replay": 0, "integrity": 0, "policy": 0, "no_sa": 0}.items()
    assert up["last_error"] is None
    assert (failed["state"], failed["ike"], failed["health"]) == ("down", None, None)
    assert failed["last_error"]["code"] == "E-PSK"
    assert failed["last_error"]["at"] == "2026-03-01T14:02:11Z"


async def test_a_tunnel_shows_all_but_its_key(daemon: Daemon) -> None:
    code, body, _ = await ask(daemon, "GET", "/v1/tunnels/branch-a")
    assert code == 200
    assert body["psk_fingerprint"] == "3f9a-77c1"
    assert "pre_shared_key" not in body["configuration"]


async def test_why_and_trace(daemon: Daemon) -> None:
    _, why, _ = await ask(daemon, "GET", "/v1/tunnels/branch-b/why")
    assert why["error"]["code"] == why["explanation"]["code"] == "E-PSK"
    assert why["explanation"]["try"][0] == "vpnctl psk fingerprint branch-b"
    _, nothing, _ = await ask(daemon, "GET", "/v1/tunnels/branch-a/why")
    assert (nothing["error"], nothing["explanation"]) == (None, None)
    _, trace, _ = await ask(daemon, "GET", "/v1/tunnels/branch-a/trace")
    assert [line["direction"] for line in trace["lines"]] == ["out", "in"]


async def test_actions_reach_the_daemon(daemon: Daemon) -> None:
    assert (await ask(daemon, "POST", "/v1/tunnels/branch-a/up"))[1]["state"] == "up"
    await ask(daemon, "POST", "/v1/tunnels/branch-a/up", json={"timeout_s": 2.5})
    await ask(daemon, "POST", "/v1/tunnels/branch-a/down")
    assert (await ask(daemon, "POST", "/v1/tunnels/branch-a/disable"))[1]["action"] == "disable"
    assert (await ask(daemon, "POST", "/v1/tunnels/branch-a/enable"))[1]["state"] == "waiting"
    await ask(daemon, "POST", "/v1/tunnels/branch-a/reset")
    await ask(daemon, "POST", "/v1/tunnels/branch-a/rekey", json={"ike": True})
    moved = await ask(daemon, "POST", "/v1/switch", json={"group": "branch-a", "tunnel": "branch-b"})
    assert moved[1]["routes"] == [{"route": "10.2.0.0/16", "tunnel": "branch-b"}]
    await ask(daemon, "POST", "/v1/switch", json={"group": "branch-a"})
    assert (await ask(daemon, "POST", "/v1/reload"))[1]["changed"] == ["branch-a"]
    assert daemon.operations.calls == [
        ("up", "branch-a", 30.0),
        ("up", "branch-a", 2.5),
        ("down", "branch-a"),
        ("disable", "branch-a"),
        ("enable", "branch-a"),
        ("reset", "branch-a", 30.0),
        ("rekey", "branch-a", True, False),
        ("switch", "branch-a", "branch-b"),
        ("switch", "branch-a", None),
        ("reload",),
    ]


async def test_any_name_goes_through_a_path(daemon: Daemon) -> None:
    name = "分支 1?#%"
    daemon.operations.tunnels[name] = tunnel_up(name)
    client = AsyncTransport(daemon.socket)
    from vpnd.sdk.transport import tunnel_path

    assert (await client.get(tunnel_path(name)))["name"] == name


async def test_a_tunnel_is_made_from_its_table(daemon: Daemon) -> None:
    table = {"customer_gateway": "branch", "pre_shared_key": "plain:key", "ike": {"dh_group": [14, 31]}}
    code, body, _ = await ask(daemon, "PUT", "/v1/tunnels/new", json=table)
    assert (code, body["change"]) == (200, "created")
    assert daemon.operations.received["new"] == table


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "code"),
    [
        ("GET", "/v1/tunnels/nobody", {}, 404, "E-UNKNOWN-TUNNEL"),
        ("POST", "/v1/tunnels/nobody/up", {}, 404, "E-UNKNOWN-TUNNEL"),
        ("GET", "/v1/nothing", {}, 404, "E-NOT-FOUND"),
        ("GET", "/v1/tunnels/", {}, 404, "E-NOT-FOUND"),
        ("GET", "/", {}, 404, "E-NOT-FOUND"),
        ("GET", "/docs", {}, 404, "E-NOT-FOUND"),
        ("DELETE", "/v1/status", {}, 405, "E-METHOD"),
        ("POST", "/v1/tunnels/branch-b/up", {}, 502, "E-PSK"),
        ("POST", "/v1/tunnels/branch-b/rekey", {}, 409, "E-NOT-UP"),
        ("POST", "/v1/switch", {"json": {"group": "nobody"}}, 404, "E-UNKNOWN-GROUP"),
        ("POST", "/v1/switch", {}, 422, "E-REQUEST"),
        ("POST", "/v1/tunnels/branch-a/up", {"json": {"timeout_s": "soon"}}, 422, "E-REQUEST"),
        ("POST", "/v1/tunnels/branch-a/up", {"json": {"timeout_s": 1e9}}, 422, "E-REQUEST"),
        ("POST", "/v1/tunnels/branch-a/up", {"json": {"timeout_s": True}}, 422, "E-REQUEST"),
        ("POST", "/v1/tunnels/branch-a/rekey", {"json": {"ike": 1}}, 422, "E-REQUEST"),
        ("POST", "/v1/tunnels/branch-a/up", {"json": {"timeout": 3}}, 422, "E-REQUEST"),
        ("PUT", "/v1/tunnels/x", {"json": ["list"]}, 422, "E-REQUEST"),
        (
            "PUT",
            "/v1/tunnels/x",
            {"data": "{", "headers": {"Content-Type": "application/json"}},
            400,
            "E-JSON",
        ),
        ("PUT", "/v1/tunnels/x", {"json": {"routes": ["nonsense"]}}, 422, "E-CONFIG"),
        ("DELETE", "/v1/tunnels/branch-a", {}, 409, "E-FROM-FILE"),
        ("PUT", "/v1/gateway", {"json": []}, 422, "E-REQUEST"),
        ("PUT", "/v1/gateway", {"json": {"type": "ccn", "vpc": "x"}}, 422, "E-GATEWAY"),
        ("DELETE", "/v1/gateway", {}, 405, "E-METHOD"),
        ("GET", "/v1/customer-gateways/nobody", {}, 404, "E-UNKNOWN-CUSTOMER-GATEWAY"),
        ("DELETE", "/v1/customer-gateways/nobody", {}, 404, "E-UNKNOWN-CUSTOMER-GATEWAY"),
        ("DELETE", "/v1/customer-gateways/branch", {}, 409, "E-FROM-FILE"),
        ("PUT", "/v1/customer-gateways/branch", {"json": {"address": "any"}}, 409, "E-FROM-FILE"),
        ("PUT", "/v1/customer-gateways/new", {"json": []}, 422, "E-REQUEST"),
        ("GET", "/v1/tunnels?state=off", {}, 422, "E-REQUEST"),
        ("GET", "/v1/tunnels?stat=up", {}, 422, "E-REQUEST"),
        ("GET", "/v1/status?limit=0", {}, 422, "E-REQUEST"),
        ("GET", "/v1/customer-gateways?offset=-1", {}, 422, "E-REQUEST"),
        ("GET", "/v1/events?limit=many", {}, 422, "E-REQUEST"),
        ("GET", "/v1/tunnels/branch-a/trace?limit=0", {}, 422, "E-REQUEST"),
    ],
)
async def test_every_error_has_one_shape(
    daemon: Daemon, method: str, path: str, more: dict[str, Any], status: int, code: str
) -> None:
    answered, body, headers = await ask(daemon, method, path, **more)
    assert (answered, body["error"]["code"]) == (status, code)
    assert headers["Content-Type"] == PROBLEM
    assert set(body) == {"type", "title", "status", "detail", "error"}, "RFC 9457 section 3.1"
    assert (body["type"], body["status"]) == (f"urn:vpnd:error:{code}", status)
    assert (body["title"], body["detail"]) == (HTTPStatus(status).phrase, body["error"]["message"])
    assert set(body["error"]) == {"code", "message", "hint", "problems"}
    assert body["error"]["message"]


async def test_a_refused_tunnel_has_its_problems(daemon: Daemon) -> None:
    _, body, _ = await ask(daemon, "PUT", "/v1/tunnels/x", json={"routes": ["nonsense"]})
    (problem,) = body["error"]["problems"]
    assert (problem["code"], problem["key"], problem["line"]) == ("E-PREFIX", "tunnels.x.routes[0]", None)


@pytest.mark.parametrize(
    "body", ['{"pre_shared_key": "s3cret"', '["s3cret"]', '"s3cret"', '{"a": "s3cret"}}']
)
async def test_no_error_repeats_what_was_sent(daemon: Daemon, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    status, answer, _ = await ask(daemon, "PUT", "/v1/tunnels/x", data=body, headers=headers)
    assert status >= 400
    assert "s3cret" not in json.dumps(answer)


async def test_a_bug_is_answered_without_its_words(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception's text may hold what was configured: the log has it, where the operator alone reads."""

    def broken() -> Status:
        raise RuntimeError("s3cret of /etc/vpnd/psk")

    monkeypatch.setattr(daemon.operations, "status", broken)
    status, answer, _ = await ask(daemon, "GET", "/v1/status")
    assert (status, answer["error"]["code"]) == (500, "E-INTERNAL")
    assert "s3cret" not in json.dumps(answer)


async def test_a_body_that_does_not_say_that_it_is_json_is_told_how(daemon: Daemon) -> None:
    """What `curl -d` sends unless it is told otherwise."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    status, answer, _ = await ask(daemon, "PUT", "/v1/tunnels/x", data='{"routes": []}', headers=headers)
    assert (status, answer["error"]["code"]) == (422, "E-REQUEST")
    assert "Content-Type: application/json" in answer["error"]["hint"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *(
            (f"/v1/tunnels/branch-a/{action}", {"timeout_s": wrong})
            for action in ("up", "reset", "rekey")
            for wrong in (True, False, "30", [30], None)
        ),
        *(
            ("/v1/tunnels/branch-a/rekey", {key: wrong})
            for key in ("ike", "child")
            for wrong in (1, 0, "yes", "true", None)
        ),
        ("/v1/switch", {"group": 1}),
        ("/v1/switch", {"group": "branch-a", "tunnel": True}),
    ],
)
async def test_a_value_of_another_kind_is_refused(daemon: Daemon, path: str, body: dict[str, Any]) -> None:
    status, answer, _ = await ask(daemon, "POST", path, json=body)
    assert (status, answer["error"]["code"]) == (422, "E-REQUEST")
    assert next(reversed(body)) in answer["error"]["message"]
    assert not daemon.operations.calls


@pytest.mark.parametrize("number", [3, 3.5])
async def test_whole_numbers_and_others_are_seconds(daemon: Daemon, number: float) -> None:
    status, _, _ = await ask(daemon, "POST", "/v1/tunnels/branch-a/up", json={"timeout_s": number})
    assert status == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/status", "GET"),
        ("POST", "/v1/tunnels/branch-a", "DELETE, GET, PUT"),
        ("GET", "/v1/tunnels/branch-a/up", "POST"),
        ("PUT", "/v1/reload", "GET, POST"),
        ("POST", "/metrics", "GET"),
        ("POST", "/v1/openapi.json", "GET, HEAD"),
    ],
)
async def test_a_refused_method_names_those_that_there_are(
    daemon: Daemon, method: str, path: str, allowed: str
) -> None:
    """RFC 9110 section 15.5.6."""
    status, answer, headers = await ask(daemon, method, path)
    assert (status, answer["error"]["code"]) == (405, "E-METHOD")
    assert headers["Allow"] == allowed


async def test_deep_json_is_refused(daemon: Daemon) -> None:
    body = "[" * 100_000
    headers = {"Content-Type": "application/json"}
    status, answer, _ = await ask(daemon, "PUT", "/v1/tunnels/x", data=body, headers=headers)
    assert status == 400
    assert answer["error"]["code"] in ("E-JSON", "E-REQUEST")


# -------------------------------------------------------------------------------------- events


def event(number: int) -> Event:
    return Event(at=AT, tunnel="branch-a", event="tunnel-up", text=f"number {number}")


async def test_events_that_are_kept(daemon: Daemon) -> None:
    for number in range(3):
        daemon.operations.log.publish(event(number))
    status, text, headers = await ask(daemon, "GET", "/v1/events?follow=false")
    assert status == 200
    assert headers["Content-Type"].startswith("application/x-ndjson")
    assert [json.loads(line)["text"] for line in text.splitlines()] == ["number 0", "number 1", "number 2"]


async def test_events_as_they_happen(daemon: Daemon) -> None:
    daemon.operations.log.publish(event(0))
    seen: list[str] = []
    arrived = asyncio.Event()

    async def follow() -> None:
        async for found in AsyncTransport(daemon.socket).events(follow=True):
            seen.append(found["text"])
            arrived.set()

    follower = asyncio.create_task(follow())
    await asyncio.wait_for(arrived.wait(), 60)
    arrived.clear()
    daemon.operations.log.publish(event(1))
    await asyncio.wait_for(arrived.wait(), 60)
    assert seen == ["number 0", "number 1"]
    follower.cancel()
    await asyncio.wait((follower,))
    await until(lambda: not daemon.operations.log.followers)


# ------------------------------------------------------------------------------------- document


ROUTES = {
    ("get", "/v1/status"),
    ("get", "/v1/tunnels/{name}"),
    ("post", "/v1/tunnels/{name}/check"),
    ("get", "/v1/tunnels"),
    ("get", "/v1/gateway"),
    ("put", "/v1/gateway"),
    ("get", "/v1/customer-gateways"),
    ("get", "/v1/customer-gateways/{name}"),
    ("put", "/v1/customer-gateways/{name}"),
    ("delete", "/v1/customer-gateways/{name}"),
    ("put", "/v1/tunnels/{name}"),
    ("delete", "/v1/tunnels/{name}"),
    ("get", "/v1/tunnels/{name}/why"),
    ("get", "/v1/tunnels/{name}/trace"),
    ("get", "/v1/bundle"),
    ("post", "/v1/tunnels/{name}/capture"),
    ("get", "/v1/tunnels/{name}/settings"),
    ("get", "/v1/tunnels/{name}/export"),
    ("get", "/v1/tunnels/{name}/peer-config"),
    ("get", "/v1/events"),
    ("get", "/metrics"),
    ("post", "/v1/tunnels/{name}/up"),
    ("post", "/v1/tunnels/{name}/down"),
    ("post", "/v1/tunnels/{name}/disable"),
    ("post", "/v1/tunnels/{name}/enable"),
    ("post", "/v1/tunnels/{name}/reset"),
    ("post", "/v1/tunnels/{name}/rekey"),
    ("post", "/v1/switch"),
    ("post", "/v1/reload"),
    ("get", "/v1/reload"),
    ("get", "/v1/keys"),
    ("get", "/v1/tunnels/{name}/psk"),
    ("post", "/v1/tunnels/{name}/psk/rotate"),
    ("get", "/v1/plan"),
    ("post", "/v1/plan"),
    ("post", "/v1/apply"),
    ("post", "/v1/confirm"),
    ("post", "/v1/rollback"),
    ("get", "/v1/configurations"),
    ("get", "/v1/tokens"),
    ("post", "/v1/tokens"),
    ("delete", "/v1/tokens/{name}"),
}
"""Method and path of everything that can be asked."""


async def test_the_document_describes_every_route(daemon: Daemon) -> None:
    status, document, _ = await ask(daemon, "GET", "/v1/openapi.json")
    assert status == 200
    assert document["openapi"].startswith("3.")
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert routes == ROUTES
    identifiers = [op["operationId"] for methods in document["paths"].values() for op in methods.values()]
    assert len(set(identifiers)) == len(identifiers)
    table = document["components"]["schemas"]["TunnelTable"]
    assert table["properties"]["pre_shared_key"]["writeOnly"] is True
    assert "ike" in table["properties"]


async def test_errors_of_the_document_are_problem_documents(daemon: Daemon) -> None:
    _, document, _ = await ask(daemon, "GET", "/v1/openapi.json")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            errors = [one for status, one in operation["responses"].items() if status[0] in "45"]
            assert errors, (method, path)
            assert all(list(one["content"]) == [PROBLEM] for one in errors), (method, path)


def kinds_of(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """A schema and what it consists of."""
    inner = [*schema.get("anyOf", ()), *([schema["items"]] if isinstance(schema.get("items"), dict) else ())]
    return [schema, *(kind for one in inner for kind in kinds_of(one))]


async def test_the_document_describes_every_field(daemon: Daemon) -> None:
    """What it means; of a number what it counts and its range; an example where there is no default."""
    _, document, _ = await ask(daemon, "GET", "/v1/openapi.json")
    missing = []
    for name, schema in document["components"]["schemas"].items():
        missing += [] if schema.get("description") else [f"{name}: description"]
        for key, field in schema.get("properties", {}).items():
            kinds = kinds_of(field)
            if any("$ref" in kind for kind in kinds):
                continue  # What it refers to is described.
            says = f"{name}.{key}"
            missing += [] if field.get("description") else [f"{says}: description"]
            words = any("enum" in kind or "const" in kind for kind in kinds)
            if any(kind.get("type") in ("integer", "number") for kind in kinds) and not words:
                missing += [] if any("x-unit" in kind for kind in kinds) else [f"{says}: unit"]
                ranged = any("minimum" in kind or "exclusiveMinimum" in kind for kind in kinds)
                missing += [] if ranged else [f"{says}: range"]
            shown = "examples" in field or "default" in field or words or "examples" in schema
            missing += [] if shown else [f"{says}: example"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            missing += [] if operation.get("description") else [f"{method} {path}: description"]
            for one in operation.get("parameters", ()):
                described = one.get("description") or one["schema"].get("description")
                missing += [] if described else [f"{method} {path} {one['name']}: description"]
                nullable = any(kind.get("type") == "null" for kind in kinds_of(one["schema"]))
                missing += [f"{method} {path} {one['name']}: null"] if nullable else []
    assert missing == []
    major, _ = document["info"]["version"].split(".")
    assert all(path.startswith(f"/v{major}/") for path in document["paths"] if path != "/metrics")


async def test_every_reference_of_the_document_leads_somewhere(daemon: Daemon) -> None:
    _, document, _ = await ask(daemon, "GET", "/v1/openapi.json")

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return here + [r for inner in value.values() for r in references(inner)]
        return [r for inner in value for r in references(inner)] if isinstance(value, list) else []

    found = references(document)
    assert found
    for reference in found:
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


# --------------------------------------------------------------------------------------- limits


async def test_a_body_that_is_too_large(daemon: Daemon) -> None:
    body = io.BytesIO(json.dumps({"routes": ["x" * limits.MAX_BODY]}).encode())
    headers = {"Content-Type": "application/json"}
    status, answer, _ = await ask(daemon, "PUT", "/v1/tunnels/x", data=body, headers=headers)
    assert (status, answer["error"]["code"]) == (413, "E-TOO-LARGE")


async def until(condition: Callable[[], object]) -> None:
    """Give the daemon time until `condition` holds; fails after a minute."""
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen")


async def promptly(daemon: Daemon) -> None:
    """Status is answered soon, whatever others do."""
    begun = time.monotonic()
    await AsyncTransport(daemon.socket).get("/v1/status")
    assert time.monotonic() - begun < PROMPTLY


async def connect(daemon: Daemon) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(daemon.socket))


async def test_clients_that_hang_hold_up_nobody(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_LIMIT", 0.3)
    hanging = []
    for sent in (
        b"",
        b"GET /v1/sta",
        b"PUT /v1/tunnels/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ):
        reader, writer = await connect(daemon)
        writer.write(sent)
        hanging.append((reader, writer))
    await promptly(daemon)
    for reader, writer in hanging[:2]:
        assert await asyncio.wait_for(reader.read(), 60) == b"", "an idle connection is closed"
        writer.close()
    await promptly(daemon)
    hanging[2][1].close()


async def test_a_body_that_never_comes(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    app = limits.RequestLimits(create_app(FakeOperations()), timeout=0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "PUT", "path": "/v1/tunnels/x", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    assert sent[0]["status"] == 408
    assert (b"content-type", PROBLEM.encode()) in sent[0]["headers"]
    problem = json.loads(sent[1]["body"])
    assert (problem["status"], problem["error"]["code"]) == (408, "E-TIMEOUT")


async def test_a_thousand_connections(daemon: Daemon) -> None:
    open_ones = []
    for _ in range(1000):
        _, writer = await connect(daemon)
        open_ones.append(writer)
        if len(open_ones) % 50 == 0:
            await promptly(daemon)
    await promptly(daemon)
    for writer in open_ones:
        writer.close()
    await promptly(daemon)


EVENTS = b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"
BODY_BEGINS = b"PUT /v1/tunnels/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
USER, OTHER, THIRD = 1000, 1001, 1002


class Crowd:
    """Clients that stay, by user, and how each was answered."""

    def __init__(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        self.user = ROOT
        self._daemon = daemon
        self._open: list[asyncio.StreamWriter] = []
        monkeypatch.setattr(server, "user_of", lambda _: self.user)
        monkeypatch.setattr(server, "role_of", lambda _: "admin")

    async def send(self, user: int, data: bytes, count: int = 1) -> list[asyncio.StreamReader]:
        """So many connections, each with this, which the daemon has read."""
        self.user, readers = user, []
        for _ in range(count):
            reader, writer = await connect(self._daemon)
            writer.write(data)
            readers.append(reader)
            self._open.append(writer)
            for _ in range(8):
                await asyncio.sleep(0)
        return readers

    async def follow(self, user: int, count: int = 1) -> int:
        """How many of so many new followers were admitted."""
        answers = [await reader.readline() for reader in await self.send(user, EVENTS, count)]
        assert set(answers) <= {b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 Service Unavailable\r\n"}
        return answers.count(b"HTTP/1.1 200 OK\r\n")

    async def act(self, user: int) -> asyncio.Task[Any]:
        """An action that waits for a peer."""
        self.user, before = user, len(self._daemon.operations.calls)
        asked = asyncio.create_task(ask(self._daemon, "POST", "/v1/tunnels/hangs/up"))
        await until(lambda: asked.done() or len(self._daemon.operations.calls) > before)
        return asked

    async def status(self, user: int) -> int:
        self.user = user
        return (await ask(self._daemon, "GET", "/v1/status"))[0]

    async def leave(self) -> None:
        for writer in self._open:
            writer.close()
        self._open.clear()
        await until(lambda: not self._daemon.operations.log.followers)


@pytest.fixture
def crowd(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Crowd:
    daemon.operations.tunnels["hangs"] = tunnel_up("hangs")
    return Crowd(daemon, monkeypatch)


@pytest.mark.parametrize("user", [ROOT, USER])
async def test_followers_and_bodies_that_trickle_lock_nobody_out(crowd: Crowd, user: int) -> None:
    assert await crowd.follow(user, 16) == (8 if user == ROOT else 4)
    await crowd.send(user, BODY_BEGINS, 16)
    await crowd.send(user, b"GET /v1/sta", 16)
    for one in (ROOT, user, OTHER):
        assert await crowd.status(one) == 200
    await crowd.leave()


async def test_followers_have_few_places_and_root_its_own(crowd: Crowd) -> None:
    admitted = {user: await crowd.follow(user, 8) for user in (USER, OTHER, THIRD)}
    assert admitted == {USER: 4, OTHER: 4, THIRD: 0}
    assert await crowd.follow(ROOT) == 1
    await crowd.leave()
    assert await crowd.follow(THIRD) == 1
    await crowd.leave()


@pytest.mark.parametrize("follow", ["false", "0"])
async def test_events_that_end_need_no_place_of_a_follower(crowd: Crowd, daemon: Daemon, follow: str) -> None:
    assert await crowd.follow(ROOT, 16) == 8
    status, _, _ = await ask(daemon, "GET", f"/v1/events?follow={follow}")
    assert status == 200
    await crowd.leave()


async def test_actions_that_wait_are_bounded_and_lock_nobody_out(crowd: Crowd, daemon: Daemon) -> None:
    asked = [await crowd.act(user) for user in (USER,) * 9 + (OTHER,) * 9 + (THIRD, ROOT)]
    refused = [number for number, one in enumerate(asked) if one.done()]
    assert refused == [8, 17, 18]
    for number in refused:
        status, body, _ = await asked[number]
        assert (status, body["error"]["code"]) == (503, "E-BUSY")
        assert body["error"]["hint"]
    for user in (ROOT, USER, OTHER, THIRD):
        assert await crowd.status(user) == 200
    daemon.operations.hang.set()
    assert {(await one)[0] for number, one in enumerate(asked) if number not in refused} == {200}


async def test_the_uid_with_most_connections_without_a_request_makes_room(crowd: Crowd) -> None:
    (first,) = await crowd.send(OTHER, b"GET /v1/status HTTP/1.1\r\n")
    readers = await crowd.send(USER, BODY_BEGINS, 40)
    for reader in readers[:25]:
        assert await asyncio.wait_for(reader.read(), 60) == b""
    assert all(not reader.at_eof() for reader in (first, *readers[25:]))
    await crowd.leave()


async def test_the_user_of_a_connection_is_its_process(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        client.connect(str(tmp_path / "s"))
        accepted, _ = listening.accept()
        with accepted:
            assert user_of(accepted) == os.getuid()


async def test_a_body_that_trickles_has_one_limit_for_all_of_it() -> None:
    app = limits.RequestLimits(create_app(FakeOperations()), timeout=0.05)
    sent: list[Any] = []
    pieces = 0

    async def receive() -> Any:
        nonlocal pieces
        await asyncio.sleep(0.005)
        pieces += 1
        return {"type": "http.request", "body": b" ", "more_body": pieces < 1000}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "PUT", "path": "/v1/tunnels/x", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    assert sent[0]["status"] == 408
    assert pieces < 1000


async def test_one_that_does_not_read_is_cut_off(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALL_LIMIT", 0.3)
    _, writer = await asyncio.open_unix_connection(str(daemon.socket), limit=1024)
    writer.write(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()
    await until(lambda: daemon.operations.log.followers)
    long = Event(at=AT, event="x", text="x" * 100_000)
    for _ in range(50):
        daemon.operations.log.publish(long)
        await asyncio.sleep(0.001)
    await promptly(daemon)
    await until(lambda: not daemon.operations.log.followers)
    writer.close()


# --------------------------------------------------------------------------------------- socket


async def test_the_socket_is_for_owner_and_group(daemon: Daemon) -> None:
    assert daemon.socket.stat().st_mode & 0o777 == 0o660


async def test_stopping_ends_followers_and_waiters_and_removes_the_socket(tmp_path: Path) -> None:
    async with running(tmp_path / "vpnd.sock") as daemon:
        daemon.operations.tunnels["hangs"] = tunnel_up("hangs")
        client = AsyncTransport(daemon.socket)

        async def follow() -> list[object]:
            return [found async for found in client.events(follow=True)]

        follower = asyncio.create_task(follow())
        waiter = asyncio.create_task(client.post("/v1/tunnels/hangs/up"))
        await until(lambda: daemon.operations.log.followers and daemon.operations.calls)
        begun = time.monotonic()
        daemon.task.cancel()
        await asyncio.wait((daemon.task,))
        assert time.monotonic() - begun < PROMPTLY
        assert await asyncio.wait_for(follower, 60) == []
        with pytest.raises(Refused) as refused:
            await asyncio.wait_for(waiter, 60)
        assert refused.value.error["code"] == "E-STOPPING"
        assert not daemon.socket.exists()
        with pytest.raises(DaemonUnreachable, match="no such socket"):
            await client.get("/v1/status")


async def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run" / "vpnd.sock"
    first = ApiSocket(path)
    with pytest.raises(SocketUnavailable, match="another vpnd answers"):
        ApiSocket(path)
    first.socket.close()
    assert path.exists(), "as after kill -9"
    second = ApiServer(create_app(FakeOperations()), ApiSocket(path))
    task = asyncio.create_task(second.run())
    assert (await AsyncTransport(path).get("/v1/status"))["gateway"]["name"] == "hq"
    task.cancel()
    await asyncio.wait((task,))


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(SocketUnavailable, match="is not a socket"):
        ApiSocket(path)
    assert path.read_text() == "precious"
    with pytest.raises(SocketUnavailable, match="cannot listen"):
        ApiSocket(tmp_path / ("x" * 200))


@pytest.mark.parametrize("name", ["%FF", "branch-%C3", "%ED%A0%80"])
@pytest.mark.parametrize(
    ("method", "more"), [("PUT", {"json": {}}), ("GET", {}), ("DELETE", {}), ("POST", {"json": {}})]
)
async def test_a_name_in_the_path_that_is_no_utf8_is_refused(
    method: str, more: dict[str, Any], name: str, daemon: Daemon
) -> None:
    """The server would read another name out of it, and make a tunnel of that one."""
    path = URL(f"http://vpnd/v1/tunnels/{name}{'/up' if method == 'POST' else ''}", encoded=True)
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(daemon.socket))) as session,
        session.request(method, path, **more) as answer,
    ):
        body = await answer.json()
    assert answer.status == 422
    assert body["error"]["code"] == "E-REQUEST"
    assert body["error"]["message"] == "name: the name in the path has to be UTF-8 (RFC 3986 section 2.5)"


async def test_a_name_of_any_script_is_read_as_it_is(daemon: Daemon) -> None:
    code, body, _ = await ask(daemon, "GET", "/v1/tunnels/%E6%9D%B1%E4%BA%AC")
    assert code == 404
    assert "東京" in body["error"]["message"]
