from __future__ import annotations

from dataclasses import replace

import pytest

from vpnd.crypto import suites
from vpnd.crypto.suites import ENCRYPTIONS, GROUPS, INTEGRITIES, Encryption, Integrity
from vpnd.model.numbers import DEFAULT_NUMBERS, Numbers
from vpnd.wire.iana import DhGroup

OTHER = Numbers(
    sm4_ikev1_phase1=10,
    sm4_ikev1_esp=25,
    sm4_ikev2=2001,
    sm3_ikev1_hash=7,
    sm3_ikev1_esp=14,
    sm3_ikev2_integ=2002,
    sm3_ikev2_prf=2003,
    sm3_icv_length=32,
)
BOTH = pytest.mark.parametrize("numbers", [DEFAULT_NUMBERS, OTHER], ids=("default", "other"))


def sent_key_length(row: Encryption) -> int | None:
    return row.key_bits if row.sends_key_length else None


class TestTable:
    def test_every_word_of_the_configuration_has_a_row(self) -> None:
        assert " ".join(ENCRYPTIONS) == (
            "aes-128 aes-192 aes-256 aes-128-gcm aes-256-gcm chacha20-poly1305 3des des sm4"
        )
        assert " ".join(INTEGRITIES) == "md5 sha1 sha256 sha384 sha512 sm3"
        assert list(GROUPS) == [1, 2, 5, 14, 15, 16, 19, 20, 21, 24, 31]

    def test_every_named_group_has_a_row(self) -> None:
        assert set(GROUPS) == {int(group) for group in DhGroup} - {DhGroup.NONE}

    # key, explicit IV, ICV and salt: RFC 2405, 2451, 3602, 4106, 5282, 7634.
    @pytest.mark.parametrize(
        ("word", "sizes"),
        [
            ("des", (8, 8, 0, 0)),
            ("3des", (24, 8, 0, 0)),
            ("aes-128", (16, 16, 0, 0)),
            ("aes-192", (24, 16, 0, 0)),
            ("aes-256", (32, 16, 0, 0)),
            ("sm4", (16, 16, 0, 0)),
            ("aes-128-gcm", (16, 8, 16, 4)),
            ("aes-256-gcm", (32, 8, 16, 4)),
            ("chacha20-poly1305", (32, 8, 16, 4)),
        ],
    )
    def test_sizes_of_the_ciphers(self, word: str, sizes: tuple[int, ...]) -> None:
        row = ENCRYPTIONS[word]
        assert (row.key_length, row.iv_length, row.icv_length, row.salt_length) == sizes
        assert row.aead == (row.icv_length > 0)
        assert row.block == (1 if row.aead else row.iv_length)

    # key, ICV, digest and input block: RFC 2403, 2404, 4868.
    @pytest.mark.parametrize(
        ("word", "sizes"),
        [
            ("md5", (16, 12, 16, 64)),
            ("sha1", (20, 12, 20, 64)),
            ("sha256", (32, 16, 32, 64)),
            ("sha384", (48, 24, 48, 128)),
            ("sha512", (64, 32, 64, 128)),
            ("sm3", (32, 12, 32, 64)),
        ],
    )
    def test_sizes_of_the_hashes(self, word: str, sizes: tuple[int, ...]) -> None:
        row = INTEGRITIES[word]
        assert (row.key_length, row.icv_length, row.digest_length, row.block_length) == sizes


