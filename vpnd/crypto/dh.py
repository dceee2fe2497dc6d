"""Diffie-Hellman: a key pair of any group in the table, and the shared secret with a peer's public value.

Private values are fresh for each pair and come from the `Entropy` that is handed in. The arithmetic on them
is OpenSSL's, with one exception that `_SmallModp` explains.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Protocol, final

from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.utils import CryptographyDeprecationWarning

from vpnd.crypto.entropy import Entropy
from vpnd.crypto.modp import MODP_GROUPS, ModpGroup
from vpnd.crypto.suites import GROUPS
from vpnd.model.secret import Secret
from vpnd.wire.iana import DhGroup

# cryptography 50 warns on every use of these names, as IKE's most common group has no replacement that old
# peers know. The version range in pyproject.toml keeps out the release that removes them.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", CryptographyDeprecationWarning)
    from cryptography.hazmat.primitives.asymmetric.dh import (
        DHParameterNumbers,
        DHPrivateKey,
        DHPrivateNumbers,
        DHPublicKey,
        DHPublicNumbers,
    )

CURVES: dict[int, ec.EllipticCurve] = {
    DhGroup.ECP_256: ec.SECP256R1(),
    DhGroup.ECP_384: ec.SECP384R1(),
    DhGroup.ECP_521: ec.SECP521R1(),
}
"""The curve of each ECP group (RFC 5903 section 3)."""

UNCOMPRESSED = b"\x04"
"""What SEC 1 puts before x | y and a KE payload leaves out (RFC 5903 section 7)."""


class InvalidPublicValue(ValueError):
    """A peer's public value is none of the group, or one that would give the shared secret away."""


@final
class KeyPair:
    """One side of one key exchange. A pair is made for one peer and one exchange, never used again.

    `public` is the body of the KE payload: for MODP groups padded to the prime's length (RFC 7296 section
    3.4), for ECP groups x | y (RFC 5903 section 7), for Curve25519 the 32 bytes (RFC 8031 section 3.1).
    """

    __slots__ = ("_private", "group", "public")

    def __init__(self, group: int, private: _Private) -> None:
        self.group = group
        self.public: bytes = private.public
        self._private = private

    @classmethod
    def generate(cls, group: int, entropy: Entropy) -> KeyPair:
        """A fresh pair. Raises KeyError for a group that the table lacks."""
        if group in CURVES:
            scalar = 1 + entropy.below(CURVES[group].group_order - 1)
            return cls(group, _Ecp(group, scalar))
        if group == DhGroup.CURVE25519:
            return cls(group, _Curve25519(entropy.bytes(GROUPS[group].public_length)))
        modp = MODP_GROUPS[group]
        return cls(group, modp_private(modp, _exponent(modp, entropy)))

    def shared(self, peer_public: bytes) -> Secret:
        """g^ir, padded to the group's length (RFC 7296 section 2.14). Raises InvalidPublicValue.

        The checks are those of RFC 6989 section 2: the length, 1 < y < p-1 for MODP groups, y^q = 1 for the
        group with a small subgroup, the point on the curve for ECP groups, and for Curve25519 a result other
        than zero (RFC 7748 section 6.1).
        """
        _check_length(self.group, peer_public)
        return Secret(self._private.shared(peer_public))

    def __repr__(self) -> str:
        return f"KeyPair(group={self.group})"


def check_public(group: int, peer_public: bytes) -> None:
    """The checks of `KeyPair.shared` without a key pair: a responder makes one only for a value that passes.

    Raises InvalidPublicValue, and KeyError for a group that the table lacks. Costs microseconds, except in
    the group with a small subgroup, whose check is an exponentiation.
    """
    _check_length(group, peer_public)
    if group in CURVES:
        _point(group, peer_public)
    elif group == DhGroup.CURVE25519:
        _ANY_KEY.shared(peer_public)
    else:
        modp = MODP_GROUPS[group]
        value = _peer_value(modp, peer_public)
        if modp.order is not None:
            _exchange(_one(group), modp, value)


def _check_length(group: int, peer_public: bytes) -> None:
    expected = GROUPS[group].public_length
    if len(peer_public) != expected:
        raise InvalidPublicValue(
            f"DH group {group}: a public value has {expected} bytes, not {len(peer_public)}"
        )


class _Private(Protocol):
    """A private value, with the public value that belongs to it."""

    public: bytes

    def shared(self, peer_public: bytes) -> bytes:
        """The shared secret with a value of the right length. Raises InvalidPublicValue."""


# ------------------------------------------------------------------------------- MODP groups


def _exponent(group: ModpGroup, entropy: Entropy) -> int:
    """A private exponent: below the order of a small subgroup, else of `exponent_bits` bits.

    The highest bit is set, so that every exponent of a group takes the same number of squarings.
    """
    if group.order is not None:
        return 1 + entropy.below(group.order - 1)
    highest = 1 << (group.exponent_bits - 1)
    return highest | entropy.below(highest)


def modp_private(group: ModpGroup, exponent: int) -> _Private:
    """The private value with this exponent, by the arithmetic that fits the group."""
    return _Modp(group, exponent) if group.named else _SmallModp(group, exponent)


