"""Key derivation of IKEv1: NIST's samples, and RFC 2409 written down a second time with hashlib and hmac."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from itertools import count

import pytest

from tests.vectors import Vector, read
from vpnd.crypto.prf import Prf
from vpnd.crypto.suites import ENCRYPTIONS, INTEGRITIES
from vpnd.ike.v1 import keys
from vpnd.ike.v1.faults import WeakKey
from vpnd.ike.v1.keys import Exchanged, Phase1Keys, stretch
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret

HASHES = {word: word for word in ("md5", "sha1", "sha256", "sha384", "sha512")}
CIPHERS = [word for word, row in ENCRYPTIONS.items() if row.ikev1_phase1 is not None and word != "sm4"]
ESP_CIPHERS = [word for word, row in ENCRYPTIONS.items() if row.ikev1_esp is not None and word != "sm4"]
EXCHANGED = Exchanged(
    bytes(range(32)), bytes(range(32, 64)), b"\x11" * 96, b"\x22" * 96, b"initiato", b"responde"
)
SHARED = Secret(b"\x33" * 96)
PSK = Secret(b"a pre-shared key")


def prf(word: str, key: bytes, *parts: bytes) -> bytes:
    """HMAC, by the standard library."""
    return hmac.new(key, b"".join(parts), word).digest()


def derived(word: str, cipher: str = "aes-128") -> Phase1Keys:
    """All keys of an ISAKMP SA with this hash."""
    return Phase1Keys.derive(Suite(cipher, word, word, 1), PSK, SHARED, EXCHANGED)


@pytest.mark.parametrize("vector", read("ikev1_psk.txt"), ids=str)
def test_the_skeyid_family_is_that_of_the_published_samples(vector: Vector) -> None:
    word = vector["word"]
    exchanged = Exchanged(
        vector.bytes_of("nonce_i"), vector.bytes_of("nonce_r"), b"", b"",
        vector.bytes_of("cky_i"), vector.bytes_of("cky_r"),
    )  # fmt: skip
    psk, shared = Secret(vector.bytes_of("psk")), Secret(vector.bytes_of("g_xy"))
    found = Phase1Keys.derive(Suite("aes-128", word, word, 14), psk, shared, exchanged)
    assert found.skeyid.reveal() == vector.bytes_of("skeyid")
    assert found.skeyid_d.reveal() == vector.bytes_of("skeyid_d")
    assert found.skeyid_a.reveal() == vector.bytes_of("skeyid_a")
    # SKEYID_e has at least the 16 bytes that AES-128 takes of it.
    assert found.encryption_key.reveal() == vector.bytes_of("skeyid_e")[:16]


def test_every_hash_that_has_samples_is_tried() -> None:
    assert {vector["word"] for vector in read("ikev1_psk.txt")} >= {"sha1", "sha256", "sha384", "sha512"}


@pytest.mark.parametrize("word", HASHES)
@pytest.mark.parametrize("cipher", CIPHERS)
def test_the_cipher_key_is_stretched_where_the_prf_is_short(word: str, cipher: str) -> None:
    """RFC 2409 appendix B: Ka = K1 | K2 | ..., K1 = prf(SKEYID_e, 0), Kn = prf(SKEYID_e, Kn-1)."""
    found = derived(word, cipher)
    tail = SHARED.reveal() + EXCHANGED.cky_i + EXCHANGED.cky_r
    skeyid = prf(word, PSK.reveal(), EXCHANGED.nonce_i, EXCHANGED.nonce_r)
    skeyid_d = prf(word, skeyid, tail, b"\0")
    skeyid_a = prf(word, skeyid, skeyid_d, tail, b"\1")
    skeyid_e = prf(word, skeyid, skeyid_a, tail, b"\2")
    wanted = ENCRYPTIONS[cipher].key_length
    key = skeyid_e
    if len(skeyid_e) < wanted:
        block = key = prf(word, skeyid_e, b"\0")
        while len(key) < wanted:
            block = prf(word, skeyid_e, block)
            key += block
    assert found.encryption_key.reveal() == key[:wanted]
    block_length = ENCRYPTIONS[cipher].block
    assert found.iv == hashlib.new(word, EXCHANGED.ke_i + EXCHANGED.ke_r).digest()[:block_length]
    assert (
        found.phase2_iv(found.iv, 7)
        == hashlib.new(word, found.iv + bytes((0, 0, 0, 7))).digest()[:block_length]
    )


def test_the_example_of_appendix_b() -> None:
    """A prf of 8 bytes and a key of 20 in the RFC; of 16 and 40 here: K1 | K2 | K3, cut."""
    md5 = Prf("md5")
    k1 = prf("md5", b"e" * 16, b"\0")
    k2 = prf("md5", b"e" * 16, k1)
    k3 = prf("md5", b"e" * 16, k2)
    assert stretch(md5, b"e" * 16, 40) == (k1 + k2 + k3)[:40]
    assert stretch(md5, b"e" * 16, 16) == b"e" * 16


@pytest.mark.parametrize("word", HASHES)
def test_the_proofs_cover_everything_that_was_exchanged(word: str) -> None:
    found = derived(word)
    e = EXCHANGED
    skeyid = found.skeyid.reveal()
    assert found.hash_i(e, b"SA", b"ID") == prf(word, skeyid, e.ke_i, e.ke_r, e.cky_i, e.cky_r, b"SA", b"ID")
    assert found.hash_r(e, b"SA", b"ID") == prf(word, skeyid, e.ke_r, e.ke_i, e.cky_r, e.cky_i, b"SA", b"ID")
    skeyid_a, number = found.skeyid_a.reveal(), b"\0\0\x01\x02"
    assert found.hash_1(0x102, b"rest") == prf(word, skeyid_a, number, b"rest")
    assert found.hash_2(0x102, b"Ni", b"rest") == prf(word, skeyid_a, number, b"Ni", b"rest")
    assert found.hash_3(0x102, b"Ni", b"Nr") == prf(word, skeyid_a, b"\0", number, b"Ni", b"Nr")


def keymat(word: str, skeyid_d: bytes, seed: bytes) -> Iterator[bytes]:
    """K1, K2, ... of RFC 2409 section 5.5."""
    block = b""
    for _ in count():
        block = prf(word, skeyid_d, block, seed)
        yield block


@pytest.mark.parametrize("shared", [b"", b"\x44" * 128], ids=["without PFS", "with PFS"])
@pytest.mark.parametrize("word", HASHES)
@pytest.mark.parametrize("cipher", ESP_CIPHERS)
def test_keymat_of_quick_mode(word: str, cipher: str, shared: bytes) -> None:
    """NIST's samples end with the SKEYID family and no other was found, so this is a second derivation."""
    found = derived(word)
    row = ENCRYPTIONS[cipher]
    integrity = None if row.aead else "sha512"
    spi = b"\0\0\x12\x34"
    esp = found.esp_keys(Suite(cipher, None, integrity, None), spi, b"Ni", b"Nr", Secret(shared))
    blocks = keymat(word, found.skeyid_d.reveal(), shared + b"\x03" + spi + b"Ni" + b"Nr")
    stream = b"".join(next(blocks) for _ in range(12))
    integrity_length = INTEGRITIES["sha512"].key_length if integrity else 0
    ends = (row.key_length, row.key_length + row.salt_length)
    assert esp.encryption.reveal() == stream[: ends[0]]
    assert esp.salt.reveal() == stream[ends[0] : ends[1]]
    assert esp.integrity.reveal() == stream[ends[1] : ends[1] + integrity_length]


def test_both_directions_have_other_keys() -> None:
    found = derived("sha256")
    suite = Suite("aes-128", None, "sha256", None)
    assert found.esp_keys(suite, b"\0\0\1\1", b"Ni", b"Nr") != found.esp_keys(
        suite, b"\0\0\1\2", b"Ni", b"Nr"
    )


def test_weak_des_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 2409 appendix A. No known input yields one, so the stretched key is put in its place."""
    monkeypatch.setattr(keys, "stretch", lambda prf, skeyid_e, length: bytes.fromhex("0101010101010101"))
    with pytest.raises(WeakKey):
        derived("md5", "des")
    monkeypatch.undo()
    assert len(derived("md5", "des").encryption_key) == 8
