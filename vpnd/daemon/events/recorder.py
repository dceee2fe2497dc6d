"""The flight recorder: the last IKE messages of each tunnel, decoded, in memory and in the state directory.

A message is kept as the line of JSON that its file has: its number, the time in seconds since 1970, 1 for
sent, bytes, text, details, kind. The file of a tunnel gets new lines at its end, `WRITE_AFTER` seconds after
the first of them came, in one write; once it has grown too long it is written again without the old ones,
beside its place, and renamed over it. Signs of life and messages of strangers go to the disk with the next
other message only: what comes every few seconds, and what anyone can send, must not keep a disk busy.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vpnd.daemon.state import file_stem, replace_files
from vpnd.ike.outputs import LadderLine
from vpnd.model.secret import Secret

KEPT_MESSAGES = 200
"""Ours: messages of each tunnel: a day of rekeys, or some fifty attempts that failed."""
KEPT_SIGNS = 16
"""Ours: likewise, of those that only ask whether the peer lives: they come every few seconds, and would push
out all that was ever negotiated."""
KEPT_OF_STRANGERS = 32
"""Ours: likewise, of attempts of a peer that has not proved itself: anyone can send first messages."""
TUNNEL_BYTES = 128 * 1024
"""Ours: of one tunnel. 200 honest messages take 40 to 70 KB; a peer can make each as long as 4 KB."""
ALL_BYTES = 64 * 1024 * 1024
"""Ours: of all tunnels: 1,000 of them with 200 messages each. The tunnel with most gives way."""
OVERHEAD = 48
"""Bytes that a kept line takes besides its text: CPython's object, and its place in a list."""
WRITE_AFTER = 3.0
"""Ours: seconds; what `kill -9` can lose."""
LONGEST_FILE = 4 * TUNNEL_BYTES
"""Ours: bytes of a file until the lines that are not kept any more are taken out of it."""
DIRECTORY = "recordings"

MESSAGE, SIGN, STRANGER = range(3)
_MOST: Final = (KEPT_MESSAGES, KEPT_SIGNS, KEPT_OF_STRANGERS)
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode

Line = tuple[int, bytes]
"""The number of a message, and its line."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message: its number, which only grows, when it was seen (seconds since 1970), and what it was."""

    number: int
    at: float
    line: LadderLine


@dataclass(slots=True)
class _Tape:
    """The messages of one tunnel, by their kind."""

    kinds: tuple[list[Line], list[Line], list[Line]] = field(default_factory=lambda: ([], [], []))
    size: int = 0
    begun: int = 0
    """The number before the first message of the tunnel as it is configured now."""
    written: int = 0
    """The number of the last message that is in the file, or was given up."""
    is_due: bool = False
    """Whether a message waits that has to be written soon."""

    def begin(self, number: int) -> None:
        """What comes after `number` is of the tunnel as it is configured now."""
        self.begun = number

    def take(self) -> bytes:
        """The lines that are not written yet, each once."""
        lines = [line for line in self.lines() if line[0] > self.written]
        self.written = max([self.written, *(number for number, _ in lines)])
        self.is_due = False
        return b"".join(text + b"\n" for _, text in lines)

    def add(self, kind: int, line: Line) -> int:
        """Keep one; returns by how many bytes the tape has grown."""
        before = self.size
        self.is_due = self.is_due or kind == MESSAGE
        kept = self.kinds[kind]
        kept.append(line)
        self.size += len(line[1]) + OVERHEAD
        while len(kept) > _MOST[kind]:
            self._drop(kept)
        while self.size > TUNNEL_BYTES:
            self.give()
        return self.size - before

    def give(self) -> int:
        """Drop the oldest of the kind with most bytes; returns how many they were."""
        kept = max(self.kinds, key=lambda lines: sum(len(text) for _, text in lines))
        return self._drop(kept) if kept else 0

    def _drop(self, kept: list[Line]) -> int:
        dropped = len(kept.pop(0)[1]) + OVERHEAD
        self.size -= dropped
        return dropped

    def lines(self) -> list[Line]:
        return sorted(line for kind in self.kinds for line in kind)


