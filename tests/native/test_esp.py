"""Every suite: what one engine seals the other opens, byte for byte where no IV is random."""

from __future__ import annotations

from collections.abc import Callable
from hmac import digest as hmac_digest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import vectors
from tests.engines import NativeModule
from tests.native.packets import FEW
from tests.unit.datapath.parts import SUITES, keys_for
from vpnd.crypto.entropy import SeededEntropy
from vpnd.crypto.suites import ENCRYPTIONS, INTEGRITIES, integrity_of
from vpnd.datapath.esp import make_opener, make_sealer, strip_trailer, trailer
from vpnd.model.child import EspKeys
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret

vpnd_engine = NativeModule()

SPI = 0xDEADBEEF
SEED = bytes(range(32))
EVERY_CUT = (
    *SUITES,
    Suite("aes-128", None, "sha256", None, icv_length=12),
    Suite("sm4", None, "sm3", None, icv_length=16),
    Suite("sm4", None, "sm3", None, icv_length=32, esn=True),
)
"""Every suite of the table, and those whose ICV a configuration can cut elsewhere."""

Material = tuple[str, str | None, int | None, bool, tuple[bytes, bytes, bytes]]

suites = st.sampled_from(EVERY_CUT)
low = st.integers(1, (1 << 32) - 100)
numbers = st.one_of(low, st.integers((1 << 32) - 8, (1 << 32) + 8), st.integers(1 << 32, (1 << 64) - 100))


def material(suite: Suite, keys: EspKeys) -> Material:
    """A suite and keys as the native transforms take them."""
    revealed = keys.encryption.reveal(), keys.integrity.reveal(), keys.salt.reveal()
    return suite.encryption, suite.integrity, suite.icv_length, suite.esn, revealed


def native(suite: Suite, keys: EspKeys) -> tuple[Any, Any]:
    given_material = material(suite, keys)
    return vpnd_engine.Sealer(given_material, SPI, SEED), vpnd_engine.Opener(given_material)


def number_for(suite: Suite, number: int) -> int:
    """A sequence number that the suite can have: 32 bits without extended numbers."""
    return number if suite.esn else (number & 0x7FFFFFFF) + 1


@st.composite
def runs(draw: st.DrawFn) -> list[bytes]:
    """Packets of one length; the engines do not look into them here."""
    size = draw(st.integers(1, 1500) | st.integers(1, 80))
    return draw(st.lists(st.binary(min_size=size, max_size=size), min_size=1, max_size=20))


@FEW
@given(suites, runs(), numbers, st.sampled_from([4, 41]))
def test_each_engine_opens_what_the_other_seals(
    suite: Suite, packets: list[bytes], number: int, next_header: int
) -> None:
    keys, sequence = keys_for(suite), number_for(suite, number)
    sealer, opener = native(suite, keys)
    python_sealer = make_sealer(suite, keys, SPI, SeededEntropy(3))
    python_opener = make_opener(suite, keys)
    count, inner = len(packets), len(packets[0])
    length = python_sealer.sealed_length(inner)
    assert sealer.sealed_length(inner) == length
    assert opener.minimum == python_opener.minimum

    ours = sealer.seal(packets, sequence, next_header)
    theirs = b"".join(python_sealer.seal(packets, 0, sequence, next_header))
    assert len(ours) == len(theirs) == count * length
    if suite.integrity is None:
        assert ours == theirs
    alignment = max(ENCRYPTIONS[suite.encryption].block, 4)
    plaintexts = [packet + trailer(inner, alignment, next_header) for packet in packets]
    wanted = range(sequence, sequence + count)
    for sealed in (ours, theirs):
        assert python_opener.open(sealed, 0, length, count, wanted) == plaintexts
        pieces = [sealed[at : at + length] for at in range(0, len(sealed), length)]
        assert [opener.open(*both) for both in zip(pieces, wanted, strict=True)] == plaintexts
        assert [piece[:8] for piece in pieces] == [
            SPI.to_bytes(4) + (each & 0xFFFFFFFF).to_bytes(4) for each in wanted
        ]


@FEW
@given(suites, st.binary(min_size=1, max_size=200), numbers, st.data())
def test_damage_is_found_by_both(suite: Suite, packet: bytes, number: int, data: st.DataObject) -> None:
    keys, sequence = keys_for(suite), number_for(suite, number)
    sealer, opener = native(suite, keys)
    sealed = bytearray(sealer.seal([packet], sequence, 4))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= 1 << data.draw(st.integers(0, 7))
    # Who receives it takes the lower half of the number from the packet.
    sequence = sequence >> 32 << 32 | int.from_bytes(sealed[4:8])
    python_opener = make_opener(suite, keys)
    assert opener.open(bytes(sealed), sequence) is None
    assert python_opener.open(bytes(sealed), 0, len(sealed), 1, (sequence,)) == [None]


