"""What a state table works on: the states of an ISAKMP SA, its timers, and a message that has been read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from vpnd.ike.faults import Drop
from vpnd.ike.session import Phase
from vpnd.ike.v1.protect import IvChain, Opened
from vpnd.model.child import Path
from vpnd.wire.chain import RawPayload
from vpnd.wire.errors import DecodeError
from vpnd.wire.ikev1 import Payload

M = TypeVar("M")

LONGEST_WAIT = 2.5
"""Seconds between repeats. Three exchanges and an acknowledgement that nothing acknowledges make a tunnel in
IKEv1: with the 8 s that IKEv2 waits too many attempts come to nothing on a bad link. Where half of all
messages are lost each way, 95 % are up in a minute so, and with 4 s 87 %."""


class State(Enum):
    """What has happened to an ISAKMP SA so far."""

    NEW = "nothing yet"
    SENT_SA = "sent Main1"
    SENT_KE = "sent Main3"
    SENT_AUTH = "sent Main5"
    SENT_AGGRESSIVE = "sent Aggressive1"
    ANSWERED_SA = "answered Main1"
    ANSWERED_KE = "answered Main3"
    ANSWERED_AGGRESSIVE = "answered Aggressive1"
    REFUSED = "refused"
    """Responder: keeps its refusal for repeats of the message."""
    ESTABLISHED = "established"
    REPLACED = "replaced"
    """A successor has adopted its children; it lives to the end of its lifetime."""
    DELETED = "deleted by the peer"
    """Its children wait for the successor that is being made."""
    GONE = "gone"

    @property
    def phase(self) -> Phase:
        """How far that is for the other parts of the gateway."""
        return _PHASES.get(self, Phase.CONNECTING)


_PHASES = {
    State.REFUSED: Phase.CLOSING,
    State.ESTABLISHED: Phase.ESTABLISHED,
    State.REPLACED: Phase.CLOSING,
    State.DELETED: Phase.CLOSING,
    State.GONE: Phase.GONE,
}


class Timer(Enum):
    """What a session waits for."""

    RETRANSMIT = "the answer to the last phase-1 message"
    ERROR = "a real answer after an error in clear"
    HELD = "decide whether the newcomer has the tunnel"
    HALF_OPEN = "the peer's next phase-1 message"
    FORGET = "the end of what is only kept for a little longer"
    RENEW = "the time for a successor"
    MEND = "pairs that the peer may have lost are made again"
    EXPIRE = "the end of the lifetime"
    LIVENESS = "the next question whether the peer is there"
    KEEPALIVE = "the next NAT-keepalive"


@dataclass(frozen=True, slots=True)
class Received:
    """One message: where it came from, its bytes, its payloads as they travelled and as values.

    `message` is the typed message of the state table. For an encrypted one `opened` and `chain` are what
    verification needs; the handler calls `confirm` once it has verified.
    """

    path: Path
    data: bytes
    raw: tuple[RawPayload, ...]
    payloads: tuple[Payload, ...]
    message: object
    opened: Opened | None
    opened_with: IvChain | None

    def expect(self, kind: type[M]) -> M:
        """The message as its type. Raises Drop for another: a handler stands in the table for one type."""
        if not isinstance(self.message, kind):
            raise Drop("unexpected message")
        return self.message

    def body_of(self, payload: Payload) -> bytes:
        """The bytes of one payload's body as they travelled."""
        return self.raw[next(i for i, one in enumerate(self.payloads) if one is payload)].body

    @property
    def chain(self) -> IvChain:
        """The IV chain that opened the message. Raises Drop for a message in clear."""
        if self.opened_with is None:
            raise Drop("not encrypted")
        return self.opened_with

    @property
    def behind_hash(self) -> bytes:
        """What HASH(1) and HASH(2) cover. Raises DecodeError if the first payload is no HASH."""
        if self.opened is None or self.opened.hash is None:
            raise DecodeError("payloads", "the first is not HASH")
        return self.opened.behind_hash

    def confirm(self) -> None:
        """The message has been verified: the IV chain moves on."""
        if self.opened is not None and self.opened_with is not None:
            self.opened_with.confirm(self.opened)
