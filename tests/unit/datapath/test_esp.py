"""ESP packets, with scapy as the second opinion."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw

from tests.unit.datapath.parts import (
    AEAD_WORDS,
    CBC,
    CBC_WORDS,
    GCM,
    SUITES,
    decapsulate,
    encapsulate,
    keys_for,
    udp_packet,
)
from vpnd.crypto.entropy import SeededEntropy
from vpnd.datapath.esp import (
    _CUTS,
    MAXIMUM_CUTS,
    TRAILERS,
    Opener,
    make_opener,
    make_sealer,
    strip_trailer,
    trailer,
)
from vpnd.model.child import EspKeys
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret
from vpnd.wire.esp import add_trailer

SPI = 0xDEADBEEF

SCAPY_CIPHERS = {
    "aes-128": "AES-CBC",
    "aes-192": "AES-CBC",
    "aes-256": "AES-CBC",
    "aes-128-gcm": "AES-GCM",
    "aes-256-gcm": "AES-GCM",
    "chacha20-poly1305": "CHACHA20-POLY1305",
    "3des": "3DES",
}
SCAPY_MACS = {
    "md5": "HMAC-MD5-96",
    "sha1": "HMAC-SHA1-96",
    "sha256": "SHA2-256-128",
    "sha384": "SHA2-384-192",
    "sha512": "SHA2-512-256",
    None: "NULL",
}
SCAPY_SUITES = [
    suite
    for suite in SUITES
    if suite.encryption in SCAPY_CIPHERS and suite.integrity in SCAPY_MACS and not suite.esn
]


def scapy_sa(suite: Suite, keys: EspKeys, version: int, udp: bool) -> SecurityAssociation:
    outer = (
        IP(src="192.0.2.1", dst="192.0.2.2") if version == 4 else IPv6(src="2001:db8::1", dst="2001:db8::2")
    )
    more: dict[str, Any] = {"nat_t_header": UDP(sport=4500, dport=4500)} if udp else {}
    return SecurityAssociation(
        ESP,
        spi=SPI,
        crypt_algo=SCAPY_CIPHERS[suite.encryption],
        crypt_key=keys.encryption.reveal() + keys.salt.reveal(),
        auth_algo=SCAPY_MACS[suite.integrity],
        auth_key=keys.integrity.reveal() or None,
        tunnel_header=outer,
        **more,
    )


INNER = {
    4: IP(src="10.1.0.1", dst="10.2.0.1", id=5) / TCP(sport=1, dport=2) / Raw(b"to be or not to be"),
    6: IPv6(src="fd00::1", dst="fd01::1") / UDP(sport=1, dport=2) / Raw(b"that is the question"),
}


@pytest.mark.parametrize("suite", SCAPY_SUITES, ids=str)
@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize(("outer", "udp"), [(4, False), (4, True), (6, False)])
def test_scapy_opens_what_we_seal_and_we_open_what_scapy_seals(
    suite: Suite, inner: int, outer: int, udp: bool
) -> None:
    keys = keys_for(suite)
    sa = scapy_sa(suite, keys, outer, udp)
    packet = bytes(INNER[inner])
    esp = encapsulate(make_sealer(suite, keys, SPI, SeededEntropy(3)), packet, 42)
    carrier = (
        IP(src="192.0.2.1", dst="192.0.2.2") if outer == 4 else IPv6(src="2001:db8::1", dst="2001:db8::2")
    )
    datagram = carrier / (UDP(sport=4500, dport=4500) / Raw(esp) if udp else ESP(esp))
    if outer == 4 and not udp:
        datagram.proto = 50
    read = type(carrier)(bytes(datagram))
    assert read[ESP].seq == 42
    assert bytes(sa.decrypt(read)) == packet

    theirs = sa.encrypt(INNER[inner], seq_num=77)
    plaintext = decapsulate(make_opener(suite, keys), bytes(theirs[ESP]), 77)
    assert plaintext is not None
    assert strip_trailer(plaintext) == packet


@pytest.mark.parametrize("suite", [s for s in SCAPY_SUITES if s.encryption.startswith("aes")], ids=str)
def test_extended_sequence_numbers_as_scapy_has_them(suite: Suite) -> None:
    extended = Suite(suite.encryption, None, suite.integrity, None, esn=True)
    keys = keys_for(extended)
    sa = scapy_sa(extended, keys, 4, False)
    sa.esn_en, sa.esn = True, 7
    packet = bytes(INNER[4])
    esp = encapsulate(make_sealer(extended, keys, SPI, SeededEntropy(3)), packet, (7 << 32) + 42)
    assert bytes(sa.decrypt(IP(src="192.0.2.1", dst="192.0.2.2", proto=50) / ESP(esp))) == packet
    assert decapsulate(make_opener(extended, keys), esp, (7 << 32) + 42) is not None
    assert decapsulate(make_opener(extended, keys), esp, (8 << 32) + 42) is None


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: f"{s}-esn{s.esn:d}")
@pytest.mark.parametrize("headroom", [0, 10])
def test_runs_of_every_length_come_back(suite: Suite, headroom: int) -> None:
    keys = keys_for(suite)
    sealer, opener = make_sealer(suite, keys, SPI, SeededEntropy(4)), make_opener(suite, keys)
    rng = random.Random(5)
    sequence = 1 if not suite.esn else (1 << 32) - 2
    for size in (28, 61, 62, 63, 64, 1400):
        packets = [udp_packet("10.0.0.1", "10.0.0.2", size)[:-4] + rng.randbytes(4) for _ in range(5)]
        buffers = sealer.seal([bytes(headroom) + packet for packet in packets], headroom, sequence, 4)
        data = b"".join(buffers)
        length = sealer.sealed_length(size)
        assert len(data) == 5 * length
        assert len(buffers) == 10
        numbers = range(sequence, sequence + 5)
        opened = opener.open(data, 0, length, 5, numbers)
        assert [strip_trailer(plaintext or b"") for plaintext in opened] == packets
        # The same packets again, one by one and in another order: openers keep no state.
        for index in (3, 0, 4):
            assert opener.open(data, index * length, length, 1, (numbers[index],)) == [opened[index]]
        sequence += 5


@pytest.mark.parametrize(
    "suite",
    [CBC, GCM, Suite("3des", None, "sha1", None), Suite("aes-256", None, "sha512", None)],
    ids=str,
)
def test_damage_anywhere_is_found_and_the_rest_of_the_run_is_good(suite: Suite) -> None:
    keys = keys_for(suite)
    sealer = make_sealer(suite, keys, SPI, SeededEntropy(4))
    packets = [udp_packet("10.0.0.1", "10.0.0.2", 100)] * 3
    data = b"".join(sealer.seal(packets, 0, 1, 4))
    length = len(data) // 3
    for at in range(length):
        damaged = bytearray(data)
        damaged[length + at] ^= 0x10
        opened = make_opener(suite, keys).open(bytes(damaged), 0, length, 3, (1, 2, 3))
        # The sequence number is authenticated, the SPI by having found this SA; both are in the ICV.
        assert [plaintext is not None for plaintext in opened] == [True, False, True], at


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: f"{s}-esn{s.esn:d}")
def test_every_truncation_is_refused(suite: Suite) -> None:
    keys = keys_for(suite)
    esp = encapsulate(
        make_sealer(suite, keys, SPI, SeededEntropy(4)), udp_packet("10.0.0.1", "10.0.0.2", 60), 1
    )
    opener = make_opener(suite, keys)
    for length in range(8, len(esp)):
        assert decapsulate(opener, esp[:length], 1) is None


def test_the_memory_of_layouts_is_bounded() -> None:
    opener = make_opener(GCM, keys_for(GCM))
    for length in range(opener.minimum, opener.minimum + 4 * MAXIMUM_CUTS + 40, 4):
        assert opener.open(bytes(length), 0, length, 1, (1,)) == [None]
    assert 0 < len(_CUTS) <= MAXIMUM_CUTS


@pytest.mark.parametrize("suite", [CBC, GCM, Suite("sm4", None, "sm3", None)], ids=str)
def test_no_iv_comes_twice(suite: Suite) -> None:
    sealer = make_sealer(suite, keys_for(suite), SPI, SeededEntropy(4))
    packets = [bytes(10) + udp_packet("10.0.0.1", "10.0.0.2", 80)] * 16
    ivs = set()
    for start in range(1, 1600, 16):
        buffers = sealer.seal(packets, 10, start, 4)
        ivs |= {buffers[at][8:16] for at in range(0, 32, 2)}
    assert len(ivs) == 1600


@pytest.mark.parametrize("word", CBC_WORDS)
def test_an_iv_is_not_known_from_the_packet_before(word: str) -> None:
    """The chain's next IV depends on fresh random bytes: two SAs in one state send different ones."""
    suite = Suite(word, None, "sha1", None)
    packet = [udp_packet("10.0.0.1", "10.0.0.2", 80)]

    class Fixed(SeededEntropy):
        def bytes(self, length: int) -> bytes:
            self.calls = getattr(self, "calls", 0) + 1
            return bytes(length) if self.calls <= 2 else super().bytes(length)

    first, second = (make_sealer(suite, keys_for(suite), SPI, Fixed(seed)) for seed in (1, 2))
    assert first.seal(packet, 0, 1, 4) == second.seal(packet, 0, 1, 4)
    assert first.seal(packet, 0, 2, 4) != second.seal(packet, 0, 2, 4)


