"""How often something happened lately, by source address and in all."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.model.selectors import Address

ADDRESSES_KEPT = 1024
"""Ours: addresses with a count of their own; the oldest goes, the count in all stays."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A count that each event raises by one, to `most` at most, and that falls by `a_second`."""

    a_second: float
    most: float


class Lately:
    """Counts that fall with time. Times are seconds on the caller's clock."""

    def __init__(self, by_address: Rate, in_all: Rate) -> None:
        self._by_address, self._in_all = by_address, in_all
        self._counts: dict[Address, tuple[float, float]] = {}
        self._count = (0.0, 0.0)

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._counts)

    def add(self, now: float, address: Address) -> None:
        """It happened. An address whose count is full adds nothing to the count in all either."""
        before = self.of(now, address)
        if before + 1 > self._by_address.most:
            return
        if address not in self._counts and len(self._counts) >= ADDRESSES_KEPT:
            del self._counts[next(iter(self._counts))]
        self._counts[address] = (before + 1, now)
        self._count = (min(self.in_all(now) + 1, self._in_all.most), now)

    def take_back(self, now: float, address: Address) -> None:
        """One of those that happened does not count after all."""
        self._counts[address] = (max(0.0, self.of(now, address) - 1), now)
        self._count = (max(0.0, self.in_all(now) - 1), now)

    def of(self, now: float, address: Address) -> float:
        """The count of one address."""
        count, counted_at = self._counts.get(address, (0.0, now))
        return max(0.0, count - self._by_address.a_second * (now - counted_at))

    def in_all(self, now: float) -> float:
        """The count of all addresses together."""
        count, counted_at = self._count
        return max(0.0, count - self._in_all.a_second * (now - counted_at))

    def is_full(self, now: float, address: Address) -> bool:
        """Whether one more would be too many, for the address or in all."""
        of_address, in_all = self.of(now, address) + 1, self.in_all(now) + 1
        return of_address > self._by_address.most or in_all > self._in_all.most
