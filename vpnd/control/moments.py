"""Moments that an operator types: `10m` ago, or the time itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
HINT = "write --since 10m (s, m, h, d, w), or --since 2026-03-01T14:00:00Z"

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")


def moment_of(text: str) -> datetime:
    """`10m`: so long ago; else the time itself, in the zone of this machine where none is written.

    Raises ValueError.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text.strip()).astimezone()
    except OverflowError:
        raise ValueError(f"{text!r} is too long ago") from None