def _peer_value(group: ModpGroup, peer_public: bytes) -> int:
    """y with 1 < y < p-1 (RFC 6989 section 2.1). Raises InvalidPublicValue."""
    value = int.from_bytes(peer_public, "big")
    if not 1 < value < group.prime - 1:
        raise InvalidPublicValue(f"DH group {group.number}: the public value is not in [2, p-2]")
    return value


@cache
def _numbers(number: int) -> DHParameterNumbers:
    """The parameters of a named group, made once."""
    group = MODP_GROUPS[number]
    return DHParameterNumbers(group.prime, group.generator, group.order)


@cache
def _one(number: int) -> DHPrivateKey:
    """The exponent 1, which is no secret: an "exchange" with it does nothing but check the other value."""
    group = MODP_GROUPS[number]
    return DHPrivateNumbers(1, DHPublicNumbers(group.generator, _numbers(number))).private_key()


def _exchange(key: DHPrivateKey, group: ModpGroup, value: int) -> bytes:
    """y^x. OpenSSL refuses y with y^q != 1 where the group has a small subgroup (RFC 6989 section 2.2)."""
    peer = DHPublicNumbers(value, _numbers(group.number)).public_key()
    try:
        return key.exchange(peer)
    except ValueError as error:
        raise InvalidPublicValue(
            f"DH group {group.number}: the public value is not in the subgroup"
        ) from error


@cache
def _generator(number: int) -> DHPublicKey:
    """g in the place of a peer's public value, made once."""
    return DHPublicNumbers(MODP_GROUPS[number].generator, _numbers(number)).public_key()


class _Modp:
    """g^x by OpenSSL, in constant time, for the groups whose primes it knows.

    There is no call that computes g^x for a given x, so x is "exchanged" with g, which is that. The key
    object wants to hold a public value from the start; it holds g, and nothing looks at it.
    """

    __slots__ = ("_group", "_key", "public")

    def __init__(self, group: ModpGroup, exponent: int) -> None:
        self._group = group
        placeholder = DHPublicNumbers(group.generator, _numbers(group.number))
        self._key = DHPrivateNumbers(exponent, placeholder).private_key()
        self.public = self._key.exchange(_generator(group.number))

    def shared(self, peer_public: bytes) -> bytes:
        return _exchange(self._key, self._group, _peer_value(self._group, peer_public))


class _SmallModp:
    """g^x by Python's `pow`, for the 768 and 1024 bits of RFC 2409.

    OpenSSL does not know these primes and tests them for primality whenever a key is made from numbers,
    also for the peer's public value: 25 to 35 ms each, during which nothing else happens, for anyone who
    sends a KE payload. `pow` takes less than 1 ms. It is not constant-time; what that gives away is little:
    an exponent serves one exchange, so there is one timing of g^x and one of y^x; beyond 240 bits `pow` takes
    the exponent five bits at a time, which hides single bits; and an attacker who can time a gateway that
    closely has a cheaper way into groups of this size.
    """

    __slots__ = ("_exponent", "_group", "public")

    def __init__(self, group: ModpGroup, exponent: int) -> None:
        self._group = group
        self._exponent = exponent
        self.public = self._power(group.generator)

    def shared(self, peer_public: bytes) -> bytes:
        return self._power(_peer_value(self._group, peer_public))

    def _power(self, base: int) -> bytes:
        """base^x, padded to the prime's length."""
        return pow(base, self._exponent, self._group.prime).to_bytes(self._group.length, "big")


# ------------------------------------------------------------------------------ curve groups


def _point(group: int, peer_public: bytes) -> ec.EllipticCurvePublicKey:
    """x | y as a point. Raises InvalidPublicValue.

    Coordinates beyond the field and points off the curve are refused (RFC 6989 section 2.3).
    """
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(CURVES[group], UNCOMPRESSED + peer_public)
    except ValueError as error:
        raise InvalidPublicValue(f"DH group {group}: the point is not on the curve") from error


class _Ecp:
    """A NIST curve; the shared secret is the x coordinate alone (RFC 5903 section 7, RFC 7296 3.4)."""

    __slots__ = ("_group", "_key", "public")

    def __init__(self, group: int, scalar: int) -> None:
        self._group = group
        self._key = ec.derive_private_key(scalar, CURVES[group])
        point = self._key.public_key().public_numbers()
        half = GROUPS[group].public_length // 2
        self.public = point.x.to_bytes(half, "big") + point.y.to_bytes(half, "big")

    def shared(self, peer_public: bytes) -> bytes:
        return self._key.exchange(ec.ECDH(), _point(self._group, peer_public))


class _Curve25519:
    """Curve25519 (RFC 8031, RFC 7748 section 6.1)."""

    __slots__ = ("_key", "public")

    def __init__(self, private: bytes) -> None:
        self._key = x25519.X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def shared(self, peer_public: bytes) -> bytes:
        try:
            # Refuses the points of small order, whose result is zero whatever the private value.
            return self._key.exchange(x25519.X25519PublicKey.from_public_bytes(peer_public))
        except ValueError as error:
            raise InvalidPublicValue("DH group 31: the public value has a small order") from error


_ANY_KEY = _Curve25519(bytes(32))
"""No secret: whether the result is zero does not depend on the scalar (RFC 7748 section 6.1)."""
