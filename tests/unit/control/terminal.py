"""A program in a real pseudo-terminal, and the screen that a person would see."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyte

COLUMNS, LINES = 80, 24


class Terminal:
    """What one program writes to 80 x 24, put onto a screen by `pyte`, as a terminal does it."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._master = master
        self._screen = pyte.HistoryScreen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, without blanks at the ends of lines."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def scrolled(self) -> int:
        """How many lines have left the screen at its top."""
        return len(self._screen.history.top)

    def until(self, text: str) -> list[str]:
        """The screen once it has this text. Raises EOFError if the program ends without it."""
        while not any(text in line for line in self.lines):
            self._read()
        return self.lines

    def to_its_end(self) -> list[str]:
        """The screen that the program leaves."""
        try:
            while True:
                self._read()
        except EOFError:
            return self.lines

    def press(self, keys: bytes) -> None:
        """Type these bytes."""
        os.write(self._master, keys)

    def _read(self) -> None:
        ended = False
        while not select.select([self._master], [], [], 0.05)[0]:
            if ended:
                raise EOFError("\n".join(self.lines))
            ended = self.process.poll() is not None
        self._stream.feed(os.read(self._master, 65536))


@contextmanager
def terminal(command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """The program in a terminal. At its end the terminal is set as it was, which is checked."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    before = termios.tcgetattr(slave)
    kept = os.dup(slave)
    try:
        with subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=directory, env=environment
        ) as process:
            os.close(slave)
            found = Terminal(master, process)
            try:
                yield found
            except BaseException:
                process.kill()
                raise
        assert termios.tcgetattr(kept) == before
    finally:
        os.close(kept)
        os.close(master)
