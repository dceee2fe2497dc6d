"""Numbers as people read them, and the last hour as points of a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from vpnd.sdk.models import HealthSample, TunnelStatus

WIDTH, HEIGHT = 600, 80
"""Of a drawing, in its own units."""

EDGE = 2
"""Units above and below a curve, so that none of its line is cut off."""

MINUTES = 60
"""Of a drawing; the daemon keeps a sample a minute of the health check."""


def duration(seconds: float | None) -> str:
    """`3 d 4 h`, `5 h 12 min`, `7 min 3 s`, `12 s`."""
    if seconds is None:
        return "–"
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((place for place, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number or first == 3)


def amount(number: float, unit: str, thousand: int = 1000) -> str:
    """`1.2 MB`, `340 B`; with `thousand` 1024 nothing else changes."""
    for prefix in ("", "k", "M", "G", "T"):
        if number < thousand or prefix == "T":
            return f"{number:.0f} {unit}" if not prefix else f"{number:.1f} {prefix}{unit}"
        number /= thousand
    return ""


def clock_time(at: datetime) -> str:
    """As the events have it, in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%S")


def mappings_up(tunnel: TunnelStatus) -> str:
    """`2/3`."""
    return f"{sum(one.state == 'up' for one in tunnel.mappings)}/{len(tunnel.mappings)}"


def line(values: Sequence[float | None], top: float, most: int) -> list[str]:
    """The points of each unbroken piece of a curve, as SVG's `points`; None is a gap.

    The newest of `most` values is at the right end: a history that is short begins further right.
    """
    pieces: list[list[str]] = [[]]
    step, high = WIDTH / (most - 1), HEIGHT - 2 * EDGE
    for place, value in enumerate(values, most - len(values)):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{place * step:.1f},{EDGE + high - high * min(1.0, value / top):.1f}")
    # A single point is a short line, which can be seen.
    return [" ".join(piece * 2 if len(piece) == 1 else piece) for piece in pieces if piece]


@dataclass(frozen=True, slots=True)
class Curve:
    """One drawing of the last hour: its lines, and its largest and its newest value for people."""

    name: str
    top: str
    now: str
    lines: tuple[list[str], ...]


def health_curves(history: Sequence[HealthSample]) -> list[Curve]:
    """Loss, round trip and jitter, as the daemon kept them."""
    last = history[-MINUTES:]
    return [
        curve("Loss", "%", [[100 * one.lost / one.sent if one.sent else None for one in last]]),
        curve("Round trip", "ms", [[one.rtt_ms for one in last]]),
        curve("Jitter", "ms", [[one.jitter_ms for one in last]]),
    ]


def curve(name: str, unit: str, kinds: Sequence[Sequence[float | None]], most: int = MINUTES) -> Curve:
    """The lines of one drawing, on one scale."""
    top = max((value for values in kinds for value in values if value is not None), default=0.0)
    newest = [_number(values[-1] if values else None, unit) for values in kinds]
    lines = tuple(line(values, top or 1.0, most) for values in kinds)
    return Curve(name, _number(top, unit), " / ".join(newest), lines)


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return amount(value, unit) if unit == "bit/s" else f"{value:.1f} {unit}"


def drops(tunnel: TunnelStatus) -> list[tuple[str, int]]:
    """The reasons for which packets went no further, and how many."""
    counted = ((field.name, getattr(tunnel.drops, field.name)) for field in fields(tunnel.drops))
    return [(name.replace("_", " "), count) for name, count in counted if count]
