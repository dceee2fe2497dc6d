"""What one IKE SA sends: requests in their turn, each as datagrams that are drawn and can be repeated."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from vpnd.ike.fragments import DATAGRAM_LIMIT
from vpnd.ike.outputs import Transmit
from vpnd.ike.registry import NO_SPI
from vpnd.ike.retransmit import GIVE_UP_AFTER, LONGEST_WAIT, Schedule
from vpnd.ike.silence import ASKED_AGAIN
from vpnd.ike.v2 import ladder
from vpnd.ike.v2.exchange import Exchange, Forgotten
from vpnd.ike.v2.informational import Liveness
from vpnd.ike.v2.protect import Envelope, plain
from vpnd.ike.v2.state import State, Timer
from vpnd.ike.v2.window import Outstanding
from vpnd.model.child import Path
from vpnd.wire.header import Flag
from vpnd.wire.iana import Exchange2
from vpnd.wire.ikev2 import Payload

if TYPE_CHECKING:
    from vpnd.ike.v2.session import Session

UDP_HEADER = 8
NON_ESP_MARKER = 4
IP_HEADER = {4: 20, 6: 40}
SHORTEST_AUTH = 10.0
"""Seconds that IKE_AUTH gets at least, however long IKE_SA_INIT took of the attempt's time."""
NO_FLAGS = Flag(0)


class Outbox:
    """The requests that wait for the window, and the making of every message of an IKE SA."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tasks: deque[Exchange] = deque()
        self._postponed: dict[Exchange, float] = {}

    # --- requests in their turn

    @property
    def is_idle(self) -> bool:
        """Whether a request that is enqueued now is sent now."""
        return self._session.window.is_free and not self._tasks

    def enqueue(self, exchange: Exchange) -> None:
        """Send this request when the window is free and those before it have been answered."""
        self._tasks.append(exchange)

    def enqueue_first(self, exchange: Exchange) -> None:
        """Send this request next."""
        self._tasks.appendleft(exchange)

    def postpone(self, due: float, exchange: Exchange) -> None:
        """Send this request again at `due`, on the caller's clock: the peer was busy."""
        self._postponed[exchange] = due
        self._session.timers.arm(Timer.RETRY, min(self._postponed.values()))

    def resume(self, now: float) -> None:
        """Some of those that were put off are due; the others go on to wait."""
        for exchange in [one for one, due in self._postponed.items() if due <= now]:
            del self._postponed[exchange]
            self._tasks.append(exchange)
        if self._postponed:
            self._session.timers.arm(Timer.RETRY, min(self._postponed.values()))

    def pending(self) -> Iterator[Exchange]:
        """The request that waits for its answer, and those that wait for their turn."""
        outstanding = self._session.window.outstanding
        if outstanding is not None:
            yield outstanding.exchange
        yield from self._tasks
        yield from self._postponed

    def take_all(self) -> tuple[Exchange, ...]:
        """Those that wait for their turn, for another IKE SA to send."""
        tasks = (*self._tasks, *self._postponed)
        self._tasks.clear()
        self._postponed.clear()
        return tasks

    def abandon_all(self) -> None:
        """No answer matters any more; a request that is under way still has to free the window."""
        for exchange in tuple(self.pending()):
            exchange.abandoned(self._session)
        self.take_all()
        outstanding = self._session.window.outstanding
        if outstanding is not None:
            outstanding.exchange = Forgotten(outstanding.exchange.kind)

    def pump(self, now: float) -> None:
        """Send the next request, if the window is free for one."""
        session = self._session
        while self._tasks and session.window.is_free and session.state not in (State.GONE, State.REFUSED):
            self.send(now, self._tasks.popleft())

    def send(self, now: float, exchange: Exchange) -> None:
        """Build, seal and send one request; one that has nothing to ask any more is dropped.

        IKE_SA_INIT sent anew, for a cookie or another group, keeps its message ID and its deadline.
        """
        session = self._session
        payloads = exchange.request(session, now)
        if payloads is None:
            return
        is_init = exchange.kind is Exchange2.IKE_SA_INIT
        message_id = 0 if is_init else session.window.next_id
        datagrams = self.protect(exchange.kind, message_id, payloads, response=False)
        if is_init:
            session.init.request = datagrams[0]
        text = ladder.text_of(exchange.kind, message_id, payloads, response=False)
        patience = self._patience(now, exchange.kind)
        longest = ASKED_AGAIN if isinstance(exchange, Liveness) else LONGEST_WAIT
        schedule = Schedule(now, session.registry.entropy, patience, longest)
        session.window.sent(Outstanding(message_id, exchange, datagrams, schedule, text))
        session.timers.arm(Timer.RETRANSMIT, schedule.due)
        self.transmit(session.path, datagrams, text, ladder.detail_of(payloads))

    # --- messages

    def protect(
        self, exchange: int, message_id: int, payloads: tuple[Payload, ...], response: bool
    ) -> tuple[bytes, ...]:
        """The datagrams of a message: plain in IKE_SA_INIT, sealed and perhaps in fragments afterwards."""
        session = self._session
        flags = Flag.RESPONSE if response else NO_FLAGS
        if session.initiator:
            flags |= Flag.INITIATOR
        is_init = exchange == Exchange2.IKE_SA_INIT
        spi_r = NO_SPI if is_init and not response else session.spi_r
        envelope = Envelope(session.spi_i, spi_r, exchange, flags, message_id)
        if is_init or session.protection is None:
            return (plain(envelope, payloads),)
        around = IP_HEADER[session.path.local.version] + UDP_HEADER + NON_ESP_MARKER
        limit = DATAGRAM_LIMIT - around if session.fragmentation else None
        return session.protection.seal(envelope, payloads, limit)

    def transmit(
        self, path: Path, datagrams: tuple[bytes, ...], text: str, detail: Iterable[str] = ()
    ) -> None:
        """Send the datagrams of one message, and draw it."""
        session = self._session
        session.sent += 1
        size = sum(map(len, datagrams))
        session.registry.draw(session.tunnel, True, text, size, detail, session.is_stranger)
        for datagram in datagrams:
            session.registry.emit(Transmit(session.tunnel, path, datagram))

    def _patience(self, now: float, kind: Exchange2) -> float:
        """Seconds until a request is given up."""
        attempt_ends = self._session.began_at + GIVE_UP_AFTER
        match kind:
            case Exchange2.IKE_SA_INIT:
                return attempt_ends - now
            case Exchange2.IKE_AUTH:
                return max(SHORTEST_AUTH, attempt_ends - now)
            case _:
                dpd = self._session.policy.dpd
                return max(GIVE_UP_AFTER, float(dpd.timeout)) if dpd.enabled else GIVE_UP_AFTER
