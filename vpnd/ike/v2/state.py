"""The states of an IKE SA, each named for what has happened, and what its deadlines are for."""

from __future__ import annotations

from vpnd.ike.session import Phase, SaState
from vpnd.ike.steps import Key


class State(SaState):
    """What has happened to an IKE SA so far; the value says how far that is."""

    NEW = "nothing yet"
    """Made, no message sent or answered."""
    SENT_INIT = "sent IKE_SA_INIT"
    """Initiator: waits for the peer's proposal, key and nonce."""
    SENT_AUTH = "sent IKE_AUTH"
    """Initiator: keys agreed, waits for the peer's proof."""
    ANSWERED_INIT = "answered IKE_SA_INIT"
    """Responder: half-open, waits for the peer's proof."""
    HELD = "holds IKE_AUTH"
    """Responder: the peer has proved itself; another that has the tunnel is asked whether it is alive."""
    REFUSED = "refused", Phase.CLOSING
    """Responder: keeps its refusal for repeats of the request."""
    ESTABLISHED = "established", Phase.ESTABLISHED
    """Both sides are authenticated."""
    SUCCESSOR = "made by rekeying", Phase.CLOSING
    """Keys agreed, but a second successor competes with it, or it has not taken over yet."""
    REKEYED = "rekeyed", Phase.CLOSING
    """A successor has taken over; waits for the DELETE."""
    CLOSING = "closing", Phase.CLOSING
    """Nothing new begins; a DELETE is sent or waits for its turn in the window."""
    GONE = "gone", Phase.GONE
    """Forgotten."""


class Timer(Key):
    """What a deadline of the IKE SA is for."""

    RETRANSMIT = "retransmit the request"
    LISTEN = "stop waiting for a better answer"
    END = "forget"
    DPD = "check that the peer is alive"
    REKEY = "rekey"
    REINITIATE = "begin another IKE SA before the end"
    LIFETIME = "the hard end"
    KEEPALIVE = "keep the NAT's mapping"
    RETRY = "ask the busy peer again"
    HELD = "decide whether the newcomer has the tunnel"
    DUPLICATE = "close the redundant IKE SA"
