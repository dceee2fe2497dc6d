from __future__ import annotations

from itertools import product

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from tests.vectors import Vector, read
from vpnd.crypto import seal
from vpnd.crypto.entropy import SeededEntropy
from vpnd.crypto.prf import Prf
from vpnd.crypto.seal import IntegrityFailed, KeyLengths, SkCipher
from vpnd.crypto.suites import ENCRYPTIONS, INTEGRITIES
from vpnd.model.numbers import Numbers
from vpnd.model.secret import Secret

SUITES = [
    (encryption, integrity)
    for encryption, row in ENCRYPTIONS.items()
    for integrity in ((None,) if row.aead else INTEGRITIES)
]
EVERY_SUITE = pytest.mark.parametrize(("encryption", "integrity"), SUITES)
CBC_WORDS = [word for word, row in ENCRYPTIONS.items() if not row.aead]
AEAD_WORDS = [word for word, row in ENCRYPTIONS.items() if row.aead]
HEADER = bytes(range(32))


def keys_of(encryption: str, integrity: str | None, seed: int = 1) -> tuple[Secret, Secret, Secret]:
    lengths, entropy = seal.key_lengths(encryption, integrity), SeededEntropy(seed)
    return (
        Secret(entropy.bytes(lengths.encryption)),
        Secret(entropy.bytes(lengths.integrity)),
        Secret(entropy.bytes(lengths.salt)),
    )


def cipher_of(encryption: str, integrity: str | None, seed: int = 1) -> SkCipher:
    return seal.make(encryption, integrity, *keys_of(encryption, integrity, seed))


class Dictated:
    """An entropy that yields one IV."""

    def __init__(self, iv: bytes) -> None:
        self._iv = iv

    def below(self, bound: int) -> int:
        raise AssertionError("sealing draws bytes only")

    def bytes(self, length: int) -> bytes:
        assert length == len(self._iv)
        return self._iv


class TestVectors:
    @pytest.mark.parametrize("vector", read("cbc.txt"), ids=str)
    def test_cbc(self, vector: Vector) -> None:
        key, iv = Secret(vector.bytes_of("key")), vector.bytes_of("iv")
        plaintext, ciphertext = vector.bytes_of("plaintext"), vector.bytes_of("ciphertext")
        assert seal.cbc_encrypt(vector["word"], key, iv, plaintext) == ciphertext
        assert seal.cbc_decrypt(vector["word"], key, iv, ciphertext) == plaintext

    @pytest.mark.parametrize("vector", read("aead.txt"), ids=str)
    def test_aead(self, vector: Vector) -> None:
        """Sealed, its bytes come first; opened, its tag verifies, and its last byte counts the padding."""
        nonce, value = vector.bytes_of("nonce"), vector.bytes_of
        plaintext, associated, iv = value("plaintext"), value("associated"), nonce[4:]
        cipher = seal.make(vector["word"], None, Secret(value("key")), Secret(b""), Secret(nonce[:4]))
        sealed = cipher.seal(associated, plaintext, Dictated(iv))
        assert sealed.startswith(iv + value("ciphertext")[: len(plaintext)])
        assert cipher.open(associated, sealed) == plaintext
        if not plaintext:
            return  # not even the length of a padding is in it
        if plaintext[-1] < len(plaintext):
            opened = cipher.open(associated, iv + value("ciphertext"))
            assert opened == plaintext[: -1 - plaintext[-1]]
        else:
            with pytest.raises(IntegrityFailed, match="padding"):
                cipher.open(associated, iv + value("ciphertext"))

    def test_the_ikev2_message_of_rfc_7634(self) -> None:
        """Appendix B: an INFORMATIONAL request with one notify."""
        (vector,) = (v for v in read("aead.txt") if v["name"] == "RFC 7634 appendix B, IKEv2")
        nonce, value = vector.bytes_of("nonce"), vector.bytes_of
        cipher = seal.make(vector["word"], None, Secret(value("key")), Secret(b""), Secret(nonce[:4]))
        plaintext, sealed = value("plaintext")[:-1], nonce[4:] + value("ciphertext")
        assert cipher.seal(value("associated"), plaintext, Dictated(nonce[4:])) == sealed
        assert cipher.open(value("associated"), sealed) == plaintext


