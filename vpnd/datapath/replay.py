"""The anti-replay window of one inbound SA (RFC 4303 section 3.4.3)."""

from __future__ import annotations

from vpnd.model.policy import DEFAULT_REPLAY_WINDOW

MINIMUM_WINDOW = 32
"""Packets (RFC 4303 section 3.4.3). Never off: what an attacker records could be sent again at any time."""
MAXIMUM_WINDOW = 4096
"""Ours: a bitmap of 512 bytes an SA is the most that reordering on any path has been seen to need."""

LOW_BITS = 32
LOW_MASK = 0xFFFFFFFF
ESN_END = 1 << 64


class ReplayWindow:
    """Which sequence numbers have arrived: the highest, and one bit for each of the `size` numbers up to it.

    A new window is empty and ready to use. `check` and `accept` are apart because only an authenticated
    packet may move the window: check, verify the ICV, then accept. Bit i of `_seen` stands for number
    `highest - i`; an arbitrarily long Python integer makes the bitmap one value.
    """

    __slots__ = ("_mask", "_seen", "highest", "size")

    def __init__(self, size: int = DEFAULT_REPLAY_WINDOW) -> None:
        if not MINIMUM_WINDOW <= size <= MAXIMUM_WINDOW:
            raise ValueError(f"a replay window has {MINIMUM_WINDOW} to {MAXIMUM_WINDOW} packets, not {size}")
        self.size = size
        self.highest = 0
        self._seen = 0
        self._mask = (1 << size) - 1

    def check(self, sequence: int) -> bool:
        """Whether `sequence` is new: beyond the window, or within it and not seen. 0 is never sent."""
        if sequence > self.highest:
            return True
        behind = self.highest - sequence
        return sequence > 0 and behind < self.size and not self._seen >> behind & 1

    def accept(self, sequence: int) -> bool:
        """Mark an authenticated packet's number as seen; False, and no change, if it was not new."""
        ahead = sequence - self.highest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & self._mask if ahead < self.size else 1
            self.highest = sequence
            return True
        if not self.check(sequence):
            return False
        self._seen |= 1 << -ahead
        return True

    def advance(self, count: int) -> None:
        """Mark the `count` numbers after the highest as seen, all at once: the usual, unbroken run."""
        if count >= self.size:
            self._seen = self._mask
        else:
            self._seen = (self._seen << count | (1 << count) - 1) & self._mask
        self.highest += count

    def extend(self, low: int) -> int:
        """The 64-bit number of which a packet carries only the `low` half (RFC 4303 appendix A2.2).

        The number is the one nearest to the window: one in it, or else ahead of it, but never beyond the
        last of 64 bits. What this guesses is proven by the ICV, which covers the high half too.
        """
        high = self.highest >> LOW_BITS
        bottom = self.highest - self.size + 1
        number = high << LOW_BITS | low
        if number < bottom:
            if high < LOW_MASK:
                number += 1 << LOW_BITS
        elif number - (1 << LOW_BITS) >= max(bottom, 1):
            number -= 1 << LOW_BITS
        return number