@FEW
@given(suites, st.binary(max_size=300))
def test_bytes_of_any_length_are_no_packet_for_both(suite: Suite, packet: bytes) -> None:
    keys = keys_for(suite)
    opened = make_opener(suite, keys).open(packet, 0, len(packet), 1, (1,))
    assert native(suite, keys)[1].open(packet, 1) == opened[0] is None


@pytest.mark.parametrize("suite", EVERY_CUT, ids=lambda s: f"{s}-{s.icv_length}-esn{s.esn:d}")
def test_every_truncation_is_refused(suite: Suite) -> None:
    sealer, opener = native(suite, keys_for(suite))
    sealed = sealer.seal([bytes(60)], 1, 4)
    assert opener.open(sealed, 1) is not None
    assert all(opener.open(sealed[:length], 1) is None for length in range(len(sealed)))


@pytest.mark.parametrize("suite", [s for s in EVERY_CUT if s.esn], ids=str)
def test_the_upper_half_of_the_number_is_authenticated(suite: Suite) -> None:
    sealer, opener = native(suite, keys_for(suite))
    sealed = sealer.seal([bytes(60)], (7 << 32) + 42, 4)
    assert opener.open(sealed, (7 << 32) + 42) is not None
    assert opener.open(sealed, (8 << 32) + 42) is None


@pytest.mark.parametrize("suite", [s for s in EVERY_CUT if not s.esn], ids=str)
def test_without_extended_numbers_the_upper_half_is_ignored(suite: Suite) -> None:
    sealer, opener = native(suite, keys_for(suite))
    assert opener.open(sealer.seal([bytes(60)], 42, 4), (8 << 32) + 42) is not None


@pytest.mark.parametrize("suite", [s for s in EVERY_CUT if s.integrity], ids=str)
def test_no_iv_comes_twice_and_none_is_like_the_seed_of_another(suite: Suite) -> None:
    block = ENCRYPTIONS[suite.encryption].block
    ivs = []
    for seed in (SEED, SEED[::-1]):
        sealer = vpnd_engine.Sealer(material(suite, keys_for(suite)), SPI, seed)
        length = sealer.sealed_length(40)
        for start in range(1, 200, 50):
            run = sealer.seal([bytes(40)] * 50, start, 4)
            ivs += [run[at + 8 : at + 8 + block] for at in range(0, len(run), length)]
    assert len(set(ivs)) == len(ivs) == 400


# --------------------------------------------------------------------------------- the trailer


@st.composite
def plaintexts(draw: st.DrawFn) -> bytes:
    """Plaintexts that are nearly right: their fields agree more often than not."""
    version = draw(st.sampled_from([4, 4, 6, 6, 0, 5]))
    size = draw(st.integers(0, 120))
    total = draw(st.sampled_from([size, size, size - 1, size + 1, 20, 40]) | st.integers(0, 65535)) & 0xFFFF
    packet = bytearray(draw(st.binary(min_size=size, max_size=size)))
    if size >= 6:
        packet[0] = version << 4 | 5
        packet[2:4] = total.to_bytes(2)
        packet[4:6] = (max(total - 40, 0)).to_bytes(2) if version == 6 else bytes(packet[4:6])
    padding = draw(st.integers(0, 255) | st.integers(0, 20))
    filler = bytearray(range(1, padding + 1))
    if filler and draw(st.integers(0, 4)) == 0:
        filler[draw(st.integers(0, padding - 1))] ^= draw(st.integers(1, 255))
    said = draw(st.sampled_from([padding, padding, padding, padding + 1, padding - 1]))
    next_header = draw(st.sampled_from([4, 4, 41, 41, 59, 0]))
    return bytes(packet + filler + bytes((said & 0xFF, next_header)))


@FEW
@given(plaintexts() | st.binary(max_size=100))
def test_the_packet_within_a_plaintext(plaintext: bytes) -> None:
    length = vpnd_engine.inner_length(plaintext)
    assert (None if length is None else plaintext[:length]) == strip_trailer(plaintext)


# ------------------------------------------------------------------------------------- refusals


