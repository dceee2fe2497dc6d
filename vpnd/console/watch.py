"""What the console knows of the daemon: the status, asked for at most once a second however many look, the
rates of the last hour, and the events as they happen."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isnan, nan

from vpnd.sdk import AsyncClient, VpndError
from vpnd.sdk.models import Event, GatewayStatus, Status, TunnelStatus

FRESH = 1.0
"""Ours, in seconds: a status that is younger is not asked for again."""

RATE_WITHIN = 30.0
"""Ours, in seconds: two counts further apart say nothing about now."""

KEPT_EVENTS = 1000
"""As many as the daemon keeps."""

AGAIN = 1.0
"""Ours, in seconds: until the daemon is asked for its events again."""

SAMPLE = 20.0
"""Ours, in seconds: between two rates that are kept, whether anyone looks or not."""

KEPT_RATES = 180
"""An hour of them; of each tunnel 1.5 KB."""

GAP = nan
"""In place of a rate that is not known."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Bits a second of inner packets."""

    received: float
    sent: float


@dataclass(slots=True)
class Seen:
    """One status, when it was asked for, and the rates since the one before."""

    at: float
    status: Status
    rates: dict[str, Rate] = field(default_factory=dict)


class Rates:
    """The rates of the last hour, of the tunnels that there are. They end with the console."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[array[float], array[float]]] = {}
        self._count = 0

    def add(self, names: Iterable[str], rates: Mapping[str, Rate]) -> None:
        """One more sample of each tunnel; a tunnel that is not named is forgotten."""
        kept = {}
        for name in names:
            rate = rates.get(name)
            kept[name] = self._kept.get(name) or (self._gaps(), self._gaps())
            for values, value in zip(
                kept[name], (rate.received, rate.sent) if rate else (GAP, GAP), strict=True
            ):
                values.append(value)
                del values[:-KEPT_RATES]
        self._kept = kept
        self._count = min(self._count + 1, KEPT_RATES)

    def gap(self) -> None:
        """The daemon did not answer."""
        self.add(tuple(self._kept), {})

    def of(self, name: str) -> tuple[list[float | None], list[float | None]]:
        """Received and sent, oldest first; None is a gap."""
        received, sent = self._kept.get(name, ((), ()))
        return _with_gaps(received), _with_gaps(sent)

    def _gaps(self) -> array[float]:
        return array("f", [GAP] * self._count)


def _with_gaps(values: Iterable[float]) -> list[float | None]:
    return [None if isnan(value) else value for value in values]


class Watch:
    """Belongs to one event loop; `clock` gives seconds that only grow."""

    def __init__(self, vpnd: AsyncClient, clock: Callable[[], float]) -> None:
        self._vpnd = vpnd
        self._clock = clock
        self._seen: Seen | None = None
        self._asking = asyncio.Lock()
        self.events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        """Oldest first."""
        self.rates = Rates()

    async def look(self) -> Seen:
        """The status as it is, at most a second old. Raises VpndError."""
        async with self._asking:
            last = self._seen
            if last is not None and self._clock() - last.at < FRESH:
                return last
            status = await self._vpnd.status()
            now = self._clock()
            self._seen = Seen(now, status)
            if last is not None and now - last.at <= RATE_WITHIN:
                before = {tunnel.name: tunnel for tunnel in last.status.tunnels}
                for tunnel in status.tunnels:
                    if tunnel.name in before:
                        self._seen.rates[tunnel.name] = _rate(before[tunnel.name], tunnel, now - last.at)
            return self._seen

    @property
    def gateway(self) -> GatewayStatus | None:
        """The gateway as it was seen last; None: not since something was changed."""
        return self._seen.status.gateway if self._seen is not None else None

    def forget(self) -> None:
        """Something was changed: the next look asks."""
        self._seen = None

    async def sample(self) -> None:
        """Keep the rates, without end."""
        while True:
            try:
                seen = await self.look()
            except VpndError:
                self.rates.gap()
            else:
                self.rates.add((tunnel.name for tunnel in seen.status.tunnels), seen.rates)
            await asyncio.sleep(SAMPLE)

    async def follow(self) -> None:
        """Keep the events, without end."""
        while True:
            last = self.events[-1].id if self.events else None
            try:
                async for event in self._vpnd.events(after=last, resume=False):
                    if event.id is None or all(event.id != known.id for known in self.events):
                        self.events.append(event)
            except VpndError:
                pass
            await asyncio.sleep(AGAIN)


def _rate(before: TunnelStatus, after: TunnelStatus, seconds: float) -> Rate:
    """Of SAs that were there before; what a new one has carried counts as well."""
    known = {(one.spi_in, one.spi_out): one for one in before.mappings}
    received = sent = 0
    for one in after.mappings:
        old = known.get((one.spi_in, one.spi_out))
        received += max(0, one.bytes_in - (old.bytes_in if old is not None else 0))
        sent += max(0, one.bytes_out - (old.bytes_out if old is not None else 0))
    return Rate(8 * received / seconds, 8 * sent / seconds) if seconds > 0 else Rate(0, 0)
