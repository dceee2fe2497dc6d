"""How the SPIs that a DELETE names are drawn for people, the same in both versions."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN_SPIS = 8
"""Of one DELETE: an honest one names one or two, a hostile one as many as 64 KB hold."""


def describe_spis(spis: Sequence[bytes]) -> str:
    """`c0ffee00, c0ffee01`; of many the first, and how many more there are."""
    more = f" and {len(spis) - SHOWN_SPIS} more" if len(spis) > SHOWN_SPIS else ""
    return ", ".join(spi.hex() for spi in spis[:SHOWN_SPIS]) + more
