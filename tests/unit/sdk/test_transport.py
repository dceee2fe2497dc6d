"""The client, before daemons that do not behave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from vpnd.sdk import transport
from vpnd.sdk.errors import DaemonUnreachable, Refused
from vpnd.sdk.transport import AsyncTransport, tunnel_path


@asynccontextmanager
async def answering(path: Path, *answers: bytes) -> AsyncIterator[AsyncTransport]:
    """A server that gives one raw answer to each connection, the last one again and again."""
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        writer.close()

    server = await asyncio.start_unix_server(answer, str(path))
    async with server:
        yield AsyncTransport(path)


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


OK = http("200 OK", b'{"a": 1}')
BUSY_SAID = http("503 Service Unavailable", b'{"error": {"code": "E-BUSY", "message": "full"}}')
BUSY = http("503 Service Unavailable", b"Service Unavailable")


@pytest.mark.parametrize("busy", [BUSY, BUSY_SAID])
async def test_it_comes_back_to_a_busy_daemon(tmp_path: Path, busy: bytes) -> None:
    async with answering(tmp_path / "s", busy, busy, OK) as client:
        assert await client.get("/v1/status") == {"a": 1}


async def test_a_daemon_that_stays_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BUSY_LIMIT", 0.0)
    async with answering(tmp_path / "s", BUSY) as client:
        with pytest.raises(Refused) as refused:
            await client.get("/v1/status")
    assert refused.value.error["code"] == "E-BUSY"


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK", b"<html>"),
        http("200 OK", b"[1]"),
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    ],
)
async def test_what_does_not_answer_as_vpnd_does(tmp_path: Path, answer: bytes) -> None:
    async with answering(tmp_path / "s", answer) as client:
        with pytest.raises(DaemonUnreachable) as unreachable:
            await client.get("/v1/status")
    assert unreachable.value.hint


async def test_a_daemon_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER_LIMIT", 0.05)
    hold = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.close()

    server = await asyncio.start_unix_server(silent, str(tmp_path / "s"))
    async with server:
        with pytest.raises(DaemonUnreachable, match="no answer in time"):
            await AsyncTransport(tmp_path / "s").get("/v1/status")
        with pytest.raises(DaemonUnreachable, match="no answer in time"):
            await anext(AsyncTransport(tmp_path / "s").events(follow=True))
        hold.set()


async def test_events_arrive_in_pieces_and_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ANSWER_LIMIT", 0.05)
    more = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b'{"n": 1}\n{"n"', b': 2}\n\n{"n": ', b"3}\n"):
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await more.wait()
        writer.write(b'8\r\n{"n": 4}\r\n0\r\n\r\n')
        writer.close()

    async with await asyncio.start_unix_server(answer, str(tmp_path / "s")):
        events = AsyncTransport(tmp_path / "s").events(follow=True)
        assert [await anext(events) for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]
        fourth = asyncio.ensure_future(anext(events))
        done, _ = await asyncio.wait((fourth,), timeout=0.1)
        assert not done, "the limit of an answer is none of an event"
        more.set()
        assert await fourth == {"n": 4}
        assert [event async for event in events] == []


async def test_events_of_a_daemon_that_is_killed(tmp_path: Path) -> None:
    cut = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"n": 1}\n\r\n'
    async with answering(tmp_path / "s", cut) as client:
        events = client.events(follow=True)
        assert await anext(events) == {"n": 1}
        with pytest.raises(DaemonUnreachable, match="the connection ended"):
            await anext(events)


async def test_an_answer_after_an_interim_one(tmp_path: Path) -> None:
    async with answering(tmp_path / "s", b"HTTP/1.1 100 Continue\r\n\r\n" + OK) as client:
        assert await client.post("/v1/reload", {}) == {"a": 1}


async def test_an_error_without_a_shape(tmp_path: Path) -> None:
    async with answering(tmp_path / "s", http("500 Oops", b"oops")) as client:
        with pytest.raises(Refused, match="oops"):
            await client.delete("/v1/tunnels/x")
        with pytest.raises(Refused, match="oops"):
            async for _ in client.events(follow=True):
                pass


def test_paths() -> None:
    assert tunnel_path("a b/c", "up") == "/v1/tunnels/a%20b%2Fc/up"
