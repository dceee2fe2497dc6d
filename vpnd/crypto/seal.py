"""The protection of IKE messages: `SkCipher` for IKEv2's SK and SKF payloads, and the plain CBC of IKEv1.

    associated                        | IV | ciphertext ................................. | ICV
    header ... SK(F) generic header   |    | encrypted (payloads | padding | pad length)  |

(RFC 7296 section 3.14; RFC 5282 section 3 for AEAD ciphers)
"""

from __future__ import annotations

from dataclasses import dataclass
from hmac import compare_digest
from itertools import pairwise
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hmac
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from cryptography.hazmat.primitives.ciphers.modes import CBC

from vpnd.crypto.entropy import Entropy
from vpnd.crypto.prf import HASHES
from vpnd.crypto.suites import Encryption, Integrity, encryption, integrity
from vpnd.model.numbers import DEFAULT_NUMBERS, Numbers
from vpnd.model.secret import Secret

PAD_LENGTH = 1
"""The pad length field takes one byte."""


class IntegrityFailed(ValueError):
    """Sealed bytes do not verify, or cannot have been sealed: too short, or padding longer than the rest."""


@dataclass(frozen=True, slots=True)
class KeyLengths:
    """What one direction of an SA takes from the key material, in bytes."""

    encryption: int
    integrity: int
    salt: int


def key_lengths(encryption_word: str, integrity_word: str | None) -> KeyLengths:
    """The lengths for a pair of words; AEAD ciphers ignore the integrity. Raises KeyError, ValueError.

    In IKEv2's key material SK_e is encryption key | salt (RFC 5282 section 7.1); in KEYMAT the encryption key
    and its salt come before the integrity key (RFC 7296 section 2.17, RFC 4106 section 8.1).
    """
    cipher = encryption(encryption_word)
    if cipher.aead:
        return KeyLengths(cipher.key_length, 0, cipher.salt_length)
    if integrity_word is None:
        raise ValueError(f"{encryption_word} needs an integrity algorithm")
    return KeyLengths(cipher.key_length, integrity(integrity_word).key_length, 0)


class SkCipher(Protocol):
    """One direction of an IKE SA: seals with it or opens with it. `make` builds one.

    Lengths are in bytes. `seal` and `open` take as `associated` the message from the IKE header up to and
    including the SK payload's generic header (SKF: and its fragment fields), with all lengths filled in.
    """

    iv_length: int
    icv_length: int

    def sealed_length(self, plain_length: int) -> int:
        """How long `seal` makes a plaintext of this length: the SK payload's body."""

    def seal(self, associated: bytes, plaintext: bytes, entropy: Entropy) -> bytes:
        """IV | ciphertext | ICV."""

    def open(self, associated: bytes, sealed: bytes) -> bytes:
        """The plaintext, once everything has verified. Raises IntegrityFailed."""


def make(
    encryption_word: str,
    integrity_word: str | None,
    encryption_key: Secret,
    integrity_key: Secret,
    salt: Secret,
    numbers: Numbers = DEFAULT_NUMBERS,
) -> SkCipher:
    """The cipher of one direction. `integrity_key` or `salt` are empty where the suite has none.

    Raises KeyError for unknown words, ValueError for keys of another length than `key_lengths` tells and for
    a CBC cipher without integrity.
    """
    wanted = key_lengths(encryption_word, integrity_word)
    given = KeyLengths(len(encryption_key), len(integrity_key), len(salt))
    if given != wanted:
        raise ValueError(f"{encryption_word} with {integrity_word} takes {wanted}, not {given}")
    cipher = encryption(encryption_word)
    if cipher.aead or integrity_word is None:
        return _AeadCipher(cipher, encryption_key, salt)
    return _CbcCipher(cipher, integrity(integrity_word, numbers), encryption_key, integrity_key)


# ------------------------------------------------------------------------------------- padding


def _pad(plaintext: bytes, block: int) -> bytes:
    """plaintext | padding | pad length, a multiple of `block`; the padding is as short as can be."""
    padding = -(len(plaintext) + PAD_LENGTH) % block
    return plaintext + bytes(padding) + bytes((padding,))


