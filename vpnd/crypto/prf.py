"""Pseudo-random functions: the HMAC of each hash, and prf+ (RFC 7296 sections 2.13 and 2.14)."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes, hmac

from vpnd.crypto.suites import INTEGRITIES

HASHES: dict[str, hashes.HashAlgorithm] = {
    "md5": hashes.MD5(),  # noqa: S303 - old peers offer nothing else; choosing it draws a warning
    "sha1": hashes.SHA1(),  # noqa: S303 - as HMAC it is unbroken, and old peers offer nothing else
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sm3": hashes.SM3(),
}
"""The hash of each word of the table."""

PRF_PLUS_BLOCKS = 255
"""prf+ numbers its blocks in one byte, from 1 (RFC 7296 section 2.13)."""


class Prf:
    """The HMAC of one hash as a pseudo-random function.

    HMAC takes keys of any length, so nonces and pre-shared keys go in whole; the rule of RFC 7296 section
    2.14 for functions with a fixed key size is for others. `key_length` is the preferred one, the length of
    SK_d, SK_pi and SK_pr; it equals `digest_length`, the length of the output. Both are in bytes.
    """

    __slots__ = ("_hash", "digest_length", "key_length", "word")

    def __init__(self, word: str) -> None:
        """Raises KeyError for a word that the table lacks."""
        row = INTEGRITIES[word]
        self.word = word
        self.key_length = row.key_length
        self.digest_length = row.digest_length
        self._hash = HASHES[word]

    def __call__(self, key: bytes, *parts: bytes) -> bytes:
        """prf(key, part | part | ...): `digest_length` bytes."""
        mac = hmac.HMAC(key, self._hash)
        for part in parts:
            mac.update(part)
        return mac.finalize()

    def plus(self, key: bytes, seed: bytes, length: int) -> bytes:
        """prf+(key, seed) cut to `length` bytes: T1 | T2 | ..., Tn = prf(key, Tn-1 | seed | n).

        Raises ValueError for a negative length and for more than 255 blocks (RFC 7296 section 2.13).
        """
        blocks = -(-length // self.digest_length)
        if not 0 <= blocks <= PRF_PLUS_BLOCKS:
            raise ValueError(f"prf+ with {self.word} cannot yield {length} bytes")
        keyed = hmac.HMAC(key, self._hash)
        stream = bytearray()
        block = b""
        for number in range(1, blocks + 1):
            mac = keyed.copy()
            mac.update(block + seed + bytes((number,)))
            block = mac.finalize()
            stream += block
        return bytes(stream[:length])

    def __repr__(self) -> str:
        return f"Prf({self.word!r})"


PRFS = {word: Prf(word) for word in HASHES}
"""The function of each word."""


def hash_of(word: str, *parts: bytes) -> bytes:
    """The plain hash of part | part | ..., for NAT-D and IKEv1's first IV. Raises KeyError."""
    digest = hashes.Hash(HASHES[word])
    for part in parts:
        digest.update(part)
    return digest.finalize()
