"""Answers that wait: an action until it is done, events until there are no more, both until the daemon stops.

Events go out as lines of JSON, or as server-sent events (HTML standard, section 9.2) to who asks for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from vpnd.control.lists import EventFilter
from vpnd.control.operations import OperationError
from vpnd.control.schema import Event

NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"

BEAT = 15.0
"""Ours, in seconds: between two comments of a stream of server-sent events, so that nothing on the way
takes it for dead (the HTML standard proposes about 15)."""

COME_BACK = 1000
"""Ours, in milliseconds: until a client that lost the stream asks again."""

PCAPNG = "application/x-pcapng"

T = TypeVar("T")


async def unless_closing(action: Coroutine[Any, Any, T], closing: asyncio.Event) -> T:
    """The action's result, or a refusal as soon as the daemon stops."""
    work = asyncio.ensure_future(action)
    stop = asyncio.ensure_future(closing.wait())
    try:
        await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
        # What the daemon cancels ends because it stops.
        if work.done() and not work.cancelled():
            return work.result()
        raise Stopping
    finally:
        work.cancel()
        stop.cancel()


class Stopping(OperationError):
    """The daemon stops before the action ended."""

    http_status = 503

    def __init__(self) -> None:
        super().__init__("E-STOPPING", "vpnd is stopping", "try again when it runs")


async def until(stream: AsyncGenerator[bytes, None], *ends: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """What `stream` yields until one of `ends` is set; it is closed in any case."""
    stops = [asyncio.ensure_future(end.wait()) for end in ends]
    following: asyncio.Future[bytes] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(stream))
            await asyncio.wait((following, *stops), return_when=asyncio.FIRST_COMPLETED)
            if any(stop.done() for stop in stops):
                return
            try:
                yield following.result()
            except StopAsyncIteration:
                return
    finally:
        for stop in stops:
            stop.cancel()
        if following is not None and not following.done():
            following.cancel()
            await asyncio.wait((following,))
        await stream.aclose()


def prefers_event_stream(accept: str) -> bool:
    """Whether an Accept header (RFC 9110 section 12.5.1) wants server-sent events more than lines of JSON."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights[kind] = next((_weight(one[2:]) for one in parameters if one.startswith("q=")), 1.0)
    wanted = weights.get(EVENT_STREAM, 0.0)
    return wanted > 0 and wanted >= weights.get(NDJSON, 0.0)


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


async def events_as(
    media_type: str, stream: AsyncIterator[Event], wanted: EventFilter, *ends: asyncio.Event
) -> AsyncGenerator[str, None]:
    """The events that are wanted, as text of this type, until there are no more or one of `ends` is set."""
    stops = [asyncio.ensure_future(end.wait()) for end in ends]
    is_sse, sent = media_type == EVENT_STREAM, 0
    try:
        if is_sse:
            yield f"retry: {COME_BACK}\n\n"
        async with aclosing(_until(stream, stops, BEAT if is_sse else None)) as until:
            async for event in until:
                if event is None:
                    yield ":\n\n"
                elif wanted.matches(event):
                    yield _server_sent(event) if is_sse else event.model_dump_json() + "\n"
                    sent += 1
                    if sent == wanted.limit:
                        return
    finally:
        for stop in stops:
            stop.cancel()


def _server_sent(event: Event) -> str:
    """One event; without a name, so that a browser's `onmessage` hears all. JSON has no bare line end."""
    known = f"id: {event.id}\n" if event.id is not None else ""
    return f"{known}data: {event.model_dump_json()}\n\n"


async def _until(
    stream: AsyncIterator[Event], stops: Sequence[asyncio.Future[Any]], beat: float | None
) -> AsyncGenerator[Event | None, None]:
    """The events of `stream` until one of `stops` is done, and None after each `beat` seconds of silence.

    The stream is closed in any case.
    """
    following: asyncio.Future[Event] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(stream))
            await asyncio.wait((following, *stops), timeout=beat, return_when=asyncio.FIRST_COMPLETED)
            if any(stop.done() for stop in stops):
                return
            if not following.done():
                yield None
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield event
    finally:
        if following is not None and not following.done():
            following.cancel()
            await asyncio.wait((following,))
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