class TestNumbers:
    @pytest.mark.parametrize(
        ("word", "phase1", "esp1", "ikev2"),
        [
            ("des", 1, 2, 2),
            ("3des", 5, 3, 3),
            ("aes-256", 7, 12, 12),
            ("aes-128-gcm", None, 20, 20),
            ("chacha20-poly1305", None, None, 28),
            ("sm4", 129, 129, 1031),
        ],
    )
    def test_ciphers_have_their_registered_numbers(
        self, word: str, phase1: int | None, esp1: int | None, ikev2: int
    ) -> None:
        row = ENCRYPTIONS[word]
        assert (row.ikev1_phase1, row.ikev1_esp, row.ikev2) == (phase1, esp1, ikev2)

    @pytest.mark.parametrize(
        ("word", "hash1", "esp1", "integ", "prf"),
        [
            ("md5", 1, 1, 1, 1),
            ("sha1", 2, 2, 2, 2),
            ("sha256", 4, 5, 12, 5),
            ("sha384", 5, 6, 13, 6),
            ("sha512", 6, 7, 14, 7),
            ("sm3", 20, 20, 1034, 1035),
        ],
    )
    def test_hashes_have_their_registered_numbers(
        self, word: str, hash1: int, esp1: int, integ: int, prf: int
    ) -> None:
        row = INTEGRITIES[word]
        assert (row.ikev1_hash, row.ikev1_esp, row.ikev2_integ, row.ikev2_prf) == (hash1, esp1, integ, prf)

    @BOTH
    @pytest.mark.parametrize("word", ENCRYPTIONS)
    def test_a_ciphers_number_leads_back_to_it(self, word: str, numbers: Numbers) -> None:
        row = suites.encryption(word, numbers)
        bits = sent_key_length(row)
        assert row.ikev2 is not None
        assert suites.encryption_of_ikev2(row.ikev2, bits, numbers) == row
        if row.ikev1_esp is not None:
            assert suites.encryption_of_esp1(row.ikev1_esp, bits, numbers) == row
        if row.ikev1_phase1 is not None:
            assert suites.encryption_of_phase1(row.ikev1_phase1, bits, numbers) == row

    @BOTH
    @pytest.mark.parametrize("word", INTEGRITIES)
    def test_a_hashs_number_leads_back_to_it(self, word: str, numbers: Numbers) -> None:
        row: Integrity = suites.integrity(word, numbers)
        assert None not in (row.ikev1_hash, row.ikev1_esp, row.ikev2_integ, row.ikev2_prf)
        assert suites.hash_of_phase1(row.ikev1_hash or 0, numbers) == row
        assert suites.integrity_of_esp1(row.ikev1_esp or 0, numbers) == row
        assert suites.integrity_of_ikev2(row.ikev2_integ or 0, numbers) == row
        assert suites.prf_of_ikev2(row.ikev2_prf or 0, numbers) == row

    def test_other_numbers_replace_the_default_ones(self) -> None:
        assert suites.encryption_of_phase1(129, None, OTHER) is None
        assert suites.hash_of_phase1(20, OTHER) is None
        assert suites.integrity("sm3", OTHER).icv_length == 32

    def test_other_numbers_leave_the_registered_ones_alone(self) -> None:
        assert suites.encryption("aes-128", OTHER) is ENCRYPTIONS["aes-128"]
        assert suites.integrity("sha256", OTHER) is INTEGRITIES["sha256"]

    def test_the_retired_number_of_sm4_is_understood(self) -> None:
        assert suites.encryption_of_phase1(127, None) == ENCRYPTIONS["sm4"]
        assert suites.encryption_of_esp1(127, None) is None

    @pytest.mark.parametrize("length", [0, 11, 20, 33])
    def test_an_odd_icv_length_for_sm3_is_refused(self, length: int) -> None:
        with pytest.raises(ValueError, match="12, 16 or 32"):
            replace(OTHER, sm3_icv_length=length)


class TestKeyLength:
    @pytest.mark.parametrize("bits", [None, 0, 64, 127, 129, 512])
    def test_aes_without_or_with_an_impossible_key_length_is_nothing(self, bits: int | None) -> None:
        assert suites.encryption_of_ikev2(12, bits) is None
        assert suites.encryption_of_ikev2(20, bits) is None
        assert suites.encryption_of_phase1(7, bits) is None
        assert suites.encryption_of_esp1(12, bits) is None

    def test_gcm_with_192_bits_has_no_word(self) -> None:
        assert suites.encryption_of_ikev2(20, 192) is None

    @pytest.mark.parametrize(("number", "bits"), [(2, 64), (3, 192), (28, 256)])
    def test_a_cipher_of_one_key_length_must_not_have_the_attribute(self, number: int, bits: int) -> None:
        assert suites.encryption_of_ikev2(number, bits) is None

    def test_sm4_sends_no_key_length_and_accepts_the_right_one(self) -> None:
        assert not ENCRYPTIONS["sm4"].sends_key_length
        assert suites.encryption_of_phase1(129, 128) == ENCRYPTIONS["sm4"]
        assert suites.encryption_of_phase1(129, 256) is None

    @pytest.mark.parametrize("number", [0, 1, 4, 11, 99, 65535, -1])
    def test_unknown_numbers_are_nothing(self, number: int) -> None:
        assert suites.encryption_of_ikev2(number, None) is None
        assert suites.encryption_of_ikev2(number, 128) is None

    def test_unknown_words_raise_key_error(self) -> None:
        with pytest.raises(KeyError):
            suites.encryption("rot13")
        with pytest.raises(KeyError):
            suites.integrity("crc32")


class TestWarnings:
    def test_exactly_the_weak_rows_have_one(self) -> None:
        assert {word for word, row in ENCRYPTIONS.items() if row.warning} == {"des", "3des"}
        assert {word for word, row in INTEGRITIES.items() if row.warning} == {"md5"}
        assert {number for number, row in GROUPS.items() if row.warning} == {1, 2, 5, 24}

    def test_each_names_the_rfc(self) -> None:
        for word in ("des", "3des"):
            assert "RFC 8221" in (ENCRYPTIONS[word].warning or "")
        assert "RFC 8221" in (INTEGRITIES["md5"].warning or "")
        for number in (1, 2, 5, 24):
            assert "RFC 8247" in (GROUPS[number].warning or "")
