from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.vectors import Vector, read
from vpnd.crypto import dh
from vpnd.crypto.dh import InvalidPublicValue, KeyPair
from vpnd.crypto.entropy import SeededEntropy
from vpnd.crypto.modp import MODP_GROUPS
from vpnd.crypto.suites import GROUPS
from vpnd.wire.iana import DhGroup

SAFE_PRIMES = sorted(set(MODP_GROUPS) - {DhGroup.MODP_2048_256})
ENTROPY = SeededEntropy(20)


class Dictated:
    """An entropy that yields the one private value that a vector wants."""

    def __init__(self, private: bytes) -> None:
        self._private = private
        self._number = int.from_bytes(private, "big") - 1

    def below(self, bound: int) -> int:
        assert self._number < bound
        return self._number

    def bytes(self, length: int) -> bytes:
        assert length == len(self._private)
        return self._private


class Lowest(SeededEntropy):
    """An entropy that draws the least number that it may."""

    def __init__(self) -> None:
        super().__init__(0)

    def below(self, bound: int) -> int:
        return 0


class Highest(Lowest):
    """One that draws the greatest."""

    def below(self, bound: int) -> int:
        return bound - 1


def pi_bits(count: int) -> int:
    """The integer part of pi * 2^count, by Machin's formula."""
    guard = 64
    one = 1 << (count + guard)

    def arctan_of_inverse(x: int) -> int:
        term = total = one // x
        divisor, sign = 3, -1
        while term:
            term //= x * x
            total += sign * (term // divisor)
            divisor, sign = divisor + 2, -sign
        return total

    return (4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))) >> guard


class TestVectors:
    @pytest.mark.parametrize("vector", read("dh.txt"), ids=str)
    def test_both_sides_of_a_published_exchange(self, vector: Vector) -> None:
        group, value = int(vector["group"]), vector.bytes_of
        ours = KeyPair.generate(group, Dictated(value("private_i")))
        theirs = KeyPair.generate(group, Dictated(value("private_r")))
        assert (ours.public, theirs.public) == (value("public_i"), value("public_r"))
        assert ours.shared(theirs.public).reveal() == value("shared")
        assert theirs.shared(ours.public).reveal() == value("shared")

    @pytest.mark.parametrize(
        ("group", "bits", "offset"),
        [
            (1, 768, 149686),
            (2, 1024, 129093),
            (5, 1536, 741804),
            (14, 2048, 124476),
            (15, 3072, 1690314),
            (16, 4096, 240904),
        ],
    )
    def test_primes_are_made_of_pi(self, group: int, bits: int, offset: int) -> None:
        """2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + c): RFC 2409 section 6, RFC 3526."""
        prime = (1 << bits) - (1 << (bits - 64)) - 1 + (1 << 64) * (pi_bits(bits - 130) + offset)
        assert MODP_GROUPS[group].prime == prime
        assert MODP_GROUPS[group].generator == 2

    def test_the_subgroup_of_group_24_has_the_order_q(self) -> None:
        group = MODP_GROUPS[24]
        assert group.order is not None
        assert (group.prime - 1) % group.order == 0
        assert pow(group.generator, group.order, group.prime) == 1


@pytest.mark.parametrize("group", GROUPS)
class TestEveryGroup:
    def test_two_pairs_agree(self, group: int) -> None:
        ours, theirs = KeyPair.generate(group, ENTROPY), KeyPair.generate(group, ENTROPY)
        assert ours.public != theirs.public
        assert ours.shared(theirs.public) == theirs.shared(ours.public)

    def test_values_have_the_group_s_lengths(self, group: int) -> None:
        ours, theirs = KeyPair.generate(group, ENTROPY), KeyPair.generate(group, ENTROPY)
        assert len(ours.public) == GROUPS[group].public_length
        assert len(ours.shared(theirs.public)) == GROUPS[group].shared_length

    def test_the_private_value_comes_from_the_entropy(self, group: int) -> None:
        pairs = [KeyPair.generate(group, SeededEntropy(seed)) for seed in (1, 1, 2)]
        assert pairs[0].public == pairs[1].public
        assert pairs[0].public != pairs[2].public

    def test_public_values_of_another_length_are_refused(self, group: int) -> None:
        ours = KeyPair.generate(group, ENTROPY)
        theirs = KeyPair.generate(group, ENTROPY).public
        for wrong in (b"", theirs[:-1], theirs[1:], theirs + b"\0", b"\0" + theirs, theirs * 2):
            with pytest.raises(InvalidPublicValue, match="bytes, not"):
                ours.shared(wrong)

    def test_nothing_of_the_pair_is_shown(self, group: int) -> None:
        assert repr(KeyPair.generate(group, ENTROPY)) == f"KeyPair(group={group})"


def test_an_unknown_group_raises_key_error() -> None:
    for group in (0, 3, 22, 23, 1025):
        with pytest.raises(KeyError):
            KeyPair.generate(group, ENTROPY)