@EVERY_SUITE
class TestEverySuite:
    @pytest.mark.parametrize("length", [0, 1, 6, 7, 8, 14, 15, 16, 17, 300])
    def test_what_was_sealed_opens(self, encryption: str, integrity: str | None, length: int) -> None:
        sender, receiver = cipher_of(encryption, integrity), cipher_of(encryption, integrity)
        plaintext = SeededEntropy(length).bytes(length)
        sealed = sender.seal(HEADER, plaintext, SeededEntropy(3))
        assert len(sealed) == sender.sealed_length(length)
        assert receiver.open(HEADER, sealed) == plaintext

    def test_every_single_changed_bit_is_noticed(self, encryption: str, integrity: str | None) -> None:
        cipher = cipher_of(encryption, integrity)
        sealed = cipher.seal(HEADER, b"payloads", SeededEntropy(3))
        for position in range(8 * len(sealed)):
            changed = bytearray(sealed)
            changed[position // 8] ^= 1 << position % 8
            with pytest.raises(IntegrityFailed):
                cipher.open(HEADER, bytes(changed))
        for position in range(8 * len(HEADER)):
            changed = bytearray(HEADER)
            changed[position // 8] ^= 1 << position % 8
            with pytest.raises(IntegrityFailed):
                cipher.open(bytes(changed), sealed)

    def test_every_other_length_is_refused(self, encryption: str, integrity: str | None) -> None:
        cipher = cipher_of(encryption, integrity)
        sealed = cipher.seal(HEADER, b"payloads", SeededEntropy(3))
        for length in range(len(sealed)):
            with pytest.raises(IntegrityFailed):
                cipher.open(HEADER, sealed[:length])
        for tail in (b"\0", bytes(8), bytes(16)):
            with pytest.raises(IntegrityFailed):
                cipher.open(HEADER, sealed + tail)

    def test_other_keys_do_not_open(self, encryption: str, integrity: str | None) -> None:
        sealed = cipher_of(encryption, integrity, 1).seal(HEADER, b"payloads", SeededEntropy(3))
        with pytest.raises(IntegrityFailed):
            cipher_of(encryption, integrity, 2).open(HEADER, sealed)

    def test_the_same_message_is_never_sealed_the_same(self, encryption: str, integrity: str | None) -> None:
        cipher, entropy = cipher_of(encryption, integrity), SeededEntropy(3)
        sealed = [cipher.seal(HEADER, b"payloads", entropy) for _ in range(50)]
        assert len({message[: cipher.iv_length] for message in sealed}) == 50

    def test_keys_of_another_length_are_refused(self, encryption: str, integrity: str | None) -> None:
        keys = keys_of(encryption, integrity)
        for place in range(3):
            for wrong in (keys[place].reveal() + b"\0", keys[place].reveal()[:-1] or b"\0"):
                first, second, third = (Secret(wrong) if i == place else keys[i] for i in range(3))
                with pytest.raises(ValueError, match="takes"):
                    seal.make(encryption, integrity, first, second, third)

    def test_nothing_of_the_keys_is_shown(self, encryption: str, integrity: str | None) -> None:
        shown = repr(cipher_of(encryption, integrity))
        assert not any(key.reveal().hex() in shown for key in keys_of(encryption, integrity) if key)


@given(plaintext=st.binary(max_size=2000), associated=st.binary(max_size=100), suite=st.sampled_from(SUITES))
def test_open_reverses_seal(plaintext: bytes, associated: bytes, suite: tuple[str, str | None]) -> None:
    cipher = cipher_of(*suite)
    assert cipher.open(associated, cipher.seal(associated, plaintext, SeededEntropy(5))) == plaintext


@given(sealed=st.binary(max_size=200), suite=st.sampled_from(SUITES))
def test_any_bytes_are_refused_in_one_way(sealed: bytes, suite: tuple[str, str | None]) -> None:
    with pytest.raises(IntegrityFailed):
        cipher_of(*suite).open(HEADER, sealed)


class TestCbcWithHmac:
    @pytest.mark.parametrize("word", CBC_WORDS)
    def test_the_icv_covers_header_iv_and_ciphertext(self, word: str) -> None:
        """RFC 7296 section 3.14: encrypt, then HMAC, then cut."""
        keys = keys_of(word, "sha256")
        sealed = seal.make(word, "sha256", *keys).seal(HEADER, b"payloads", SeededEntropy(3))
        assert sealed[-16:] == Prf("sha256")(keys[1].reveal(), HEADER, sealed[:-16])[:16]

    def test_the_iv_is_what_the_entropy_gave(self) -> None:
        cipher = cipher_of("aes-128", "sha256")
        assert cipher.seal(HEADER, b"", Dictated(b"I" * 16))[:16] == b"I" * 16

    def test_padding_of_any_content_and_length_is_stripped(self) -> None:
        """RFC 7296 section 3.14: its bytes may be anything, and there may be more of it than needed."""
        for padding in (b"\xaa" * 7, b"\xbb" * 23, b"\xcc" * 255):
            plaintext = b"p" * (-(len(padding) + 1) % 16 or 16)
            sealed = forge("aes-128", "sha256", plaintext + padding + bytes((len(padding),)))
            assert cipher_of("aes-128", "sha256").open(HEADER, sealed) == plaintext

    def test_padding_longer_than_everything_is_refused(self) -> None:
        for pad_length in (16, 17, 255):
            sealed = forge("aes-128", "sha256", bytes(15) + bytes((pad_length,)))
            with pytest.raises(IntegrityFailed, match="padding"):
                cipher_of("aes-128", "sha256").open(HEADER, sealed)

    def test_a_plaintext_may_be_padding_alone(self) -> None:
        sealed = forge("aes-128", "sha256", bytes(15) + b"\x0f")
        assert cipher_of("aes-128", "sha256").open(HEADER, sealed) == b""

    def test_cbc_without_integrity_is_refused(self) -> None:
        with pytest.raises(ValueError, match="needs an integrity"):
            seal.make("aes-128", None, Secret(bytes(16)), Secret(b""), Secret(b""))

    @pytest.mark.parametrize("length", [12, 16, 32])
    def test_the_icv_of_sm3_has_the_length_that_was_set(self, length: int) -> None:
        keys, numbers = keys_of("sm4", "sm3"), Numbers(sm3_icv_length=length)
        cipher = seal.make("sm4", "sm3", *keys, numbers)
        assert cipher.icv_length == length
        assert cipher.open(HEADER, cipher.seal(HEADER, b"payloads", SeededEntropy(3))) == b"payloads"


def forge(encryption: str, integrity: str, padded: bytes) -> bytes:
    """A sealed message with this plaintext and padding, made by someone who has the keys."""
    keys, iv = keys_of(encryption, integrity), bytes(ENCRYPTIONS[encryption].iv_length)
    body = iv + seal.cbc_encrypt(encryption, keys[0], iv, padded)
    return body + Prf(integrity)(keys[1].reveal(), HEADER, body)[: INTEGRITIES[integrity].icv_length]


@pytest.mark.parametrize("word", AEAD_WORDS)
class TestAead:
    def test_ivs_count_up_from_a_random_start(self, word: str) -> None:
        first, second = SeededEntropy(3), SeededEntropy(4)
        cipher = cipher_of(word, None)
        ivs = [int.from_bytes(cipher.seal(HEADER, b"", first)[:8], "big") for _ in range(3)]
        assert ivs == [ivs[0], ivs[0] + 1, ivs[0] + 2]
        assert cipher_of(word, None).seal(HEADER, b"", second)[:8] != ivs[0].to_bytes(8, "big")

    def test_ivs_wrap_around(self, word: str) -> None:
        cipher = cipher_of(word, None)
        ivs = [cipher.seal(HEADER, b"", Dictated(b"\xff" * 8))[:8] for _ in range(2)]
        assert ivs == [b"\xff" * 8, bytes(8)]

    def test_a_received_message_may_carry_padding(self, word: str) -> None:
        cipher = cipher_of(word, None)
        key, _, salt = keys_of(word, None)
        aead = (ChaCha20Poly1305 if word == "chacha20-poly1305" else AESGCM)(key.reveal())
        nonce = salt.reveal() + bytes(8)
        padded = bytes(8) + aead.encrypt(nonce, b"payloads" + b"\xaa" * 5 + b"\x05", HEADER)
        assert cipher.open(HEADER, padded) == b"payloads"
        longer = bytes(8) + aead.encrypt(nonce, b"payloads" + b"\x09", HEADER)
        with pytest.raises(IntegrityFailed, match="padding"):
            cipher.open(HEADER, longer)

    def test_an_integrity_word_beside_it_changes_nothing(self, word: str) -> None:
        assert seal.key_lengths(word, "sha256") == seal.key_lengths(word, None)


def test_key_lengths_of_the_key_material() -> None:
    assert seal.key_lengths("aes-192", "sha384") == KeyLengths(24, 48, 0)
    assert seal.key_lengths("aes-256-gcm", None) == KeyLengths(32, 0, 4)
    with pytest.raises(KeyError):
        seal.key_lengths("rot13", "sha256")
    with pytest.raises(KeyError):
        seal.key_lengths("aes-128", "crc32")


@pytest.mark.parametrize("word", CBC_WORDS)
class TestPlainCbc:
    def test_lengths_are_checked(self, word: str) -> None:
        row = ENCRYPTIONS[word]
        key, iv = Secret(bytes(range(row.key_length))), bytes(row.iv_length)
        for data in (b"\0", bytes(row.block - 1), bytes(row.block + 1)):
            with pytest.raises(ValueError, match="block"):
                seal.cbc_encrypt(word, key, iv, data)
            with pytest.raises(ValueError, match="block"):
                seal.cbc_decrypt(word, key, iv, data)
        with pytest.raises(ValueError, match="IV"):
            seal.cbc_encrypt(word, key, iv + b"\0", bytes(row.block))
        with pytest.raises(ValueError, match="takes a key"):
            seal.cbc_encrypt(word, Secret(key.reveal() + b"\0"), iv, bytes(row.block))

    def test_blocks_are_chained(self, word: str) -> None:
        row = ENCRYPTIONS[word]
        key, iv = Secret(bytes(range(row.key_length))), bytes(range(row.iv_length))
        first = seal.cbc_encrypt(word, key, iv, b"a" * row.block)
        second = seal.cbc_encrypt(word, key, first, b"b" * row.block)
        assert seal.cbc_encrypt(word, key, iv, b"a" * row.block + b"b" * row.block) == first + second


def test_an_aead_cipher_is_no_cbc_cipher() -> None:
    with pytest.raises(ValueError, match="no CBC"):
        seal.cbc_encrypt("aes-128-gcm", Secret(bytes(16)), bytes(16), bytes(16))


class TestWeakDesKeys:
    BYTES = ((0x01, 0x01), (0x1F, 0x0E), (0xE0, 0xF1), (0xFE, 0xFE))
    """Of the first half and of the second: they make a half of the key schedule all zeros or all ones."""
    PATTERNS = tuple(bytes((a, b, a, b, c, d, c, d)) for (a, c), (b, d) in product(BYTES, repeat=2))
    LISTED = tuple(filter(seal.is_weak_des_key, PATTERNS))

    def encrypt(self, key: bytes, block: bytes) -> bytes:
        return seal.cbc_encrypt("des", Secret(key), bytes(8), block)

    def test_each_listed_key_undoes_itself_or_another(self) -> None:
        """That is what makes them weak; a wrong entry in the list would show here."""
        assert len(self.LISTED) == 16
        undone = {
            key: [
                other
                for other in self.LISTED
                if self.encrypt(other, self.encrypt(key, b"a block.")) == b"a block."
            ]
            for key in self.LISTED
        }
        assert all(len(others) == 1 for others in undone.values())
        assert sum(others == [key] for key, others in undone.items()) == 4

    def test_parity_bits_do_not_matter(self) -> None:
        assert seal.is_weak_des_key(bytes.fromhex("0101010101010101"))
        assert seal.is_weak_des_key(bytes(8))
        assert seal.is_weak_des_key(bytes.fromhex("fffffffffffffffe"))

    def test_an_ordinary_key_is_not_weak(self) -> None:
        assert not seal.is_weak_des_key(bytes.fromhex("0123456789abcdef"))

    def test_every_component_of_3des_counts(self) -> None:
        good = [bytes.fromhex("0123456789abcdef"), bytes.fromhex("23456789abcdef01"), b"12345678"]
        assert not seal.is_weak_des_key(b"".join(good))
        for place in range(3):
            parts = [*good]
            parts[place] = bytes.fromhex("1f1f1f1f0e0e0e0e")
            assert seal.is_weak_des_key(b"".join(parts))

    def test_3des_with_equal_neighbours_is_single_des(self) -> None:
        one, two = b"12345678", bytes.fromhex("0123456789abcdef")
        assert seal.is_weak_des_key(one + one + two)
        assert seal.is_weak_des_key(one + two + two)
        # Two keys, the first used twice, is the 112-bit variant that RFC 2451 allows.
        assert not seal.is_weak_des_key(one + two + one)

    @pytest.mark.parametrize("length", [0, 7, 9, 16, 23, 25])
    def test_other_lengths_are_refused(self, length: int) -> None:
        with pytest.raises(ValueError, match="8 bytes"):
            seal.is_weak_des_key(bytes(length))
