"""Dead peer detection (RFC 3706): ask when nothing has been heard, and say when it has been too long.

    HDR*, HASH(1), N(R-U-THERE, sequence)      -->
                                               <--   HDR*, HASH(1), N(R-U-THERE-ACK, sequence)

Any authenticated message and any ESP counts as a sign of life. The peer is dead exactly `timeout` seconds
after the last one, whatever the schedule of the questions was.
"""

from __future__ import annotations

from vpnd.crypto.entropy import Entropy
from vpnd.ike.deadlines import Timers
from vpnd.ike.retransmit import PAUSED
from vpnd.ike.silence import ASKED_AGAIN, question_due
from vpnd.ike.v1.isakmp_sa import IsakmpSa
from vpnd.ike.v1.message_transport import MessageTransport
from vpnd.ike.v1.phase1_messages import Phase1Messages
from vpnd.ike.v1.state import Timer

LEAST_ASKING = 4.0
"""Seconds that a question is given at least: after a pause of this machine silence proves nothing."""
SPARING_QUESTIONS = 2
"""Asked at first of a peer that may wait for the answer to its first quick mode.

strongSwan answers none before that, and keeps the IVs of three message IDs: with more questions it could not
read our answer any more.
"""
SPARING_PAUSE = 4.0
"""Seconds between those two."""
URGENT = 5.0
"""Seconds before the end from which on such a peer is asked like any other."""


class Liveness:
    """What is known of the peer's life. Times are seconds on the caller's clock."""

    def __init__(
        self, sa: IsakmpSa, timers: Timers[object], transport: MessageTransport, phase1: Phase1Messages
    ) -> None:
        self._sa = sa
        self._timers = timers
        self._transport = transport
        self._phase1 = phase1
        self._sequence = 0
        self._asked_since: float | None = None
        self._questions = 0
        """Since `_asked_since`: their numbers are the last ones up to `_sequence`."""
        self._due = 0.0
        self.last_heard = 0.0

    def begin(self, now: float, entropy: Entropy, unproven: float) -> None:
        """The ISAKMP SA is established. Without DPD a peer that began is asked after `unproven` s."""
        self._sequence = int.from_bytes(entropy.bytes(4), "big") >> 1
        self.note_activity(now)
        if self.spoken and not self._sa.policy.dpd.enabled and not self._sa.initiator:
            self._timers.arm(Timer.LIVENESS, now + unproven)

    def note_activity(self, now: float) -> None:
        """A sign of life. Under another ISAKMP SA it does not say whether the peer has this one."""
        self.last_heard = now
        # Nor does it say whether the peer has our last message, or has moved.
        settles = not self._phase1.unconfirmed and self._sa.former is None
        if self._asked_since is not None and not settles:
            return
        self._asked_since = None
        dpd = self._sa.policy.dpd
        if self.spoken and dpd.enabled:
            due = question_due(now, float(dpd.timeout), self._sa.initiator)
            self._timers.arm(Timer.LIVENESS, due)
        else:
            self._timers.disarm(Timer.LIVENESS)

    def follow_policy(self, now: float) -> None:
        """The policy is another: the next question comes when that says; one that is out goes on."""
        if self._asked_since is not None:
            return
        dpd = self._sa.policy.dpd
        if self.spoken and dpd.enabled:
            due = question_due(self.last_heard, float(dpd.timeout), self._sa.initiator)
            self._timers.arm(Timer.LIVENESS, max(now, due))
        else:
            self._timers.disarm(Timer.LIVENESS)

    def acknowledged(self, now: float, sequence: int) -> None:
        """An ACK settles what was asked only with the number that was asked last (RFC 3706 section 5.4)."""
        if self._asked_since is not None and sequence == self._sequence:
            self._sa.former = None
            self.note_activity(now)

    def expects(self, sequence: int) -> bool:
        """Whether an ACK with this number answers a question asked since the last sign of life."""
        return self._asked_since is not None and (self._sequence - sequence) & 0xFFFFFFFF < self._questions

    def ask(self, now: float, sparing: bool) -> None:
        """Ask now, and again until there is a sign of life or the time is over.

        `sparing`: the peer has begun the ISAKMP SA and has no pair of IPsec SAs yet.
        """
        if not self.spoken:
            return
        if self._asked_since is None:
            self._asked_since = now
            self._questions = 0
        else:
            self._phase1.repeat_unconfirmed()
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        sent = self._transport.are_you_there(self._sequence.to_bytes(4, "big"))
        if self._sa.former is not None and self._questions:
            self._transport.repeat(sent, self._sa.former)
        self._questions += 1
        self._due = min(self._next_question(now, sparing), self._dead_at)
        self._timers.arm(Timer.LIVENESS, self._due)

    def is_dead(self, now: float) -> bool:
        """Whether the time for an answer is over; if not, it is time to ask."""
        if self._asked_since is not None and now - self._due > PAUSED:
            # This machine stood still: the answer may have come while nobody listened.
            self._asked_since = now
        return self._asked_since is not None and now >= self._dead_at

    @property
    def spoken(self) -> bool:
        """Whether the peer has said that it answers (RFC 3706 section 5.1)."""
        return self._sa.negotiation.peer.dpd

    def _next_question(self, now: float, sparing: bool) -> float:
        if not sparing:
            return now + ASKED_AGAIN
        if self._questions < SPARING_QUESTIONS:
            return now + SPARING_PAUSE
        return max(now + ASKED_AGAIN, self._dead_at - URGENT)

    @property
    def _dead_at(self) -> float:
        """`timeout` seconds after the last sign of life.

        Never before there was time for an answer: after a suspension of this machine the question comes
        late. Without DPD in the policy the time counts from the question, which an operator asked.
        """
        asked = self._asked_since if self._asked_since is not None else self.last_heard
        policy = self._sa.policy.dpd
        if not policy.enabled:
            return asked + policy.timeout
        return max(self.last_heard + policy.timeout, asked + LEAST_ASKING)
