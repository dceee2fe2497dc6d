"""The error notifies of IKEv2 as exceptions (RFC 7296 section 3.10.1): raised, the session answers them."""

from __future__ import annotations

from typing import ClassVar

from vpnd.ike.faults import Fault
from vpnd.model.diagnosis import Code
from vpnd.wire.iana import Notify2


class UnsupportedCriticalPayload(Fault):
    """`data` is the payload type, one byte (RFC 7296 section 2.5)."""

    notify: ClassVar[int | None] = Notify2.UNSUPPORTED_CRITICAL_PAYLOAD
    code: ClassVar[Code] = Code.SYNTAX


class InvalidSyntax(Fault):
    """What the peer sent cannot be, although it may be authentic."""

    notify: ClassVar[int | None] = Notify2.INVALID_SYNTAX
    code: ClassVar[Code] = Code.SYNTAX


class NoProposalChosen(Fault):
    """No proposal is acceptable to both sides."""

    notify: ClassVar[int | None] = Notify2.NO_PROPOSAL_CHOSEN
    code: ClassVar[Code] = Code.P1_PROPOSAL


class InvalidKe(Fault):
    """The KE payload is of another group than the chosen one; `data` is the group wanted, two bytes."""

    notify: ClassVar[int | None] = Notify2.INVALID_KE_PAYLOAD
    code: ClassVar[Code] = Code.P1_DH

    @classmethod
    def wanting(cls, group: int) -> InvalidKe:
        """Asks the peer to begin again with `group` (RFC 7296 section 1.3)."""
        return cls(group.to_bytes(2, "big"), ours=group)


class AuthenticationFailed(Fault):
    """The one answer to everything that is wrong with an identity or its proof: it must not tell which."""

    notify: ClassVar[int | None] = Notify2.AUTHENTICATION_FAILED
    code: ClassVar[Code] = Code.PSK


class IdentityTaken(Fault):
    """The peer is who it says, and so is another that is up: the one notify that leaves no IKE SA behind."""

    notify: ClassVar[int | None] = Notify2.AUTHENTICATION_FAILED
    code: ClassVar[Code] = Code.IDENTITY_TAKEN


class TsUnacceptable(Fault):
    """The traffic selectors have nothing in common."""

    notify: ClassVar[int | None] = Notify2.TS_UNACCEPTABLE
    code: ClassVar[Code] = Code.TRAFFIC_SELECTORS


class NoAdditionalSas(Fault):
    """This side wants no more SAs (RFC 7296 section 1.3)."""

    notify: ClassVar[int | None] = Notify2.NO_ADDITIONAL_SAS
    code: ClassVar[Code] = Code.PEER_REFUSED


class TemporaryFailure(Fault):
    """Not now: something that is under way is in conflict with it (RFC 7296 section 2.25)."""

    notify: ClassVar[int | None] = Notify2.TEMPORARY_FAILURE
    code: ClassVar[Code] = Code.PEER_BUSY


class ChildSaNotFound(Fault):
    """The CHILD_SA that a rekey names does not exist (RFC 7296 section 2.25)."""

    notify: ClassVar[int | None] = Notify2.CHILD_SA_NOT_FOUND
    code: ClassVar[Code] = Code.PEER_REFUSED
