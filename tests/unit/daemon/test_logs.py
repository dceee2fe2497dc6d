"""The log: one line an event, the tunnel first, never a wait, never a forged line, never a key."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vpnd.control import severity
from vpnd.daemon.events import logs
from vpnd.daemon.events.logs import LOG, MAX_WAITING, REPEAT_EVERY, REPEATS_KEPT, LineWriter, Repeats
from vpnd.model.text import LONGEST_TEXT


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, log = root.handlers, root.level, dict(vars(LOG))
    yield
    root.handlers, root.level = handlers, level
    vars(LOG).update(log)


def lines_of(path: Path, text: bool | None, level: str = "info") -> list[str]:
    """What a few events look like in a file."""
    with path.open("w") as stream:
        writer = logs.configure(level, stream, text)
        LOG.info("up with 192.0.2.2", tunnel="branch", kind="tunnel-up")
        LOG.debug("a detail", tunnel="branch")
        LOG.warning("evil \x1b[2J\nE forged: line", tunnel="branch", code="E-PSK")
        logging.getLogger("somebody.else").warning("a library says %s", "hello")
        try:
            secret = "swordfish"
            raise ValueError(f"cannot parse {secret}")
        except ValueError:
            LOG.error("internal error", tunnel="branch", exc_info=True)
        writer.close()
    return path.read_text().splitlines()


@pytest.mark.usefixtures("restored")
def test_json_lines_begin_with_the_tunnel(tmp_path: Path) -> None:
    lines = lines_of(tmp_path / "log", text=False)
    assert lines[0].startswith('{"tunnel": "branch", "at": "')
    events = [json.loads(line) for line in lines]
    assert [event["event"][:10] for event in events] == [
        "up with 19",
        "evil \x1b[2J\n",
        "a library ",
        "internal e",
    ]
    assert events[0]["kind"] == "tunnel-up"
    assert events[2]["logger"] == "somebody.else"


def reads_as_journal(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """As if systemd had given this file to the process as its standard error."""
    path.touch()
    monkeypatch.setenv("JOURNAL_STREAM", f"{path.stat().st_dev}:{path.stat().st_ino}")


@pytest.mark.usefixtures("restored")
def test_the_journal_gets_priorities_and_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads_as_journal(monkeypatch, tmp_path / "log")
    monkeypatch.setattr(logs, "JOURNAL", str(tmp_path / "journal"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.setblocking(False)
        assert lines_of(tmp_path / "log", text=None) == []
        entries = [dict(line.split("=", 1) for line in said(journal).splitlines()) for _ in range(4)]
    up, forged, library, fault = entries
    assert up == {
        "MESSAGE": "branch: up with 192.0.2.2",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "vpnd",
        "VPND_TUNNEL": "branch",
        "VPND_KIND": "tunnel-up",
    }
    assert forged["MESSAGE"] == "branch: evil \\x1b[2J\\nE forged: line  [code=E-PSK]"
    assert (forged["PRIORITY"], forged["VPND_CODE"]) == ("4", "E-PSK")
    assert (library["PRIORITY"], library["VPND_LOGGER"]) == ("4", "somebody.else")
    assert (fault["PRIORITY"], fault["VPND_EXCEPTION"]) == ("3", "ValueError")
    assert "test_logs.py" in fault["VPND_STACK"]
    assert "swordfish" not in str(fault)


def said(journal: socket.socket) -> str:
    """The next entry, which ends with a line break."""
    entry = journal.recv(65536).decode()
    assert entry.endswith("\n")
    return entry


@pytest.mark.usefixtures("restored")
def test_a_journal_that_does_not_read_costs_a_bounded_number_of_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads_as_journal(monkeypatch, tmp_path / "log")
    monkeypatch.setattr(logs, "JOURNAL", str(tmp_path / "journal"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal, (tmp_path / "log").open("w") as stream:
        journal.bind(str(tmp_path / "journal"))
        journal.setblocking(False)
        writer = logs.configure("info", stream)
        for number in range(3 * MAX_WAITING):
            LOG.info(f"event {number}")
        entries = []
        with suppress(BlockingIOError):
            while True:
                entries.append(said(journal))
                writer.flush()
        writer.close()
    assert MAX_WAITING < len(entries) < 3 * MAX_WAITING
    assert any("lines were dropped" in entry and "PRIORITY=4" in entry for entry in entries)
    assert f"event {3 * MAX_WAITING - 1}\n" in entries[-1]


@pytest.mark.usefixtures("restored")
def test_where_the_journal_takes_no_entries_its_lines_have_priorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads_as_journal(monkeypatch, tmp_path / "log")
    monkeypatch.setattr(logs, "JOURNAL", str(tmp_path / "journal"))
    lines = lines_of(tmp_path / "log", text=None)
    assert [line[:4] for line in lines] == ["<6>{", "<4>{", "<4>{", "<3>{"]


def test_complaints_have_a_priority_in_the_journal_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "log").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        severity.complain("by hand")
        reads_as_journal(monkeypatch, tmp_path / "log")
        severity.complain("no key\n    make one", severity.WARNING)
    assert (tmp_path / "log").read_text() == "by hand\n<4>no key\n<4>    make one\n"


@pytest.mark.usefixtures("restored")
def test_text_lines_cannot_be_forged(tmp_path: Path) -> None:
    lines = lines_of(tmp_path / "log", text=True)
    assert len(lines) == 4
    assert " branch: up with 192.0.2.2" in lines[0]
    assert "\x1b" not in lines[1]
    assert "\\n" in lines[1]


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("text", [True, False])
def test_a_stack_names_places_and_no_values(tmp_path: Path, text: bool) -> None:
    line = lines_of(tmp_path / "log", text)[-1]
    assert "ValueError" in line
    assert "test_logs.py" in line
    assert "swordfish" not in line


@pytest.mark.usefixtures("restored")
def test_details_are_said_at_level_debug_only(tmp_path: Path) -> None:
    assert "a detail" not in "".join(lines_of(tmp_path / "info", text=True))
    assert "a detail" in "".join(lines_of(tmp_path / "debug", text=True, level="debug"))


def test_a_reader_that_does_not_read_holds_nobody_up() -> None:
    reader, writer = os.pipe()
    try:
        lines = LineWriter(writer)
        for number in range(MAX_WAITING * 3):
            lines.write(f"{number:05d} " + "x" * 200)
        os.set_blocking(reader, False)
        taken = b""
        while True:
            try:
                taken += os.read(reader, 1 << 16)
            except BlockingIOError:
                before = len(taken)
                lines.flush()
                try:
                    taken += os.read(reader, 1 << 16)
                except BlockingIOError:
                    break
                assert len(taken) > before
        read = taken.decode().splitlines()
        assert any("lines were dropped" in line for line in read)
        assert read[-1].startswith(f"{MAX_WAITING * 3 - 1:05d} ")
        numbers = [int(line[:5]) for line in read if line[:5].isdigit()]
        assert numbers == sorted(numbers)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_line_that_fits_in_part_goes_on_where_it_was() -> None:
    reader, writer = os.pipe()
    try:
        lines = LineWriter(writer)
        long = [letter * 100_000 for letter in "abc"]
        for line in long:
            lines.write(line)
        os.set_blocking(reader, False)
        taken = b""
        for _ in range(100):
            with suppress(BlockingIOError):
                taken += os.read(reader, 1 << 16)
            lines.flush()
        assert taken.decode() == "".join(f"{line}\n" for line in long)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = LineWriter(writer)
    lines.write("nobody hears this")
    lines.close()
    os.close(writer)


def test_what_repeats_is_said_once_and_then_counted() -> None:
    repeats = Repeats()
    said = [repeats.admit(now / 10, ("t", "refused")) for now in range(2000)]
    told = [held for held in said if held is not None]
    assert told[0] == 0
    assert len(told) == 2000 / 10 // REPEAT_EVERY + 1
    assert all(held == REPEAT_EVERY * 10 - 1 for held in told[1:])
    assert repeats.admit(200.0, ("t", "another")) == 0
    repeats.forget_tunnel("t")
    assert repeats.admit(200.0, ("t", "refused")) == 0


def test_repeats_are_bounded() -> None:
    repeats = Repeats()
    for number in range(REPEATS_KEPT * 2):
        repeats.admit(0.0, ("t", number))
    assert repeats.admit(1.0, ("t", REPEATS_KEPT * 2 - 1)) is None
    assert repeats.admit(1.0, ("t", 0)) == 0


@pytest.mark.usefixtures("restored")
def test_a_line_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        writer = logs.configure("info", stream, text=False)
        LOG.warning("x" * 99_000, detail="y" * 99_000)
        writer.close()
    (line,) = map(json.loads, path.read_text().splitlines())
    assert (len(line["event"]), len(line["detail"])) == (LONGEST_TEXT, LONGEST_TEXT)
