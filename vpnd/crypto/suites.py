"""The one table of algorithms: configuration words, registry numbers, sizes and warnings.

An algorithm is one row here; a suite is a combination of words. Sizes are in bytes. Numbers are those of
the IANA registries (see `vpnd.wire.iana`), but for SM4 and SM3, which no IKE registry knows: theirs come
from GM/T 0022 for IKEv1 and from the private-use range for IKEv2, and `Numbers` can replace each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from vpnd.model.numbers import DEFAULT_NUMBERS, Numbers
from vpnd.model.proposals import Suite
from vpnd.wire.iana import DhGroup, Encr1, Encr2, EspAuth1, EspTransform1, Hash1, Integ2, Prf2

BITS = 8
"""Bits in a byte: the key length attributes count bits."""


@dataclass(frozen=True, slots=True)
class Encryption:
    """One cipher, with the number that each registry gives it (None: the registry has none).

    `key_length` is without the salt. `sends_key_length` says whether proposals carry a key length
    attribute (RFC 7296 section 3.3.5), and `accepts_key_length` whether one of the right value is tolerated
    in a received proposal. `block` is what ciphertext is a multiple of (1 for AEAD ciphers), `iv_length`
    the explicit IV, `icv_length` and `salt_length` belong to AEAD ciphers and are else 0. `warning` says why
    the cipher should not be used any more.
    """

    word: str
    ikev1_phase1: int | None
    ikev1_esp: int | None
    ikev2: int
    key_length: int
    sends_key_length: bool
    block: int
    iv_length: int
    icv_length: int = 0
    salt_length: int = 0
    warning: str | None = None
    accepts_key_length: bool = False

    @property
    def aead(self) -> bool:
        """Whether the cipher authenticates as well, so that no integrity algorithm goes with it."""
        return self.icv_length > 0

    @property
    def key_bits(self) -> int:
        """The key length as the attributes count it."""
        return self.key_length * BITS


@dataclass(frozen=True, slots=True)
class Integrity:
    """One hash, as the HMAC that protects SAs, as the HMAC that derives keys, and as the plain hash.

    `key_length` is that of the integrity key (and the preferred key of the PRF), `icv_length` what is left
    of the HMAC on the wire, `block_length` the hash's input block.
    """

    word: str
    ikev1_hash: int | None
    ikev1_esp: int | None
    ikev2_integ: int
    ikev2_prf: int
    key_length: int
    icv_length: int
    digest_length: int
    block_length: int
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """One Diffie-Hellman group: `public_length` bytes in a KE payload, `shared_length` of g^ir."""

    number: int
    name: str
    public_length: int
    shared_length: int
    warning: str | None = None


SM4_RETIRED_PHASE1 = 127
"""The phase-1 number of SM4 in early equipment; accepted from a peer, never sent."""


# ------------------------------------------------------------------------------------ the table

_WEAK_DES = "a 56-bit key is found by trying all: RFC 8221 and RFC 8247 say MUST NOT, RFC 9395 deprecates it"
_WEAK_3DES = "64-bit blocks collide after a few gigabytes: RFC 8221 says SHOULD NOT use it for ESP"
_WEAK_MD5 = "RFC 8221 and RFC 8247 say MUST NOT use HMAC-MD5, RFC 9395 deprecates it"
_WEAK_MODP_768 = (
    "768-bit discrete logarithms have been computed: RFC 8247 says MUST NOT, RFC 9395 deprecates it"
)
_WEAK_MODP_1024 = "1024-bit discrete logarithms are within reach of states: RFC 8247 says SHOULD NOT"
_WEAK_MODP_1536 = "1536 bits are too few for new tunnels: RFC 8247 says SHOULD NOT"
_WEAK_SUBGROUP = "the origin of its prime is unexplained and its subgroup small: RFC 8247 says SHOULD NOT"

_ENCRYPTION_ROWS = (
    # word, phase 1, ESP v1, IKEv2, key, key length sent, block, IV, ICV, salt
    Encryption("aes-128", Encr1.AES_CBC, EspTransform1.AES_CBC, Encr2.AES_CBC, 16, True, 16, 16),
    Encryption("aes-192", Encr1.AES_CBC, EspTransform1.AES_CBC, Encr2.AES_CBC, 24, True, 16, 16),
    Encryption("aes-256", Encr1.AES_CBC, EspTransform1.AES_CBC, Encr2.AES_CBC, 32, True, 16, 16),
    Encryption("aes-128-gcm", None, EspTransform1.AES_GCM_16, Encr2.AES_GCM_16, 16, True, 1, 8, 16, 4),
    Encryption("aes-256-gcm", None, EspTransform1.AES_GCM_16, Encr2.AES_GCM_16, 32, True, 1, 8, 16, 4),
    Encryption("chacha20-poly1305", None, None, Encr2.CHACHA20_POLY1305, 32, False, 1, 8, 16, 4),
    Encryption(
        "3des",
        Encr1.TRIPLE_DES_CBC,
        EspTransform1.TRIPLE_DES,
        Encr2.TRIPLE_DES,
        24,
        False,
        8,
        8,
        warning=_WEAK_3DES,
    ),
    Encryption("des", Encr1.DES_CBC, EspTransform1.DES, Encr2.DES, 8, False, 8, 8, warning=_WEAK_DES),
    Encryption(
        "sm4",
        DEFAULT_NUMBERS.sm4_ikev1_phase1,
        DEFAULT_NUMBERS.sm4_ikev1_esp,
        DEFAULT_NUMBERS.sm4_ikev2,
        16,
        False,
        16,
        16,
        accepts_key_length=True,
    ),
)

_INTEGRITY_ROWS = (
    # word, hash v1, ESP v1, INTEG, PRF, key, ICV, digest, block
    Integrity(
        "md5", Hash1.MD5, EspAuth1.HMAC_MD5, Integ2.HMAC_MD5_96, Prf2.HMAC_MD5, 16, 12, 16, 64, _WEAK_MD5
    ),
    Integrity("sha1", Hash1.SHA1, EspAuth1.HMAC_SHA1, Integ2.HMAC_SHA1_96, Prf2.HMAC_SHA1, 20, 12, 20, 64),
    Integrity(
        "sha256",
        Hash1.SHA2_256,
        EspAuth1.HMAC_SHA2_256,
        Integ2.HMAC_SHA2_256_128,
        Prf2.HMAC_SHA2_256,
        32,
        16,
        32,
        64,
    ),
    Integrity(
        "sha384",
        Hash1.SHA2_384,
        EspAuth1.HMAC_SHA2_384,
        Integ2.HMAC_SHA2_384_192,
        Prf2.HMAC_SHA2_384,
        48,
        24,
        48,
        128,
    ),
    Integrity(
        "sha512",
        Hash1.SHA2_512,
        EspAuth1.HMAC_SHA2_512,
        Integ2.HMAC_SHA2_512_256,
        Prf2.HMAC_SHA2_512,
        64,
        32,
        64,
        128,
    ),
    Integrity(
        "sm3",
        DEFAULT_NUMBERS.sm3_ikev1_hash,
        DEFAULT_NUMBERS.sm3_ikev1_esp,
        DEFAULT_NUMBERS.sm3_ikev2_integ,
        DEFAULT_NUMBERS.sm3_ikev2_prf,
        32,
        DEFAULT_NUMBERS.sm3_icv_length,
        32,
        64,
    ),
)

_GROUP_ROWS = (
    # number, name, bytes of the public value, bytes of the shared secret
    Group(DhGroup.MODP_768, "modp-768", 96, 96, _WEAK_MODP_768),
    Group(DhGroup.MODP_1024, "modp-1024", 128, 128, _WEAK_MODP_1024),
    Group(DhGroup.MODP_1536, "modp-1536", 192, 192, _WEAK_MODP_1536),
    Group(DhGroup.MODP_2048, "modp-2048", 256, 256),
    Group(DhGroup.MODP_3072, "modp-3072", 384, 384),
    Group(DhGroup.MODP_4096, "modp-4096", 512, 512),
    Group(DhGroup.ECP_256, "ecp-256", 64, 32),
    Group(DhGroup.ECP_384, "ecp-384", 96, 48),
    Group(DhGroup.ECP_521, "ecp-521", 132, 66),
    Group(DhGroup.MODP_2048_256, "modp-2048-256", 256, 256, _WEAK_SUBGROUP),
    Group(DhGroup.CURVE25519, "curve25519", 32, 32),
)

ENCRYPTIONS: dict[str, Encryption] = {row.word: row for row in _ENCRYPTION_ROWS}
INTEGRITIES: dict[str, Integrity] = {row.word: row for row in _INTEGRITY_ROWS}
GROUPS: dict[int, Group] = {int(row.number): row for row in _GROUP_ROWS}


# ------------------------------------------------------------------------------- word to row


def encryption(word: str, numbers: Numbers = DEFAULT_NUMBERS) -> Encryption:
    """The row of a cipher, with `numbers` for SM4. Raises KeyError for a word that the table lacks."""
    row = ENCRYPTIONS[word]
    if word != "sm4" or numbers == DEFAULT_NUMBERS:
        return row
    return replace(
        row,
        ikev1_phase1=numbers.sm4_ikev1_phase1,
        ikev1_esp=numbers.sm4_ikev1_esp,
        ikev2=numbers.sm4_ikev2,
    )


def integrity(word: str, numbers: Numbers = DEFAULT_NUMBERS) -> Integrity:
    """The row of a hash, with `numbers` for SM3. Raises KeyError for a word that the table lacks."""
    row = INTEGRITIES[word]
    if word != "sm3" or numbers == DEFAULT_NUMBERS:
        return row
    return replace(
        row,
        ikev1_hash=numbers.sm3_ikev1_hash,
        ikev1_esp=numbers.sm3_ikev1_esp,
        ikev2_integ=numbers.sm3_ikev2_integ,
        ikev2_prf=numbers.sm3_ikev2_prf,
        icv_length=numbers.sm3_icv_length,
    )


def by_numbers(chosen: Suite, numbers: Numbers) -> Suite:
    """The suite, with the ICV length of its integrity algorithm where `numbers` make it another."""
    if chosen.integrity is None:
        return chosen
    length = integrity(chosen.integrity, numbers).icv_length
    usual = INTEGRITIES[chosen.integrity].icv_length
    return chosen if length == usual else replace(chosen, icv_length=length)


SHORT_SHA256_ICV = 12
"""Bytes of HMAC-SHA-256 on the wire as the drafts before RFC 4868 had it, and some peers have to this day."""


def as_cut(chosen: Suite, sha256_96: bool) -> Suite:
    """The suite of an ESP SA, with 96 bits of HMAC-SHA-256 for a peer that cuts it so.

    Nothing negotiates this: both ends have the number of HMAC-SHA-256-128, and one is wrong.
    """
    return (
        replace(chosen, icv_length=SHORT_SHA256_ICV) if sha256_96 and chosen.integrity == "sha256" else chosen
    )


def integrity_of(chosen: Suite) -> Integrity:
    """The row of a suite's integrity algorithm, with its ICV length. Raises KeyError if it has none."""
    row = INTEGRITIES[chosen.integrity or ""]
    return row if chosen.icv_length is None else replace(row, icv_length=chosen.icv_length)


