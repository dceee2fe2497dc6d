"""The typed clients over TCP: with a token, with one that is not valid, and with whom they do not trust."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.unit.control import certificates
from tests.unit.control.fakes import AT
from tests.unit.control.test_remote import Far, serving
from vpnd.control.schema import Event
from vpnd.sdk import AsyncClient, Client, DaemonUnreachable, Refused
from vpnd.sdk.place import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Far]:
    async with serving(tmp_path_factory.mktemp("far")) as found:
        yield found


def clients(far: Far, token: str, certificate: Path | None = None) -> tuple[AsyncClient, Client]:
    where = f"https://{far.wanted.at}"
    trust = certificate or far.wanted.certificate
    return AsyncClient(where, token=token, certificate=trust), Client(where, token=token, certificate=trust)


async def both(
    far: Far, token: str, name: str, *arguments: Any, certificate: Path | None = None
) -> list[Any]:
    """What a call gives, awaited and waited for."""
    awaited, waits = clients(far, token, certificate)
    return [
        await getattr(awaited, name)(*arguments),
        await asyncio.to_thread(getattr(waits, name), *arguments),
    ]


async def test_the_same_calls_work_from_afar(far: Far) -> None:
    for status in await both(far, far.read, "status"):
        assert status.gateway.name == "hq"
    for done in await both(far, far.admin, "up", "branch-a"):
        assert done.state == "up"
    far.operations.log.publish(Event(at=AT, event="x", text="one"))
    awaited, waits = clients(far, far.read)
    assert [event.text async for event in awaited.events(follow=False)] == ["one"]
    assert [event.text for event in await asyncio.to_thread(lambda: list(waits.events(follow=False)))] == [
        "one"
    ]


@pytest.mark.parametrize(
    ("who", "name", "arguments", "status", "code"),
    [
        ("wrong", "status", (), 401, "E-TOKEN"),
        ("read", "down", ("branch-a",), 403, "E-ROLE"),
        ("admin", "create_token", ("more",), 403, "E-SOCKET-ONLY"),
    ],
)
async def test_what_is_refused(
    far: Far, who: str, name: str, arguments: tuple[str, ...], status: int, code: str
) -> None:
    token = {"read": far.read, "admin": far.admin, "wrong": "vpnd_wrong"}[who]
    awaited, waits = clients(far, token)
    for call in (
        getattr(awaited, name)(*arguments),
        asyncio.to_thread(getattr(waits, name), *arguments),
    ):
        with pytest.raises(Refused) as refused:
            await call
        assert (refused.value.status, refused.value.code) == (status, code)
        assert token not in f"{refused.value!r}{refused.value.error}"


async def test_whom_they_do_not_trust_gets_no_token(far: Far, tmp_path: Path) -> None:
    other = certificates.make(tmp_path).certificate
    awaited, waits = clients(far, far.admin, other)
    before = list(far.operations.calls)
    for call in (awaited.down("branch-a"), asyncio.to_thread(waits.down, "branch-a")):
        with pytest.raises(DaemonUnreachable, match="certificate is not trusted") as unreachable:
            await call
        assert "certificate=" in unreachable.value.hint
        assert far.admin not in str(unreachable.value)
    assert far.operations.calls == before


async def test_nobody_is_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        where = f"https://127.0.0.1:{taken.getsockname()[1]}"
        for call in (
            AsyncClient(where, token="t").status(),
            asyncio.to_thread(Client(where, token="t").status),
        ):
            with pytest.raises(DaemonUnreachable, match=f"on {where}: nobody listens"):
                await call


@pytest.mark.parametrize(
    ("where", "token", "says"),
    [
        ("http://vpn.example:8443", "t", "is no socket and no https://"),
        ("https://", "t", "is no socket and no https://"),
        ("https://vpn.example/path", "t", "is no socket and no https://"),
        ("https://user@vpn.example", "t", "is no socket and no https://"),
        ("https://vpn.example", None, "a token is needed"),
        ("https://vpn.example", "", "a token is needed"),
    ],
)
async def test_what_is_no_place(where: str, token: str | None, says: str) -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(ValueError, match=says):
            client(where, token=token)


async def test_what_each_request_says() -> None:
    assert Place("/run/vpnd/vpnd.sock", "t").headers == [("Host", "vpnd")]
    assert Place("https://[2001:db8::1]", "t").headers == [
        ("Host", "[2001:db8::1]:8443"),
        ("Authorization", "Bearer t"),
    ]