def _unpad(padded: bytes) -> bytes:
    """What was before the padding. Its bytes may have any value (RFC 7296 section 3.14)."""
    plain_length = len(padded) - PAD_LENGTH - padded[-1]
    if plain_length < 0:
        raise IntegrityFailed("the padding is longer than the plaintext")
    return padded[:plain_length]


# ---------------------------------------------------------------------------------- CBC + HMAC


class _CbcCipher:
    """CBC, then HMAC over everything (RFC 7296 section 3.14).

    A CBC IV must be unpredictable, so each message draws its own from the entropy.
    """

    __slots__ = ("_algorithm", "_block", "_mac", "icv_length", "iv_length")

    def __init__(self, cipher: Encryption, mac: Integrity, key: Secret, integrity_key: Secret) -> None:
        self.iv_length = cipher.iv_length
        self.icv_length = mac.icv_length
        self._block = cipher.block
        self._algorithm = _algorithm(cipher.word, key)
        self._mac = hmac.HMAC(integrity_key.reveal(), HASHES[mac.word])

    def sealed_length(self, plain_length: int) -> int:
        padded = plain_length + PAD_LENGTH
        padded += -padded % self._block
        return self.iv_length + padded + self.icv_length

    def seal(self, associated: bytes, plaintext: bytes, entropy: Entropy) -> bytes:
        iv = entropy.bytes(self.iv_length)
        ciphertext = _encrypt(self._algorithm, iv, _pad(plaintext, self._block))
        return iv + ciphertext + self._icv(associated, iv + ciphertext)

    def open(self, associated: bytes, sealed: bytes) -> bytes:
        end = len(sealed) - self.icv_length
        length = end - self.iv_length
        if length < self._block or length % self._block:
            raise IntegrityFailed(f"{len(sealed)} bytes are no sealed message")
        if not compare_digest(self._icv(associated, sealed[:end]), sealed[end:]):
            raise IntegrityFailed("the ICV does not verify")
        iv, ciphertext = sealed[: self.iv_length], sealed[self.iv_length : end]
        return _unpad(_decrypt(self._algorithm, iv, ciphertext))

    def _icv(self, associated: bytes, sealed: bytes) -> bytes:
        """The HMAC over associated | IV | ciphertext, cut to its length on the wire."""
        mac = self._mac.copy()
        mac.update(associated)
        mac.update(sealed)
        return mac.finalize()[: self.icv_length]


# ---------------------------------------------------------------------------------------- AEAD


class _AeadCipher:
    """AES-GCM or ChaCha20-Poly1305 with the nonce salt | IV (RFC 5282 section 4, RFC 7634 section 3).

    The IV must never repeat under a key, while nobody minds if it can be guessed. So the first is drawn from
    the entropy and the following count up: they are distinct by construction, not merely by chance, and
    still differ from those of another object that was made with the same keys by mistake.
    """

    __slots__ = ("_aead", "_next_iv", "_salt", "icv_length", "iv_length")

    def __init__(self, cipher: Encryption, key: Secret, salt: Secret) -> None:
        self.iv_length = cipher.iv_length
        self.icv_length = cipher.icv_length
        primitive = ChaCha20Poly1305 if cipher.word == "chacha20-poly1305" else AESGCM
        self._aead: AESGCM | ChaCha20Poly1305 = primitive(key.reveal())
        self._salt = salt
        self._next_iv: int | None = None

    def sealed_length(self, plain_length: int) -> int:
        return self.iv_length + plain_length + PAD_LENGTH + self.icv_length

    def seal(self, associated: bytes, plaintext: bytes, entropy: Entropy) -> bytes:
        if self._next_iv is None:
            self._next_iv = int.from_bytes(entropy.bytes(self.iv_length), "big")
        iv = self._next_iv.to_bytes(self.iv_length, "big")
        self._next_iv = (self._next_iv + 1) % (1 << 8 * self.iv_length)
        return iv + self._aead.encrypt(self._salt.reveal() + iv, _pad(plaintext, 1), associated)

    def open(self, associated: bytes, sealed: bytes) -> bytes:
        if len(sealed) < self.sealed_length(0):
            raise IntegrityFailed(f"{len(sealed)} bytes are no sealed message")
        iv, ciphertext = sealed[: self.iv_length], sealed[self.iv_length :]
        try:
            return _unpad(self._aead.decrypt(self._salt.reveal() + iv, ciphertext, associated))
        except InvalidTag as error:
            raise IntegrityFailed("the authentication tag does not verify") from error


