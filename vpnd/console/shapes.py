"""Numbers as people read them, and the health check's history as points of a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime

from vpnd.sdk.models import HealthSample, TunnelStatus

WIDTH, HEIGHT = 600, 80
"""Of a drawing, in its own units."""


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


def line(values: Sequence[float | None], top: float) -> list[str]:
    """The points of each unbroken piece of a curve, as SVG's `points`; None is a gap."""
    pieces: list[list[str]] = [[]]
    step = WIDTH / max(1, len(values) - 1)
    for place, value in enumerate(values):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{place * step:.1f},{HEIGHT - HEIGHT * min(1.0, value / top):.1f}")
    return [" ".join(piece) for piece in pieces if piece]


def curves(history: Sequence[HealthSample]) -> list[dict[str, object]]:
    """Loss, round trip and jitter of the last hour, each with its largest value."""
    kinds = (
        ("Loss", "%", [100 * one.lost / one.sent if one.sent else None for one in history]),
        ("Round trip", "ms", [one.rtt_ms for one in history]),
        ("Jitter", "ms", [one.jitter_ms for one in history]),
    )
    drawn: list[dict[str, object]] = []
    for name, unit, values in kinds:
        top = max((value for value in values if value is not None), default=0.0)
        drawn.append({"name": name, "unit": unit, "top": f"{top:.1f}", "pieces": line(values, top or 1.0)})
    return drawn


def drops(tunnel: TunnelStatus) -> list[tuple[str, int]]:
    """The reasons for which packets went no further, and how many."""
    counted = ((field.name, getattr(tunnel.drops, field.name)) for field in fields(tunnel.drops))
    return [(name.replace("_", " "), count) for name, count in counted if count]
