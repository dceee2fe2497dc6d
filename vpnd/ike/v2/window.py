"""Message IDs, with a window of one in each direction (RFC 7296 sections 2.1 to 2.3).

Each side numbers its requests from 0; a response has its request's number. With a window of one, a side
sends its next request when the answer to the last has come, and a peer's request is either the next, a
repeat of the last, or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vpnd.ike.faults import Drop
from vpnd.ike.retransmit import Schedule
from vpnd.ike.v2.exchange import Exchange

HIGHEST_MESSAGE_ID = 0xFFFFFFFF
"""An IKE SA ends before its message IDs do (RFC 7296 section 2.2)."""


class Arrival(Enum):
    """What a request's message ID says about it."""

    NEXT = "next"
    REPEATED = "repeated"


@dataclass(slots=True)
class Outstanding:
    """Our request that has no answer yet."""

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


@dataclass(slots=True)
class Window:
    """Both directions of one IKE SA."""

    next_id: int = 0
    expected_id: int = 0
    outstanding: Outstanding | None = None
    reply: Reply | None = field(default=None)

    @property
    def is_free(self) -> bool:
        """Whether a request can be sent now."""
        return self.outstanding is None and self.next_id <= HIGHEST_MESSAGE_ID

    def arrived(self, message_id: int) -> Arrival:
        """Which request this is. Raises Drop for one that is neither the next nor the last."""
        if message_id == self.expected_id:
            return Arrival.NEXT
        if self.reply is not None and message_id == self.reply.message_id:
            return Arrival.REPEATED
        raise Drop("message ID: old" if message_id < self.expected_id else "message ID: ahead of the window")

    def matches(self, message_id: int) -> Outstanding:
        """The request that a response answers. Raises Drop if there is none."""
        if self.outstanding is None or self.outstanding.message_id != message_id:
            raise Drop("response to no request")
        return self.outstanding

    def sent(self, outstanding: Outstanding) -> None:
        """A request is on its way."""
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
