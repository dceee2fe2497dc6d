"""The last IKE messages of each tunnel."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from vpnd.control.eventlog import KEPT_EVENTS, KEPT_UNPROVEN
from vpnd.daemon.events.journal import Journal
from vpnd.daemon.events.recorder import KEPT_MESSAGES, KEPT_OF_STRANGERS, KEPT_SIGNS
from vpnd.ike.outputs import LadderLine
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.text import LONGEST_TEXT

START = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def wall(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


def journal_of(clock: Clock) -> Journal:
    """A journal that knows the tunnel."""
    journal = Journal(clock)
    journal.recorder.admit("t")
    return journal


def said(journal: Journal) -> list[str]:
    return [line.text for line in journal.traced("t")]


def test_messages_keep_their_order_time_and_direction() -> None:
    clock = Clock()
    journal = journal_of(clock)
    for second, text in enumerate(("IKE_AUTH 1 {AUTH}", "INFORMATIONAL 2 {}", "INFORMATIONAL 3 {D}")):
        clock.seconds = float(second)
        journal.trace(LadderLine("t", second != 1, text, 80 + second, ("a detail",) * second))
    clock.seconds = 100.0
    lines = journal.traced("t")
    assert [(line.direction, line.size, line.detail) for line in lines] == [
        ("out", 80, []),
        ("in", 81, ["a detail"]),
        ("out", 82, ["a detail", "a detail"]),
    ]
    assert [line.at for line in lines] == [START + timedelta(seconds=second) for second in range(3)]
    assert journal.traced("another") == []


@pytest.mark.parametrize(
    "sign",
    [
        "INFORMATIONAL {number} {{}}",
        "INFORMATIONAL {number:08x}* {{HASH, N(R_U_THERE)}}",
        "INFORMATIONAL {number:08x}* {{HASH, N(R_U_THERE_ACK)}}",
    ],
)
def test_signs_of_life_do_not_push_out_what_was_negotiated(sign: str) -> None:
    journal = journal_of(Clock())
    journal.trace(LadderLine("t", True, "IKE_SA_INIT 0 {SA, KEi, Ni}", 400))
    signs = [sign.format(number=number) for number in range(1000)]
    for text in signs:
        journal.trace(LadderLine("t", True, text, 80))
    assert said(journal) == ["IKE_SA_INIT 0 {SA, KEi, Ni}", *signs[-KEPT_SIGNS:]]


def test_the_oldest_messages_go() -> None:
    journal = journal_of(Clock())
    texts = [f"CREATE_CHILD_SA {number} {{SA, Ni, TSi, TSr}}" for number in range(KEPT_MESSAGES + 5)]
    for text in texts:
        journal.trace(LadderLine("t", True, text, 200))
    assert said(journal) == texts[5:]
    journal.forget("t")
    assert said(journal) == []


def test_strangers_do_not_push_out_what_was_negotiated() -> None:
    journal = journal_of(Clock())
    journal.trace(LadderLine("t", True, "IKE_AUTH 1 {IDi, AUTH, SA, TSi, TSr}", 400))
    for _ in range(1000):
        journal.trace(LadderLine("t", False, "IKE_SA_INIT 0 {SA, KEi, Ni}", 400, stranger=True))
    assert said(journal)[0] == "IKE_AUTH 1 {IDi, AUTH, SA, TSi, TSr}"
    assert len(said(journal)) == 1 + KEPT_OF_STRANGERS


def test_an_event_has_an_end() -> None:
    journal = journal_of(Clock())
    journal.event("t", "attempt-failed", "x" * 99_000)
    (event,) = journal.events.recent()
    assert len(event.text) == LONGEST_TEXT


def test_what_strangers_cause_leaves_the_other_events_where_they_are() -> None:
    journal = journal_of(Clock())
    journal.event("t", "tunnel-up", "up with 192.0.2.2")
    for number in range(KEPT_EVENTS + 1):
        journal.failure(f"t{number}", "attempt-failed", Diagnosis.of(Code.IDENTITY), unproven=True)
    events = journal.events.recent()
    assert events[0].event == "tunnel-up"
    assert len(events) == 1 + KEPT_UNPROVEN
