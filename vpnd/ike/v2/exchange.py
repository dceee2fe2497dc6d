"""What every request of ours has in common: one exchange, one object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vpnd.ike.faults import Fault
from vpnd.wire.iana import Exchange2
from vpnd.wire.ikev2 import Payload

if TYPE_CHECKING:
    from vpnd.ike.v2.messages import Received
    from vpnd.ike.v2.session import Session


class Exchange(Protocol):
    """A request of ours and what its answer means. The session seals, sends, repeats and matches."""

    @property
    def kind(self) -> Exchange2:
        """The exchange type in the header."""

    def request(self, session: Session, now: float) -> tuple[Payload, ...] | None:
        """The payloads, when the window is free for them; None: there is nothing to ask any more."""

    def answered(self, session: Session, now: float, received: Received) -> None:
        """The authentic answer (in IKE_SA_INIT: an answer). May raise Fault."""

    def failed(self, session: Session, now: float, fault: Fault) -> None:
        """The answer was a fault of the peer's, found by `answered` or before it."""

    def abandoned(self, session: Session) -> None:
        """The IKE SA ends before the answer; give back what the request holds."""


class Forgotten:
    """A request whose answer does not matter any more, but frees the window."""

    def __init__(self, kind: Exchange2) -> None:
        self.kind = kind

    def request(self, session: Session, now: float) -> tuple[Payload, ...] | None:
        return None

    def answered(self, session: Session, now: float, received: Received) -> None:
        return None

    def failed(self, session: Session, now: float, fault: Fault) -> None:
        return None

    def abandoned(self, session: Session) -> None:
        return None
