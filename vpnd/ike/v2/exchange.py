"""What every request of ours has in common: one exchange, one object."""

from __future__ import annotations

from typing import Any, ClassVar

from vpnd.ike.commands import Cause
from vpnd.ike.faults import Fault
from vpnd.ike.retransmit import LONGEST_WAIT
from vpnd.wire.iana import Exchange2
from vpnd.wire.ikev2 import Payload


class Exchange:
    """A request of ours. The session seals, sends, retransmits and matches; `table.ANSWERS` has its answers.

    `context` is a `vpnd.ike.v2.context.Context`, which holds exchanges itself.
    """

    kind: ClassVar[Exchange2]
    """The exchange type in the header."""
    longest_wait: ClassVar[float] = LONGEST_WAIT
    """Seconds between retransmissions at most."""
    changes_children: ClassVar[bool] = False
    """Whether it makes, rekeys or closes a CHILD_SA."""
    rekeys: ClassVar[bool] = False
    """Whether it makes the successor of a CHILD_SA or of the IKE SA."""

    def request(self, context: Any, now: float) -> tuple[Payload, ...] | None:
        """The payloads, when the window is free for them; None: there is nothing to ask any more."""
        return ()

    def failed(self, context: Any, now: float, fault: Fault) -> Cause | None:
        """The answer was a fault of the peer's, found when it was read or acted on."""

    def abandoned(self, context: Any) -> None:
        """The IKE SA ends before the answer; release what the request holds."""


class Forgotten(Exchange):
    """A request whose answer does not matter any more, but frees the window."""

    def __init__(self, exchange: Exchange) -> None:
        self.kind = exchange.kind  # type: ignore[misc]  # of the one that it stands for
