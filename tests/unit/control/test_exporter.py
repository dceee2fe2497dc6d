"""Metrics on a TCP port: /metrics and nothing else, one text a second; the port follows the configuration."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any

import pytest

from tests.unit.control.fakes import FakeOperations, tunnel_up
from vpnd.control import exporter, metrics, server
from vpnd.control.exporter import Exporter
from vpnd.control.listening import PortUnavailable
from vpnd.model.policy import ListenAt

LOOPBACK = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


@pytest.fixture
async def serving() -> AsyncIterator[Exporter]:
    found = Exporter(FakeOperations(tunnel_up("a")))
    yield found
    await found.close()


def free(address: str = LOOPBACK) -> ListenAt:
    """A port that nobody takes meanwhile: its address is of this process, its number of this call."""
    return ListenAt(ip_address(address), 9150 + next(_CALLS))


_CALLS = itertools.count()


async def ask(at: ListenAt, method: str = "GET", path: str = "/metrics") -> tuple[int, str, str]:
    """Status, head and body of one answer."""
    reader, writer = await asyncio.open_connection(str(at.address), at.port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


@pytest.mark.parametrize("address", [LOOPBACK, "::1"], ids=["IPv4", "IPv6"])
async def test_metrics_are_there_with_their_type(serving: Exporter, address: str) -> None:
    at = free(address)
    assert await serving.listen(at)
    status, head, body = await ask(at)
    assert status == 200
    assert f"content-type: {metrics.CONTENT_TYPE}" in head
    assert 'vpnd_tunnel_up{tunnel="a"} 1\n' in body
    assert (await ask(at, "HEAD"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/status", 404),
        ("GET", "/v1/openapi.json", 404),
        ("GET", "/metrics/../v1/status", 404),
        ("POST", "/v1/tunnels/a/down", 404),
        ("DELETE", "/v1/tunnels/a", 404),
        ("POST", "/metrics", 405),
        ("PUT", "/metrics", 405),
    ],
)
async def test_there_is_nothing_else(serving: Exporter, method: str, path: str, status: int) -> None:
    at = free()
    await serving.listen(at)
    assert (await ask(at, method, path))[0] == status


async def test_a_connection_has_its_bounds_and_no_fault(
    serving: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is at the other end of TCP is no user of this machine; one that is silent is ended."""
    monkeypatch.setattr(server, "IDLE_LIMIT", 0.01)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: faults.append(what))
    at = free()
    await serving.listen(at)
    reader, writer = await asyncio.open_connection(str(at.address), at.port)
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    writer.close()
    assert faults == []


async def test_many_that_ask_get_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "FRESH", 3600.0)
    operations = FakeOperations(tunnel_up("a"))
    serving, at = Exporter(operations), free()
    await serving.listen(at)
    first = await ask(at)
    operations.tunnels["b"] = tunnel_up("b")
    answers = await asyncio.gather(*(ask(at) for _ in range(5)))
    assert {body for _, _, body in answers} == {first[2]}
    monkeypatch.setattr(exporter, "FRESH", 0.0)
    assert 'tunnel="b"' in (await ask(at))[2]
    await serving.close()


async def test_the_port_follows_the_configuration(serving: Exporter) -> None:
    before, after = free(), free()
    assert await serving.listen(before)
    assert not await serving.listen(before)
    assert await serving.listen(after)
    assert (await ask(after))[0] == 200
    with pytest.raises(ConnectionRefusedError):
        await ask(before)
    assert await serving.listen(None)
    with pytest.raises(ConnectionRefusedError):
        await ask(after)


async def test_a_port_that_is_taken_is_named_and_can_be_had_later(serving: Exporter) -> None:
    at = free()
    with socket.socket() as other:
        other.bind((str(at.address), at.port))
        other.listen()
        with pytest.raises(PortUnavailable, match=f"served at {LOOPBACK}:{at.port}: Address already in use"):
            await serving.listen(at)
    assert await serving.listen(at)
    assert (await ask(at))[0] == 200


async def test_an_address_that_is_not_there_yet_can_be_listened_at(serving: Exporter) -> None:
    assert await serving.listen(ListenAt(ip_address("192.0.2.77"), free().port))
