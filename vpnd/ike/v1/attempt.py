"""Phase 1 from its first message to its outcome: repeats, what may be wrong with it, how it ends.

Nothing in phase 1 is authenticated before the proofs, so whatever speaks against an attempt (an error in
clear, a message that makes no sense, a proof that does not verify) is only remembered: the real message may
still come.

    initiator   sends each message again at 0.5, 1.5, 3.5, 7.5, 11.5 ... 27.5 s, gives up after 30 s
                without an answer, or `Limits.error_listening` after something spoke against the attempt:
                against its first message twice, the second time after a repetition
    responder   repeats only when the peer does; waits `Limits.half_open_lifetime` for each message
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vpnd.ike.outputs import Failed
from vpnd.ike.registry import NO_SPI
from vpnd.ike.retransmit import Schedule
from vpnd.ike.session import Phase
from vpnd.ike.v1 import diagnoses, informational
from vpnd.ike.v1.protect import IvChain
from vpnd.ike.v1.received import LONGEST_WAIT, State, Timer
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.wire.iana import Exchange1, Notify1
from vpnd.wire.ikev1 import Payload

if TYPE_CHECKING:
    from vpnd.ike.v1.session import Session


class Attempt:
    """One phase 1. `began` is when its first message was sent or came, on the caller's clock."""

    def __init__(self, session: Session, began: float) -> None:
        self.began = began
        self.hint: Diagnosis | None = None
        self.unreachable: Diagnosis | None = None
        """What an ICMP error said, which anyone can send: it ends nothing, it is the last resort of words."""
        self.confirmed_at: float | None = None
        """Since when the peer is known to have the SA."""
        self.answers = 0
        """Messages of the peer that the attempt has moved on with."""
        self.received = 0
        """Messages of the peer that came for it, of use or not."""
        self.disbelieved = NO_SPI
        """The cookie of a responder whose first message did not verify."""
        self._session = session
        self._schedule: Schedule | None = None
        self._sent = 0
        self._last_sent: tuple[bytes, ...] = ()
        self._unconfirmed: tuple[bytes, ...] = ()
        self._suspect = b""
        self._told = False
        self._doubted: tuple[State, float, int] | None = None
        """The state in which something first spoke against it, when, and how much had been sent by then."""

    # --- sending

    def send(
        self, now: float, exchange: Exchange1, payloads: Sequence[Payload], chain: IvChain | None = None
    ) -> None:
        """Send the next message; an initiator repeats it until it is answered."""
        session = self._session
        self._last_sent = session.carrier.send(session.path, exchange, payloads, chain=chain)
        self._sent += 1
        if session.initiator:
            self._schedule = Schedule(now, session.registry.entropy, longest_wait=LONGEST_WAIT)
            session.timers.arm(Timer.RETRANSMIT, self._schedule.due)

    def repeat(self) -> None:
        """Send the last message once more, byte for byte."""
        self._session.carrier.repeat(self._session.path, self._last_sent)

    def retransmit(self, now: float) -> None:
        """The wait for an answer is over: once more, or never again."""
        schedule = self._schedule
        if schedule is None:
            return
        if schedule.exhausted(now):
            self.give_up(now)
            return
        schedule.again(now)
        self._sent += 1
        self.repeat()
        self._session.timers.arm(Timer.RETRANSMIT, schedule.due)

    # --- what comes of it

    def moved_on(self, now: float) -> None:
        """A message of the peer was what the state waits for: nothing speaks against the attempt any more."""
        session = self._session
        self.answers += 1
        if session.phase is Phase.CONNECTING:
            self.hint = None
            session.timers.disarm(Timer.ERROR)
            if not session.initiator:
                session.timers.arm(Timer.HALF_OPEN, now + session.registry.limits.half_open_lifetime)

    def succeeded(self, now: float, unconfirmed: bool) -> None:
        """Both sides are authenticated. `unconfirmed`: nothing will acknowledge our last message."""
        self.confirmed_at = None if unconfirmed else now
        self._schedule = None
        self.hint = None
        self._unconfirmed = self._last_sent if unconfirmed else ()

    @property
    def unconfirmed(self) -> bool:
        """Whether the peer may not have our last message."""
        return bool(self._unconfirmed)

    def confirmed(self, now: float) -> None:
        """The peer has shown that it has the SA: what spoke against the attempt was not of the peer."""
        self.hint = None
        self._unconfirmed = ()
        if self.confirmed_at is None:
            self.confirmed_at = now

    def repeat_unconfirmed(self) -> None:
        """The last message of aggressive mode goes along with repeats until the peer shows that it has it."""
        if self._unconfirmed:
            self._session.carrier.repeat(self._session.path, self._unconfirmed)

    @property
    def listens(self) -> bool:
        """Whether something that speaks against the attempt can still be the reason for its end."""
        return self._session.phase is Phase.CONNECTING or self.unconfirmed

    def note(self, now: float, diagnosis: Diagnosis) -> None:
        """Something speaks against the attempt, which `listens`: believed unless an answer comes soon.

        To our first message it must be said twice, once after a repetition: who has no state yet says it to
        each, and who has may say it once.
        """
        session = self._session
        # Also of one whose peer has proved itself and does not accept our proof, if nothing comes of it.
        self.hint = diagnosis
        if self._doubted is None or self._doubted[0] is not session.state:
            self._doubted = session.state, now, self._sent
        _, since, sent = self._doubted
        if session.state in (State.SENT_SA, State.SENT_AGGRESSIVE) and self._sent == sent:
            return
        if session.phase is Phase.CONNECTING and session.timers.deadline(Timer.ERROR) is None:
            session.timers.arm(Timer.ERROR, max(now, since + session.registry.limits.error_listening))

    def believe(self, now: float) -> None:
        """No real answer has come: an initiator gives up, a responder tells the operator and waits on."""
        if self._session.initiator:
            self.give_up(now)
        elif self.hint is not None and not self._told:
            self._told = True
            self._tell(self.hint)

    def give_up(self, now: float) -> None:
        """As initiator: it ends; the reason is the best that is known."""
        session = self._session
        diagnosis = self.hint or self.unreachable or diagnoses.unanswered(session, self._sent, self.received)
        renewing = session.renews
        if session.state is State.SENT_AGGRESSIVE and diagnosis.code is Code.PSK:
            # The responder has sent its proof and would only ever see silence.
            session.cookie_is(self.disbelieved)
            informational.send_plain(session, Notify1.AUTHENTICATION_FAILED)
        session.end(now, diagnosis)
        if not renewing:
            # A failed renewal is tried again by the SA that it was to succeed, which still works.
            session.registry.emit(Failed(session.tunnel, diagnosis, initiator=True))

    def suspect(self, data: bytes, notify: int | None, diagnosis: Diagnosis) -> None:
        """As responder: the peer's message does not verify. It may be forged or damaged, so wait for another.

        The same bytes once more are what the peer really sends: it is told once, and so is the operator.
        """
        session = self._session
        self.hint = diagnosis
        session.registry.count(f"refused: {diagnosis.code.value}")
        if data != self._suspect:
            self._suspect = data
            return
        if not self._told:
            self._told = True
            if notify is not None:
                informational.send_plain(session, notify)
            self._tell(diagnosis)

    def refuse(self, now: float, notify: int | None, diagnosis: Diagnosis) -> None:
        """As responder: tell the peer, keep the answer for repeats, and let go.

        The answer is protected once the peer has proved that it has the key.
        """
        session = self._session
        send = informational.send_error if session.carrier.proven else informational.send_plain
        if notify is not None:
            self._last_sent = send(session, notify)
        self._tell(diagnosis)
        session.timers.clear()
        session.timers.arm(Timer.FORGET, now + session.registry.limits.refused_lifetime)
        session.to(State.REFUSED, "refused the peer's attempt")

    def half_open_over(self, now: float) -> None:
        """As responder: the peer's next message has not come."""
        session = self._session
        session.registry.count("half-open attempt expired")
        diagnosis = self.hint or Diagnosis.of(Code.SILENT, peer=session.path.remote)
        session.end(now, diagnosis)
        if self.hint is not None and not self._told:
            self._tell(diagnosis)

    def _tell(self, diagnosis: Diagnosis) -> None:
        """As responder: the operator hears why the peer's attempt came to nothing."""
        session = self._session
        unproven = not session.carrier.proven
        session.registry.emit(Failed(session.tunnel, diagnosis, initiator=False, unproven=unproven))
