"""Events as server-sent events (HTML standard, section 9.2): who gets them, in which form, and from where."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from tests.unit.control.conftest import Daemon
from tests.unit.control.fakes import AT
from tests.unit.control.test_api import until
from vpnd.control import streams
from vpnd.control.eventlog import EventLog
from vpnd.control.lists import EventFilter
from vpnd.control.schema import Event
from vpnd.control.streams import EVENT_STREAM, NDJSON, events_as, prefers_event_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("accept", "prefers"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        ("text/event-stream, application/json;q=0.9", True),
        ("application/x-ndjson, text/event-stream", True),
        ("application/x-ndjson, text/event-stream;q=0.5", False),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=nonsense", False),
        ("application/json", False),
        ("*/*", False),
        ("text/*", False),
        ("", False),
        (",;,", False),
    ],
)
async def test_who_prefers_them(accept: str, prefers: bool) -> None:
    assert prefers_event_stream(accept) is prefers


def event(number: int) -> Event:
    return Event(at=AT, tunnel="分支", event="tunnel-up", text=f"number {number}\nline")


async def told(daemon: Daemon, query: str, **headers: str) -> tuple[str, list[tuple[str | None, str]]]:
    """What a client of server-sent events hears: the content type, and each message's id and text."""
    connector = aiohttp.UnixConnector(path=str(daemon.socket))
    accept = {"Accept": EVENT_STREAM, **headers}
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://vpnd/v1/events?{query}", headers=accept) as answer,
    ):
        text = (await answer.read()).decode()
    heard = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            heard.append((fields.get("id"), json.loads(fields["data"])["text"]))
    return answer.content_type, heard


async def test_events_have_their_id_and_go_on_after_it(daemon: Daemon) -> None:
    for number in range(3):
        daemon.operations.log.publish(event(number))
    kept = daemon.operations.log.recent()
    content_type, heard = await told(daemon, "follow=false")
    assert content_type == EVENT_STREAM
    assert heard == [(one.id, one.text) for one in kept]
    last = kept[1].id or ""
    for query, headers in (("", {"Last-Event-ID": last}), (f"&after={last}", {})):
        _, later = await told(daemon, f"follow=false{query}", **headers)
        assert [text for _, text in later] == [kept[2].text]
    _, both = await told(daemon, f"follow=false&after={last}", **{"Last-Event-ID": kept[0].id or ""})
    assert len(both) == 2, "a client that reconnects knows more than the address it began with"
    _, unknown = await told(daemon, "follow=false", **{"Last-Event-ID": "of-another-life"})
    assert len(unknown) == 3


async def test_new_events_follow_and_silence_is_filled(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BEAT", 0.01)
    connector = aiohttp.UnixConnector(path=str(daemon.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://vpnd/v1/events", headers={"Accept": EVENT_STREAM}) as answer,
    ):
        assert await answer.content.readuntil(b"\n\n") == b"retry: 1000\n\n"
        assert await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 60) == b":\n\n"
        daemon.operations.log.publish(event(7))
        while (block := await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 60)) == b":\n\n":
            pass
        assert block.startswith(b"id: ")
        assert b"number 7" in block
    await until(lambda: not daemon.operations.log.followers)


async def test_what_was_missed_has_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that comes back asks for what follows the last event that it got."""
    log = EventLog(backlog=2)
    end = asyncio.Event()
    wanted = EventFilter(tunnel=["another"])
    stream = events_as(EVENT_STREAM, log.stream(follow=True), wanted, end)
    assert await anext(stream) == "retry: 1000\n\n"
    following = asyncio.ensure_future(anext(stream))
    await until(lambda: log.followers)
    for number in range(5):
        log.publish(event(number))
    text = await asyncio.wait_for(following, 60)
    assert text.startswith("data: ")
    assert "events-missed" in text
    await stream.aclose()
    assert not log.followers


@pytest.mark.parametrize("media_type", [NDJSON, EVENT_STREAM])
async def test_the_end_of_the_daemon_is_the_end(media_type: str) -> None:
    log, first, second = EventLog(), asyncio.Event(), asyncio.Event()
    stream = events_as(media_type, log.stream(follow=True), EventFilter(), first, second)
    log.publish(event(0))
    heard = []

    async def read() -> None:
        async for text in stream:
            heard.append(text)
            second.set()

    await asyncio.wait_for(read(), 60)
    assert heard
    assert not log.followers
