"""The messages of phase 1, which have no message ID: what was sent last, and which of the peer's are known.

initiator   sends each message again at 0.5, 1.5, 3.5, 6.0 ... 28.5 s, and gives up after 30 s
responder   repeats only when the peer does
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from vpnd.crypto.entropy import Entropy
from vpnd.ike.deadlines import Timers
from vpnd.ike.retransmit import Schedule
from vpnd.ike.v1.isakmp_sa import IsakmpSa
from vpnd.ike.v1.message_transport import MessageTransport, Turn
from vpnd.ike.v1.protect import IvChain
from vpnd.ike.v1.state import LONGEST_WAIT, Timer
from vpnd.model.policy import NegotiationMode
from vpnd.wire.iana import Exchange1
from vpnd.wire.ikev1 import Payload

REMEMBERED = 4
"""Phase-1 messages of the peer whose late copies are known as such; there are three at most."""

EXCHANGES = {
    NegotiationMode.MAIN: Exchange1.IDENTITY_PROTECTION,
    NegotiationMode.AGGRESSIVE: Exchange1.AGGRESSIVE,
}


class Phase1Messages:
    """Sends and repeats those of one ISAKMP SA."""

    def __init__(
        self, sa: IsakmpSa, entropy: Entropy, timers: Timers[object], transport: MessageTransport
    ) -> None:
        self._sa = sa
        self._entropy = entropy
        self._timers = timers
        self._transport = transport
        self._schedule: Schedule | None = None
        self._believed: deque[bytes] = deque(maxlen=REMEMBERED)
        self._unconfirmed: tuple[bytes, ...] = ()
        self.last = Turn()
        self.sent = 0
        self.repeated = 0
        """How often the last message was sent again without an answer."""

    def send(self, now: float, payloads: Sequence[Payload], chain: IvChain | None = None) -> None:
        """Send the next message; an initiator repeats it until it is answered."""
        self.last.sent = self._transport.send(EXCHANGES[self._sa.mode], payloads, chain=chain)
        self.sent += 1
        self.repeated = 0
        if self._sa.initiator:
            self._schedule = Schedule(now, self._entropy, longest_wait=LONGEST_WAIT)
            self._timers.arm(Timer.RETRANSMIT, self._schedule.due)

    def retransmit(self, now: float) -> bool:
        """The wait for an answer is over: once more, byte for byte; False: it is given up."""
        if self._schedule is None or self._schedule.exhausted(now):
            return False
        self._schedule.again(now)
        self.sent += 1
        self.repeated += 1
        self._transport.repeat(self.last.sent)
        self._timers.arm(Timer.RETRANSMIT, self._schedule.due)
        return True

    # --- the peer's

    @property
    def answered(self) -> bool:
        """Whether the attempt has moved on with a message of the peer."""
        return bool(self._believed)

    def believe(self, data: bytes) -> None:
        """The peer's message was what the state waited for."""
        self._believed.append(data)
        self.last.repeats = 0

    def refuse(self, data: bytes) -> None:
        """The peer's message was refused; a repeat is answered alike."""
        self._believed.append(data)

    def is_repeat(self, data: bytes) -> bool:
        """Whether `data` is the message that was answered last."""
        return bool(self._believed) and self._believed[-1] == data

    def is_known(self, data: bytes) -> bool:
        return data in self._believed

    # --- the last one of aggressive mode, which nothing acknowledges

    @property
    def unconfirmed(self) -> bool:
        """Whether the peer may not have our last message."""
        return bool(self._unconfirmed)

    def keep_unconfirmed(self) -> None:
        self._unconfirmed = self.last.sent

    def confirm(self) -> None:
        """The peer has shown that it has our last message."""
        self._unconfirmed = ()

    def repeat_unconfirmed(self) -> None:
        """It goes along with other repeats until the peer shows that it has it."""
        if self._unconfirmed:
            self._transport.repeat(self._unconfirmed)