@FEW
@given(suites, st.integers(0, 70), st.integers(0, 70), st.integers(0, 8))
def test_keys_of_a_wrong_length_are_refused_with_the_same_words(
    suite: Suite, key: int, integrity: int, salt: int
) -> None:
    keys = EspKeys(Secret(bytes(key)), Secret(bytes(integrity)), Secret(bytes(salt)))

    def refusal(make: Callable[[], object]) -> str | None:
        try:
            make()
        except ValueError as error:
            return str(error)
        return None

    # Where two are wrong, either may be the one that is named.
    cipher = ENCRYPTIONS[suite.encryption]
    wrong = [key != cipher.key_length]
    if suite.integrity:
        wrong.append(integrity != INTEGRITIES[suite.integrity].key_length)
    else:
        wrong.append(salt != cipher.salt_length)
    ours = refusal(lambda: native(suite, keys))
    theirs = refusal(lambda: make_opener(suite, keys))
    assert (ours is not None) is (theirs is not None) is any(wrong)
    if sum(wrong) == 1:
        assert ours == theirs


def test_a_word_that_the_table_lacks_is_a_key_error() -> None:
    for words in (("aes-512", "sha256"), ("aes-128", "crc32")):
        with pytest.raises(KeyError):
            vpnd_engine.Opener((*words, None, False, (bytes(16), bytes(32), b"")))


@pytest.mark.parametrize(
    ("encryption", "integrity", "icv"),
    [
        ("aes-128", None, None),
        ("aes-128-gcm", "sha256", None),
        ("aes-128-gcm", None, 8),
        ("aes-128", "sha256", 0),
        ("aes-128", "sha256", 33),
    ],
)
def test_what_does_not_go_together_is_refused(
    encryption: str, integrity: str | None, icv: int | None
) -> None:
    keys = (bytes(16), bytes(32), bytes(4) if integrity is None else b"")
    with pytest.raises(ValueError, match="do not go together"):
        vpnd_engine.Opener((encryption, integrity, icv, False, keys))


def test_the_table_of_sizes_is_vpnds() -> None:
    """One more byte or one less would be seen by no packet that both engines make."""
    for suite in EVERY_CUT:
        cipher = ENCRYPTIONS[suite.encryption]
        icv = integrity_of(suite).icv_length if suite.integrity else cipher.icv_length
        sealer, _ = native(suite, keys_for(suite))
        step = max(cipher.block, 4)
        assert sealer.sealed_length(step - 2) == 8 + cipher.iv_length + step + icv


# ------------------------------------------------------------------------------ published vectors


def as_packet(vector: vectors.Vector) -> tuple[bytes, bytes, int] | None:
    """An AEAD vector as an ESP packet, its salt and number; None if its associated data is not ESP's."""
    associated, nonce = vector.bytes_of("associated"), vector.bytes_of("nonce")
    if len(associated) not in (8, 12) or len(nonce) != 12:
        return None
    sequence = int.from_bytes(associated[4:])
    return associated[:4] + associated[-4:] + nonce[4:] + vector.bytes_of("ciphertext"), nonce[:4], sequence


AEAD_VECTORS = [vector for vector in vectors.read("aead.txt") if as_packet(vector)]


@pytest.mark.parametrize("vector", AEAD_VECTORS, ids=str)
def test_published_esp_packets_open(vector: vectors.Vector) -> None:
    packet, salt, sequence = as_packet(vector) or (b"", b"", 0)
    esn = len(vector.bytes_of("associated")) == 12
    keys = (vector.bytes_of("key"), b"", salt)
    opener = vpnd_engine.Opener((vector["word"], None, None, esn, keys))
    plaintext = vector.bytes_of("plaintext")
    wanted = plaintext if len(packet) >= opener.minimum and len(plaintext) % 4 == 0 else None
    assert opener.open(packet, sequence) == wanted


@pytest.mark.parametrize("vector", vectors.read("cbc.txt"), ids=str)
def test_published_cbc_blocks_decrypt(vector: vectors.Vector) -> None:
    """The ICV is worked out by Python's HMAC, so that the packet is one."""
    suite = Suite(vector["word"], None, "sha1", None)
    keys = EspKeys(Secret(vector.bytes_of("key")), keys_for(suite).integrity, Secret(b""))
    covered = SPI.to_bytes(4) + (1).to_bytes(4) + vector.bytes_of("iv") + vector.bytes_of("ciphertext")
    packet = covered + hmac_of(suite, keys, covered)
    assert native(suite, keys)[1].open(packet, 1) == vector.bytes_of("plaintext")


def hmac_of(suite: Suite, keys: EspKeys, covered: bytes) -> bytes:
    row = integrity_of(suite)
    return hmac_digest(keys.integrity.reveal(), covered, row.word)[: row.icv_length]


def test_vectors_are_there() -> None:
    assert len(AEAD_VECTORS) >= 1
    assert len(vectors.read("cbc.txt")) >= 10
