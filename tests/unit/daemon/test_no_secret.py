"""No key, and no token, in anything that a daemon says: every operation of its API, done and refused.

Two whole daemons with a tunnel; what the console makes of it is in tests/unit/console/test_no_secret.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.unit.console.conftest import Answer, ask
from tests.unit.daemon.fakes import KEY, Machine
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED
from vpnd.control.api import create_app
from vpnd.control.tokens import Tokens

NEXT = "the key from now on, of some length"
THIRD = "what was typed in the wrong place 5678"
"""A key of which nothing becomes: each request that has it is refused."""
ROOT = 0
WITHOUT_END = 30.0
"""Seconds for an operation that is not in the story."""

Request = tuple[str, str, str, Any]

STORY: tuple[Request, ...] = (
    ("status", "GET", "/v1/status", None),
    ("tunnels", "GET", "/v1/tunnels", None),
    ("put_tunnel", "PUT", "/v1/tunnels/made", "TABLE"),
    ("settings", "GET", "/v1/tunnels/made/settings", None),
    ("export", "GET", "/v1/tunnels/made/export", None),
    ("rotate_key", "POST", "/v1/tunnels/made/psk/rotate", {"step": "begin", "key": f"plain:{NEXT}"}),
    ("check", "POST", "/v1/tunnels/made/check", {"next_pre_shared_key": f"plain:{KEY}"}),
    ("keys_of", "GET", "/v1/tunnels/made/psk", None),
    ("keys", "GET", "/v1/keys", None),
    ("settings", "GET", "/v1/tunnels/made/settings", None),
    ("export", "GET", "/v1/tunnels/made/export", None),
    ("peer_config", "GET", "/v1/tunnels/made/peer-config?kind=strongswan", None),
    ("rotate_key", "POST", "/v1/tunnels/made/psk/rotate", {"step": "prove", "timeout_s": 1}),
    ("rotate_key", "POST", "/v1/tunnels/made/psk/rotate", {"step": "finish", "force": True}),
    ("rotate_key", "POST", "/v1/tunnels/t/psk/rotate", {"step": "begin", "key": f"plain:{NEXT}"}),
    ("up", "POST", "/v1/tunnels/made/up", {"timeout_s": 1}),
    ("rekey", "POST", "/v1/tunnels/t/rekey", {"ike": True, "child": True}),
    ("show", "GET", "/v1/tunnels/t", None),
    ("why", "GET", "/v1/tunnels/made/why", None),
    ("trace", "GET", "/v1/tunnels/t/trace", None),
    ("disable", "POST", "/v1/tunnels/made/disable", None),
    ("enable", "POST", "/v1/tunnels/made/enable", None),
    ("down", "POST", "/v1/tunnels/made/down", None),
    ("reset", "POST", "/v1/tunnels/t/reset", {"timeout_s": 20}),
    ("switch", "POST", "/v1/switch", {"group": "t", "tunnel": "t"}),
    ("gateway", "GET", "/v1/gateway", None),
    ("put_gateway", "PUT", "/v1/gateway", {"region": "eu-1"}),
    ("put_customer_gateway", "PUT", "/v1/customer-gateways/site", {"address": "203.0.113.9"}),
    ("customer_gateways", "GET", "/v1/customer-gateways", None),
    ("customer_gateway", "GET", "/v1/customer-gateways/site", None),
    ("delete_customer_gateway", "DELETE", "/v1/customer-gateways/site", None),
    # The file has another key from here on.
    ("plan", "GET", "/v1/plan", "OTHER KEY"),
    ("plan_by_post", "POST", "/v1/plan", {}),
    ("apply", "POST", "/v1/apply", {"confirm_s": 60}),
    ("put_tunnel", "PUT", "/v1/tunnels/made", "TABLE"),
    ("rollback", "POST", "/v1/rollback", None),
    ("apply", "POST", "/v1/apply", {"confirm_s": 60}),
    ("confirm", "POST", "/v1/confirm", None),
    ("rollback", "POST", "/v1/rollback", {"back": 1}),
    ("plan", "GET", "/v1/plan?back=1", None),
    ("configurations", "GET", "/v1/configurations", None),
    ("reload", "POST", "/v1/reload", None),
    ("reload_progress", "GET", "/v1/reload", None),
    ("create_token", "POST", "/v1/tokens", {"name": "backup", "role": "admin"}),
    ("tokens", "GET", "/v1/tokens", None),
    ("revoke_token", "DELETE", "/v1/tokens/backup", None),
    ("bundle", "GET", "/v1/bundle", None),
    ("delete_tunnel", "DELETE", "/v1/tunnels/made", None),
    ("events", "GET", "/v1/events?follow=false", None),
    ("metrics", "GET", "/metrics", None),
)
"""Every operation in an order in which each does something. One that is missing here is tried too."""

TABLE = {
    "customer_gateway": {"address": "203.0.113.7"},
    "pre_shared_key": f"plain:{KEY}",
    "routes": ["10.9.0.0/16"],
}
REFUSED: tuple[Request, ...] = tuple(
    (name, method, path, body)
    for name, method, path, bodies in (
        (
            "put_tunnel",
            "PUT",
            "/v1/tunnels/made",
            (
                {**TABLE, "pre_shared_key": THIRD},
                {**TABLE, "pre_shared_key": [f"plain:{THIRD}"]},
                {**TABLE, "pre_shared_key": {"plain": THIRD}},
                {**TABLE, "pre_shared_key": f"plain:{THIRD}\ud800"},
                {**TABLE, "next_pre_shared_key": THIRD},
                {**TABLE, "next_pre_shared_key": {"plain": THIRD}},
                {**TABLE, "pre_shared_key": f"plain:{THIRD}", "routes": ["nonsense"]},
                {**TABLE, "next_pre_shared_key": f"plain:{THIRD}", "retire_after": "never"},
                {**TABLE, "retire_after": THIRD},
                {**TABLE, "next_pre_shared_key": f"plain:{KEY}", "retire_after": THIRD},
                {**TABLE, "key": f"plain:{THIRD}"},
                {**TABLE, THIRD: 1},
                {**TABLE, "psk": {"key": THIRD}},
                [THIRD],
                THIRD,
            ),
        ),
        (
            "check",
            "POST",
            "/v1/tunnels/made/check",
            ({**TABLE, "pre_shared_key": THIRD}, {**TABLE, "psk": THIRD}, THIRD),
        ),
        (
            "rotate_key",
            "POST",
            "/v1/tunnels/made/psk/rotate",
            (
                {"key": THIRD},
                {"key": [f"plain:{THIRD}"]},
                {"key": {"plain": THIRD}},
                {"kee": THIRD},
                {"step": THIRD},
                {"key": f"plain:{THIRD}", "retire_after": "soon"},
                {"key": f"plain:{KEY}", "retire_after": THIRD},
                {THIRD: 1},
                {"step": "finish", "key": f"plain:{THIRD}"},
                {"step": "prove", "key": f"plain:{THIRD}", "timeout_s": 0.1},
                {"key": f"plain:{THIRD}", "retire_after": "2000-01-01T00:00:00Z"},
                THIRD,
            ),
        ),
        ("put_gateway", "PUT", "/v1/gateway", ({"key": THIRD}, {"pre_shared_key": f"plain:{THIRD}"}, THIRD)),
        (
            "put_customer_gateway",
            "PUT",
            "/v1/customer-gateways/site",
            ({"address": "203.0.113.9", "pre_shared_key": f"plain:{THIRD}"}, THIRD),
        ),
        ("plan_by_post", "POST", "/v1/plan", ({"key": THIRD}, {"back": THIRD}, THIRD)),
        ("apply", "POST", "/v1/apply", ({"key": THIRD}, {"confirm_s": THIRD}, THIRD)),
        ("rollback", "POST", "/v1/rollback", ({"key": THIRD}, {"back": THIRD}, THIRD)),
        ("create_token", "POST", "/v1/tokens", ({"name": "x", "role": THIRD}, {"token": THIRD}, THIRD)),
    )
    for body in bodies
)


def secrets_of(pair: Pair) -> Iterator[bytes]:
    """The pre-shared keys, and those of the SAs that stand."""
    yield from (KEY.encode(), NEXT.encode(), THIRD.encode())
    for machine in (pair.hq, pair.branch):
        for child in machine.engine.installed.values():
            for keys in (child.keys_in, child.keys_out):
                yield from (keys.encryption.reveal(), keys.integrity.reveal())


def shown(secret: bytes) -> set[str]:
    """The ways in which a text would give it away."""
    return {secret.hex(), secret.decode("latin-1"), repr(secret)[2:-1], json.dumps(secret.decode("latin-1"))}


def assert_none(secrets: set[bytes], said: str) -> None:
    for secret in filter(None, secrets):
        for way in shown(secret):
            assert way not in said, said[max(0, said.index(way) - 300) : said.index(way) + 60]


class Api:
    """The API of `hq`, and what it has answered."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.app = create_app(machine.operator, Tokens(machine.state))
        self.said: list[str] = []
        self.asked: set[str] = set()

    async def ask(self, name: str, method: str, path: str, body: Any) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        kind = {"content-type": "application/json"} if body is not None else {}
        answer = await ask(self.app, method, path, kind, content, user=ROOT)
        self.asked.add(name)
        # The one answer that has a token.
        self.said.append(answer.text if name != "create_token" or answer.status >= 400 else "")
        return answer

    def others(self) -> list[Request]:
        """Those of the document of which this test knows nothing, not even that they end."""
        paths = self.app.openapi()["paths"].items()
        return [
            (
                one["operationId"],
                way.upper(),
                path.replace("{name}", "t"),
                {} if "requestBody" in one else None,
            )
            for path, methods in paths
            for way, one in methods.items()
            if one["operationId"] not in self.asked
        ]


