"""What is understood without typer is what typer understands; all else is left to typer."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pytest

from vpnd.control import cli, commandline
from vpnd.daemon import main

PROGRAMS = {"vpnctl": cli.app, "vpnd": main.app}
ASKING = {"init"}
VALUES = {"int": "7", "float": "2.5", "Level": "debug"}


CALLS: list[dict[str, Any]] = []


def recording(app: commandline.Commands) -> commandline.Commands:
    """The same commands, which only say how they were called."""
    made = commandline.Commands(**app.more)
    for name, function in app.commands.items():
        made.command(name)(told(function))
    if app.before is not None:
        made.callback()(told(app.before))
    for name, group in app.groups.items():
        made.add_typer(recording(group), name)
    return made


def told(function: Callable[..., None]) -> FunctionType:
    """A function of the same signature."""
    assert isinstance(function, FunctionType)
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    body: dict[str, Any] = {}
    exec(f"def told({', '.join(names)}):\n    calls.append(dict(locals()))", body)
    globals_ = {**function.__globals__, "calls": CALLS}
    same = FunctionType(body["told"].__code__, globals_, function.__name__, function.__defaults__)
    same.__annotations__ = function.__annotations__
    return same


def lines(app: commandline.Commands, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Command lines of every command: alone, with each option in each of its forms, and with all of them."""
    for name, function in app.commands.items():
        if name not in ASKING:
            yield from lines_of(function, (*before, name))
    for name, group in app.groups.items():
        yield from lines(group, (*before, name))


def lines_of(function: Callable[..., None], before: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    known = [
        one
        for one in commandline.parameters_of(function)
        if not (one.is_argument and one.many and one.has_default)
    ]
    needed = [word for one in known if not one.has_default for word in words(one)]
    yield (*before, *needed)
    yield (*before, *(word for one in known for word in words(one)))
    if before != ("status",):
        # Every command has these two.
        known = [one for one in known if one.name not in ("socket", "json")]
    for one in known:
        if one.has_default:
            yield (*before, *words(one), *needed)
        for flag in one.said.flags if one.has_default and one.kind is not bool else ():
            yield (*before, *needed, f"{flag}={words(one)[1]}")
        if one.many:
            yield (*before, *needed, *words(one), *words(one))


def words(known: commandline.Known) -> list[str]:
    value = [] if known.kind is bool else [VALUES.get(known.kind.__name__, "some")]
    return [*known.said.flags[:1], *value]


RECORDING = {program: recording(app) for program, app in PROGRAMS.items()}
CASES = [(program, line) for program, app in PROGRAMS.items() for line in lines(app)]
BEFORE = [
    ("vpnctl", ("--json", "status")),
    ("vpnctl", ("--socket", "/a", "why", "t")),
    ("vpnctl", ("--socket=/a", "--json", "psk", "status")),
]


NOT_COMPARED = {"context": None, "version": None}
"""The one is an object of each of them, the other what its own function has returned."""


@pytest.mark.parametrize(
    ("program", "line"), CASES + BEFORE, ids=[" ".join((program, *line)) for program, line in CASES + BEFORE]
)
def test_a_right_line_is_called_as_typer_calls_it(program: str, line: tuple[str, ...]) -> None:
    CALLS.clear()
    for step in RECORDING[program].steps(list(line)):
        step()
    here = [call | NOT_COMPARED for call in CALLS]
    CALLS.clear()
    RECORDING[program].for_typer()(list(line), standalone_mode=False, prog_name=program)
    assert here == [call | NOT_COMPARED for call in CALLS]
    assert here


WRONG = [
    *(
        (),
        ("--help",),
        ("-h",),
        ("status", "--help"),
        ("unknown",),
        ("psk",),
        ("psk", "unknown"),
        ("status", "more"),
    ),
    *(
        ("show",),
        ("why", "a", "b"),
        ("up", "t", "--timeout"),
        ("up", "t", "--timeout", "x"),
        ("up", "--no-all"),
    ),
    *(("up", "t", "--timeout", "0"), ("up", "t", "--timeout", "601"), ("up", "t", "--timeout", "-1")),
    *(("up", "t", "--timeout", "1", "--timeout", "2"), ("up", "t", "--timeout", "nan"), ("up", "--", "t")),
    *(
        ("up", "t", "--timeout", "1_0"),
        ("rollback", "0"),
        ("rollback", "20"),
        ("rollback", "1.0"),
        ("up", ""),
    ),
    *(
        ("status", "--json=yes"),
        ("status", "--limit="),
        ("--json", "--json", "status"),
        ("--unknown", "status"),
    ),
    *(("events", "-ff"), ("events", "-x"), ("peer-config", "t", "--for"), ("add",), ("--version",)),
    *(("peer-config", "t"), ("pcap", "t"), ("pcap", "t", "--ike")),
]


@pytest.mark.parametrize("line", WRONG, ids=" ".join)
def test_everything_else_is_left_to_typer(line: tuple[str, ...]) -> None:
    with pytest.raises(commandline.NotUnderstood):
        cli.app.steps(list(line))


def test_what_asks_questions_or_has_an_answer_of_its_own_is_left_to_typer() -> None:
    for line in (["init"], ["--version"], ["run", "--log-level", "loud"]):
        with pytest.raises(commandline.NotUnderstood):
            main.app.steps(line)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (KeyboardInterrupt(), 130),
        (EOFError(), 1),
        (SystemExit(3), 3),
        (BrokenPipeError(32, "Broken pipe"), 1),
        (None, 0),
    ],
)
def test_the_program_ends_as_with_typer(
    raised: BaseException | None,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = commandline.Commands()

    @app.command()
    def one() -> None:
        if raised is not None:
            raise raised

    @app.command()
    def two() -> None:
        raise AssertionError

    for call in (app, app.for_typer()):
        monkeypatch.setattr("sys.stdout", io.StringIO())
        monkeypatch.setattr("sys.stderr", io.StringIO())
        with pytest.raises(SystemExit) as ended:
            call(["one"])
        assert ended.value.code == code