class Recorder:
    """Keeps the messages; `keep` writes them to the state directory, as long as it runs."""

    def __init__(self, state: Path | None = None, first: int = 0) -> None:
        """`state`: the state directory; None: nothing is kept over a restart. `first`: below every number."""
        self._directory = None if state is None else state / DIRECTORY
        self._tapes: dict[str, _Tape] = {}
        self._size = 0
        self._first = first
        self._number = first
        self._wake = asyncio.Event()

    @property
    def size(self) -> int:
        """Bytes that all messages take in memory."""
        return self._size

    def admit(self, tunnel: str) -> None:
        """A tunnel is there from now on; the record of one that was there, configured otherwise, goes on."""
        self._tapes.setdefault(tunnel, _Tape(written=self._number)).begin(self._number)

    def add(self, at: float, line: LadderLine) -> None:
        """Keep one message, seen at `at` (seconds since 1970), unless its tunnel is removed."""
        tape = self._tapes.get(line.tunnel)
        if tape is None:
            return
        self._number += 1
        kind = STRANGER if line.stranger else SIGN if line.is_sign_of_life else MESSAGE
        encoded = (self._number, _encode(_facts(kind, Recorded(self._number, at, line))).encode())
        self._size += tape.add(kind, encoded)
        while self._size > ALL_BYTES:
            self._size -= max(self._tapes.values(), key=lambda one: one.size).give()
        if kind == MESSAGE and self._directory is not None:
            self._wake.set()

    def recorded(self, tunnel: str) -> list[Recorded]:
        """The last messages of a tunnel, oldest first, those before the last start included."""
        tape = self._tapes.get(tunnel)
        ours = tape.lines() if tape is not None else []
        found = [*self._read(tunnel), *(text for _, text in ours)]
        return [recorded for _, recorded in _newest(found, tunnel)]

    def present(self, tunnel: str) -> list[LadderLine]:
        """Of those, the messages since the start, of the tunnel as it is configured now."""
        tape = self._tapes.get(tunnel)
        if tape is None:
            return []
        lines = (_decoded(text, tunnel) for number, text in tape.lines() if number > tape.begun)
        return [found[1].line for found in lines if found is not None]

    def forget(self, tunnel: str) -> None:
        """The tunnel is removed, and its recording with it."""
        tape = self._tapes.pop(tunnel, None)
        if tape is not None:
            self._size -= tape.size
        if self._directory is not None:
            with suppress(OSError):  # A directory that cannot be written has said so at the last write.
                self._file(tunnel).unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove the recordings of tunnels that are not there: they were removed while nothing ran."""
        if self._directory is None:
            return
        known = {self._file(tunnel).name for tunnel in self._tapes}
        with suppress(OSError):  # As above; or there is no directory yet.
            for path in self._directory.glob("*.jsonl"):
                if path.name not in known:
                    path.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------- on disk

    async def changed(self) -> None:
        """Wait until there is something to write."""
        await self._wake.wait()

    def take(self, everything: bool = False) -> dict[str, bytes]:
        """What is to be written, by tunnel, each once; `everything`: what is in no hurry as well."""
        self._wake.clear()
        taken = {}
        for name, tape in self._tapes.items():
            if (tape.is_due or everything) and (text := tape.take()):
                taken[name] = text
        return taken

    def write(self, taken: Mapping[str, bytes]) -> None:
        """Add to the files what was taken; may run in a thread. Raises OSError."""
        if self._directory is None or not taken:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in taken.items():
            self._append(name, text)

    def tidy(self, written: Iterable[str]) -> None:
        """Remove the files of tunnels that were removed while they were written."""
        for name in written:
            if name not in self._tapes:
                self.forget(name)

    def _append(self, tunnel: str, text: bytes) -> None:
        path = self._file(tunnel)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            os.write(descriptor, text if size else _head(tunnel) + text)
        finally:
            os.close(descriptor)
        if size + len(text) > LONGEST_FILE:
            kept = (_encode(_facts(*found)).encode() + b"\n" for found in _newest(self._read(tunnel), tunnel))
            replace_files({path: Secret(_head(tunnel) + b"".join(kept))})

    def _read(self, tunnel: str) -> list[bytes]:
        """The lines of a tunnel's file; what is damaged is skipped later."""
        if self._directory is None:
            return []
        try:
            with self._file(tunnel).open("rb") as file:
                return file.read(2 * LONGEST_FILE).splitlines()
        except OSError:
            return []

    def _file(self, tunnel: str) -> Path:
        directory = self._directory or Path()
        return directory / f"{file_stem(tunnel)}.jsonl"


def _newest(lines: Iterable[bytes], tunnel: str) -> list[tuple[int, Recorded]]:
    """What is kept of these lines, with the kind of each, in order, each number once."""
    found = {}
    for line in lines:
        if (decoded := _decoded(line, tunnel)) is not None:
            found[decoded[1].number] = decoded
    ordered = [found[number] for number in sorted(found)]
    kept: list[tuple[int, Recorded]] = []
    counts, size = [0, 0, 0], 0
    for kind, recorded in reversed(ordered):
        counts[kind] += 1
        if counts[kind] <= _MOST[kind] and size <= TUNNEL_BYTES:
            size += len(recorded.line.text) + sum(map(len, recorded.line.detail))
            kept.append((kind, recorded))
    return kept[::-1]


def _head(tunnel: str) -> bytes:
    """The first line of a file: whose it is, since a long name is cut in the file's."""
    return _encode({"tunnel": tunnel}).encode() + b"\n"


def _facts(kind: int, one: Recorded) -> list[Any]:
    line = one.line
    return [one.number, round(one.at, 3), int(line.outbound), line.size, line.text, line.detail, kind]


def _decoded(text: bytes, tunnel: str) -> tuple[int, Recorded] | None:
    """Kind and message of a line; None for one that was cut off or is no message."""
    try:
        facts: Any = json.loads(text)
        number, at, outbound, size, words, detail, kind = facts
        line = LadderLine(
            tunnel, bool(outbound), str(words), int(size), tuple(map(str, detail)), kind == STRANGER
        )
        if kind not in range(len(_MOST)):
            return None
        return int(kind), Recorded(int(number), float(at), line)
    except (ValueError, TypeError, OverflowError):
        return None


async def keep(
    recorder: Recorder, in_thread: Callable[..., Awaitable[None]], complain: Callable[[OSError], None]
) -> None:
    """Write what is new, seldom, until cancelled; `complain` hears of a write that failed."""
    while True:
        await recorder.changed()
        await asyncio.sleep(WRITE_AFTER)
        taken = recorder.take()
        try:
            await in_thread(recorder.write, taken)
        except OSError as error:
            complain(error)
        recorder.tidy(taken)
