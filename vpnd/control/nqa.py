"""`vpnctl nqa`: the health check's last hour as plots of loss, round trip and jitter, one column a minute."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.text import Text

from vpnd.control.plots import chart
from vpnd.control.render import clean

Json = Mapping[str, Any]

MINUTES = 60
"""Columns of a plot: what the daemon keeps."""

ROWS = 4
"""Ours: of one plot, so that three of them and what is around fit 24 lines."""

MARGIN = 12
"""Columns before a plot, for its scale."""


def lines(document: Json, width: int = 80) -> list[Text]:
    """The plots of one tunnel, from `GET /v1/tunnels/NAME`."""
    health, name = document["health"], clean(document["name"])
    if health is None:
        return [
            Text(f"{name} has no health check"),
            Text("make one: health_check.enabled = true in its table"),
        ]
    head = f"{health['local'] or '-'} - {health['remote'] or '-'}"
    counts = f"{health['sent']} sent, {health['lost']} lost"
    first = Text.assemble((name, "bold"), f"  {health['state']}  {head}  {counts}")
    minutes = by_minute(document.get("health_history") or [])[-max(10, min(MINUTES, width - MARGIN - 1)) :]
    if not any(minutes):
        return [first, Text("no probe of the last hour yet")]
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    shown = [first]
    for title, unit, values in (
        ("loss", "%", [_loss(one) for one in minutes]),
        ("rtt", "ms", [one["rtt_ms"] if one else None for one in minutes]),
        ("jitter", "ms", [one["jitter_ms"] if one else None for one in minutes]),
    ):
        shown += _plot(title, unit, values, plain)
    return [*shown, _times(minutes)]


def by_minute(samples: Sequence[Json]) -> list[Json | None]:
    """One place a minute up to the last sample; None where there is no sample."""
    if not samples:
        return []
    last = datetime.fromisoformat(samples[-1]["at"])
    places: list[Json | None] = [None] * MINUTES
    for sample in samples:
        back = round((last - datetime.fromisoformat(sample["at"])) / timedelta(minutes=1))
        if 0 <= back < MINUTES and sample["sent"]:
            places[MINUTES - 1 - back] = sample
    return places


def _loss(sample: Json | None) -> float | None:
    return 100 * sample["lost"] / sample["sent"] if sample else None


def _plot(title: str, unit: str, values: Sequence[float | None], plain: bool) -> list[Text]:
    known = [value for value in values if value is not None]
    if not known:
        return [Text(""), Text(f"{title:<7} not known: no probe was answered")]
    rows, top = chart(values, ROWS, plain)
    now, least, most = (f"{value:.3g}" for value in (known[-1], min(known), max(known)))
    now += (
        f" {unit} at last, {least} to {most} {unit} within the hour"
        if least != most
        else f" {unit} throughout"
    )
    lines = [Text.assemble((f"{title:<7}", "bold"), f"{now}")]
    for number, row in enumerate(rows):
        label = f"{top:g} {unit}" if number == 0 else f"0 {unit}" if number == len(rows) - 1 else ""
        lines.append(Text(f"{label:>{MARGIN - 2}} |{row}".rstrip()))
    return lines


def _times(minutes: Sequence[Json | None]) -> Text:
    found = [(place, one) for place, one in enumerate(minutes) if one]
    first, last = found[0], found[-1]
    begin, end = (
        datetime.fromisoformat(one["at"]).astimezone().strftime("%H:%M") for _, one in (first, last)
    )
    between = last[0] - first[0] - len(begin) - len(end) + 1
    text = " " * (MARGIN + first[0]) + (f"{begin}{' ' * between}{end}" if between > 0 else end)
    return Text(text, style="dim")
