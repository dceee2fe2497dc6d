"""Which configuration counts after what has happened, whenever the daemon was killed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpnd.daemon.standing import Choice, Moment, Pending, Standing

WALL = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float, boot: str = "one", calendar: float = 0.0) -> Moment:
    """So long after the first boot; the calendar is ahead by `calendar`."""
    return Moment(1000 + seconds, boot, WALL + timedelta(seconds=seconds + calendar))


def pending(number: int, seconds: float, since: float = 0.0) -> Pending:
    now = at(since)
    until = now.wall + timedelta(seconds=seconds)
    return Pending(number, f"digest {number}", seconds, now.now + seconds, now.boot, until, ("a",))


def again(standing: Standing) -> Standing:
    """What a start reads."""
    return Standing.from_document(json.loads(json.dumps(standing.document())))


STEPS = st.one_of(
    st.tuples(st.just("apply"), st.none()),
    st.tuples(st.just("try"), st.integers(1, 600)),
    st.tuples(st.just("confirm"), st.none()),
    st.tuples(st.just("back"), st.none()),
    st.tuples(st.just("rollback"), st.none()),
)


@given(st.lists(STEPS, max_size=12), st.floats(0, 1000))
def test_a_start_never_uses_files_that_were_rolled_back(
    steps: list[tuple[str, int | None]], later: float
) -> None:
    """After any steps: an overdue one is not used, and what was rolled back is not, until it is applied."""
    standing, number, refused = Standing(confirmed=1), 1, None
    for step, seconds in steps:
        number += 1
        files = f"digest {number}"
        match step:
            case "apply":
                standing, refused = standing.applied(number), None
            case "try":
                standing, refused = standing.tried(pending(number, float(seconds or 1))), None
            case "confirm":
                confirmed = standing.pending is not None
                standing = standing.confirm()
                refused = None if confirmed else refused
            case "back":
                if standing.pending is not None:
                    refused = standing.pending.digest
                standing = standing.went_back("for a reason", WALL)
            case "rollback":
                standing, refused = standing.rolled(number, files, "by hand", WALL), files
    standing = again(standing)
    if standing.pending is not None:
        overdue = later >= standing.pending.seconds
        for files in ("another", standing.pending.digest):
            choice = standing.at_start(at(later), files)
            assert choice is (Choice.OVERDUE if overdue else Choice.PENDING)
    else:
        assert standing.at_start(at(later), "another") is Choice.FILES
        if refused is not None:
            assert standing.at_start(at(later), refused) is Choice.CONFIRMED


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        (at(10), 50),
        (at(60), 0),
        (at(10, calendar=500), 50),
        (at(10, calendar=-500), 50),
        (at(10, "two"), 50),
        (at(10, "two", calendar=500), -450),
        (at(10, "two", calendar=-500), 60),
        (Moment(5, "one", WALL + timedelta(seconds=40)), 20),
        (Moment(5, "one", WALL + timedelta(seconds=70)), -10),
    ],
)
def test_the_calendar_counts_after_another_boot_alone(moment: Moment, left: float) -> None:
    """And never for more than was asked for."""
    assert pending(2, 60).remaining(moment) == left


def test_a_second_try_goes_back_to_what_was_confirmed_before_the_first() -> None:
    standing = Standing(confirmed=1).tried(pending(2, 60)).tried(pending(3, 60))
    back = standing.went_back("x", WALL)
    assert (back.confirmed, back.pending) == (1, None)
    assert back.rolled_back is not None
    assert back.rolled_back.digest == "digest 3"
    assert standing.confirm() == Standing(confirmed=3)


def test_what_waits_for_nothing_is_as_it_was() -> None:
    standing = Standing(confirmed=4)
    assert standing.confirm() == standing == standing.went_back("x", WALL) == again(standing)
    assert Standing().at_start(at(0), "any") is Choice.FILES
