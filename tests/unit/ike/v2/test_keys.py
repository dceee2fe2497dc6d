"""The IKEv2 key schedule against published samples, and AUTH against a second computation."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from tests.vectors import Vector, read
from vpnd.crypto.seal import key_lengths
from vpnd.ike.v2.keys import (
    IkeKeys,
    auth_of_psk,
    derive_child_keys,
    derive_ike_keys,
    derive_skeyseed,
    derive_successor_skeyseed,
)
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret

SAMPLES = read("ikev2_kdf.txt")


def keys_of(sample: Vector, suite: Suite) -> IkeKeys:
    """The keys of the IKE SA in a sample."""
    nonces = sample.bytes_of("nonce_i"), sample.bytes_of("nonce_r")
    skeyseed = derive_skeyseed(sample["word"], Secret(sample.bytes_of("g_ir")), *nonces)
    assert skeyseed.reveal() == sample.bytes_of("skeyseed")
    return derive_ike_keys(suite, skeyseed, *nonces, sample.bytes_of("spi_i"), sample.bytes_of("spi_r"))


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
@pytest.mark.parametrize("encryption", ["aes-128", "aes-256", "aes-128-gcm", "chacha20-poly1305"])
def test_ike_keys_are_cut_in_order_from_the_published_stream(sample: Vector, encryption: str) -> None:
    word = sample["word"]
    aead = encryption not in ("aes-128", "aes-256")
    suite = Suite(encryption, word, None if aead else word, 14)
    keys = keys_of(sample, suite)
    i, r = keys.initiator, keys.responder
    stream = b"".join(
        secret.reveal()
        for secret in (
            keys.sk_d,
            i.integrity,
            r.integrity,
            i.encryption,
            i.salt,
            r.encryption,
            r.salt,
            i.sk_p,
            r.sk_p,
        )
    )
    published = sample.bytes_of("dkm")
    assert stream[: len(published)] == published[: len(stream)]
    lengths = key_lengths(encryption, suite.integrity)
    assert (len(i.encryption), len(i.salt), len(i.integrity)) == (
        lengths.encryption,
        lengths.salt,
        lengths.integrity,
    )
    assert len(keys.sk_d) == len(i.sk_p) == len(r.sk_p) == hashlib.new(word).digest_size


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
@pytest.mark.parametrize("key_exchange", [False, True])
def test_child_keys_are_cut_in_order_from_the_published_stream(sample: Vector, key_exchange: bool) -> None:
    word = sample["word"]
    keys = keys_of(sample, Suite("aes-128", word, word, 14))
    shared = Secret(sample.bytes_of("g_ir_new")) if key_exchange else None
    for suite in (Suite("aes-128", None, "sha256", None), Suite("aes-256-gcm", None, None, None)):
        pair = derive_child_keys(keys, suite, sample.bytes_of("nonce_i"), sample.bytes_of("nonce_r"), shared)
        stream = b"".join(key.reveal() for one in pair for key in (one.encryption, one.salt, one.integrity))
        published = sample.bytes_of("keymat_ke" if key_exchange else "keymat")
        assert stream[: len(published)] == published[: len(stream)]


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_the_successor_s_seed_comes_from_the_old_sk_d(sample: Vector) -> None:
    word = sample["word"]
    old = keys_of(sample, Suite("aes-128", word, word, 14))
    shared = Secret(sample.bytes_of("g_ir_new"))
    seed = derive_successor_skeyseed(old, shared, sample.bytes_of("nonce_i"), sample.bytes_of("nonce_r"))
    assert seed.reveal() == sample.bytes_of("skeyseed_rekey")


def test_auth_is_the_formula_of_rfc_7296_section_2_15() -> None:
    def prf(key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, "sha256").digest()

    psk, sk_p, message, nonce, id_body = b"key", b"p" * 32, b"real message", b"n" * 32, b"\x02\0\0\0hq"
    octets = message + nonce + prf(sk_p, id_body)
    expected = prf(prf(psk, b"Key Pad for IKEv2"), octets)
    assert auth_of_psk("sha256", Secret(psk), Secret(sk_p), message, nonce, id_body) == expected


def test_a_suite_without_prf_has_no_ike_keys() -> None:
    with pytest.raises(ValueError, match="PRF"):
        derive_ike_keys(Suite("aes-128", None, "sha256", 14), Secret(b"s"), b"i", b"r", bytes(8), bytes(8))
