"""The IKEv1 key schedule with a pre-shared key (RFC 2409 section 5 and appendix B).

`prf` is HMAC of the negotiated hash throughout: no other PRF was ever assigned.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.crypto.prf import PRFS, Prf, hash_of
from vpnd.crypto.seal import is_weak_des_key
from vpnd.crypto.suites import ENCRYPTIONS, INTEGRITIES
from vpnd.ike.v1.faults import WeakKey
from vpnd.model.child import EspKeys
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret
from vpnd.wire.iana import Protocol

NO_SECRET = Secret(b"")

KEYS_TRIED = 8
"""Keys of tunnels between the same addresses that the proof of main mode is tried with."""


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What both sides know after the key exchange of phase 1: nonces, public values, cookies (8 bytes)."""

    nonce_i: bytes
    nonce_r: bytes
    ke_i: bytes
    ke_r: bytes
    cky_i: bytes
    cky_r: bytes


@dataclass(frozen=True, slots=True)
class Phase1Keys:
    """The SKEYID family, the cipher key, and the IV that encryption begins with (RFC 2409 section 5)."""

    hash_word: str
    skeyid: Secret
    skeyid_d: Secret
    skeyid_a: Secret
    encryption_word: str
    encryption_key: Secret
    iv: bytes

    @classmethod
    def derive(cls, suite: Suite, psk: Secret, shared: Secret, exchanged: Exchanged) -> Phase1Keys:
        """All keys of an ISAKMP SA from the pre-shared key, g^xy and what was exchanged.

        Raises WeakKey if the result is a weak DES key (RFC 2409 appendix A).
        """
        word = suite.prf or ""
        prf = PRFS[word]
        skeyid = prf(psk.reveal(), exchanged.nonce_i, exchanged.nonce_r)
        tail = (shared.reveal(), exchanged.cky_i, exchanged.cky_r)
        skeyid_d = prf(skeyid, *tail, b"\x00")
        skeyid_a = prf(skeyid, skeyid_d, *tail, b"\x01")
        skeyid_e = prf(skeyid, skeyid_a, *tail, b"\x02")
        row = ENCRYPTIONS[suite.encryption]
        key = stretch(prf, skeyid_e, row.key_length)
        refuse_weak_key(suite.encryption, key)
        return cls(
            word,
            Secret(skeyid),
            Secret(skeyid_d),
            Secret(skeyid_a),
            suite.encryption,
            Secret(key),
            hash_of(word, exchanged.ke_i, exchanged.ke_r)[: row.block],
        )

    def hash_i(self, exchanged: Exchanged, sa_body: bytes, id_body: bytes) -> bytes:
        """HASH_I = prf(SKEYID, g^xi | g^xr | CKY-I | CKY-R | SAi_b | IDii_b)."""
        e = exchanged
        return self._prf(self.skeyid, e.ke_i, e.ke_r, e.cky_i, e.cky_r, sa_body, id_body)

    def hash_r(self, exchanged: Exchanged, sa_body: bytes, id_body: bytes) -> bytes:
        """HASH_R = prf(SKEYID, g^xr | g^xi | CKY-R | CKY-I | SAi_b | IDir_b)."""
        e = exchanged
        return self._prf(self.skeyid, e.ke_r, e.ke_i, e.cky_r, e.cky_i, sa_body, id_body)

    def hash_1(self, message_id: int, rest: bytes) -> bytes:
        """HASH(1) of quick mode and of informational exchanges: over M-ID and every payload behind it."""
        return self._prf(self.skeyid_a, _octets(message_id), rest)

    def hash_2(self, message_id: int, nonce_i: bytes, rest: bytes) -> bytes:
        """HASH(2) = prf(SKEYID_a, M-ID | Ni_b | every payload behind it)."""
        return self._prf(self.skeyid_a, _octets(message_id), nonce_i, rest)

    def hash_3(self, message_id: int, nonce_i: bytes, nonce_r: bytes) -> bytes:
        """HASH(3) = prf(SKEYID_a, 0 | M-ID | Ni_b | Nr_b)."""
        return self._prf(self.skeyid_a, b"\x00", _octets(message_id), nonce_i, nonce_r)

    def phase2_iv(self, last_block: bytes, message_id: int) -> bytes:
        """The first IV of an exchange: hash(last phase-1 ciphertext block | M-ID) (RFC 2409 appendix B)."""
        block = ENCRYPTIONS[self.encryption_word].block
        return hash_of(self.hash_word, last_block, _octets(message_id))[:block]

    def esp_keys(
        self, suite: Suite, spi: bytes, nonce_i: bytes, nonce_r: bytes, shared: Secret = NO_SECRET
    ) -> EspKeys:
        """The keys of the direction whose receiver chose `spi` (4 bytes).

        KEYMAT = prf(SKEYID_d, [g(qm)^xy |] protocol | SPI | Ni_b | Nr_b), repeated with the block before it
        in front until there is enough (RFC 2409 section 5.5). Raises WeakKey.
        """
        row = ENCRYPTIONS[suite.encryption]
        integrity_length = INTEGRITIES[suite.integrity].key_length if suite.integrity else 0
        wanted = row.key_length + row.salt_length + integrity_length
        seed = shared.reveal() + bytes([Protocol.ESP]) + spi + nonce_i + nonce_r
        keymat = block = self._prf(self.skeyid_d, seed)
        while len(keymat) < wanted:
            block = self._prf(self.skeyid_d, block, seed)
            keymat += block
        key, rest = keymat[: row.key_length], keymat[row.key_length :]
        refuse_weak_key(suite.encryption, key)
        salt, rest = rest[: row.salt_length], rest[row.salt_length :]
        return EspKeys(Secret(key), Secret(rest[:integrity_length]), Secret(salt))

    def _prf(self, key: Secret, *parts: bytes) -> bytes:
        return PRFS[self.hash_word](key.reveal(), *parts)


def stretch(prf: Prf, skeyid_e: bytes, length: int) -> bytes:
    """The cipher key: SKEYID_e cut to `length`, or where it is too short K1 | K2 | ... (appendix B).

    K1 = prf(SKEYID_e, 0), K2 = prf(SKEYID_e, K1), and so on.
    """
    if len(skeyid_e) >= length:
        return skeyid_e[:length]
    block = prf(skeyid_e, b"\x00")
    key = block
    while len(key) < length:
        block = prf(skeyid_e, block)
        key += block
    return key[:length]


def refuse_weak_key(word: str, key: bytes) -> None:
    """Raises WeakKey if `key` is one of the weak or semi-weak keys of DES (RFC 2409 appendix A)."""
    if word in ("des", "3des") and is_weak_des_key(key):
        raise WeakKey(detail="weak DES key")


def _octets(message_id: int) -> bytes:
    return message_id.to_bytes(4, "big")