@pytest.mark.parametrize("suite", [CBC, GCM, Suite("chacha20-poly1305", None, None, None)], ids=str)
@pytest.mark.parametrize("part", ["encryption", "integrity", "salt"])
def test_keys_of_a_wrong_length_are_refused(suite: Suite, part: str) -> None:
    keys = keys_for(suite)
    parts = {name: getattr(keys, name) for name in ("encryption", "integrity", "salt")}
    parts[part] = Secret(parts[part].reveal() + b"x")
    wrong = EspKeys(**parts)
    if len(parts[part]) == 1:
        return  # This suite has no such key, and ignores it.
    with pytest.raises(ValueError, match="takes a"):
        make_opener(suite, wrong)
    with pytest.raises(ValueError, match="takes a"):
        make_sealer(suite, wrong, SPI, SeededEntropy(1))


def test_the_words_of_the_table_are_all_here() -> None:
    assert set(CBC_WORDS) | set(AEAD_WORDS) == {suite.encryption for suite in SUITES}


# ------------------------------------------------------------------------------------ trailers


@pytest.mark.parametrize("alignment", [4, 8, 16])
@pytest.mark.parametrize("next_header", [4, 41])
def test_trailers_are_those_of_the_wire_layer(alignment: int, next_header: int) -> None:
    for inner in range(64):
        payload = bytes(inner)
        assert payload + trailer(inner, alignment, next_header) == add_trailer(
            payload, next_header, alignment
        )


