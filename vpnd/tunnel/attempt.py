"""The attempt of one tunnel: at which mapping, until when, and when the next one may begin."""

from __future__ import annotations

from dataclasses import dataclass, field

from vpnd.crypto.entropy import Entropy
from vpnd.tunnel.backoff import ATTEMPT_LIMIT, Backoff


@dataclass(slots=True, eq=False)
class Attempt:
    """Times are seconds on the caller's clock; only its own methods change it."""

    mapping: int | None = None
    """The mapping under negotiation."""
    ends: float | None = None
    """When the attempt is given up."""
    retry_at: float | None = None
    """Before this none begins; None: at once."""
    reconnecting: bool = False
    """The peer was found dead and is called until everything is up, also by a tunnel that is not active."""
    resolving: bool = False
    """The peer's name is being looked up."""
    resolved: bool = False
    """Its address was looked up for this attempt."""
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def is_idle(self) -> bool:
        """Whether another one may begin."""
        return self.mapping is None and not self.resolving

    def pauses(self, now: float) -> bool:
        """Whether the next one has to wait."""
        return self.retry_at is not None and self.retry_at > now

    def is_over(self, now: float) -> bool:
        """Whether it has had its time without a result."""
        return self.mapping is not None and self.ends is not None and self.ends <= now

    def begin(self, now: float, mapping: int) -> None:
        """A mapping is negotiated."""
        self.mapping, self.ends = mapping, now + ATTEMPT_LIMIT

    def end(self) -> None:
        """It has a result."""
        self.mapping = self.ends = None

    def fail(self, now: float, entropy: Entropy) -> float:
        """It has found no IKE SA. Returns the seconds until the next one may begin."""
        self.end()
        self.resolved = False
        delay = self.backoff.next_delay(entropy)
        self.retry_at = now + delay
        return delay

    def retry_now(self) -> None:
        """The next one waits for nothing."""
        self.retry_at = None

    def wait_until(self, at: float) -> None:
        """The next one does not begin before this."""
        self.retry_at = at

    def start_over(self) -> None:
        """What failed before does not count."""
        self.retry_at = None
        self.backoff.reset()

    def reconnect(self) -> None:
        """The peer is called until everything is up."""
        self.reconnecting = True

    def connected(self) -> None:
        """Everything is up, or nothing is wanted any more."""
        self.reconnecting = False

    def resolve(self) -> None:
        """The peer's name is looked up."""
        self.resolving = True

    def answered(self, found: bool) -> None:
        """The look-up has a result; `found`: an address."""
        self.resolving = False
        self.resolved = self.resolved or found

    def forget_address(self) -> None:
        """The next attempt looks the name up."""
        self.resolved = False
