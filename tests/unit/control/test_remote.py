"""The API over TCP: TLS, tokens with their roles, and what who has none of them can do (nothing)."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.unit.control import certificates
from tests.unit.control.fakes import AT, FakeOperations, tunnel_up
from tests.unit.control.test_api import ROUTES, until
from tests.unit.control.test_exporter import LOOPBACK, free
from vpnd.control import access, remote, server
from vpnd.control.access import TRIES, TRY_EVERY, Guesses
from vpnd.control.api import create_app
from vpnd.control.listening import PortUnavailable
from vpnd.control.openapi import PROBLEM
from vpnd.control.remote import Remote, Wanted
from vpnd.control.schema import Event
from vpnd.control.tokens import Tokens

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST = LOOPBACK
"""Of this process, so that no other takes its ports."""
PEER = "127.0.0.1"
"""Where its clients come from."""


@dataclass
class Far:
    """A daemon that is reached over TCP, and what a client needs."""

    operations: FakeOperations
    tokens: Tokens
    remote: Remote
    wanted: Wanted
    admin: str
    read: str

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.wanted.certificate)

    async def ask(
        self, method: str, path: str, token: str | None = None, **more: Any
    ) -> tuple[int, Any, dict[str, str]]:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        headers |= more.pop("headers", {})
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.trust)) as session,
            session.request(method, f"https://{self.wanted.at}{path}", headers=headers, **more) as answer,
        ):
            text = await answer.text()
            is_json = answer.content_type in ("application/json", PROBLEM)
            return answer.status, json.loads(text) if is_json else text, dict(answer.headers)

    async def connect(self, **more: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, self.wanted.at.port, **more)


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Far]:
    """A daemon that is reached over TCP, until the block ends."""
    pair = certificates.make(directory / "tls")
    wanted = Wanted(free(), pair.certificate, pair.key)
    operations, tokens = FakeOperations(), Tokens(directory / "state")
    served = Remote(operations, tokens)
    assert await served.listen(wanted)
    admin, read = tokens.create("root", "admin"), tokens.create("looks", "read")
    yield Far(operations, tokens, served, wanted, admin, read)
    await served.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Far]:
    """One for a whole file of tests, which leave it as it was."""
    async with serving(tmp_path_factory.mktemp("far")) as found:
        yield found


@pytest.fixture
def far(shared: Far, monkeypatch: pytest.MonkeyPatch) -> Far:
    """The daemon of the file, as new; it does not mind guesses."""
    monkeypatch.setattr(access, "TRIES", 10**6)
    shared.operations.begin_again()
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def own(tmp_path: Path) -> AsyncIterator[Far]:
    """One for a test that changes it."""
    async with serving(tmp_path) as found:
        yield found


# ---------------------------------------------------------------------------------- roles and verbs

OPERATIONS = sorted(
    (
        method.upper(),
        path,
        "socket"
        if path.startswith("/v1/tokens") or path.endswith("/capture")
        else "read"
        if method == "get"
        else "admin",
    )
    for method, path in ROUTES
)
"""Every operation of the document, and what it takes: a token that reads, one for changes, or the socket."""

EVERYONE = ("nobody", "wrong", "read", "admin")


@pytest.mark.parametrize(("method", "path", "takes"), OPERATIONS)
async def test_who_may_do_what(far: Far, method: str, path: str, takes: str) -> None:
    path = path.replace("{name}", "branch-a") + ("?follow=false" if path == "/v1/events" else "")
    tokens = {"nobody": None, "wrong": "vpnd_wrong", "read": far.read, "admin": far.admin}
    answers = {}
    for who in EVERYONE:
        before = list(far.operations.calls), dict(far.operations.received), far.tokens.list()
        status, body, headers = await far.ask(method, path, tokens[who], json={} if method == "PUT" else None)
        answers[who] = status
        if status in (401, 403):
            assert body["error"]["code"] in ("E-TOKEN", "E-ROLE", "E-SOCKET-ONLY")
            assert ("WWW-Authenticate" in headers) == (body["error"]["code"] != "E-SOCKET-ONLY")
            assert before == (far.operations.calls, far.operations.received, far.tokens.list())
    assert (answers["nobody"], answers["wrong"]) == (401, 401)
    allowed = {who: answers[who] not in (401, 403) for who in ("read", "admin")}
    assert allowed == {"read": takes == "read", "admin": takes in ("read", "admin")}, answers


async def test_the_document_says_what_each_operation_takes() -> None:
    document = create_app(FakeOperations()).openapi()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for method, path, takes in OPERATIONS:
        operation = document["paths"][path][method.lower()]
        expected: list[dict[str, list[str]]] = [{}] if takes == "socket" else [{}, {"token": []}]
        assert (operation["x-role"], operation["security"]) == (takes, expected)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic dnBuZDp2cG5k"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer \u2603"},
        {"Authorization": "vpnd_"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Remote-User": "root"},
        {"Cookie": "token=vpnd_"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/status", "/metrics", "/v1/openapi.json", "/nothing", "/"])
async def test_without_a_token_nothing_is_said(far: Far, path: str, headers: dict[str, str]) -> None:
    status, body, answered = await far.ask("GET", path, headers=headers)
    assert (status, body["error"]["code"]) == (401, "E-TOKEN")
    assert answered["WWW-Authenticate"].startswith('Bearer realm="vpnd"')
    assert "branch" not in json.dumps(body)


async def test_two_tokens_at_once_are_none(far: Far) -> None:
    request = f"Authorization: Bearer {far.admin}\r\n" * 2
    reader, writer = await far.connect(ssl=far.trust)
    writer.write(f"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{request}\r\n".encode())
    assert (await reader.readline()).split()[1] == b"401"
    writer.close()


async def test_a_body_is_not_read_before_the_token(far: Far) -> None:
    """Nobody has a megabyte kept for him who has no token."""
    reader, writer = await far.connect(ssl=far.trust)
    writer.write(b"PUT /v1/tunnels/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")
    assert (await asyncio.wait_for(reader.readline(), 60)).split()[1] == b"401"
    writer.close()


# ---------------------------------------------------------------------------------------- tokens


async def test_a_revoked_token_is_of_no_use_and_what_follows_with_it_ends(own: Far) -> None:
    assert (await own.ask("GET", "/v1/status", own.read))[0] == 200
    heard = asyncio.Event()

    async def follow(token: str) -> str:
        headers = {"Authorization": f"Bearer {token}"}
        text = ""
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=own.trust)) as session,
            session.get(f"https://{own.wanted.at}/v1/events", headers=headers) as answer,
        ):
            async for line in answer.content:
                text += line.decode()
                heard.set()
        return text

    own.operations.log.publish(Event(at=AT, event="x", text="before"))
    follower = asyncio.create_task(follow(own.read))
    await asyncio.wait_for(heard.wait(), 60)
    own.tokens.revoke("looks")
    assert "before" in await asyncio.wait_for(follower, 60)
    assert (await own.ask("GET", "/v1/status", own.read))[0] == 401
    assert (await own.ask("GET", "/v1/status", own.admin))[0] == 200
    again = own.tokens.create("looks", "read")
    assert (await own.ask("GET", "/v1/status", own.read))[0] == 401
    assert (await own.ask("GET", "/v1/status", again))[0] == 200


async def test_who_has_asked_for_a_change_is_said(far: Far) -> None:
    await far.ask("POST", "/v1/tunnels/branch-a/up", far.admin)
    await far.ask("POST", "/v1/tunnels/branch-a/up", far.read)
    await far.ask("GET", "/v1/status", far.admin)
    assert far.operations.commands == [(f"token root from {PEER}", "up", "branch-a")]


@pytest.mark.parametrize("reference", ["file:/etc/shadow", "credential:other", "file:known"])
@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/tunnels/x"), ("POST", "/v1/tunnels/x/check")])
async def test_no_key_of_a_file_comes_from_afar(far: Far, method: str, path: str, reference: str) -> None:
    """Not even what is configured already: over TCP that would tell what it is."""
    far.operations.references["x"] = "file:known"
    status, body, _ = await far.ask(method, path, far.admin, json={"pre_shared_key": reference})
    assert (status, body["error"]["code"]) == (403, "E-KEY-SOURCE")
    assert not far.operations.received
    status, _, _ = await far.ask(method, path, far.admin, json={"pre_shared_key": "plain:a key"})
    assert status == 200


async def test_a_too_fast_guesser_is_not_heard(own: Far) -> None:
    statuses = [(await own.ask("GET", "/v1/status", f"vpnd_{n}"))[0] for n in range(TRIES + 2)]
    assert statuses == [401] * TRIES + [429] * 2
    status, body, headers = await own.ask("GET", "/v1/status", own.admin)
    assert (status, body["error"]["code"]) == (429, "E-TOO-FAST"), "or guessing would cost nothing"
    assert 1 <= int(headers["Retry-After"]) <= TRY_EVERY + 1
    assert own.operations.guesses == [PEER] * TRIES


async def test_a_guesser_is_heard_again_in_time_and_is_one_network() -> None:
    now = 0.0
    guesses = Guesses(lambda: now)
    for _ in range(TRIES):
        assert guesses.wait("2001:db8::1") == 0
        guesses.add("2001:db8::1")
    assert guesses.wait("2001:db8::1") == pytest.approx(TRY_EVERY)
    assert guesses.wait("2001:db8::2:1") > 0, "of the same /64"
    assert guesses.wait("2001:db8:0:1::1") == guesses.wait("192.0.2.1") == 0
    now = TRY_EVERY
    assert guesses.wait("2001:db8::1") == 0
    guesses.add("2001:db8::1")
    assert guesses.wait("2001:db8::1") > 0
    now = 10 * TRIES * TRY_EVERY
    for _ in range(TRIES - 1):
        guesses.add("2001:db8::1")
    assert guesses.wait("2001:db8::1") == 0, "all tries are there again, and no more than these"


async def test_guessers_are_remembered_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "KNOWN_GUESSERS", 3)
    guesses = Guesses(lambda: 0.0)
    for last in (1, 2, 3):
        for _ in range(TRIES):
            guesses.add(f"192.0.2.{last}")
    guesses.add("192.0.2.1")
    guesses.add("192.0.2.4")
    assert [guesses.wait(f"192.0.2.{last}") > 0 for last in (1, 2, 3, 4)] == [True, False, True, False]


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
    ],
)
async def test_what_stands_for_an_address(peer: str, network: str) -> None:
    assert access.network_of(peer) == network


# ------------------------------------------------------------------------------------------- TLS


async def handshake(far: Far, context: ssl.SSLContext) -> ssl.SSLObject:
    """A finished handshake. Raises SSLError, ConnectionError."""
    _, writer = await far.connect(ssl=context)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    return tls


async def test_a_wrong_certificate_is_refused_by_the_client(far: Far, tmp_path: Path) -> None:
    other = certificates.make(tmp_path / "other").certificate
    for context in (ssl.create_default_context(), ssl.create_default_context(cafile=other)):
        with pytest.raises(ssl.SSLCertVerificationError):
            await handshake(far, context)
    with pytest.raises(ssl.SSLCertVerificationError):
        await far.connect(ssl=far.trust, server_hostname="other.example")
    assert (await handshake(far, far.trust)).version() == "TLSv1.3"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        (ssl.TLSVersion.TLSv1, None),
        (ssl.TLSVersion.TLSv1_1, None),
        (ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        (ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
    ],
)
async def test_tls_is_1_2_at_least(far: Far, version: ssl.TLSVersion, spoken: str | None) -> None:
    context = far.trust
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    if spoken is None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await handshake(far, context)
    else:
        assert (await handshake(far, context)).version() == spoken


async def test_without_tls_there_is_no_answer(far: Far) -> None:
    reader, writer = await far.connect()
    writer.write(f"GET /v1/status HTTP/1.1\r\nAuthorization: Bearer {far.admin}\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 60)
    assert b"HTTP" not in answer
    assert b"hq" not in answer
    writer.close()
    assert (await far.ask("GET", "/v1/status", far.admin))[0] == 200


async def test_a_renewed_certificate_is_used_after_a_reload(own: Far) -> None:
    before = own.trust
    renewed = certificates.make(own.wanted.certificate.parent)
    assert renewed.certificate == own.wanted.certificate
    assert not await own.remote.listen(own.wanted), "it is the same place"
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(own, before)
    assert (await own.ask("GET", "/v1/status", own.admin))[0] == 200


async def test_a_broken_certificate_leaves_what_was_served(own: Far) -> None:
    trust = own.trust
    own.wanted.certificate.write_text("nonsense")
    with pytest.raises(PortUnavailable, match="the API cannot be served over TCP"):
        await own.remote.listen(own.wanted)
    assert (await handshake(own, trust)).version() == "TLSv1.3"


async def test_it_moves_and_ends_with_the_configuration(own: Far) -> None:
    old = own.wanted
    new = Wanted(free(), old.certificate, old.key)
    assert await own.remote.listen(new)
    own.wanted = new
    assert (await own.ask("GET", "/v1/status", own.admin))[0] == 200
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, old.at.port)
    assert await own.remote.listen(None)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, new.at.port)


async def test_a_port_that_is_taken_is_said(far: Far) -> None:
    other = Remote(far.operations, far.tokens)
    with pytest.raises(PortUnavailable, match="the API cannot be served at"):
        await other.listen(far.wanted)
    await other.close()


# -------------------------------------------------------------------------------- clients that hang


async def test_a_handshake_that_does_not_come_ends(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "HANDSHAKE_LIMIT", 0.2)
    for sent in (b"", b"\x16\x03\x01"):
        reader, writer = await far.connect()
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_many_that_do_no_handshake_lock_nobody_out(own: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow-loris below HTTP: more connections than there are places for handshakes, and none goes on."""
    monkeypatch.setattr(remote, "HANDSHAKE_PACE", 0.0)
    hanging = [await own.connect() for _ in range(3 * remote.MAX_HANDSHAKES)]
    assert (await own.ask("GET", "/v1/status", own.admin))[0] == 200
    for reader, _ in hanging[: remote.MAX_HANDSHAKES]:
        assert await asyncio.wait_for(reader.read(), 60) == b"", "the oldest made room"
    for _, writer in hanging:
        writer.close()


