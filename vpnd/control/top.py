"""`vpnctl top`: every tunnel live, with sparklines of rate, loss and round trip.

Without a terminal it prints what one second was, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from vpnd.control.plots import sparkline
from vpnd.control.render import STATE_STYLE, clean, duration, mark_of, size
from vpnd.control.session import Session

if TYPE_CHECKING:
    from vpnd.sdk.transport import AsyncTransport

Json = Mapping[str, Any]

EVERY = 1.0
"""Ours: seconds between two looks at the daemon."""

SAMPLES = 120
"""Ours: of each tunnel: two minutes, more than a wide terminal shows."""

NARROW, WIDE = 8, 24
"""Columns of one sparkline, in 80 columns and at most."""

KEYS = {b"q": "quit", b"\x03": "quit", b"\x1b[A": "up", b"k": "up", b"\x1b[B": "down", b"j": "down"}
KEYS |= {b"\x1b[5~": "page-up", b"b": "page-up", b"\x1b[6~": "page-down", b" ": "page-down"}

KEYS_AT_ONCE = 1024
"""Ours: bytes of keys that are read together."""

_KEY = re.compile(rb"\x1b\[[0-9;]*[A-Za-z~]|.", re.DOTALL)
"""A control sequence (ECMA-48 section 5.4) as keys send it, or one byte."""


@dataclass(slots=True)
class Sample:
    """What one tunnel was at one look: bytes a second, percent lost, round trip in milliseconds."""

    rate_in: float | None
    rate_out: float | None
    loss: float | None
    rtt: float | None


@dataclass(slots=True)
class _Past:
    """The last looks at one tunnel."""

    at: float | None = None
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=SAMPLES))


class Watched:
    """What was seen of each tunnel so far."""

    def __init__(self) -> None:
        self.document: Json = {"gateway": {}, "tunnels": []}
        self._past: dict[str, _Past] = {}

    def look(self, now: float, document: Json) -> None:
        """Take an answer of `GET /v1/status`, of the moment `now` in seconds."""
        self.document = document
        names = set()
        for tunnel in document["tunnels"]:
            names.add(tunnel["name"])
            self._take(now, self._past.setdefault(tunnel["name"], _Past()), tunnel)
        for gone in self._past.keys() - names:
            del self._past[gone]

    def samples(self, name: str) -> Sequence[Sample]:
        """Those of one tunnel, the newest last."""
        return self._past[name].samples

    def _take(self, now: float, past: _Past, tunnel: Json) -> None:
        counts = {
            f"{m['local']} {m['remote']} {m['spi_in']}": (m["bytes_in"], m["bytes_out"])
            for m in tunnel["mappings"]
        }
        rates: list[float | None] = [None, None]
        if past.at is not None and now > past.at:
            # Counters begin again with a new SA: what it carried is all that it has.
            rates = [
                sum(max(0, both[way] - past.counts.get(key, (0, 0))[way]) for key, both in counts.items())
                / (now - past.at)
                for way in (0, 1)
            ]
        past.at, past.counts = now, counts
        health = tunnel["health"] or {}
        past.samples.append(Sample(rates[0], rates[1], health.get("loss_percent"), health.get("rtt_ms")))


# ------------------------------------------------------------------------------------ the screen


def screen(watched: Watched, width: int, height: int, first: int = 0, plain: bool = False) -> list[Text]:
    """`height` lines: the gateway, a line a tunnel from the `first` on, and the keys."""
    gateway, tunnels = watched.document["gateway"], watched.document["tunnels"]
    up = sum(tunnel["state"] == "up" for tunnel in tunnels)
    total = [
        sum(getattr(watched.samples(tunnel["name"])[-1], way) or 0 for tunnel in tunnels)
        for way in ("rate_in", "rate_out")
    ]
    head = (
        f"{clean(gateway.get('name', ''))}  {up} of {len(tunnels)} tunnels up  in {size(round(total[0]))}B/s"
        f"  out {size(round(total[1]))}B/s  vpnd up {duration(gateway.get('uptime_s'))}"
    )
    lines = [Text(head[:width], style="bold"), Text(_header(width), style="dim")]
    room = max(1, height - 3)
    first = max(0, min(first, len(tunnels) - room))
    for tunnel in tunnels[first : first + room]:
        lines.append(_row(tunnel, watched.samples(tunnel["name"]), width, plain))
    if not tunnels:
        lines.append(Text("no tunnel is configured"))
    lines += [Text("")] * max(0, height - 1 - len(lines))
    shown = f"{first + 1}-{min(first + room, len(tunnels))} of {len(tunnels)}" if len(tunnels) > room else ""
    lines.append(Text(f"{shown + ', arrows and blank to scroll   ' if shown else ''}q to quit", style="dim"))
    return lines[: max(height, 4)]


def columns(width: int) -> tuple[int, int]:
    """Columns of a name, and of a sparkline, of which a line has four."""
    spark = max(4, min(WIDE, (width - 48) // 4)) if width > 80 else NARROW if width >= 76 else 4
    return max(8, width - 2 - 4 * (spark + 1) - 6 - 6 - 5 - 7 - 1), spark


def _header(width: int) -> str:
    name, spark = columns(width)
    line, end = "  TUNNEL", 2 + name
    for title, cells in (("IN B/s", 6), ("OUT B/s", spark + 7), ("LOSS", spark + 6), ("RTT ms", spark + 8)):
        end += cells
        line = line.ljust(end - len(title)) + title
    return line[:width]


def _named(name: str, width: int, plain: bool) -> str:
    """The name in so many columns; a mark shows where it is cut."""
    if cell_len(name) <= width:
        return set_cell_size(name, width)
    return set_cell_size(name, width - 1) + ("~" if plain else "\N{HORIZONTAL ELLIPSIS}")


def _row(tunnel: Json, samples: Sequence[Sample], width: int, plain: bool) -> Text:
    name, spark = columns(width)
    last = samples[-1]
    parts = [
        f"{mark_of(tunnel)} {_named(clean(tunnel['name']), name, plain)}",
        f"{_rate(last.rate_in):>5}",
        sparkline([one.rate_in for one in samples], spark, 1, plain),
        f"{_rate(last.rate_out):>5}",
        sparkline([one.rate_out for one in samples], spark, 1, plain),
        f"{'' if last.loss is None else f'{last.loss:.0f}%':>4}",
        sparkline([one.loss for one in samples], spark, 100, plain),
        f"{'' if last.rtt is None else f'{last.rtt:.3g}':>6}",
        sparkline([one.rtt for one in samples], spark, 0, plain),
    ]
    line = Text(" ".join(parts)[:width].rstrip())
    style = "red" if line.plain.startswith("!") else STATE_STYLE.get(tunnel["state"], "")
    line.stylize(style, 0, 2 + name)
    return line


def _rate(value: float | None) -> str:
    return "-" if value is None else size(round(value))


def sampled(watched: Watched) -> dict[str, Any]:
    """One look, as --json prints it; rates are bytes a second."""
    return {
        "gateway": watched.document["gateway"],
        "tunnels": [
            {
                "name": tunnel["name"],
                "state": tunnel["state"],
                "rate_in": watched.samples(tunnel["name"])[-1].rate_in,
                "rate_out": watched.samples(tunnel["name"])[-1].rate_out,
                "loss_percent": watched.samples(tunnel["name"])[-1].loss,
                "rtt_ms": watched.samples(tunnel["name"])[-1].rtt,
            }
            for tunnel in watched.document["tunnels"]
        ],
    }


# -------------------------------------------------------------------------------------- the loop


def run(session: Session) -> None:
    """Show it until `q` or Ctrl-C; once where there is no terminal, or with --json."""
    if session.json or not (sys.stdout.isatty() and sys.stdin.isatty()):
        watched = session.ask(_two_looks)
        console = Console(highlight=False, markup=False, emoji=False)
        width = console.width if console.is_terminal else 80
        height = len(watched.document["tunnels"]) + 3
        session.show(sampled(watched), lambda _: screen(watched, width, max(4, height), 0, _plain())[:-1])
        return
    session.ask(_live)


async def _two_looks(client: AsyncTransport) -> Watched:
    watched = Watched()
    watched.look(time.monotonic(), await client.get("/v1/status"))
    await asyncio.sleep(EVERY)
    watched.look(time.monotonic(), await client.get("/v1/status"))
    return watched


async def _live(client: AsyncTransport) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    # Within Live standard output has no encoding.
    watched, first, plain = Watched(), 0, _plain()
    keys: asyncio.Queue[bytes] = asyncio.Queue()
    with _keyboard(keys), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            watched.look(time.monotonic(), await client.get("/v1/status"))
            until = time.monotonic() + EVERY
            while True:
                width, height = console.size
                count = len(watched.document["tunnels"])
                first = max(0, min(first, count - (height - 3)))
                live.update(Group(*screen(watched, width, height, first, plain)), refresh=True)
                try:
                    pressed = await asyncio.wait_for(keys.get(), max(0.0, until - time.monotonic()))
                except TimeoutError:
                    break
                step = _step(pressed, height - 3)
                if step is None:
                    return
                first += step


def _step(pressed: bytes, page: int) -> int | None:
    """By how many lines a key scrolls; None: it ends."""
    key = KEYS.get(pressed)
    if key == "quit":
        return None
    return {"up": -1, "down": 1, "page-up": -page, "page-down": page}.get(key or "", 0)


@contextlib.contextmanager
def _keyboard(keys: asyncio.Queue[bytes]) -> Iterator[None]:
    """Keys as they are pressed, each as the bytes that the terminal sends; as it was afterwards."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()
    try:
        tty.setcbreak(descriptor)
        loop.add_reader(descriptor, _read_keys, descriptor, keys)
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read_keys(descriptor: int, keys: asyncio.Queue[bytes]) -> None:
    """What was pressed; a terminal that is gone ends it."""
    try:
        pressed = os.read(descriptor, KEYS_AT_ONCE)
    except OSError:
        pressed = b""
    for key in keys_in(pressed) or [b"q"]:
        keys.put_nowait(key)


def keys_in(pressed: bytes) -> list[bytes]:
    """Each key by itself: one that is held, and a slow connection, bring several at once."""
    return _KEY.findall(pressed)


def _plain() -> bool:
    return "utf" not in (sys.stdout.encoding or "").lower()
