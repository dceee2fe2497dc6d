"""How long a text may be that is kept, and how it is shown: what a peer sends ends up in some of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

LONGEST_TEXT = 4096
"""Characters of a kept text: a screen of an honest message; a hostile one fills no memory and no log."""
LONGEST_HEADLINE = 1024
"""Of those, what names a message; the rest is for its details."""
LONGEST_FACT = 1000
"""Characters of one value in a diagnosis, which has up to four that a peer chooses."""
SHOWN_SPIS = 8
"""Of one DELETE: an honest one names one or two, a hostile one as many as 64 KB hold."""
GOES_ON = " ..."


def printable(text: str) -> str:
    """`text` with all that moves a cursor, begins a line or is no character escaped (`\\x1b`, `\\n`)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cut(text: str, most: int = LONGEST_TEXT) -> str:
    """`text`, or as much of it as `most` characters hold, with a mark that it goes on."""
    return text if len(text) <= most else text[: max(0, most - len(GOES_ON))] + GOES_ON


def cut_lines(lines: Iterable[str], most: int = LONGEST_TEXT) -> tuple[str, ...]:
    """As many of `lines` as `most` characters hold, the last perhaps cut. No further one is asked for."""
    kept: list[str] = []
    for line in lines:
        kept.append(cut(line, most))
        most -= len(line)
        if most <= 0:
            break
    return tuple(kept)


_ADDRESSES = re.compile(r"[0-9A-Fa-f:.]+(%\w+)?(/[0-9]+|-[0-9A-Fa-f:.]+)?")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}[0-9TtZz:+. -]*")
_NAMES = re.compile(r"@?[A-Za-z0-9_*-]{1,63}(\.[A-Za-z0-9_*-]{1,63})+\.?")
SHORT, LONG = 8, 20
"""Ours: characters below which a text is no key, and from which on a word without structure may be one."""
FEWEST = 5
"""Ours: different characters that a key has at least."""
_WORD = re.compile(r"[A-Za-z]{0,12}[0-9]{0,6}")
"""Ours: what the names of algorithms, options and tunnels are joined of."""


def may_be_a_key(text: str) -> bool:
    """Whether a text that has no place where it stands may be a key that was typed there by mistake.

    Addresses, moments, domain names, short words, words joined of short ones and a few letters repeated
    are none.
    """
    if text.startswith("plain:"):
        return True
    if len(set(text)) < FEWEST:
        return False
    structured = _ADDRESSES.fullmatch(text) and any(mark in text for mark in ".:/")
    if len(text) < SHORT or structured or _MOMENT.fullmatch(text) or _NAMES.fullmatch(text):
        return False
    parts = re.split(r"[-_./:,]", text)
    if all(_WORD.fullmatch(part) for part in parts):
        return len(parts) == 1 and _kinds(text) > 2
    if len(text) >= LONG or any(c.isspace() for c in text):
        return True
    return _kinds(text) > 2


def named(text: str) -> str:
    """A word that someone has typed, as a refusal repeats it."""
    return MASKED if may_be_a_key(text) else repr(text)


def is_like_a_moment(text: str) -> bool:
    """Whether a text begins with a date, and has no more than times and zones do."""
    return _MOMENT.fullmatch(text) is not None


def _kinds(text: str) -> int:
    """How many kinds of characters it has: small and large letters, digits, others."""
    tests = (str.islower, str.isupper, str.isdigit, lambda c: not (c.isalnum() or c in "-_./:,"))
    return sum(any(map(test, text)) for test in tests)


MASKED = "***"


def describe_spis(spis: Sequence[bytes]) -> str:
    """`c0ffee00, c0ffee01`; of many the first, and how many more there are."""
    more = f" and {len(spis) - SHOWN_SPIS} more" if len(spis) > SHOWN_SPIS else ""
    return ", ".join(spi.hex() for spi in spis[:SHOWN_SPIS]) + more
