"""Commands from outside, and outcomes of an action: the row of each says what follows."""

from __future__ import annotations

from vpnd.ike.commands import Cause
from vpnd.ike.faults import Fault
from vpnd.ike.message import Received
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.negotiate import Offer
from vpnd.ike.v2.requests import Exchange
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.secret import Secret
from vpnd.wire.ikev2 import Payload

# --- commands


class Begin(Cause):
    """Begin as initiator, with the first exchange."""

    exchange: Exchange


class HandOver(Cause):
    """Another IKE SA of the tunnel asks for these mappings."""

    keeper: Context
    mappings: tuple[int, ...]


class TakeOver(Cause):
    """Succeed this IKE SA: its children are ours already."""

    old: Context


class Discard(Cause):
    """A successor that lost against the peer's: close it (RFC 7296 section 2.8.2)."""


# --- the peer has answered


class Answered(Cause):
    """The answer to a request of ours."""

    exchange: Exchange
    received: Received


# --- outcomes


class SuccessorAgreed(Cause):
    """The keys of a new IKE SA are agreed under the one that it may succeed."""


class AskAgain(Cause):
    """The peer wants IKE_SA_INIT with a cookie or with another group."""

    exchange: Exchange


class KeysAgreed(Cause):
    """IKE_SA_INIT has made the keys; `exchange` is the next."""

    exchange: Exchange


class Authenticated(Cause):
    """The peer has proved who it is, by this message and key; `offer` is ours of the first CHILD_SA."""

    received: Received
    psk: Secret
    offer: Offer | None = None


class Contested(Cause):
    """The peer has proved who it is, but another has the tunnel, and is being asked."""

    received: Received


class Refused(Cause):
    """A request of the peer's is refused."""

    fault: Fault


class AttemptFailed(Cause):
    """Our attempt has ended without an IKE SA."""

    diagnosis: Diagnosis


class AttemptWithdrawn(Cause):
    """As AttemptFailed, but the peer may believe in an IKE SA: `notice` tells it otherwise."""

    diagnosis: Diagnosis
    notice: Exchange


class PeerClosed(Cause):
    """The peer has closed the IKE SA."""

    diagnosis: Diagnosis


class Superseded(Cause):
    """A successor takes over; `redundant` is the one that lost, `then` what comes next."""

    successor: Context
    redundant: Context | None = None
    answer: tuple[Payload, ...] = ()
    then: PeerClosed | None = None


class Reinitiate(Cause):
    """This IKE SA or a child of it ends without a successor: another IKE SA is to be made beside it."""

    why: str


class PeerDead(Cause):
    """The peer does not answer any more, at least not under this IKE SA."""

    diagnosis: Diagnosis


class Finished(Cause):
    """Nothing is left to say to the peer."""
