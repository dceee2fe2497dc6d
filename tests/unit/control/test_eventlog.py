"""The ring of events and its live readers."""

from __future__ import annotations

import asyncio

from tests.unit.control.fakes import AT
from vpnd.control.eventlog import KEPT_UNPROVEN, EventLog
from vpnd.control.schema import Event


def event(number: int) -> Event:
    return Event(at=AT, event="x", text=str(number))


async def test_only_the_last_are_kept() -> None:
    log = EventLog(kept=3)
    for number in range(5):
        log.publish(event(number))
    assert [e.text for e in log.recent()] == ["2", "3", "4"]
    assert [e.text async for e in log.stream(follow=False)] == ["2", "3", "4"]


async def test_no_event_is_lost_between_the_kept_and_the_new_ones() -> None:
    log = EventLog()
    log.publish(event(0))
    log.publish(event(1))
    stream = log.stream(follow=True)
    seen = [(await anext(stream)).text]
    log.publish(event(2))
    seen += [(await anext(stream)).text for _ in range(2)]
    assert seen == ["0", "1", "2"]
    await stream.aclose()
    assert log.followers == 0


async def test_a_slow_reader_is_told_what_it_missed() -> None:
    log = EventLog(backlog=2)
    stream = log.stream(follow=True)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    log.publish(event(0))
    assert (await first).text == "0"
    for number in range(1, 6):
        log.publish(event(number))
    missed, fourth, fifth = [await anext(stream) for _ in range(3)]
    assert (missed.event, missed.text[:1]) == ("events-missed", "3")
    assert (fourth.text, fifth.text) == ("4", "5")
    await stream.aclose()


def test_what_anyone_can_cause_pushes_out_nothing_else() -> None:
    log = EventLog(kept=10)
    for number in range(5):
        log.publish(Event(at=AT, event="tunnel-up", text=f"ours {number}"))
    for number in range(10_000):
        log.publish(Event(at=AT, event="attempt-failed", text=f"a stranger's {number}"), unproven=True)
    log.publish(Event(at=AT, event="tunnel-down", text="ours 5"))
    texts = [event.text for event in log.recent()]
    assert texts[:5] == [f"ours {number}" for number in range(5)]
    assert texts[5:-1] == [f"a stranger's {number}" for number in range(10_000 - KEPT_UNPROVEN, 10_000)]
    assert texts[-1] == "ours 5"
