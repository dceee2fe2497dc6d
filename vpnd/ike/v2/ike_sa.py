"""The facts of one IKE SA: plain values, each with one meaning, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field

from vpnd.ike import session
from vpnd.ike.message import Received
from vpnd.ike.v2.keys import IkeKeys
from vpnd.ike.v2.state import State
from vpnd.model.policy import PeerPolicy
from vpnd.model.proposals import Chosen, Suite, as_offer, choose


@dataclass(slots=True)
class Init:
    """What IKE_AUTH signs of IKE_SA_INIT: both messages as they travelled, and the nonces."""

    request: bytes = b""
    response: bytes = b""
    nonce_i: bytes = b""
    nonce_r: bytes = b""


@dataclass(slots=True)
class Attempt(session.Attempt):
    """How an IKE SA came to be, and what an attempt has met so far."""

    begun_here: bool
    """Whether this side began the tunnel, also after the peer has rekeyed the IKE SA."""
    candidates: tuple[PeerPolicy, ...]
    """The tunnels that a responder still chooses from."""
    beside: bool = False
    """Whether another IKE SA stands already: if this attempt fails, that one is as it was."""
    begins_again: bool = False
    """Whether another attempt takes its place at once: its failure is none."""
    init: Init = field(default_factory=Init)
    began_at: float = 0.0
    wanted: dict[int, None] = field(default_factory=dict)
    """The mappings that wait for the IKE SA."""
    held: Received | None = None
    """The peer's IKE_AUTH, while it is not decided whether the tunnel is its own."""
    sent: int = 0
    """Messages."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What IKE_SA_INIT has shown of the peer. `knows_childless`: it has announced RFC 6023."""

    esp_in_udp: bool = False
    fragmentation: bool = False
    knows_childless: bool = False
    vendor: str | None = None


@dataclass(slots=True, eq=False)
class IkeSa(session.Sa[IkeKeys]):
    """One IKE SA. Times are seconds on the caller's clock, 0 before they happen."""

    attempt: Attempt
    peer: Peer = Peer()
    state: State = State.NEW
    established_at: float | None = None
    last_heard: float = 0.0
    """`last_message` counts no ESP."""
    reinitiated_at: float | None = None
    """When another IKE SA was begun beside this one."""

    def set_keys(self, suite: Suite, keys: IkeKeys) -> None:
        """Algorithms and keys are agreed: messages are protected from now on."""
        self._suite, self._keys = suite, keys

    def suite_fits(self, policy: PeerPolicy) -> bool:
        """Whether the algorithms agreed on in IKE_SA_INIT are also this tunnel's."""
        return isinstance(choose([as_offer(self.suite)], policy.proposals), Chosen)