@pytest.mark.parametrize("number", MODP_GROUPS)
class TestModp:
    def test_degenerate_public_values_are_refused(self, number: int) -> None:
        """RFC 6989 section 2.1: 0, 1, p-1, p, p+1 and all ones."""
        group, ours = MODP_GROUPS[number], KeyPair.generate(number, ENTROPY)
        for value in (0, 1, group.prime - 1, group.prime, group.prime + 1, (1 << 8 * group.length) - 1):
            with pytest.raises(InvalidPublicValue, match="not in"):
                ours.shared(value.to_bytes(group.length, "big"))

    def test_the_arithmetic_is_that_of_pow(self, number: int) -> None:
        group = MODP_GROUPS[number]
        exponent = (1 << 200) - 12345
        private = dh.modp_private(group, exponent)
        base = pow(group.generator, 98765, group.prime)
        shared = private.shared(base.to_bytes(group.length, "big"))
        assert int.from_bytes(private.public, "big") == pow(group.generator, exponent, group.prime)
        assert int.from_bytes(shared, "big") == pow(base, exponent, group.prime)

    def test_leading_zeros_stay(self, number: int) -> None:
        """RFC 7296 section 2.14: g^ir is padded to the length of the modulus."""
        group = MODP_GROUPS[number]
        private = dh.modp_private(group, group.order - 1 if group.order else 3)
        if group.order:
            # y^(q-1) is the inverse of y, so the inverse of a short value gives that short value back.
            assert len(private.shared(private.public)) == group.length
        else:
            assert private.shared((2).to_bytes(group.length, "big")) == (8).to_bytes(group.length, "big")

    def test_exponents_are_long_enough(self, number: int) -> None:
        """RFC 3526 section 8: twice the strength, for which it estimates 90 bits at 1536 and 110 at 2048."""
        strength = {1: 64, 2: 80, 5: 90, 14: 110, 15: 130, 16: 150, 24: 112}
        assert MODP_GROUPS[number].exponent_bits >= 2 * strength[number]


@pytest.mark.parametrize("number", SAFE_PRIMES)
def test_exponents_have_exactly_their_length(number: int) -> None:
    """From a one and zeros to ones only: each takes the same number of squarings."""
    group, bits = MODP_GROUPS[number], MODP_GROUPS[number].exponent_bits
    for entropy, exponent in ((Lowest(), 1 << (bits - 1)), (Highest(), (1 << bits) - 1)):
        public = KeyPair.generate(number, entropy).public
        assert int.from_bytes(public, "big") == pow(group.generator, exponent, group.prime)


@pytest.mark.parametrize("number", SAFE_PRIMES)
def test_primes_are_safe_against_a_confined_value(number: int) -> None:
    """Fermat's test for p and (p-1)/2: no subgroup is small but {1, p-1}, so the range check is enough."""
    prime = MODP_GROUPS[number].prime
    assert pow(2, prime - 1, prime) == 1
    assert pow(3, (prime - 1) // 2 - 1, (prime - 1) // 2) == 1


class TestGroup24:
    def test_values_outside_the_subgroup_are_refused(self) -> None:
        """RFC 6989 section 2.2: y^q must be 1."""
        group, ours = MODP_GROUPS[24], KeyPair.generate(24, ENTROPY)
        assert group.order is not None
        cofactor_element = pow(3, group.order, group.prime)
        good = int.from_bytes(KeyPair.generate(24, ENTROPY).public, "big")
        for value in (3, cofactor_element, good * cofactor_element % group.prime):
            assert pow(value, group.order, group.prime) != 1
            with pytest.raises(InvalidPublicValue, match="subgroup"):
                ours.shared(value.to_bytes(group.length, "big"))

    def test_exponents_are_below_the_order(self) -> None:
        group = MODP_GROUPS[24]
        assert group.order is not None
        for entropy, exponent in ((Lowest(), 1), (Highest(), group.order - 1)):
            public = KeyPair.generate(24, entropy).public
            assert int.from_bytes(public, "big") == pow(group.generator, exponent, group.prime)


@pytest.mark.parametrize("number", dh.CURVES)
class TestEcp:
    def test_points_off_the_curve_are_refused(self, number: int) -> None:
        ours, theirs = KeyPair.generate(number, ENTROPY), KeyPair.generate(number, ENTROPY).public
        half = len(theirs) // 2
        flipped = theirs[:-1] + bytes((theirs[-1] ^ 1,))
        swapped = theirs[half:] + theirs[:half]
        for wrong in (flipped, swapped, bytes(len(theirs)), b"\xff" * len(theirs)):
            with pytest.raises(InvalidPublicValue, match="not on the curve"):
                ours.shared(wrong)

    def test_a_coordinate_is_not_taken_modulo_the_field(self, number: int) -> None:
        """x + p is the same field element, and still another string than the one that was sent."""
        field = {
            19: (1 << 256) - (1 << 224) + (1 << 192) + (1 << 96) - 1,
            20: (1 << 384) - (1 << 128) - (1 << 96) + (1 << 32) - 1,
            21: (1 << 521) - 1,
        }[number]
        half = GROUPS[number].public_length // 2
        point = next(small_points(number))
        ours = KeyPair.generate(number, ENTROPY)
        assert ours.shared(point.x.to_bytes(half, "big") + point.y.to_bytes(half, "big"))
        with pytest.raises(InvalidPublicValue):
            ours.shared((point.x + field).to_bytes(half, "big") + point.y.to_bytes(half, "big"))


def small_points(number: int) -> Iterator[ec.EllipticCurvePublicNumbers]:
    """Points with x = 1, 2, ... as far as the curve has them, by decompressing x."""
    half = GROUPS[number].public_length // 2
    for x in range(1, 100):
        with contextlib.suppress(ValueError):
            compressed = b"\x02" + x.to_bytes(half, "big")
            yield ec.EllipticCurvePublicKey.from_encoded_point(dh.CURVES[number], compressed).public_numbers()


class TestCurve25519:
    @pytest.mark.parametrize(
        "point",
        [
            bytes(32),
            b"\x01" + bytes(31),
            bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
            bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
            bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
            bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        ],
        ids=("0", "1", "p-1", "p", "order 8", "order 8, the other"),
    )
    def test_points_of_small_order_are_refused(self, point: bytes) -> None:
        """RFC 7748 section 6.1: a result of all zeros."""
        with pytest.raises(InvalidPublicValue, match="small order"):
            KeyPair.generate(31, ENTROPY).shared(point)
