from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import Vector, read
from vpnd.crypto.prf import HASHES, Prf, hash_of
from vpnd.crypto.suites import INTEGRITIES


@pytest.mark.parametrize("vector", read("hmac.txt"), ids=str)
def test_hmac(vector: Vector) -> None:
    mac = Prf(vector["word"])(vector.bytes_of("key"), vector.bytes_of("data"))
    # Some published values are cut, as on the wire.
    expected = vector.bytes_of("mac")
    assert len(expected) >= 12
    assert mac[: len(expected)] == expected


@pytest.mark.parametrize("vector", read("hash.txt"), ids=str)
def test_plain_hash(vector: Vector) -> None:
    assert hash_of(vector["word"], vector.bytes_of("data")) == vector.bytes_of("digest")


@pytest.mark.parametrize("vector", read("ikev2_kdf.txt"), ids=str)
def test_the_ikev2_key_schedule(vector: Vector) -> None:
    """RFC 7296 sections 2.14, 2.17 and 2.18, from the shared secret to the last key."""
    prf, value = Prf(vector["word"]), vector.bytes_of
    nonces = value("nonce_i") + value("nonce_r")
    skeyseed = prf(nonces, value("g_ir"))
    assert skeyseed == value("skeyseed")
    keys = prf.plus(skeyseed, nonces + value("spi_i") + value("spi_r"), len(value("dkm")))
    assert keys == value("dkm")
    sk_d = keys[: prf.key_length]
    assert prf.plus(sk_d, nonces, len(value("keymat"))) == value("keymat")
    assert prf.plus(sk_d, value("g_ir_new") + nonces, len(value("keymat_ke"))) == value("keymat_ke")
    assert prf(sk_d, value("g_ir_new"), nonces) == value("skeyseed_rekey")


@pytest.mark.parametrize("vector", read("ikev1_psk.txt"), ids=str)
def test_the_ikev1_keys_from_a_pre_shared_key(vector: Vector) -> None:
    """RFC 2409 section 5, with the same PRF."""
    prf, value = Prf(vector["word"]), vector.bytes_of
    context = (value("g_xy"), value("cky_i"), value("cky_r"))
    skeyid = prf(value("psk"), value("nonce_i"), value("nonce_r"))
    skeyid_d = prf(skeyid, *context, b"\0")
    skeyid_a = prf(skeyid, skeyid_d, *context, b"\1")
    skeyid_e = prf(skeyid, skeyid_a, *context, b"\2")
    assert skeyid == value("skeyid")
    assert (skeyid_d, skeyid_a, skeyid_e) == (value("skeyid_d"), value("skeyid_a"), value("skeyid_e"))


@pytest.mark.parametrize("word", INTEGRITIES)
class TestEveryWord:
    def test_sizes_are_those_of_the_table(self, word: str) -> None:
        prf = Prf(word)
        assert len(prf(b"key")) == prf.digest_length == prf.key_length == INTEGRITIES[word].digest_length
        assert HASHES[word].block_size == INTEGRITIES[word].block_length

    def test_parts_are_joined(self, word: str) -> None:
        assert Prf(word)(b"key", b"one", b"", b"two") == Prf(word)(b"key", b"onetwo")
        assert hash_of(word, b"one", b"two") == hash_of(word, b"onetwo")

    def test_prf_plus_is_cut_from_one_stream(self, word: str) -> None:
        prf = Prf(word)
        whole = prf.plus(b"key", b"seed", 255 * prf.digest_length)
        first = prf(b"key", b"seed", b"\x01")
        assert whole[: 2 * prf.digest_length] == first + prf(b"key", first, b"seed", b"\x02")
        for length in (0, 1, prf.digest_length, prf.digest_length + 1):
            assert prf.plus(b"key", b"seed", length) == whole[:length]

    def test_prf_plus_ends_after_255_blocks(self, word: str) -> None:
        prf = Prf(word)
        with pytest.raises(ValueError, match="cannot yield"):
            prf.plus(b"key", b"seed", 255 * prf.digest_length + 1)
        with pytest.raises(ValueError, match="cannot yield"):
            prf.plus(b"key", b"seed", -prf.digest_length)


def test_a_prf_does_not_show_keys() -> None:
    assert repr(Prf("sha256")) == "Prf('sha256')"


def test_an_unknown_word_raises_key_error() -> None:
    with pytest.raises(KeyError):
        Prf("crc32")
    with pytest.raises(KeyError):
        hash_of("crc32", b"")


@given(key=st.binary(max_size=300), parts=st.lists(st.binary(max_size=50), max_size=5))
def test_keys_of_any_length_are_taken_whole(key: bytes, parts: list[bytes]) -> None:
    prf = Prf("sha256")
    assert len(prf(key, *parts)) == 32
    # HMAC fills a short key with zeros and hashes a long one; anything else changes the result.
    if len(key) < 64:
        assert prf(key, *parts) == prf(key + b"\0", *parts)
        assert prf(key, *parts) != prf(key + b"\1", *parts)
