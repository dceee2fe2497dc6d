"""On which line each key of a TOML file stands, which `tomllib` does not tell.

The scanner walks a text that `tomllib` has accepted, so it only has to find where things begin: it knows
comments, the four kinds of string, bare, quoted and dotted keys, tables, arrays of tables, arrays over
several lines and inline tables (TOML 1.0).
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property

Path = tuple[str | int, ...]
"""Keys and array indices from the root: `("tunnels", "a", "spd", 0, "local", 1)`."""

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL = re.compile(r"'[^'\n]*'")
_MULTILINE_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})', re.DOTALL)
_MULTILINE_LITERAL = re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL)
_SCALAR = re.compile(r"[^,\]\}\n#]*")


class Places:
    """The line of every key, table and array element of one file, which `tomllib.loads` must have accepted.

    The text is scanned when the first line is asked for: a file without problems never is.
    """

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")

    @cached_property
    def _lines(self) -> dict[Path, int]:
        scanner = _Scanner(self._text)
        scanner.scan()
        return scanner.lines

    def exact(self, path: Path) -> int | None:
        """The line on which `path` is written, or None if it is not."""
        return self._lines.get(path)

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest table above it that is written."""
        for length in range(len(path), 0, -1):
            line = self._lines.get(path[:length])
            if line is not None:
                return line
        return 1 if self._lines else None

    def line_of(self, key: str, spelled: Callable[[Path], str]) -> int | None:
        """The line of a path that is written as text, `spelled` being how, or of the nearest above it."""
        found = [
            path for path in self._lines if f"{key}.".startswith((f"{spelled(path)}.", f"{spelled(path)}["))
        ]
        return self._lines[max(found, key=len)] if found else None


NOWHERE = Places("")
"""The places of a table that was never text."""


class _Scanner:
    """One pass over the text; `lines` is the result."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._pos = 0
        self._newlines = [i for i, c in enumerate(text) if c == "\n"]
        self._array_sizes: dict[Path, int] = {}

    def scan(self) -> None:
        table: Path = ()
        while True:
            self._skip(_BLANK)
            if self._pos >= len(self._text):
                return
            if self._text.startswith("[[", self._pos):
                table = self._array_header()
            elif self._text[self._pos] == "[":
                table = self._table_header()
            else:
                self._pair(table)

    def _table_header(self) -> Path:
        start = self._pos
        self._pos += 1
        path = self._resolve(self._key())
        self._pos += 1
        self._record(path, start)
        return path

    def _array_header(self) -> Path:
        start = self._pos
        self._pos += 2
        *above, last = self._key()
        self._pos += 2
        array = (*self._resolve(above), last)
        index = self._array_sizes.get(array, 0)
        self._array_sizes[array] = index + 1
        self._record((*array, index), start)
        return (*array, index)

    def _resolve(self, keys: list[str]) -> Path:
        """A header's keys as a path: through an array of tables it means the array's last table."""
        path: Path = ()
        for key in keys:
            path = (*path, key)
            if path in self._array_sizes:
                path = (*path, self._array_sizes[path] - 1)
        return path

    def _pair(self, table: Path) -> None:
        start = self._pos
        path = (*table, *self._key())
        self._record(path, start)
        self._pos += 1
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip(_SPACE)
        match self._text[self._pos : self._pos + 1]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._string()
            case _:
                self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self._pos += 1
        index = 0
        while not self._closed_by("]"):
            self._record((*path, index), self._pos)
            self._value((*path, index))
            index += 1
            self._skip_comma()

    def _inline_table(self, path: Path) -> None:
        self._pos += 1
        while not self._closed_by("}"):
            self._pair(path)
            self._skip_comma()

    def _closed_by(self, bracket: str) -> bool:
        self._skip(_BLANK)
        if self._pos < len(self._text) and self._text[self._pos] != bracket:
            return False
        self._pos += 1
        return True

    def _skip_comma(self) -> None:
        self._skip(_BLANK)
        if self._text.startswith(",", self._pos):
            self._pos += 1

    def _key(self) -> list[str]:
        """A key with its dots; leaves the position at the `=` or `]` behind it."""
        parts = [self._simple_key()]
        while self._text.startswith(".", self._pos):
            self._pos += 1
            parts.append(self._simple_key())
        return parts

    def _simple_key(self) -> str:
        self._skip(_SPACE)
        match self._text[self._pos : self._pos + 1]:
            case '"':
                raw = self._skip(_BASIC)
                key = str(tomllib.loads(f"k = {raw}")["k"])
            case "'":
                key = self._skip(_LITERAL)[1:-1]
            case _:
                key = self._skip(_BARE_KEY)
        self._skip(_SPACE)
        return key

    def _string(self) -> None:
        if self._text.startswith('"""', self._pos):
            self._skip(_MULTILINE_BASIC)
        elif self._text.startswith("'''", self._pos):
            self._skip(_MULTILINE_LITERAL)
        elif self._text[self._pos] == '"':
            self._skip(_BASIC)
        else:
            self._skip(_LITERAL)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._pos)
        if found is None:
            raise ValueError(f"the scanner and tomllib disagree at line {self._line(self._pos)}")
        self._pos = found.end()
        return found.group()

    def _record(self, path: Path, position: int) -> None:
        """The first place of `path` and of every table above it that has none yet."""
        line = self._line(position)
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _line(self, position: int) -> int:
        return bisect_right(self._newlines, position - 1) + 1