# ----------------------------------------------------------------------------------- plain CBC


def cbc_encrypt(word: str, key: Secret, iv: bytes, data: bytes) -> bytes:
    """`data`, a multiple of the cipher's block, under CBC. Raises ValueError for wrong lengths."""
    return _encrypt(_algorithm(word, key), iv, data)


def cbc_decrypt(word: str, key: Secret, iv: bytes, data: bytes) -> bytes:
    """The reverse of `cbc_encrypt`. Nothing is verified. Raises ValueError for wrong lengths."""
    return _decrypt(_algorithm(word, key), iv, data)


def _encrypt(algorithm: BlockCipherAlgorithm, iv: bytes, data: bytes) -> bytes:
    context = Cipher(algorithm, CBC(iv)).encryptor()
    return context.update(data) + context.finalize()


def _decrypt(algorithm: BlockCipherAlgorithm, iv: bytes, data: bytes) -> bytes:
    context = Cipher(algorithm, CBC(iv)).decryptor()
    return context.update(data) + context.finalize()


def _algorithm(word: str, key: Secret) -> BlockCipherAlgorithm:
    """The primitive behind a CBC word, with its key. Raises KeyError, ValueError."""
    row = encryption(word)
    if row.aead:
        raise ValueError(f"{word} is no CBC cipher")
    if len(key) != row.key_length:
        raise ValueError(f"{word} takes a key of {row.key_length} bytes, not {len(key)}")
    secret = key.reveal()
    if word == "sm4":
        return SM4(secret)
    if word == "3des":
        return TripleDES(secret)
    if word == "des":
        # With three equal keys encrypt, decrypt, encrypt is one DES.
        return TripleDES(secret * 3)
    return AES(secret)


# ------------------------------------------------------------------------------- weak DES keys

DES_KEY = 8
"""Bytes of a DES key; the lowest bit of each is parity and has no effect."""

_WEAK_DES_KEYS = frozenset(
    bytes(byte & 0xFE for byte in bytes.fromhex(key))
    for key in (
        # Weak: encrypting twice is no encryption.
        "0101010101010101",
        "1f1f1f1f0e0e0e0e",
        "e0e0e0e0f1f1f1f1",
        "fefefefefefefefe",
        # Semi-weak: what one of a pair encrypts the other decrypts by encrypting.
        "01fe01fe01fe01fe",
        "fe01fe01fe01fe01",
        "1fe01fe00ef10ef1",
        "e01fe01ff10ef10e",
        "01e001e001f101f1",
        "e001e001f101f101",
        "1ffe1ffe0efe0efe",
        "fe1ffe1ffe0efe0e",
        "011f011f010e010e",
        "1f011f010e010e01",
        "e0fee0fef1fef1fe",
        "fee0fee0fef1fef1",
    )
)


def is_weak_des_key(key: bytes) -> bool:
    """Whether a DES or 3DES key must not be used (RFC 2409 appendix A, RFC 2451 section 2.2).

    For 8 bytes: a weak or semi-weak key. For 24 bytes: one of the three is such a key, or two neighbours are
    equal, which leaves single DES. Raises ValueError for any other length.
    """
    if len(key) not in (DES_KEY, 3 * DES_KEY):
        raise ValueError(f"a DES key has 8 bytes and a 3DES key 24, not {len(key)}")
    parts = [
        bytes(byte & 0xFE for byte in key[start : start + DES_KEY]) for start in range(0, len(key), DES_KEY)
    ]
    degenerate = any(first == second for first, second in pairwise(parts))
    return degenerate or not _WEAK_DES_KEYS.isdisjoint(parts)