# ----------------------------------------------------------------------------- number to row

LOOKED_UP = 512
"""Ours: rows that are remembered of each lookup; a peer chooses the numbers, and honest ones are few."""


@lru_cache(LOOKED_UP)
def encryption_of_phase1(
    number: int, key_bits: int | None, numbers: Numbers = DEFAULT_NUMBERS
) -> Encryption | None:
    """The cipher that phase-1 attribute 1 names, with attribute 14 or None (RFC 2409 appendix A)."""
    if number == SM4_RETIRED_PHASE1:
        number = numbers.sm4_ikev1_phase1
    return _encryption_where(lambda row: row.ikev1_phase1, number, key_bits, numbers)


@lru_cache(LOOKED_UP)
def encryption_of_esp1(
    number: int, key_bits: int | None, numbers: Numbers = DEFAULT_NUMBERS
) -> Encryption | None:
    """The cipher of an IKEv1 ESP transform identifier, with attribute 6 or None (RFC 2407 4.4.4)."""
    return _encryption_where(lambda row: row.ikev1_esp, number, key_bits, numbers)


@lru_cache(LOOKED_UP)
def encryption_of_ikev2(
    number: int, key_bits: int | None, numbers: Numbers = DEFAULT_NUMBERS
) -> Encryption | None:
    """The cipher of an IKEv2 ENCR transform, with its key length attribute or None (RFC 7296 3.3.2)."""
    return _encryption_where(lambda row: row.ikev2, number, key_bits, numbers)


