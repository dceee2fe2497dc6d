"""Dead peer detection (RFC 3706): ask when nothing has been heard, and say when it has been too long.

    HDR*, HASH(1), N(R-U-THERE, sequence)      -->
                                               <--   HDR*, HASH(1), N(R-U-THERE-ACK, sequence)

Any authenticated message and any ESP counts as a sign of life. The peer is dead exactly `timeout` seconds
after the last one, whatever the schedule of the questions was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vpnd.ike.retransmit import PAUSED
from vpnd.ike.silence import ASKED_AGAIN, question_due
from vpnd.ike.v1 import informational
from vpnd.ike.v1.received import Timer

if TYPE_CHECKING:
    from vpnd.ike.v1.session import Session

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

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sequence = 0
        self._asked_since: float | None = None
        self._questions = 0
        """Since `_asked_since`: their numbers are the last ones up to `_sequence`."""
        self._due = 0.0
        self.last_heard = 0.0

    def begin(self, now: float) -> None:
        """The ISAKMP SA is established."""
        self._sequence = int.from_bytes(self._session.registry.entropy.bytes(4), "big") >> 1
        self.heard(now)
        session = self._session
        if self.spoken and not session.policy.dpd.enabled and not session.initiator:
            session.timers.arm(Timer.LIVENESS, now + session.registry.limits.unproven)

    def heard(self, now: float) -> None:
        """A sign of life. Under another ISAKMP SA it does not say whether the peer has this one."""
        self.last_heard = now
        if self._asked_since is not None and not self._settles:
            return
        self._asked_since = None
        if self.spoken and self._session.policy.dpd.enabled:
            self._session.timers.arm(Timer.LIVENESS, self._question_due(now))
        else:
            self._session.timers.disarm(Timer.LIVENESS)

    def acknowledged(self, now: float, sequence: int) -> None:
        """An ACK settles what was asked only with the number that was asked last (RFC 3706 section 5.4)."""
        if self._asked_since is not None and sequence == self._sequence:
            self._session.former = None
            self.heard(now)

    def expects(self, sequence: int) -> bool:
        """Whether an ACK with this number answers a question since the last sign of life.

        One that answers none is no sign of life: it may be an old one that was recorded and sent again.
        """
        return self._asked_since is not None and (self._sequence - sequence) & 0xFFFFFFFF < self._questions

    def ask(self, now: float) -> None:
        """Ask now, and again until there is a sign of life or the time is over."""
        if not self.spoken:
            return
        if self._asked_since is None:
            self._asked_since = now
            self._questions = 0
        else:
            self._session.attempt.repeat_unconfirmed()
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        sent = informational.send_are_you_there(self._session, self._sequence)
        if self._session.former is not None and self._questions:
            self._session.carrier.repeat(self._session.former, sent)
        self._questions += 1
        self._due = min(self._next_question(now), self._dead_at)
        self._session.timers.arm(Timer.LIVENESS, self._due)

    def handle_timeout(self, now: float) -> bool:
        """Ask, or say that the peer is dead: False."""
        if self._asked_since is not None and now - self._due > PAUSED:
            # This machine stood still: the answer may have come while nobody listened.
            self._asked_since = now
        if self._asked_since is not None and now >= self._dead_at:
            return False
        self.ask(now)
        return True

    @property
    def _settles(self) -> bool:
        """Whether any sign of life answers the question: not whether the peer has this SA, or has moved."""
        return not self._session.attempt.unconfirmed and self._session.former is None

    @property
    def spoken(self) -> bool:
        """Whether the peer has said that it answers (RFC 3706 section 5.1)."""
        return self._session.negotiation.peer.dpd

    def _question_due(self, heard: float) -> float:
        return question_due(heard, float(self._session.policy.dpd.timeout), self._session.initiator)

    def _next_question(self, now: float) -> float:
        """Sparing, where the peer has begun the ISAKMP SA and has no pair of IPsec SAs yet."""
        if self._session.initiator or self._session.children.by_spi:
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
        policy = self._session.policy.dpd
        if not policy.enabled:
            return asked + policy.timeout
        return max(self.last_heard + policy.timeout, asked + LEAST_ASKING)
