"""F15: the calendar is set, the machine was suspended, the process was stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.clocks import command, turn
from tests.faults.conftest import Arena
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.relay import through_relay
from tests.lab.trickle import Trickle
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow]

PLAN = Plan(routed=True, negotiation="active", dpd_timeout=300)
"""Only silence of most of that is followed by a question: there is none but by a suspension."""
HOUR, YEAR = 3600.0, 365.25 * 86400
WALLS = {"+1 h": HOUR, "-1 h": -HOUR, "+10 years": 10 * YEAR, "1970": None}
SUSPENSIONS = 3
"""At most: what was heard in the second before one counts as heard after it, and nothing is asked."""
ASK_EVERY = 5.0
"""Seconds between two questions that a stream in one direction causes anyhow."""


@pytest.fixture(scope="module")
def hands() -> Iterator[tuple[Arena, Path]]:
    """Two vpnd with a tunnel between them, and the file that sets the clocks of ours."""
    with Lab() as lab:
        weathered = through_relay(lab)
        file = lab.directory / "clocks.json"
        ours = Vpnd(weathered.wire.a.gateway, A.address, command(file))
        arena = Arena(weathered, ours, Vpnd(weathered.wire.b.gateway, B.address))
        arena.set_up(PLAN.change(negotiation="passive"))
        yield arena, file


@pytest.fixture
def arena(hands: tuple[Arena, Path]) -> Arena:
    """The tunnel is up, the calendar is right."""
    arena, file = hands
    turn(arena.ours, file)
    arena.bring_up(PLAN)
    arena.require_one_pair(PLAN)
    return arena


@pytest.fixture
def file(hands: tuple[Arena, Path]) -> Path:
    return hands[1]


def trickle(arena: Arena) -> Trickle:
    wire = arena.weathered.wire
    return Trickle(wire.a.host, A.inside, wire.b.host, B.inside)


def asked(arena: Arena) -> int:
    """How many requests for a sign of life we have sent, as the ladder tells them."""
    lines = arena.ours.call("GET", f"/v1/tunnels/{PLAN.name}/trace")["lines"]
    sent = (line["text"] for line in lines if line["direction"] == "out")
    return sum(text.startswith("INFORMATIONAL") and text.endswith("{}") for text in sent)


def require_no_storm(arena: Arena, questions: int, woke: float) -> None:
    """Since it woke there have been three questions at most beside those that the stream causes."""
    asked_now, since = asked(arena) - questions, time.monotonic() - woke
    assert asked_now <= 3 + since / ASK_EVERY


def age(arena: Arena) -> float:
    """Seconds since the pair of child SAs came up, those of a suspension counted, as status tells them."""
    seconds: float = arena.ours.tunnel(PLAN.name)["mappings"][0]["age_s"]
    return seconds


def test_f15_the_calendar_is_set(arena: Arena, file: Path, row: TellRow) -> None:
    before, born = arena.steady(PLAN), time.monotonic() - age(arena)
    for name, ahead in WALLS.items():
        questions = asked(arena)
        with trickle(arena) as stream:
            stream.wait_first_after(time.monotonic())
            turn(arena.ours, file, wall=-time.time() if ahead is None else ahead)
            time.sleep(1.2)
            told, true = age(arena), time.monotonic() - born
        row(
            "faults", id="F15", fault=f"calendar set to {name}", moment="traffic", target="vpnd-ikev2",
            figure=f"{stream.lost} lost, same SAs, age {told} s, {asked(arena) - questions} questions",
        )  # fmt: skip
        assert stream.lost == 0
        assert arena.ours.agreed(PLAN.name) == before
        assert abs(told - true) < 60
    arena.require_one_pair(PLAN)


def test_f15_the_machine_was_suspended(arena: Arena, file: Path, row: TellRow) -> None:
    """Idle, it asks the peer as soon as it wakes; a stream that it was suspended in goes on."""
    before, questions = arena.steady(PLAN), asked(arena)
    for _ in range(SUSPENSIONS):
        turn(arena.ours, file, asleep=400)
        woke = time.monotonic()
        with suppress(TimeoutError):
            wait_until(lambda: asked(arena) > questions, "a question", 10)
            break
    took = time.monotonic() - woke
    assert asked(arena) > questions
    with trickle(arena) as stream:
        stream.wait_first_after(time.monotonic())
        turn(arena.ours, file, asleep=400)
        time.sleep(1)
    require_no_storm(arena, questions, woke)
    row(
        "faults", id="F15", fault="suspended for 400 s", moment="idle, traffic", target="vpnd-ikev2",
        figure=f"{stream.lost} lost, same SAs, asked after {took:.2f} s",
    )  # fmt: skip
    assert stream.lost == 0
    assert arena.ours.agreed(PLAN.name) == before


def test_f15_suspended_for_longer_than_the_sas_live(arena: Arena, file: Path, row: TellRow) -> None:
    before, events = arena.steady(PLAN), len(arena.ours.events(PLAN.name))
    with trickle(arena) as stream:
        stream.wait_first_after(time.monotonic())
        turn(arena.ours, file, asleep=2 * HOUR)
        woke = time.monotonic()
        wait_until(lambda: arena.ours.agreed(PLAN.name) not in (before, []), "other SAs")
        noticed = time.monotonic() - woke
        stream.wait_first_after(time.monotonic())
    away = stream.longest_gap()
    row(
        "faults", id="F15", fault="suspended for 2 h, SAs live 1 h", moment="traffic", target="vpnd-ikev2",
        figure=f"traffic away {away:.2f} s, other SAs after {noticed:.1f} s",
    )  # fmt: skip
    told = arena.ours.told(PLAN.name, events)
    assert "attempt-failed" not in told
    assert "peer-silent" not in told
    arena.require_one_pair(PLAN)


@pytest.mark.full_faults
@pytest.mark.parametrize("seconds", [5, 40])
def test_f15_the_process_was_stopped(seconds: int, arena: Arena, row: TellRow) -> None:
    before, questions = arena.steady(PLAN), asked(arena)
    with trickle(arena) as stream:
        stream.wait_first_after(time.monotonic())
        arena.ours.child.signal(signal.SIGSTOP)
        time.sleep(seconds)
        arena.ours.child.signal(signal.SIGCONT)
        woke = time.monotonic()
        back = stream.wait_first_after(woke)
        time.sleep(1)
        asked_now = asked(arena) - questions
        require_no_storm(arena, questions, woke)
    row(
        "faults", id="F15", fault=f"SIGSTOP for {seconds} s", moment="traffic", target="vpnd-ikev2",
        figure=f"traffic {back:.2f} s after SIGCONT, {asked_now} questions, "
        + ("same SAs" if arena.ours.agreed(PLAN.name) == before else "new SAs"),
    )  # fmt: skip
    if seconds < 30:
        assert arena.ours.agreed(PLAN.name) == before
    arena.require_one_pair(PLAN)
