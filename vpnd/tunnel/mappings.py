"""The record of one mapping: which SA pair owns it, which others still live, and why it is not up."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.crypto.entropy import Entropy
from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Diagnosis
from vpnd.tunnel.backoff import Backoff

SIMULTANEOUS_START = 10.0
"""Ours: seconds within which two SA pairs of one mapping are taken for both ends having begun at once."""

DUPLICATE_GRACE = 5.0
"""Ours: seconds that a superseded SA pair lives on, so that packets on their way still arrive."""

STABLE_AFTER = 30.0
"""Ours: seconds that a mapping must have been up for its next loss to count as the first one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure and when it happened, in seconds on the caller's clock."""

    diagnosis: Diagnosis
    at: float


@dataclass(slots=True)
class SaPair:
    """One installed SA pair: who began it, when (seconds on the caller's clock), and the path it uses now."""

    spi_in: int
    spi_out: int
    initiator: bool
    since: float
    child: ChildSa
    path: Path

    @property
    def rank(self) -> int:
        """The same number at both ends, since each end's inbound SPI is the other's outbound one."""
        return min(self.spi_in, self.spi_out)


class Mapping:
    """One mapping of a tunnel.

    `owner` is the SA pair that carries its outbound packets; `others` are older ones that still receive, with
    the time at which to close each (None: their owner, a rekey, closes them).
    """

    __slots__ = (
        "backoff",
        "connecting",
        "index",
        "others",
        "owner",
        "reason",
        "retry_at",
        "up_since",
        "wanted",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.owner: SaPair | None = None
        self.others: dict[int, tuple[SaPair, float | None]] = {}
        self.reason: Fault | None = None
        self.backoff = Backoff()
        self.retry_at: float | None = None
        self.up_since: float | None = None
        self.wanted = False
        self.connecting = False

    def installed(self, now: float, child: ChildSa) -> None:
        """A new SA pair came up: it owns the mapping, or gives way if both ends began at once.

        Of two pairs that both ends made at the same time, one by each, the one with the lowest SPI stays,
        which both ends compute alike. In every other case the newer one is right: the peer made it because
        it has lost the older one.
        """
        new = SaPair(child.spi_in, child.spi_out, child.initiator, now, child, child.path)
        old = self.owner
        self.owner = new
        if old is None:
            self.up_since = now
        else:
            together = old.initiator != new.initiator and now - old.since <= SIMULTANEOUS_START
            loser = max(old, new, key=lambda pair: pair.rank) if together else old
            self.owner = new if loser is old else old
            self.others[loser.spi_in] = (loser, now + DUPLICATE_GRACE)
        self.wanted = False
        self.retry_at = None
        self.reason = None

    def replaced(self, now: float, old_spi_in: int, child: ChildSa) -> None:
        """A rekey's successor takes over; the old pair receives until it is closed by the rekey."""
        new = SaPair(child.spi_in, child.spi_out, child.initiator, now, child, child.path)
        if self.owner is None or self.owner.spi_in == old_spi_in:
            if self.owner is not None:
                self.others[old_spi_in] = (self.owner, None)
            if self.up_since is None:
                self.up_since = now
            self.owner = new
        else:
            # The successor of a pair that no longer owns the mapping receives only, as that one did.
            self.others[new.spi_in] = (new, None)
        self.wanted = False
        self.retry_at = None
        self.reason = None

    def removed(self, spi_in: int) -> None:
        """An SA pair is gone; the newest of the others, if there is one, becomes the owner."""
        self.others.pop(spi_in, None)
        if self.owner is None or self.owner.spi_in != spi_in:
            return
        self.owner = None
        if self.others:
            newest = max(self.others.values(), key=lambda entry: entry[0].since)[0]
            del self.others[newest.spi_in]
            self.owner = newest

    def lost(self, now: float) -> None:
        """Forgets that it was up; a mapping that was up for long starts its backoff anew."""
        if self.up_since is not None and now - self.up_since >= STABLE_AFTER:
            self.backoff.reset()
        self.up_since = None

    def failed(self, now: float, diagnosis: Diagnosis, entropy: Entropy, retry: bool) -> float | None:
        """An attempt for it failed. Returns the seconds to the next try, or None if nobody wants one."""
        self.reason = Fault(diagnosis, now)
        self.connecting = False
        delay = self.backoff.next_delay(entropy)
        self.wanted = retry
        self.retry_at = now + delay
        return delay if retry else None

    def pairs(self) -> tuple[SaPair, ...]:
        """Every SA pair that is installed, the owner first."""
        others = tuple(pair for pair, _ in self.others.values())
        return others if self.owner is None else (self.owner, *others)

    def surplus_deadline(self) -> float | None:
        """When the first superseded SA pair is due to be closed."""
        return min((at for _, at in self.others.values() if at is not None), default=None)

    def take_surplus(self, now: float) -> list[int]:
        """The inbound SPIs of superseded SA pairs whose grace has ended; each is named once."""
        due = [spi for spi, (_, at) in self.others.items() if at is not None and at <= now]
        for spi in due:
            self.others[spi] = (self.others[spi][0], None)
        return due
