"""Commands from outside, and outcomes of an action: the row of each says what follows."""

from __future__ import annotations

from vpnd.ike.commands import Cause
from vpnd.ike.faults import Fault
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.messages import Received
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import NegotiationMode

# --- commands


class BeginMain(Cause):
    """Begin as initiator, in main mode."""


class BeginAggressive(Cause):
    """Begin as initiator, in aggressive mode."""


class QuickModesDue(Cause):
    """Time has come to the next deadline of a quick mode."""


class Superseded(Cause):
    """Another one speaks for the tunnel; `crossing`: both sides had begun one at once."""

    crossing: bool


class Restored(Cause):
    """The successor is gone: speak for the tunnel again."""


class Forgotten(Cause):
    """The peer does not answer under it, and does under `kept`: both sides had begun one at once."""

    kept: Context


def begin(mode: NegotiationMode) -> Cause:
    return BeginAggressive() if mode is NegotiationMode.AGGRESSIVE else BeginMain()


# --- outcomes


class Proved(Cause):
    """The initiator has proved who it is, by this message, which perhaps says INITIAL_CONTACT."""

    received: Received
    initial_contact: bool


class Contested(Cause):
    """The peer has proved who it is, but another has the tunnel, and is being asked."""

    proof: Proved


class Authenticated(Cause):
    """Both sides have proved who they are."""

    initial_contact: bool


class Admitted(Cause):
    """It speaks for the tunnel from now on, in place of `predecessor`."""

    predecessor: Context | None
    crossing: bool


class Crossed(Cause):
    """Both sides had begun one at once, and keep the other."""

    kept: Context


class Settled(Cause):
    """It has its place among the ISAKMP SAs of the tunnel; see `Admitted`."""

    predecessor: Context | None = None
    crossing: bool = False


class Refused(Cause):
    """A message of the peer is not acceptable."""

    fault: Fault
    received: Received


class Rejected(Cause):
    """The peer's attempt ends, and the peer hears why."""

    fault: Fault
    received: Received


class AttemptFailed(Cause):
    """Our attempt has ended without an ISAKMP SA."""

    diagnosis: Diagnosis


class PeerClosed(Cause):
    """The peer has deleted the ISAKMP SA; `refuses_us`: that is the first that it says to our proof."""

    refuses_us: bool


class AwaitSuccessor(Cause):
    """The peer has deleted it, and a successor is being made: that may have overtaken its last message."""


class PeerDead(Cause):
    """Nothing has been heard for too long."""


class Ended(Cause):
    """It is gone, and with the one that speaks for the tunnel the IPsec SAs; nothing is sent."""

    diagnosis: Diagnosis
