"""Randomness as a value that is handed in, so that the core can be run again exactly as it ran."""

from __future__ import annotations

import builtins
import os
import random
from typing import Protocol


class Entropy(Protocol):
    """A source of uniformly distributed, independent bytes and numbers."""

    def below(self, bound: int) -> int:
        """A number uniform in [0, `bound`). Raises ValueError unless `bound` is positive."""

    def bytes(self, length: int) -> builtins.bytes:
        """`length` uniformly distributed bytes."""


def chance(entropy: Entropy) -> float:
    """A number from 0 to 1, both included, in steps of a thousandth."""
    return entropy.below(CHANCE_STEPS + 1) / CHANCE_STEPS


CHANCE_STEPS = 1000
"""Ours: fine enough to spread a thousand timers."""


class OsEntropy:
    """The operating system's generator, for everything that is not a test."""

    def below(self, bound: int) -> int:
        """A number uniform in [0, `bound`), by drawing again what falls beyond it (FIPS 186-5 A.4.2)."""
        if bound <= 0:
            raise ValueError(f"there is no number in [0, {bound})")
        length = (bound.bit_length() + 7) // 8
        excess = 8 * length - bound.bit_length()
        while True:
            number = int.from_bytes(os.urandom(length), "big") >> excess
            if number < bound:
                return number

    def bytes(self, length: int) -> builtins.bytes:
        """`length` bytes of `os.urandom`."""
        return os.urandom(length)


class SeededEntropy:
    """The same bytes for the same seed: for tests and simulations only, since anyone can repeat them."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, bound: int) -> int:
        """A number uniform in [0, `bound`)."""
        if bound <= 0:
            raise ValueError(f"there is no number in [0, {bound})")
        return self._random.randrange(bound)

    def bytes(self, length: int) -> builtins.bytes:
        """`length` bytes of the sequence that the seed fixes."""
        return self._random.randbytes(length)
