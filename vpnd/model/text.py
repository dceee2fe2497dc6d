"""How long a text may be that is kept, and how it is shown: what a peer sends ends up in some of them."""

from __future__ import annotations

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


def describe_spis(spis: Sequence[bytes]) -> str:
    """`c0ffee00, c0ffee01`; of many the first, and how many more there are."""
    more = f" and {len(spis) - SHOWN_SPIS} more" if len(spis) > SHOWN_SPIS else ""
    return ", ".join(spi.hex() for spi in spis[:SHOWN_SPIS]) + more