@with_pair
async def test_no_operation_of_the_api_says_one(
    pair: Pair, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    pair.configure({"t": ROUTED}, {"t": BACK})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    api, secrets, token = Api(pair.hq), set(secrets_of(pair)), ""
    failed = []
    for name, method, path, body in STORY:
        if body == "OTHER KEY":
            pair.hq.write(pair.hq.config.read_text().replace(KEY, NEXT))
            body = None
        answer = await api.ask(name, method, path, TABLE if body == "TABLE" else body)
        secrets |= set(secrets_of(pair))
        if name == "create_token":
            token = json.loads(answer.text)["token"]
        if answer.status >= 400:
            failed.append((name, answer.status))
    assert failed == [("rotate_key", 409), ("up", 502), ("put_tunnel", 409)]
    answers = [(request, await api.ask(*request)) for request in REFUSED]
    done = [request for request, answer in answers if answer.status < 400 and '"ok":false' not in answer.text]
    assert [(name, path, body) for name, _, path, body in done] == []
    for request in api.others():
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHOUT_END):
                await api.ask(*request)
    said = "".join((*api.said, pair.hq.texts(), pair.branch.texts(), caplog.text, *capsys.readouterr()))
    assert token
    assert_none({*secrets, token.encode()}, said)


@with_pair
async def test_no_file_of_the_state_has_one_but_the_keys_own(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    await pair.start()
    api = Api(pair.hq)
    for name, method, path, body in STORY:
        await api.ask(name, method, path, TABLE if body == "TABLE" else None if body == "OTHER KEY" else body)
        if (name, method) == ("delete_tunnel", "DELETE"):
            break
        for file in filter(lambda found: found.is_file(), pair.hq.state.rglob("*")):
            own = file.name in ("made.psk", "made.next-psk")
            assert file.stat().st_mode & 0o077 == 0, file
            if not own:
                assert_none({KEY.encode(), NEXT.encode()}, file.read_text())
