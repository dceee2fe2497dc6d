"""One structured event a line: text on a terminal, an entry of systemd's journal, JSON otherwise.

A log must not hold the gateway up: lines go to a descriptor that does not block, and what it does not take
waits in a bounded buffer, then is dropped and counted. Messages that repeat are said once, then as a count
every minute.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from vpnd.control.severity import DEBUG, ERROR, INFO, WARNING, in_journal
from vpnd.model.text import cut, printable

MAX_WAITING = 1000
"""Ours: lines that wait for a reader that does not read, some 200 KB."""

REPEAT_EVERY = 60.0
"""Ours: seconds between two reports of the same thing."""

REPEATS_KEPT = 4096
"""Ours: different messages whose repetition is counted at a time."""

LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}
"""By the words of the command line."""

JOURNAL = "/run/systemd/journal/socket"
"""Where the journal takes entries, a datagram each (systemd's "Native Journal Protocol")."""

Event = MutableMapping[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class LineWriter:
    """Writes whole lines to a descriptor without ever waiting for it.

    A pipe or a socket is switched to non-blocking; a file or terminal is written directly.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._was_blocking = os.get_blocking(descriptor)
        if not os.isatty(descriptor):
            os.set_blocking(descriptor, False)

    def write(self, line: str) -> None:
        """Write one line, or keep it for later; the oldest go when too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(self._encode(line))
        self.flush()

    def _encode(self, line: str) -> bytes:
        return line.encode("utf-8", "backslashreplace") + b"\n"

    def flush(self) -> None:
        """Write what waits, as far as the reader takes it."""
        if self._dropped and self._write(self._encode(self._notice(self._dropped))):
            self._dropped = 0
        while self._waiting:
            if not self._write(self._waiting[0]):
                return
            self._waiting.popleft()

    def close(self) -> None:
        """Leave the descriptor as it was; others may share it."""
        self.flush()
        try:
            os.set_blocking(self._descriptor, self._was_blocking)
        except OSError:
            return

    def _write(self, line: bytes) -> bool:
        try:
            written = self._send(line)
        except OSError as error:
            # A reader that is gone stays gone: its lines are not kept.
            return not isinstance(error, BlockingIOError)
        if written < len(line) and self._waiting and self._waiting[0] is line:
            self._waiting[0] = line[written:]
            return False
        return True

    def _send(self, line: bytes) -> int:
        return os.write(self._descriptor, line)

    @staticmethod
    def _notice(dropped: int) -> str:
        return f"({dropped} lines were dropped: nobody read)"


class EntryWriter(LineWriter):
    """Writes whole entries to the journal, with the same bound."""

    def __init__(self, journal: socket.socket) -> None:
        super().__init__(journal.fileno())
        self._journal = journal

    def close(self) -> None:
        """Write what waits, as far as it is taken, and close the socket."""
        self.flush()
        self._journal.close()

    def _send(self, line: bytes) -> int:
        return self._journal.send(line)

    @staticmethod
    def _notice(dropped: int) -> str:
        return _entry(LineWriter._notice(dropped), WARNING, {})


class Repeats:
    """Decides whether a message is said: the first time, and then once a minute with a count."""

    def __init__(self) -> None:
        self._seen: dict[tuple[object, ...], list[float]] = {}

    def admit(self, now: float, key: tuple[object, ...]) -> int | None:
        """None: not now. Else how many times the same was held back since it was last said."""
        entry = self._seen.get(key)
        if entry is None:
            if len(self._seen) >= REPEATS_KEPT:
                self._seen.pop(next(iter(self._seen)))
            self._seen[key] = [now, 0]
            return 0
        if now - entry[0] < REPEAT_EVERY:
            entry[1] += 1
            return None
        held = int(entry[1])
        self._seen[key] = [now, 0]
        return held

    def forget_tunnel(self, tunnel: str, but: str | None = None) -> None:
        """What is said of this tunnel next counts as the first; its name comes first in its keys.

        `but`: keys with this word in them are kept.
        """
        for key in [key for key in self._seen if key[0] == tunnel and (but is None or but not in key)]:
            del self._seen[key]


def configure(level: str, stream: TextIO = sys.stderr, text: bool | None = None) -> LineWriter:
    """Set `LOG` and the standard library's logging up; returns the writer, for its `flush`."""
    writer, render = _writer(stream, text)
    LOG.set(writer.write, render, LEVELS[level])
    # What libraries say is rare and serious; it goes the same way.
    root = logging.getLogger()
    root.handlers = [_Bridge()]
    root.setLevel(logging.WARNING)
    return writer


def _writer(stream: TextIO, text: bool | None) -> tuple[LineWriter, Callable[[Event], str]]:
    """What takes the events, and how it wants them."""
    if text is None and in_journal(stream):
        journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            journal.connect(JOURNAL)
        except OSError:
            journal.close()
            return LineWriter(stream.fileno()), _marked_line
        return EntryWriter(journal), _journal_entry
    as_text = stream.isatty() if text is None else text
    return LineWriter(stream.fileno()), _text_line if as_text else _json_line


class Log:
    """Events by their level, each one line: a text, and facts as keywords."""

    def __init__(self) -> None:
        self.set(print, lambda event: _text_line(event), DEBUG)

    def set(self, write: Callable[[str], None], render: Callable[[Event], str], least: int) -> None:
        """From now on lines go to `write`; `least`: the severity of the least that is said."""
        self._write, self._render, self._least = write, render, least

    def debug(self, text: str, **facts: Any) -> None:
        self._say("debug", text, facts)

    def info(self, text: str, **facts: Any) -> None:
        self._say("info", text, facts)

    def warning(self, text: str, **facts: Any) -> None:
        self._say("warning", text, facts)

    def error(self, text: str, **facts: Any) -> None:
        self._say("error", text, facts)

    def _say(self, level: str, text: str, facts: Event) -> None:
        if LEVELS[level] > self._least:
            return
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = {**facts, "event": text, "level": level, "at": at}
        _add_traceback(event)
        self._write(self._render(_cut_texts(event)))


LOG = Log()
"""That of the daemon. Without `configure`, as in tests, its lines go to standard output."""


class _Bridge(logging.Handler):
    """Hands records of the standard library's logging to `LOG`."""

    def emit(self, record: logging.LogRecord) -> None:
        name = record.levelname.lower()
        call = getattr(LOG, name if name in LEVELS else "error")
        call(
            record.getMessage(),
            logger=record.name,
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        )


def _add_traceback(event: Event) -> None:
    """The stack of an exception, without local variables: they may hold keys."""
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    if isinstance(exc_info, tuple) and exc_info[0] is not None:
        frames = traceback.extract_tb(exc_info[2])
        places = [f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
        # The type alone: an exception's text may repeat what it was given.
        event["exception"] = exc_info[0].__name__
        event["stack"] = places


def _cut_texts(event: Event) -> Event:
    """No value is longer than a text that is kept anywhere else."""
    return {key: cut(value) if isinstance(value, str) else value for key, value in event.items()}


def _json_line(event: Event) -> str:
    first = {key: event.pop(key) for key in ("tunnel", "at", "level", "event") if key in event}
    return json.dumps({**first, **event}, ensure_ascii=False, default=str)


def _marked_line(event: Event) -> str:
    return f"<{LEVELS.get(event['level'], ERROR)}>{_json_line(event)}"


def _journal_entry(event: Event) -> str:
    """The text as on a terminal, and each fact in a field of its own, such as VPND_TUNNEL."""
    del event["at"]
    severity = LEVELS.get(event.pop("level"), ERROR)
    tunnel, text = event.get("tunnel"), str(event.pop("event"))
    rest = _rest({key: value for key, value in event.items() if key not in ("tunnel", "kind")})
    return _entry((f"{tunnel}: " if tunnel else "") + text + rest, severity, event)


def _entry(message: str, severity: int, facts: Event) -> str:
    """An entry, without its last line break. No value has a line break, so that each is a line."""
    fields = {"MESSAGE": message, "PRIORITY": str(severity), "SYSLOG_IDENTIFIER": "vpnd"}
    for key, value in facts.items():
        if value is not None:
            name = re.sub(r"[^A-Z0-9]", "_", key.upper())
            fields[f"VPND_{name}"] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "\n".join(f"{name}={printable(value)}" for name, value in fields.items())


def _text_line(event: Event) -> str:
    tunnel, at, level = event.pop("tunnel", None), event.pop("at"), event.pop("level")
    text = event.pop("event")
    event.pop("kind", None)
    mark = {"debug": ".", "info": " ", "warning": "!", "error": "E"}.get(level, "E")
    return f"{at[11:19]} {mark} {printable(tunnel or '-')}: {printable(text)}{_rest(event)}"


def _rest(event: Event) -> str:
    """What comes after the text."""
    rest = " ".join(f"{key}={printable(str(value))}" for key, value in event.items() if value is not None)
    return f"  [{rest}]" if rest else ""