@lru_cache(LOOKED_UP)
def hash_of_phase1(number: int, numbers: Numbers = DEFAULT_NUMBERS) -> Integrity | None:
    """The hash that phase-1 attribute 2 names; its HMAC is the PRF (RFC 2409 appendix A)."""
    return _integrity_where(lambda row: row.ikev1_hash, number, numbers)


@lru_cache(LOOKED_UP)
def integrity_of_esp1(number: int, numbers: Numbers = DEFAULT_NUMBERS) -> Integrity | None:
    """The algorithm that phase-2 attribute 5 names (RFC 2407 section 4.5)."""
    return _integrity_where(lambda row: row.ikev1_esp, number, numbers)


@lru_cache(LOOKED_UP)
def integrity_of_ikev2(number: int, numbers: Numbers = DEFAULT_NUMBERS) -> Integrity | None:
    """The algorithm of an IKEv2 INTEG transform (RFC 7296 section 3.3.2)."""
    return _integrity_where(lambda row: row.ikev2_integ, number, numbers)


@lru_cache(LOOKED_UP)
def prf_of_ikev2(number: int, numbers: Numbers = DEFAULT_NUMBERS) -> Integrity | None:
    """The algorithm of an IKEv2 PRF transform (RFC 7296 section 3.3.2)."""
    return _integrity_where(lambda row: row.ikev2_prf, number, numbers)


def _encryption_where(
    number_of: Callable[[Encryption], int | None], number: int, key_bits: int | None, numbers: Numbers
) -> Encryption | None:
    """The row with this number whose key length rule holds, or None.

    RFC 7296 section 3.3.5: a cipher with several key lengths has the attribute, the others must not.
    """
    for word in ENCRYPTIONS:
        row = encryption(word, numbers)
        if number_of(row) != number:
            continue
        if key_bits is None and not row.sends_key_length:
            return row
        if key_bits == row.key_bits and (row.sends_key_length or row.accepts_key_length):
            return row
    return None


def _integrity_where(
    number_of: Callable[[Integrity], int | None], number: int, numbers: Numbers
) -> Integrity | None:
    """The row with this number, or None."""
    for word in INTEGRITIES:
        row = integrity(word, numbers)
        if number_of(row) == number:
            return row
    return None
