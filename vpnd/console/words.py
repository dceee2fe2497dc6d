"""The words of the pages: English as it stands in the code, and catalogues for each other language.

What the daemon says are sentences with values in them: a second catalogue has their patterns, with `{}` for
a value.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Self

from markupsafe import Markup, escape

LANGUAGES = {"en": "English", "zh": "中文"}
"""By the code that HTML knows."""

CATALOGUES = Path(__file__).parent / "locale"

MAX_SAID = 1000
"""Ours: characters of a sentence that is looked for; a longer one stays as it is."""

MAX_PARTS = 4
"""Ours: how often a sentence is taken apart: a value of it may be a sentence again."""

MAX_LOOKS = 40
"""Ours: how many of its parts are looked for; an honest sentence has ten."""

CLEAR = 10
"""Ours: a pattern with fewer letters in a row is looked for last: `{} refused` may end another."""

MAX_CUTS = 3
"""Ours: places at which it is tried, so that no text that a peer chose takes long."""


@cache
def catalogue(language: str) -> dict[str, str]:
    """English text to text of this language; empty for English."""
    return _read(f"{language}.toml") if language != "en" else {}


@dataclass(frozen=True, slots=True)
class Sentence:
    """What the daemon says, and in another language; `words`: the longest piece, looked for first."""

    words: str
    pattern: re.Pattern[str]
    other: str

    @classmethod
    def of(cls, english: str, other: str) -> Self:
        """`{}` stands for a value."""
        pieces = english.split("{}")
        pattern = re.compile("(.+?)".join(map(re.escape, pieces)), re.DOTALL)
        return cls(max(pieces, key=len), pattern, other)


@cache
def sentences(language: str) -> tuple[Sentence, ...]:
    """All of them, the clearest first."""
    known = _read(f"{language}-said.toml") if language != "en" else {}
    found = [Sentence.of(english, other) for english, other in known.items()]
    return tuple(sorted(found, key=lambda one: (-len(one.words), -len(one.pattern.pattern))))


def _read(name: str) -> dict[str, str]:
    return tomllib.loads((CATALOGUES / name).read_text(encoding="utf-8"))


def translator(language: str) -> Callable[[str], str]:
    """What puts a text into the language; one that is not in the catalogue stays English."""
    known = catalogue(language)
    return lambda text: known.get(text, text)


@lru_cache(maxsize=2000)
def told(language: str, text: str) -> str | None:
    """What the daemon says, in the language; None where a part of it is not known."""
    return _Look(language).of(text.strip(), MAX_PARTS) if len(text) <= MAX_SAID else None


class _Look:
    """One sentence that is looked for, and how often that may go on."""

    def __init__(self, language: str) -> None:
        self._words = catalogue(language)
        known = sentences(language)
        self._clear = [one for one in known if len(one.words) >= CLEAR]
        self._short = known[len(self._clear) :]
        self._left = MAX_LOOKS

    def of(self, text: str, parts: int) -> str | None:
        if parts == 0 or self._left == 0:
            return None
        self._left -= 1
        if text in self._words:
            return self._words[text]
        return (
            self._whole(text, self._clear, parts)
            or self._in_parts(text, parts)
            or self._whole(text, self._short, parts)
        )

    def _whole(self, text: str, known: Sequence[Sentence], parts: int) -> str | None:
        for one in known:
            found = one.pattern.fullmatch(text) if one.words in text else None
            if found is not None:
                values = [self.of(value, parts - 1) or value for value in found.groups()]
                return one.other.format(*values)
        return None

    def _in_parts(self, text: str, parts: int) -> str | None:
        """`A: B`, `A; B`, `A (B)`: what is put together of sentences, a value at one of the ends."""
        before, within = _last_in_brackets(text)
        # One sentence before the brackets is that one, whatever marks are in it.
        whole = self._whole(before, self._clear, parts - 1) if within else None
        if whole is not None:
            return f"{whole}（{self.of(within, parts - 1) or within}）"
        for mark, other in ((" – ", " – "), (": ", "："), ("; ", "；")):
            for cut in [place.start() for place in re.finditer(mark, text)][:MAX_CUTS]:
                ends = text[:cut], text[cut + len(mark) :]
                first, last = [self.of(end, parts - 1) for end in ends]
                value_first = " " not in ends[0].replace(", ", "") or (mark == ": " and " - " in ends[0])
                if last is not None and (first is not None or value_first):
                    return f"{first or ends[0]}{other}{last}"
                if first is not None and mark == ": ":
                    return f"{first}{other}{ends[1]}"
        inner = self.of(before, parts - 1) if within else None
        if inner is None:
            return None
        return f"{inner}（{self.of(within, parts - 1) or within}）"


def _last_in_brackets(text: str) -> tuple[str, str]:
    """`A (B (C))` as A and B (C); nothing in brackets if it does not end so."""
    depth = 0
    for at in range(len(text) - 1, 0, -1):
        depth += (text[at] == ")") - (text[at] == "(")
        if depth == 0:
            ends_so = text.endswith(")") and text[at - 1] == " "
            return (text[: at - 1], text[at + 1 : -1]) if ends_so else (text, "")
    return text, ""


def teller(language: str) -> Callable[[str | None], Markup]:
    """What shows a sentence of the daemon; one that is not known is marked as English."""

    def shown(text: str | None) -> Markup:
        if text is None or language == "en":
            return escape(text or "")
        other = told(language, text)
        return escape(other) if other is not None else Markup('<span lang="en">{}</span>').format(text)

    return shown


def preferred(chosen: str | None, accepted: str) -> str:
    """The language that was chosen, else the browser's first that there is (RFC 9110 section 12.5.4)."""
    if chosen in LANGUAGES:
        return chosen
    weighted = []
    for place, entry in enumerate(accepted.split(",")[:20]):
        word, _, quality = entry.partition(";q=")
        try:
            weighted.append((-float(quality or 1), place, word.strip().partition("-")[0].lower()))
        except ValueError:
            continue
    return next((word for _, _, word in sorted(weighted) if word in LANGUAGES), "en")
