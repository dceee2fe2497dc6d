"""The error notifies of IKEv2 as exceptions (RFC 7296 section 3.10.1): raised, the session answers them."""

from __future__ import annotations

from vpnd.ike.faults import Fault
from vpnd.model.diagnosis import Code
from vpnd.wire.iana import Notify2


class UnsupportedCriticalPayload(Fault, notify=Notify2.UNSUPPORTED_CRITICAL_PAYLOAD, code=Code.SYNTAX):
    """`data` is the payload type, one byte (RFC 7296 section 2.5)."""


class InvalidSyntax(Fault, notify=Notify2.INVALID_SYNTAX, code=Code.SYNTAX):
    """What the peer sent cannot be, although it may be authentic."""


class NoProposalChosen(Fault, notify=Notify2.NO_PROPOSAL_CHOSEN, code=Code.P1_PROPOSAL):
    """No proposal is acceptable to both sides."""


class InvalidKe(Fault, notify=Notify2.INVALID_KE_PAYLOAD, code=Code.P1_DH):
    """The KE payload is of another group than the chosen one; `data` is the group wanted, two bytes."""

    @classmethod
    def wanting(cls, group: int) -> InvalidKe:
        """Asks the peer to begin again with `group` (RFC 7296 section 1.3)."""
        return cls(group.to_bytes(2, "big"), ours=group)


class AuthenticationFailed(Fault, notify=Notify2.AUTHENTICATION_FAILED, code=Code.PSK):
    """The one answer to everything that is wrong with an identity or its proof: it must not tell which."""


class IdentityTaken(Fault, notify=Notify2.AUTHENTICATION_FAILED, code=Code.IDENTITY_TAKEN):
    """The peer is who it says, and so is another that is up: the one notify that leaves no IKE SA behind."""


class TsUnacceptable(Fault, notify=Notify2.TS_UNACCEPTABLE, code=Code.TRAFFIC_SELECTORS):
    """The traffic selectors have nothing in common."""


class NoAdditionalSas(Fault, notify=Notify2.NO_ADDITIONAL_SAS, code=Code.PEER_REFUSED):
    """This side wants no more SAs (RFC 7296 section 1.3)."""


class TemporaryFailure(Fault, notify=Notify2.TEMPORARY_FAILURE, code=Code.PEER_BUSY):
    """Not now: something that is under way is in conflict with it (RFC 7296 section 2.25)."""
