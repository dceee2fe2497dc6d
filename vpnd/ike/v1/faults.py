"""What can end an IKEv1 exchange, with the notify that tells the peer (RFC 2408 section 3.14.1)."""

from __future__ import annotations

from typing import ClassVar

from vpnd.ike.faults import Fault
from vpnd.model.diagnosis import Code
from vpnd.wire.iana import Notify1


class NoProposalChosen(Fault):
    """No transform of the offer is acceptable."""

    notify: ClassVar[int | None] = Notify1.NO_PROPOSAL_CHOSEN
    code: ClassVar[Code] = Code.P1_PROPOSAL


class InvalidIdInformation(Fault):
    """The peer is not who we expect; or in quick mode, its identities, the selectors, fit no mapping."""

    notify: ClassVar[int | None] = Notify1.INVALID_ID_INFORMATION
    code: ClassVar[Code] = Code.TRAFFIC_SELECTORS


class InvalidKeyInformation(Fault):
    """A public value that no honest peer sends, or of a group that was not negotiated."""

    notify: ClassVar[int | None] = Notify1.INVALID_KEY_INFORMATION
    code: ClassVar[Code] = Code.SYNTAX


class AuthenticationFailed(Fault):
    """The peer did not prove that it has the key."""

    notify: ClassVar[int | None] = Notify1.AUTHENTICATION_FAILED
    code: ClassVar[Code] = Code.PSK


class IdentityTaken(Fault):
    """The peer is who it says, and so is another that is up."""

    notify: ClassVar[int | None] = Notify1.AUTHENTICATION_FAILED
    code: ClassVar[Code] = Code.IDENTITY_TAKEN


class WeakKey(Fault):
    """The exchange has yielded a weak DES key (RFC 2409 appendix A); the next one has other nonces."""

    notify: ClassVar[int | None] = Notify1.INVALID_KEY_INFORMATION
    code: ClassVar[Code] = Code.PEER_BUSY
