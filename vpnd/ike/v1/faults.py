"""What can end an IKEv1 exchange, with the notify that tells the peer (RFC 2408 section 3.14.1)."""

from __future__ import annotations

from vpnd.ike.faults import Fault
from vpnd.model.diagnosis import Code
from vpnd.wire.iana import Notify1


class NoProposalChosen(Fault, notify=Notify1.NO_PROPOSAL_CHOSEN, code=Code.P1_PROPOSAL):
    """No transform of the offer is acceptable."""


class InvalidIdInformation(Fault, notify=Notify1.INVALID_ID_INFORMATION, code=Code.TRAFFIC_SELECTORS):
    """The peer is not who we expect; or in quick mode, its identities, the selectors, fit no mapping."""


class InvalidKeyInformation(Fault, notify=Notify1.INVALID_KEY_INFORMATION, code=Code.SYNTAX):
    """A public value that no honest peer sends, or of a group that was not negotiated."""


class AuthenticationFailed(Fault, notify=Notify1.AUTHENTICATION_FAILED, code=Code.PSK):
    """The peer did not prove that it has the key."""


class IdentityTaken(Fault, notify=Notify1.AUTHENTICATION_FAILED, code=Code.IDENTITY_TAKEN):
    """The peer is who it says, and so is another that is up."""


class WeakKey(Fault, notify=Notify1.INVALID_KEY_INFORMATION, code=Code.PEER_BUSY):
    """The exchange has yielded a weak DES key (RFC 2409 appendix A); the next one has other nonces."""
