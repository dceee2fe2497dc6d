from __future__ import annotations

import pytest

from vpnd.crypto.entropy import Entropy, OsEntropy, SeededEntropy

BOTH: tuple[Entropy, ...] = (OsEntropy(), SeededEntropy(1))


@pytest.mark.parametrize("entropy", BOTH, ids=("os", "seeded"))
class TestBoth:
    def test_bytes_have_the_length_asked_for(self, entropy: Entropy) -> None:
        assert [len(entropy.bytes(length)) for length in (0, 1, 16, 1000)] == [0, 1, 16, 1000]

    def test_bytes_differ_from_call_to_call(self, entropy: Entropy) -> None:
        assert entropy.bytes(16) != entropy.bytes(16)

    @pytest.mark.parametrize("bound", [1, 2, 3, 255, 256, 257])
    def test_below_reaches_every_small_number_and_no_other(self, entropy: Entropy, bound: int) -> None:
        # 40 draws for each number: one is missed with a probability of bound * exp(-40).
        drawn = {entropy.below(bound) for _ in range(40 * bound)}
        assert drawn == set(range(bound))

    def test_below_reaches_the_high_bits_of_a_large_bound(self, entropy: Entropy) -> None:
        bound = (1 << 2048) - 1
        assert max(entropy.below(bound) for _ in range(64)) >> 2040

    @pytest.mark.parametrize("bound", [0, -1])
    def test_below_refuses_an_empty_range(self, entropy: Entropy, bound: int) -> None:
        with pytest.raises(ValueError, match="no number"):
            entropy.below(bound)


def test_the_same_seed_gives_the_same_sequence() -> None:
    first, second = SeededEntropy(7), SeededEntropy(7)
    assert (first.bytes(20), first.below(1 << 64)) == (second.bytes(20), second.below(1 << 64))


def test_another_seed_gives_another_sequence() -> None:
    assert SeededEntropy(7).bytes(20) != SeededEntropy(8).bytes(20)
