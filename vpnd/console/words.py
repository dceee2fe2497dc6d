"""The words of the pages: English as it stands in the code, and a catalogue for each other language."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

LANGUAGES = {"en": "English", "zh": "中文"}
"""By the code that HTML knows."""

CATALOGUES = Path(__file__).parent / "locale"


@cache
def catalogue(language: str) -> dict[str, str]:
    """English text to text of this language; empty for English."""
    file = CATALOGUES / f"{language}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if language != "en" else {}


def translator(language: str) -> Callable[[str], str]:
    """What puts a text into the language; one that is not in the catalogue stays English."""
    known = catalogue(language)
    return lambda text: known.get(text, text)


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
