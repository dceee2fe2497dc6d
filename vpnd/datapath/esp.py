"""ESP packets in batches: seal inner packets, open what arrives (RFC 4303).

Speed decides the shape of this file. A Python call costs as much as encrypting 100 bytes, so each direction
of an SA takes a run of packets of equal length and makes as few calls as it can:

* CBC: one cipher context for the life of the SA, never reset. A block of fresh random bytes goes in before
  each packet; what it encrypts to is the packet's IV, unpredictable because the chain before it is (RFC 4346
  section 6.2.3.2 (2)(b)). A whole run is one `update`. Decrypting `IV | ciphertext` with a context that is
  never reset garbles only the first block, which was the random one.
* HMAC: a keyed object is copied, so that the key is not hashed again for each packet.
* AEAD: one object for each key; the 64-bit IV is the sequence number, which no key sees twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hmac import compare_digest
from struct import Struct
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hmac import HMAC

from vpnd.crypto.entropy import Entropy
from vpnd.crypto.suites import ENCRYPTIONS, Encryption, Integrity, integrity_of
from vpnd.model.child import EspKeys
from vpnd.model.proposals import Suite
from vpnd.wire.esp import ESP_HEADER_LENGTH, ESP_TRAILER_LENGTH, MAX_PADDING, PADDING
from vpnd.wire.iana import IpProtocol

ALIGNMENT = 4
"""Padding brings the ICV to a 4-byte boundary even without a block cipher (RFC 4303 section 2.4)."""

_HEADER = Struct("!II")
_HEADER_AND_IV = Struct("!IIQ")
_HIGH_HALF = Struct("!I")
_WITH_HIGH_HALF = Struct("!III")
LOW_MASK = 0xFFFFFFFF

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
    "sm3": hashes.SM3,
}


class Sealer(Protocol):
    """One outbound SA's transform."""

    def sealed_length(self, inner: int) -> int:
        """Bytes of the ESP packet around an inner packet of `inner` bytes."""

    def seal(self, packets: Sequence[bytes], headroom: int, sequence: int, next_header: int) -> list[bytes]:
        """ESP packets, two buffers each: the second follows the first on the wire.

        All `packets` have one length; `headroom` bytes at the front of each are not part of it. The first
        gets number `sequence`, each further one the next (64 bits where the SA has them).
        """


class Opener(Protocol):
    """One inbound SA's transform."""

    minimum: int
    """Bytes of the shortest ESP packet that can be one of this SA's."""

    def open(
        self, data: bytes, start: int, length: int, count: int, sequences: Sequence[int]
    ) -> list[bytes | None]:
        """The plaintexts, trailer included, of `count` ESP packets of `length` bytes that follow each other.

        None for each whose ICV does not verify or whose length is no multiple of the block. `sequences` are
        their 64-bit numbers, of which an SA with 32 bits ignores the upper half.
        """


def make_sealer(suite: Suite, keys: EspKeys, spi: int, entropy: Entropy) -> Sealer:
    """The transform for packets that leave under `spi`. Raises KeyError, ValueError."""
    cipher = ENCRYPTIONS[suite.encryption]
    if suite.integrity is None:
        return _AeadSealer(suite, cipher, keys, spi)
    return _CbcSealer(suite, cipher, integrity_of(suite), keys, spi, entropy)


def make_opener(suite: Suite, keys: EspKeys) -> Opener:
    """The transform for packets that arrive. Raises KeyError, ValueError."""
    cipher = ENCRYPTIONS[suite.encryption]
    if suite.integrity is None:
        return _AeadOpener(suite, cipher, keys)
    return _CbcOpener(suite, cipher, integrity_of(suite), keys)


# ------------------------------------------------------------------------------------ trailers


def trailer(inner: int, alignment: int, next_header: int) -> bytes:
    """Padding, pad length and next header behind an inner packet of `inner` bytes (RFC 4303 section 2.4)."""
    padding = -(inner + ESP_TRAILER_LENGTH) % alignment
    return PADDING[:padding] + bytes((padding, next_header))


