"""Our requests: the one that has no answer yet, and those that wait for the window."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from vpnd.ike.timers import Timers
from vpnd.ike.v2.exchange import Exchange, Forgotten
from vpnd.ike.v2.state import Timer
from vpnd.ike.v2.window import Outstanding, Window


class Requests:
    """The requests of one IKE SA, in their order. The session sends them."""

    def __init__(self, window: Window, timers: Timers[object]) -> None:
        self.window = window
        self._timers = timers
        self._waiting: deque[Exchange] = deque()
        self._postponed: dict[Exchange, float] = {}

    @property
    def outstanding(self) -> Outstanding | None:
        """The request that has no answer yet."""
        return self.window.outstanding

    @property
    def exchange(self) -> Exchange | None:
        """The exchange of the request that has no answer yet."""
        outstanding = self.window.outstanding
        return None if outstanding is None else outstanding.exchange

    @property
    def is_idle(self) -> bool:
        """Whether a request that is asked now is sent now."""
        return self.window.is_free and not self._waiting

    @property
    def changes_children(self) -> bool:
        """Whether our own request to make, rekey or close a CHILD_SA has no answer yet."""
        return self.exchange is not None and self.exchange.changes_children

    def ask(self, exchange: Exchange) -> None:
        """Send this request when the window is free and those before it have been answered."""
        self._waiting.append(exchange)

    def ask_next(self, exchange: Exchange) -> None:
        """Send this request before all others that wait."""
        self._waiting.appendleft(exchange)

    def postpone(self, due: float, exchange: Exchange) -> None:
        """Send this request again at `due`, on the caller's clock: the peer was busy."""
        self._postponed[exchange] = due
        self._timers.arm(Timer.RETRY, min(self._postponed.values()))

    def resume(self, now: float) -> None:
        """Some of those that were postponed are due; the others go on waiting."""
        for exchange in [one for one, due in self._postponed.items() if due <= now]:
            del self._postponed[exchange]
            self._waiting.append(exchange)
        if self._postponed:
            self._timers.arm(Timer.RETRY, min(self._postponed.values()))

    def take_next(self) -> Exchange | None:
        """The next request to send, if the window is free for it."""
        return self._waiting.popleft() if self._waiting and self.window.is_free else None

    def pending(self) -> Iterator[Exchange]:
        """The request that has no answer yet, and those that wait for their turn."""
        if self.exchange is not None:
            yield self.exchange
        yield from self._waiting
        yield from self._postponed

    def take_all(self) -> tuple[Exchange, ...]:
        """Those that wait for their turn, for another IKE SA to send."""
        waiting = (*self._waiting, *self._postponed)
        self._waiting.clear()
        self._postponed.clear()
        return waiting

    def abandon_all(self, context: Any) -> None:
        """No answer matters any more; a request that was sent still has to free the window."""
        for exchange in tuple(self.pending()):
            exchange.abandoned(context)
        self.take_all()
        if self.outstanding is not None:
            self.outstanding.exchange = Forgotten(self.outstanding.exchange)
