"""Requests of ours, message IDs, and what all requests have in common (RFC 7296 sections 2.1 to 2.3).

Each side numbers its requests from 0; a response has its request's number. With a window of one in each
direction a side sends its next request when the answer to the last has come, and a peer's request is either
the next, a repeat of the last, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from vpnd.ike.commands import Cause
from vpnd.ike.deadlines import Timers
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.message import Received
from vpnd.ike.retransmit import LONGEST_WAIT, Schedule
from vpnd.ike.v2.state import Timer
from vpnd.wire.iana import Exchange2
from vpnd.wire.ikev2 import Payload


class Exchange:
    """A request of ours; `context` is a `vpnd.ike.v2.context.Context`. `table.ANSWERS` has its answers."""

    kind: ClassVar[Exchange2]
    """The exchange type in the header."""
    longest_wait: ClassVar[float] = LONGEST_WAIT
    """Seconds between retransmissions at most."""
    changes_children: ClassVar[bool] = False
    """Whether it makes, rekeys or closes a CHILD_SA."""
    rekeys: ClassVar[bool] = False
    """Whether it makes the successor of a CHILD_SA or of the IKE SA."""

    def request(self, context: Any, now: float) -> tuple[Payload, ...] | None:
        """The payloads, when the window is free for them; None: there is nothing to ask any more."""
        return ()

    def accepted(self, context: Any, now: float, received: Received) -> Cause | None:
        """The answer; that it came is all, unless it says more."""

    def failed(self, context: Any, now: float, fault: Fault) -> Cause | None:
        """The answer was a fault of the peer's, found when it was read or acted on."""

    def abandoned(self, context: Any) -> None:
        """The IKE SA ends before the answer; release what the request holds."""


class Forgotten(Exchange):
    """A request whose answer does not matter any more, but frees the window."""

    def __init__(self, exchange: Exchange) -> None:
        self.kind = exchange.kind  # type: ignore[misc]  # of the one that it stands for


HIGHEST_MESSAGE_ID = 0xFFFFFFFF
"""An IKE SA ends before its message IDs do (RFC 7296 section 2.2)."""


@dataclass(slots=True)
class Outstanding:
    message_id: int
    exchange: Exchange
    datagrams: tuple[bytes, ...]
    schedule: Schedule
    text: str


@dataclass(slots=True)
class Reply:
    """Our answer to the peer's last request, kept for repeats of it."""

    message_id: int
    datagrams: tuple[bytes, ...]
    text: str
    repeats: int = 0


class Requests:
    """The window in both directions, and our requests in their order. The session sends them."""

    def __init__(self, timers: Timers[object]) -> None:
        self.next_id = 0
        self.expected_id = 0
        self.outstanding: Outstanding | None = None
        self.reply: Reply | None = None
        self._timers = timers
        self._waiting: list[Exchange] = []
        self._postponed: dict[Exchange, float] = {}

    @property
    def is_free(self) -> bool:
        return self.outstanding is None and self.next_id <= HIGHEST_MESSAGE_ID

    def is_repeat(self, message_id: int) -> bool:
        """Whether this request is the last one, not the next. Raises Drop for one that is neither."""
        if message_id == self.expected_id:
            return False
        if self.reply is not None and message_id == self.reply.message_id:
            return True
        raise Drop("message ID: old" if message_id < self.expected_id else "message ID: ahead of the window")

    def matches(self, message_id: int) -> Outstanding:
        """The request that a response answers. Raises Drop if there is none."""
        if self.outstanding is None or self.outstanding.message_id != message_id:
            raise Drop("response to no request")
        return self.outstanding

    def sent(self, outstanding: Outstanding) -> None:
        self.outstanding = outstanding
        self.next_id = outstanding.message_id + 1

    def settled(self) -> None:
        """The outstanding request has been answered, or its answer does not matter any more."""
        self.outstanding = None

    def answered(self, reply: Reply) -> None:
        """The peer's next request has been answered."""
        self.reply = reply
        self.expected_id = reply.message_id + 1

    def repeat(self, limit: int) -> Reply:
        """The answer once more. Raises Drop beyond `limit` times, so that a replay is no amplifier."""
        reply = self.reply
        if reply is None or reply.repeats >= limit:
            raise Drop("repeated request: answered often enough")
        reply.repeats += 1
        return reply

    @property
    def exchange(self) -> Exchange | None:
        return None if self.outstanding is None else self.outstanding.exchange

    @property
    def is_idle(self) -> bool:
        """Whether a request that is asked now is sent now."""
        return self.is_free and not self._waiting

    @property
    def changes_children(self) -> bool:
        """Whether our own request to make, rekey or close a CHILD_SA has no answer yet."""
        return self.exchange is not None and self.exchange.changes_children

    def ask(self, exchange: Exchange) -> None:
        """Send this request when the window is free and those before it have been answered."""
        self._waiting.append(exchange)

    def ask_next(self, exchange: Exchange) -> None:
        """Send this request before all others that wait."""
        self._waiting.insert(0, exchange)

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
        return self._waiting.pop(0) if self._waiting and self.is_free else None

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