async def test_slow_requests_end_and_lock_nobody_out(own: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow-loris within TLS: heads that trickle; each has one limit for the whole of it."""
    monkeypatch.setattr(remote, "HANDSHAKE_PACE", 0.0)
    monkeypatch.setattr(server, "IDLE_LIMIT", 1.0)
    slow = [await own.connect(ssl=own.trust) for _ in range(server.MAX_WITHOUT_REQUEST + 4)]
    for _, writer in slow:
        writer.write(b"GET /v1/status HTTP/1.1\r\nX-1: ")
    assert (await own.ask("GET", "/v1/status", own.admin))[0] == 200
    for reader, writer in slow:
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_followers_and_actions_of_a_token_are_bounded(far: Far) -> None:
    far.operations.tunnels["hangs"] = tunnel_up("hangs")
    headers = {"Authorization": f"Bearer {far.admin}"}
    url = f"https://{far.wanted.at}/v1/tunnels/hangs/up"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=far.trust)) as session:

        async def act() -> int:
            async with session.post(url, headers=headers) as answer:
                return answer.status

        asked = [asyncio.create_task(act()) for _ in range(9)]
        await until(lambda: len(far.operations.calls) == 8 and sum(one.done() for one in asked) == 1)
        assert (await far.ask("GET", "/v1/status", far.read))[0] == 200
        far.operations.hang.set()
        assert sorted(await asyncio.gather(*asked)) == [200] * 8 + [503]


async def test_the_end_of_the_daemon_ends_what_follows(own: Far) -> None:
    headers = {"Authorization": f"Bearer {own.read}"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=own.trust)) as session,
        session.get(f"https://{own.wanted.at}/v1/events", headers=headers) as answer,
    ):
        await until(lambda: own.operations.log.followers)
        await own.remote.close()
        assert await asyncio.wait_for(answer.content.read(), 60) == b""
