"""The states of an ISAKMP SA, each named for what has happened, and what its deadlines are for."""

from __future__ import annotations

from vpnd.ike.session import Phase, SaState
from vpnd.ike.steps import Key

LONGEST_WAIT = 2.5
"""Seconds between repeats. Three exchanges and an acknowledgement that nothing acknowledges make a tunnel in
IKEv1: with the 8 s that IKEv2 waits too many attempts come to nothing on a bad link. Where half of all
messages are lost each way, 95 % are up in a minute so, and with 4 s 87 %."""


class State(SaState):
    """What has happened to an ISAKMP SA so far."""

    NEW = "nothing yet"
    SENT_SA = "sent Main1"
    SENT_KE = "sent Main3"
    SENT_AUTH = "sent Main5"
    SENT_AGGRESSIVE = "sent Aggressive1"
    ANSWERED_SA = "answered Main1"
    ANSWERED_KE = "answered Main3"
    ANSWERED_AGGRESSIVE = "answered Aggressive1"
    HELD = "holds Main5"
    """Responder: the peer has proved itself; another that has the tunnel is asked whether it is alive."""
    REFUSED = "refused", Phase.CLOSING
    """Responder: keeps its refusal for repeats of the message."""
    ESTABLISHED = "established", Phase.ESTABLISHED
    """Both sides are authenticated; it speaks for the tunnel."""
    REPLACED = "replaced", Phase.CLOSING
    """Another one speaks for the tunnel; it lives to the end of its lifetime."""
    DELETED = "deleted by the peer", Phase.CLOSING
    """The IPsec SAs wait for the successor that is being made."""
    GONE = "gone", Phase.GONE
    """Forgotten."""


SIGNED = (State.ESTABLISHED, State.REPLACED, State.DELETED)
"""States in which both sides are authenticated."""


class Timer(Key):
    """What a deadline of the ISAKMP SA is for."""

    RETRANSMIT = "the answer to the last phase-1 message"
    ERROR = "a real answer after an error in clear"
    HELD = "decide whether the newcomer has the tunnel"
    HALF_OPEN = "the peer's next phase-1 message"
    FORGET = "the end of what is only kept for a little longer"
    REVIEW = "which of two the peer has"
    RENEW = "the time for a successor"
    MEND = "pairs that the peer may have lost are made again"
    EXPIRE = "the end of the lifetime"
    LIVENESS = "the next question whether the peer is there"
    KEEPALIVE = "the next NAT-keepalive"
