"""What is wrong with a configuration: place, code, what it is, what to change. Never a key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from vpnd.model.text import MASKED, may_be_a_key, printable


class Severity(Enum):
    """An error keeps a configuration from being used; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `line` is 1-based, None where there is no text (a tunnel that came through the API).

    `key` is the dotted path of the value, such as `tunnels.branch-a.ike.encryption`. All of it may hold words
    of a file, and is safe to print: what is not printable is escaped here.
    """

    file: str
    line: int | None
    code: str
    severity: Severity
    message: str
    hint: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        for field in ("file", "message", "hint", "key"):
            text = getattr(self, field)
            if text is not None:
                object.__setattr__(self, field, printable(text))

    @property
    def place(self) -> str:
        """`FILE:LINE`, or the file alone."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.place}  {self.code}  {self.message}"


class ConfigurationInvalid(ValueError):
    """A configuration with errors was asked to be compiled. `problems` are all of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        errors = [p for p in self.problems if p.severity is Severity.ERROR]
        super().__init__("; ".join(str(p) for p in errors[:3]) + ("; ..." if len(errors) > 3 else ""))


def counted(number: int, word: str) -> str:
    """`1 tunnel`, `2 tunnels`, `0 tunnels`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def quoted(value: object) -> str:
    """A value as a message shows it: quoted, escaped, at most 60 characters; never one that may be a key."""
    if any(may_be_a_key(text) for text in _texts(value)):
        return f'"{MASKED}" (not repeated: it may be a key)'
    text = repr(value) if not isinstance(value, str) else printable(value)
    text = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
    return f'"{text}"' if isinstance(value, str) else text


def _texts(value: object) -> Iterator[str]:
    """The texts of a value, also those within lists and tables."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (*_texts(key), *_texts(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """`did you mean "aes-128"?`, or None if nothing is close."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return f'did you mean "{folded[close[0]]}"?' if close else None


MAX_SHOWN = 60
"""Ours: characters of a value that a message repeats."""