TRAILERS: dict[bytes, bytes] = {
    bytes((padding, next_header)): PADDING[:padding] + bytes((padding, next_header))
    for padding in range(MAX_PADDING + 1)
    for next_header in (IpProtocol.IPV4, IpProtocol.IPV6)
}
"""The only right trailer of an IP packet for each pair of last bytes: verifying padding is one lookup."""


class _Trailers:
    """The trailers of one SA, made once for each remainder: most packets of a flow have the same."""

    def __init__(self, alignment: int) -> None:
        self._alignment = alignment
        self._made: dict[tuple[int, int], bytes] = {}

    def after(self, inner: int, next_header: int) -> bytes:
        key = (inner % self._alignment, next_header)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = trailer(inner, self._alignment, next_header)
        return found


_CUTS: dict[tuple[str, int], Struct] = {}
MAXIMUM_CUTS = 1024
"""Ours: layouts of runs that are remembered; beyond it all are forgotten and made again."""


def _cut(layout: str, count: int) -> Struct:
    """Cuts `count` times `layout` out of a buffer by one call, where slicing takes one for each piece."""
    found = _CUTS.get((layout, count))
    if found is None:
        if len(_CUTS) >= MAXIMUM_CUTS:
            _CUTS.clear()
        found = _CUTS[layout, count] = Struct("!" + layout * count)
    return found


# ---------------------------------------------------------------------------- CBC and HMAC


