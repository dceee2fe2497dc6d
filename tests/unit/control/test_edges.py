"""What a command does at the edge of what it can be given, and where this machine does not answer it."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vpnd.control import render
from vpnd.control.doctor import verdicts
from vpnd.control.doctor.verdicts import ThisMachine, as_json
from vpnd.control.rotation import Unusable, end_of, lines, next_key

EDGES = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"]


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("moment", EDGES)
def test_a_moment_that_there_is_not_in_this_time_zone_is_refused(moment: str) -> None:
    with pytest.raises(Unusable, match="is not a moment"):
        end_of(moment)


def test_the_last_moment_of_all_can_be_shown_anywhere(far_east: None) -> None:
    assert render.moment("9999-12-31T23:59:59+00:00") == "9999-12-31T23:59:59+00:00"
    assert render.moment("2026-03-01T20:00:00+00:00") == "2026-03-02 04:00:00"


def test_a_next_key_comes_from_a_file_or_is_made(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("a key that nobody has to guess\n")
    file.chmod(0o600)
    assert next_key(file) == ("a key that nobody has to guess", None)
    made, shown = next_key(None)
    assert made == shown
    assert len(made) == 43
    file.write_bytes(b"\xff" * 32)
    with pytest.raises(Unusable, match="is no text"):
        next_key(file)
    file.chmod(0o644)
    with pytest.raises(Unusable, match="others can read it"):
        next_key(file)


def test_a_rotation_says_where_it_is() -> None:
    keys = {"current": "6fde-84c1", "next": "eac2-6705", "theirs": None}
    begun = {"tunnel": "t", "done": True, "keys": keys, "key": "the key"}
    assert lines(begun) == ["t: 6fde-84c1 and eac2-6705 are accepted", "for the other end: the key"]
    seen = {"tunnel": "t", "done": True, "keys": {**keys, "theirs": {"fingerprint": "eac2-6705"}}}
    assert lines(seen)[1].startswith("the peer was seen with the next one")
    assert lines({**seen, "keys": {**keys, "next": None}}) == ["t: the key is 6fde-84c1"]
    assert lines({"done": False, "lines": ["write this"]}) == ["write this"]


@pytest.mark.parametrize(("answer", "said"), [(0, True), (1, True), (verdicts.TIME_ERROR, False), (-1, None)])
def test_what_the_kernel_says_of_the_clock(
    answer: int, said: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minus one is no state of the clock: the kernel has refused to say (adjtimex(2))."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(adjtimex=lambda buffer: answer))
    assert ThisMachine().synchronized() is said


def test_a_c_library_without_that_call_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    assert ThisMachine().synchronized() is None


def test_a_program_says_what_it_prints_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = ThisMachine()
    assert machine.run("sh", "-c", "echo yes") == "yes\n"
    assert machine.run("sh", "-c", "echo no; exit 3") is None
    assert machine.run("no-such-program-here") is None
    assert machine.run("printf", "a\\377b") == "a\\xffb", "an alias of a link may be any bytes"
    monkeypatch.setattr(verdicts, "ANSWER_WITHIN", 0.05)
    assert machine.run("sleep", "5") is None


def test_a_file_says_what_is_in_it_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "value").write_text("1\n")
    assert ThisMachine().read(str(tmp_path / "value")) == "1"
    (tmp_path / "bytes").write_bytes(b"a\xff")
    assert ThisMachine().read(str(tmp_path / "bytes")) == "a\\xff"
    assert ThisMachine().read(str(tmp_path / "none")) is None
    assert ThisMachine().read(str(tmp_path)) is None


def test_a_name_has_each_of_its_addresses_once() -> None:
    found = ThisMachine().resolve("127.0.0.1")
    assert found == ["127.0.0.1"]
    assert abs(ThisMachine().now() - time.time()) < 60


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"dst": "10.0.0.0/8"}, 3, null]', [{"dst": "10.0.0.0/8"}]),
        ("", []),
        (None, []),
        ("{}", []),
        ("Error: no such table", []),
    ],
)
def test_what_is_no_json_says_nothing(text: str | None, found: list[object]) -> None:
    assert as_json(text) == found


def test_a_plan_says_what_holds_only_later_and_what_interrupts() -> None:
    keys = [
        {"key": "gateway.region", "before": None, "after": "north", "class": "live"},
        {"key": "gateway.engine", "before": "python", "after": "auto", "class": "next start"},
    ]
    document = {"gateway": keys, "tunnels": [], "unchanged": ["t"], "problems": []}
    assert [line.plain for line in render.plan(document)] == [
        "gateway",
        '    gateway.region: none -> "north"',
        '    gateway.engine: "python" -> "auto", next start',
        "0 tunnels to change, 1 not touched",
    ]
