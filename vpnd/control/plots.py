"""Small plots of text: a line of bars, and bars in several rows with a scale."""

from __future__ import annotations

from collections.abc import Sequence

BARS = " ▁▂▃▄▅▆▇█"
PLAIN_BARS = " .:-=+*%#"
"""For a terminal that has no UTF-8."""

GAP = "?"
"""Stands where nothing is known."""


def sparkline(values: Sequence[float | None], width: int, most: float = 0.0, plain: bool = False) -> str:
    """The last `width` values, one character each, scaled to the largest or to `most` if that is more.

    A value that is not known is a blank; any that is not 0 is seen.
    """
    bars = PLAIN_BARS if plain else BARS
    shown = list(values)[-width:] if width > 0 else []
    top = max([most, *(value for value in shown if value is not None)])
    text = "".join(_bar(value, top, bars) for value in shown)
    return text.rjust(max(width, 0))


def _bar(value: float | None, top: float, bars: str) -> str:
    if value is None or value <= 0 or top <= 0:
        return bars[0]
    return bars[min(len(bars) - 1, max(1, round(value / top * (len(bars) - 1))))]


def chart(values: Sequence[float | None], height: int, plain: bool = False) -> tuple[list[str], float]:
    """One column a value, in `height` rows from the top; and what the top of the scale is.

    Where nothing is known the lowest row has `?`.
    """
    bars = PLAIN_BARS if plain else BARS
    steps = len(bars) - 1
    top = scale(max([0.0, *(value for value in values if value is not None)]))
    filled = [None if v is None else max(round(v / top * steps * height), 1 if v > 0 else 0) for v in values]
    rows = []
    for row in range(height - 1, -1, -1):
        cells = (
            (GAP if row == 0 else " ") if count is None else bars[min(steps, max(0, count - row * steps))]
            for count in filled
        )
        rows.append("".join(cells))
    return rows, top


def scale(value: float) -> float:
    """The round number at or above a value, on which a scale ends: 1, 2 or 5 times a power of ten."""
    step = 0.001
    while step < 1e12:
        for factor in (1, 2, 5):
            if value <= step * factor:
                return step * factor
        step *= 10
    return value