class _CbcSealer:
    def __init__(
        self, suite: Suite, cipher: Encryption, mac: Integrity, keys: EspKeys, spi: int, entropy: Entropy
    ) -> None:
        self._block = cipher.block
        self._icv = mac.icv_length
        self._esn = suite.esn
        self._spi = spi
        self._random = entropy.bytes
        # The first IV chains from this one, which never travels.
        self._update = _cbc(cipher, keys, entropy.bytes(cipher.block)).encryptor().update
        self._mac = _hmac(mac, keys)
        self._trailers = _Trailers(max(cipher.block, ALIGNMENT))

    def sealed_length(self, inner: int) -> int:
        block = self._block
        padded = -(-(inner + ESP_TRAILER_LENGTH) // block) * block
        return ESP_HEADER_LENGTH + block + padded + self._icv

    def seal(self, packets: Sequence[bytes], headroom: int, sequence: int, next_header: int) -> list[bytes]:
        block = self._block
        if headroom > block:
            packets = [packet[headroom:] for packet in packets]
            headroom = 0
        inner = len(packets[0]) - headroom
        tail = self._trailers.after(inner, next_header)
        # The headroom is the rest of the block that becomes the IV, so nothing need be cut off. All packets
        # of the run can have the same random bytes: what makes each IV fresh is the ciphertext before it.
        fresh = self._random(block - headroom)
        sealed = self._update(fresh + (tail + fresh).join(packets) + tail)
        stride = block + inner + len(tail)
        bodies = _cut(f"{stride}s", len(packets)).unpack(sealed)
        pack, spi, icv = _HEADER.pack, self._spi, self._icv
        copy, esn = self._mac.copy, self._esn
        buffers: list[bytes] = []
        append = buffers.append
        for number, body in enumerate(bodies, sequence):
            packet = pack(spi, number & LOW_MASK) + body
            mac = copy()
            mac.update(packet)
            if esn:
                # The upper half is authenticated and does not travel (RFC 4303 section 2.2.1).
                mac.update(_HIGH_HALF.pack(number >> 32))
            append(packet)
            append(mac.finalize()[:icv])
        return buffers


class _CbcOpener:
    def __init__(self, suite: Suite, cipher: Encryption, mac: Integrity, keys: EspKeys) -> None:
        self._block = cipher.block
        self._icv = mac.icv_length
        self._esn = suite.esn
        self._update = _cbc(cipher, keys, bytes(cipher.block)).decryptor().update
        self._mac = _hmac(mac, keys)
        self.minimum = ESP_HEADER_LENGTH + 2 * cipher.block + mac.icv_length

    def open(
        self, data: bytes, start: int, length: int, count: int, sequences: Sequence[int]
    ) -> list[bytes | None]:
        block, icv = self._block, self._icv
        body = length - ESP_HEADER_LENGTH - icv
        if length < self.minimum or body % block:
            return [None] * count
        parts = _cut(f"{length - icv}s{icv}s", count).unpack_from(data, start)
        covered, received = parts[::2], parts[1::2]
        computed = self._icvs(covered, sequences)
        if not compare_digest(b"".join(computed), b"".join(received)):
            # Rare: find out which of them are good, before anything is decrypted.
            good = list(map(compare_digest, computed, received))
            covered = tuple(packet for packet, verified in zip(covered, good, strict=True) if verified)
            plaintexts = iter(self._decrypt(covered, block, body))
            return [next(plaintexts) if verified else None for verified in good]
        return list(self._decrypt(covered, block, body))

    def _icvs(self, covered: Sequence[bytes], sequences: Sequence[int]) -> list[bytes]:
        """The ICV that each packet should have."""
        copy, icv, esn = self._mac.copy, self._icv, self._esn
        computed: list[bytes] = []
        append = computed.append
        for index, packet in enumerate(covered):
            mac = copy()
            mac.update(packet)
            if esn:
                mac.update(_HIGH_HALF.pack(sequences[index] >> 32))
            append(mac.finalize()[:icv])
        return computed

    def _decrypt(self, covered: Sequence[bytes], block: int, body: int) -> tuple[bytes, ...]:
        """The plaintexts of packets that are authentic, all of one length, by one call."""
        plain = self._update(b"".join([packet[ESP_HEADER_LENGTH:] for packet in covered]))
        return _cut(f"{block}x{body - block}s", len(covered)).unpack(plain)


def _cbc(cipher: Encryption, keys: EspKeys, iv: bytes) -> Cipher[CBC]:
    key = keys.encryption.reveal()
    if len(key) != cipher.key_length:
        raise ValueError(f"{cipher.word} takes a key of {cipher.key_length} bytes, not {len(key)}")
    if cipher.word == "sm4":
        return Cipher(SM4(key), CBC(iv))
    if cipher.word == "3des":
        return Cipher(TripleDES(key), CBC(iv))
    if cipher.word == "des":
        # With three equal keys, encrypting, decrypting and encrypting is single DES.
        return Cipher(TripleDES(key * 3), CBC(iv))
    return Cipher(AES(key), CBC(iv))


def _hmac(mac: Integrity, keys: EspKeys) -> HMAC:
    key = keys.integrity.reveal()
    if len(key) != mac.key_length:
        raise ValueError(f"{mac.word} takes a key of {mac.key_length} bytes, not {len(key)}")
    return HMAC(key, _HASHES[mac.word]())


# --------------------------------------------------------------------------------------- AEAD


class _AeadSealer:
    def __init__(self, suite: Suite, cipher: Encryption, keys: EspKeys, spi: int) -> None:
        self._encrypt = _aead(cipher, keys).encrypt
        self._salt = keys.salt.reveal()
        self._esn = suite.esn
        self._spi = spi
        self._fixed = ESP_HEADER_LENGTH + cipher.iv_length + cipher.icv_length
        self._trailers = _Trailers(ALIGNMENT)

    def sealed_length(self, inner: int) -> int:
        return self._fixed + -(-(inner + ESP_TRAILER_LENGTH) // ALIGNMENT) * ALIGNMENT

    def seal(self, packets: Sequence[bytes], headroom: int, sequence: int, next_header: int) -> list[bytes]:
        tail = self._trailers.after(len(packets[0]) - headroom, next_header)
        salt, spi = self._salt, self._spi
        numbers = range(sequence, sequence + len(packets))
        # Comprehensions and `map` make the loops in C; the plain loop took a fifth longer.
        pack = _HEADER_AND_IV.pack
        heads = [pack(spi, number & LOW_MASK, number) for number in numbers]
        # The associated data is SPI and sequence number, all 64 bits of it (RFC 4106 section 5).
        if self._esn:
            wide = _WITH_HIGH_HALF.pack
            associated = [wide(spi, number >> 32, number & LOW_MASK) for number in numbers]
        else:
            associated = [head[:8] for head in heads]
        nonces = [salt + head[8:] for head in heads]
        plaintexts = [packet[headroom:] + tail for packet in packets]
        sealed = map(self._encrypt, nonces, plaintexts, associated)
        return [buffer for both in zip(heads, sealed, strict=True) for buffer in both]


class _AeadOpener:
    def __init__(self, suite: Suite, cipher: Encryption, keys: EspKeys) -> None:
        self._decrypt = _aead(cipher, keys).decrypt
        self._salt = keys.salt.reveal()
        self._esn = suite.esn
        self.minimum = ESP_HEADER_LENGTH + cipher.iv_length + ALIGNMENT + cipher.icv_length

    def open(
        self, data: bytes, start: int, length: int, count: int, sequences: Sequence[int]
    ) -> list[bytes | None]:
        if length < self.minimum or length % ALIGNMENT:
            return [None] * count
        # SPI and number, IV, ciphertext with ICV.
        parts = _cut(f"8s8s{length - 16}s", count).unpack_from(data, start)
        salt = self._salt
        if self._esn:
            spi = data[start : start + 4]
            associated: Iterable[bytes] = [spi + number.to_bytes(8, "big") for number in sequences]
        else:
            associated = parts[::3]
        nonces = [salt + iv for iv in parts[1::3]]
        sealed = parts[2::3]
        try:
            return list(map(self._decrypt, nonces, sealed, associated))
        except InvalidTag:
            # Rare: find out which of them it was.
            return list(map(self._open_one, nonces, sealed, associated))

    def _open_one(self, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
        try:
            return self._decrypt(nonce, sealed, associated)
        except InvalidTag:
            return None


def _aead(cipher: Encryption, keys: EspKeys) -> AESGCM | ChaCha20Poly1305:
    key, salt = keys.encryption.reveal(), keys.salt.reveal()
    if len(key) != cipher.key_length:
        raise ValueError(f"{cipher.word} takes a key of {cipher.key_length} bytes, not {len(key)}")
    if len(salt) != cipher.salt_length:
        raise ValueError(f"{cipher.word} takes a salt of {cipher.salt_length} bytes, not {len(salt)}")
    if cipher.word == "chacha20-poly1305":
        return ChaCha20Poly1305(key)
    return AESGCM(key)


# ------------------------------------------------------------------------------------- trailers


def strip_trailer(plaintext: bytes) -> bytes | None:
    """The IP packet within an authenticated plaintext, None if it is none.

    Padding must be 1, 2, 3, ... and the next header must name the version that the packet has. Bytes behind
    the packet's own length are traffic flow confidentiality padding and go (RFC 4303 section 2.7).
    """
    tail = TRAILERS.get(plaintext[-2:])
    if tail is None or not plaintext.endswith(tail):
        return None
    room = len(plaintext) - len(tail)
    if tail[-1] == IpProtocol.IPV4:
        if room < 20 or plaintext[0] >> 4 != 4:
            return None
        length, header = int.from_bytes(plaintext[2:4], "big"), 20
    else:
        if room < 40 or plaintext[0] >> 4 != 6:
            return None
        length, header = int.from_bytes(plaintext[4:6], "big") + 40, 40
    return plaintext[:length] if header <= length <= room else None
