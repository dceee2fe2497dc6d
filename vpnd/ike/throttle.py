"""Peers that fail to authenticate again and again: how many of their attempts are worth a key exchange.

A wrong key is most often a mistake, so the first failures cost a peer nothing. After those its new
attempts draw on a bucket that one token a second fills. What is refused is dropped before any computation;
SAs that are established, other addresses, and our own attempts are not touched.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.model.selectors import Address

FREE_FAILURES = 10
"""Ours: failures of one address without a consequence: several tunnels may have the same mistake."""
PER_SECOND = 1.0
"""Ours: attempts of such an address that are admitted each second."""
BURST = 5.0
"""Ours: attempts that are admitted at once after a pause."""
FORGOTTEN_AFTER = 60.0
"""Ours: seconds without a failure after which nothing is held against an address."""

ADDRESSES_KEPT = 1024
"""Ours: addresses that something is held against; the oldest goes, since a peer may have any address."""


@dataclass(slots=True)
class _Record:
    """What is held against one address: its failures, the last one, and the bucket."""

    failures: int
    failed_at: float
    tokens: float = BURST
    filled_at: float = 0.0


class Throttle:
    """Authentication failures by address. Times are on the caller's clock."""

    def __init__(self) -> None:
        self._records: dict[Address, _Record] = {}

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._records)

    def failed(self, now: float, address: Address) -> bool:
        """A peer at this address did not prove its key. Returns whether this one begins the throttling."""
        record = self._current(now, address)
        if record is None:
            if len(self._records) >= ADDRESSES_KEPT:
                del self._records[next(iter(self._records))]
            record = self._records[address] = _Record(0, now)
        record.failures += 1
        record.failed_at = now
        if record.failures == FREE_FAILURES:
            record.tokens, record.filled_at = BURST, now
            return True
        return False

    def proved(self, address: Address) -> None:
        """A peer at this address has the key: nothing is held against it."""
        self._records.pop(address, None)

    def admits(self, now: float, address: Address) -> bool:
        """Whether a new attempt of this address may cost a key exchange; if so, it is counted."""
        record = self._current(now, address)
        if record is None or record.failures < FREE_FAILURES:
            return True
        record.tokens = min(BURST, record.tokens + PER_SECOND * (now - record.filled_at))
        record.filled_at = now
        if record.tokens < 1.0:
            return False
        record.tokens -= 1.0
        return True

    def _current(self, now: float, address: Address) -> _Record | None:
        record = self._records.get(address)
        if record is not None and now - record.failed_at >= FORGOTTEN_AFTER:
            del self._records[address]
            return None
        return record