@pytest.mark.parametrize("padding", [0, 1, 7, 254, 255])
@pytest.mark.parametrize(
    "packet", [udp_packet("10.0.0.1", "10.0.0.2", 60), udp_packet("fd00::1", "fd00::2", 60)]
)
def test_any_amount_of_right_padding_is_accepted(packet: bytes, padding: int) -> None:
    next_header = 4 if packet[0] >> 4 == 4 else 41
    tail = bytes(range(1, padding + 1)) + bytes((padding, next_header))
    assert strip_trailer(packet + tail) == packet
    assert TRAILERS[tail[-2:]] == tail
    # Bytes between the packet and the padding conceal its length (RFC 4303 section 2.7).
    assert strip_trailer(packet + b"concealing" + tail) == packet


IPV4 = udp_packet("10.0.0.1", "10.0.0.2", 60)
IPV6 = udp_packet("fd00::1", "fd00::2", 60)


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\x04",
        b"\x00\x04",
        IPV4 + b"\x01\x02\x03\x03\x05",
        IPV4 + b"\x01\x02\x04\x03\x04",
        IPV4 + b"\x00\x00\x00\x03\x04",
        IPV4 + b"\xff\x04",
        IPV4 + b"\x00\x29",
        IPV6 + b"\x00\x04",
        IPV4 + b"\x00\x3b",
        IPV4[:-1] + b"\x00\x04",
        IPV4[:19] + b"\x00\x04",
        IPV6[:-1] + b"\x00\x29",
        IPV6[:39] + b"\x00\x29",
    ],
)
def test_a_plaintext_that_breaks_the_rules_holds_no_packet(plaintext: bytes) -> None:
    assert strip_trailer(plaintext) is None


def test_openers_have_a_minimum_that_a_packet_can_have() -> None:
    for suite in SUITES:
        opener: Opener = make_opener(suite, keys_for(suite))
        shortest = make_sealer(suite, keys_for(suite), SPI, SeededEntropy(1)).sealed_length(1)
        assert opener.minimum <= shortest
