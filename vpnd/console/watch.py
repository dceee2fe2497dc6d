"""What the console knows of the daemon: the status, asked for at most once a second however many look, rates,
and the events as they happen."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from vpnd.sdk import AsyncClient, VpndError
from vpnd.sdk.models import Event, Status, TunnelStatus

FRESH = 1.0
"""Ours, in seconds: a status that is younger is not asked for again."""

RATE_WITHIN = 30.0
"""Ours, in seconds: two counts further apart say nothing about now."""

KEPT_EVENTS = 1000
"""As many as the daemon keeps."""

AGAIN = 1.0
"""Ours, in seconds: until the daemon is asked for its events again."""


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


class Watch:
    """Belongs to one event loop; `clock` gives seconds that only grow."""

    def __init__(self, vpnd: AsyncClient, clock: Callable[[], float]) -> None:
        self._vpnd = vpnd
        self._clock = clock
        self._seen: Seen | None = None
        self._asking = asyncio.Lock()
        self.events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        """Oldest first."""

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

    def forget(self) -> None:
        """Something was changed: the next look asks."""
        self._seen = None

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
