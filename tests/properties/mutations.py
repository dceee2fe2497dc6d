"""What becomes of a message on its way, of either version of IKE: both have the same header."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.simulation.weather import flip_bit


@dataclass(frozen=True)
class Mutation:
    """Bits that turn over, an end that is cut off, and another that is there instead."""

    bits: list[int]
    cut: int
    tail: bytes

    def of(self, data: bytes) -> bytes:
        """The message after it, with the length in its header made to fit."""
        for bit in self.bits:
            data = flip_bit(data, bit % (8 * len(data)))
        data = data[: len(data) - self.cut] + self.tail
        # A length that fits gets further than one that does not.
        return data[:24] + len(data).to_bytes(4, "big") + data[28:]


mutations = st.builds(
    Mutation, st.lists(st.integers(0, 10_000), max_size=4), st.integers(0, 40), st.binary(max_size=8)
)
