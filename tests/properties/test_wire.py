"""What holds for every byte string and every value of the wire."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.strategies import (
    BY_KIND_1,
    BY_KIND_2,
    SEALED_2,
    address_pairs,
    attributes,
    chains1,
    chains2,
    few,
    headers,
    u8,
    u16,
)
from vpnd.model.selectors import Address
from vpnd.wire import ikev1, ikev2
from vpnd.wire.attributes import Attribute, decode_attributes, encode_attributes
from vpnd.wire.chain import RawPayload, decode_chain
from vpnd.wire.errors import DecodeError
from vpnd.wire.esp import EspHeader, add_trailer, strip_trailer
from vpnd.wire.header import HEADER_LENGTH, Header
from vpnd.wire.icmp import Echo, too_big
from vpnd.wire.ip import (
    adjust_checksum,
    checksum,
    decode_packet,
    encode_packet,
    ones_complement_sum,
    set_traffic_class,
)
from vpnd.wire.udpencap import Kind, classify

T = TypeVar("T")
D = TypeVar("D", bytes, RawPayload)
Pair = tuple[Address, Address]

MAX_LENGTH = 2048
"""Every length up to here is tried; what is longer than a datagram on the internet behaves the same."""


def decode_message(data: bytes) -> object:
    """A whole IKE message as an endpoint reads it before any key: header, then its version's payloads."""
    header = Header.decode(data)
    body = data[HEADER_LENGTH:]
    if header.major == 1:
        return header, ikev1.decode_payloads(header.next_payload, body, padded=True)
    return header, ikev2.decode_payloads(header.next_payload, body)


def payload1(number: int, data: bytes) -> ikev1.Payload:
    """One payload of IKEv1, given its number."""
    return ikev1.decode_payload(RawPayload(number, data))


def payload2(number: int, data: bytes) -> ikev2.Payload:
    """One payload of IKEv2, given its number."""
    return ikev2.decode_payload(RawPayload(number, data))


DECODERS: dict[str, Callable[[bytes], object]] = {
    "message": decode_message,
    "attributes": decode_attributes,
    "ESP header": EspHeader.decode,
    "ESP trailer": strip_trailer,
    "UDP encapsulation": classify,
    "IP": decode_packet,
    "echo": Echo.decode,
    "too big": lambda data: too_big(data, 1400),
    **{f"IKEv1 payload {n}": partial(payload1, n) for n in (*ikev1.PAYLOADS, 20, 21)},
    **{f"IKEv2 payload {n}": partial(payload2, n) for n in (*ikev2.PAYLOADS, 46, 53)},
    **{f"IKEv1 chain of {n}": partial(ikev1.decode_payloads, n) for n in (1, 8, 132)},
    **{f"IKEv2 chain of {n}": partial(ikev2.decode_payloads, n) for n in (33, 41, 46, 53)},
}


def value_or_decode_error(decode: Callable[[D], T], data: D) -> T | None:
    """Whatever `decode` gives, or None for a DecodeError; any other exception fails the test."""
    try:
        return decode(data)
    except DecodeError:
        return None


# ---------------------------------------------------------------- decode(encode(value)) == value


@pytest.mark.parametrize("kind", BY_KIND_2 | SEALED_2, ids=lambda kind: kind.__name__)
def test_each_ikev2_payload_survives_a_round_trip(kind: type[ikev2.Payload]) -> None:
    strategy = (BY_KIND_2 | SEALED_2)[kind]

    @settings(max_examples=40)
    @given(strategy)
    def survives(value: ikev2.Payload) -> None:
        assert type(value) is kind
        assert ikev2.decode_payload(ikev2.raw_payload(value)) == value

    survives()


@pytest.mark.parametrize("kind", BY_KIND_1, ids=lambda kind: kind.__name__)
def test_each_ikev1_payload_survives_a_round_trip(kind: type[ikev1.Payload]) -> None:
    @settings(max_examples=40)
    @given(BY_KIND_1[kind])
    def survives(value: ikev1.Payload) -> None:
        assert type(value) is kind
        assert ikev1.decode_payload(ikev1.raw_payload(value)) == value

    survives()


@settings(max_examples=60)
@given(chains2)
def test_ikev2_chains_survive_a_round_trip(payloads: tuple[ikev2.Payload, ...]) -> None:
    first, data = ikev2.encode_payloads(payloads)
    assert ikev2.decode_payloads(first, data) == payloads


@settings(max_examples=60)
@given(chains1, st.binary(max_size=16))
def test_ikev1_chains_survive_a_round_trip_and_padding(
    payloads: tuple[ikev1.Payload, ...], padding: bytes
) -> None:
    first, data = ikev1.encode_payloads(payloads)
    assert ikev1.decode_payloads(first, data) == payloads
    assert ikev1.decode_payloads(first, data + padding, padded=True) == payloads


@given(headers)
def test_headers_survive_a_round_trip(header: Header) -> None:
    assert Header.decode(header.encode()) == header


@given(few(attributes, 12))
def test_attributes_survive_a_round_trip(values: tuple[Attribute, ...]) -> None:
    assert decode_attributes(encode_attributes(values)) == values


@given(st.binary(max_size=300), u8, st.sampled_from([4, 8, 16]))
def test_esp_trailers_survive_a_round_trip(content: bytes, next_header: int, alignment: int) -> None:
    assert strip_trailer(add_trailer(content, next_header, alignment)) == (content, next_header)


@given(address_pairs, st.booleans(), u16, u16, st.binary(max_size=100))
def test_echoes_survive_a_round_trip(
    pair: Pair, reply: bool, identifier: int, sequence: int, data: bytes
) -> None:
    echo = Echo(pair[0], pair[1], reply, identifier, sequence, data)
    assert Echo.decode(echo.encode()) == echo


# -------------------------------------------------------------- what was read can be written again


def again1(number: int, data: bytes) -> tuple[object, object]:
    """A payload, and what is read of it once it is written."""
    value = payload1(number, data)
    return value, ikev1.decode_payload(ikev1.raw_payload(value))


def again2(number: int, data: bytes) -> tuple[object, object]:
    value = payload2(number, data)
    return value, ikev2.decode_payload(ikev2.raw_payload(value))


@pytest.mark.parametrize("again", [again1, again2], ids=["IKEv1", "IKEv2"])
def test_what_any_bytes_decode_to_survives_too(again: Callable[[int, bytes], tuple[object, object]]) -> None:
    """Encoding drops reserved bits and nothing else, so a second reading finds the same value."""

    @settings(max_examples=300)
    @given(u8.filter(bool), st.binary(max_size=120))
    def survives(number: int, body: bytes) -> None:
        values = value_or_decode_error(partial(again, number), body)
        if values is not None:
            assert values[1] == values[0]

    survives()


# -------------------------------------------------------- any bytes: a value or a DecodeError


@pytest.mark.parametrize("decoder", DECODERS)
def test_any_bytes_give_a_value_or_a_decode_error(decoder: str) -> None:
    @settings(max_examples=40)
    @given(st.binary(max_size=200))
    def safe(data: bytes) -> None:
        value_or_decode_error(DECODERS[decoder], data)

    safe()


@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x01", b"\x45", b"\x60", b"\x04"], ids=bytes.hex)
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_length_gives_a_value_or_a_decode_error(decoder: str, fill: bytes) -> None:
    for length in range(0, MAX_LENGTH + 1, 1 if decoder == "message" else 37):
        value_or_decode_error(DECODERS[decoder], fill * length)


MESSAGES = {
    "IKEv2": (0x20, ikev2.encode_payloads([
        ikev2.Sa((ikev2.ProposalPart(1, 1, b"", (ikev2.Transform(1, 12, 128), ikev2.Transform(4, 14))),)),
        ikev2.KeyExchange(14, bytes(256)),
        ikev2.Nonce(bytes(32)),
        ikev2.Notify(16388, bytes(20)),
        ikev2.TsI((ikev2.TrafficSelector(7, 0, 0, 65535, bytes(4), b"\xff" * 4),)),
        ikev2.Delete(3, (bytes(4), bytes(4))),
        ikev2.EncryptedFragment(35, 1, 2, bytes(60)),
    ])),
    "IKEv1": (0x10, ikev1.encode_payloads([
        ikev1.Sa(1, 1, (ikev1.ProposalPart(1, 1, b"", (ikev1.TransformPart(1, 1),)),)),
        ikev1.KeyExchange(bytes(128)),
        ikev1.Nonce(bytes(16)),
        ikev1.Id(1, bytes(4)),
        ikev1.Notify(36136, bytes(4), 1, bytes(16)),
        ikev1.Delete(3, (bytes(4),)),
        ikev1.NatD(bytes(20)),
    ])),
}  # fmt: skip


def message(version: str, length_error: int = 0, tail: bytes = b"") -> bytes:
    """A valid message, its header's length wrong by `length_error`, with `tail` behind it."""
    number, (first, chain) = MESSAGES[version]
    length = HEADER_LENGTH + len(chain) + length_error
    return Header(bytes(8), bytes(8), first, number, 34, 8, 0, length).encode() + chain + tail


@pytest.mark.parametrize("version", MESSAGES)
def test_a_message_cut_anywhere_is_refused(version: str) -> None:
    """All lengths below its own, whether the header tells the truth about them or not."""
    whole = message(version)
    decode_message(whole)
    for length in range(len(whole)):
        with pytest.raises(DecodeError):
            decode_message(whole[:length])
        truthful = whole[:24] + length.to_bytes(4, "big") + whole[28:length]
        with pytest.raises(DecodeError):
            decode_message(truthful[:length])


@pytest.mark.parametrize("version", MESSAGES)
@pytest.mark.parametrize(
    ("length_error", "tail"), [(-1, 0), (1, 0), (0, 1), (0, 2048), (1, 2), (-28, 0), (2**31, 0)]
)
def test_a_wrong_length_in_the_header_is_refused(version: str, length_error: int, tail: int) -> None:
    with pytest.raises(DecodeError, match="header length"):
        decode_message(message(version, length_error, bytes(tail)))


@pytest.mark.parametrize("version", MESSAGES)
def test_random_payloads_of_every_length_give_a_value_or_a_decode_error(version: str) -> None:
    seed = 7296
    dice = random.Random(seed)
    number, (first, _) = MESSAGES[version]
    for length in range(HEADER_LENGTH, MAX_LENGTH + 1):
        header = Header(bytes(8), bytes(8), first, number, 34, 8, 0, length)
        body = dice.randbytes(length - HEADER_LENGTH)
        value_or_decode_error(decode_message, header.encode() + body)


@pytest.mark.parametrize("version", MESSAGES)
def test_a_payload_length_off_by_one_never_reads_past_the_message(version: str) -> None:
    number, (first, chain) = MESSAGES[version]
    offset = 0
    for raw in decode_chain(first, chain, ikev2.SEALED):
        length = len(raw.body) + 4
        for wrong in (0, 1, 3, length - 1, length + 1, 0xFFFF):
            broken = chain[: offset + 2] + wrong.to_bytes(2, "big") + chain[offset + 4 :]
            header = Header(bytes(8), bytes(8), first, number, 34, 8, 0, HEADER_LENGTH + len(chain))
            value_or_decode_error(decode_message, header.encode() + broken)
            if wrong < 4 or offset + wrong > len(chain):
                with pytest.raises(DecodeError):
                    decode_message(header.encode() + broken)
        offset += length


@pytest.mark.parametrize("version", MESSAGES)
def test_mutated_messages_give_a_value_or_a_decode_error(version: str) -> None:
    whole = message(version)

    @settings(max_examples=300)
    @given(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), u8), min_size=1, max_size=6),
        st.integers(0, len(whole)),
        st.binary(max_size=8),
    )
    def safe(changes: list[tuple[int, int]], place: int, inserted: bytes) -> None:
        changed = bytearray(whole)
        for at, byte in changes:
            changed[at] = byte
        changed[place:place] = inserted
        changed[24:28] = len(changed).to_bytes(4, "big")
        value_or_decode_error(decode_message, bytes(changed))

    safe()


@pytest.mark.parametrize("version", MESSAGES)
def test_payloads_withheld_repeated_and_renumbered_give_a_value_or_a_decode_error(version: str) -> None:
    seed = 20_261_122
    dice = random.Random(seed)
    number, (first, chain) = MESSAGES[version]
    raws = decode_chain(first, chain, ikev2.SEALED)
    decode: Callable[[RawPayload], ikev1.Payload | ikev2.Payload] = (
        ikev1.decode_payload if number == 0x10 else ikev2.decode_payload
    )
    for _ in range(400):
        picked = [dice.choice(raws) for _ in range(dice.randrange(8))]
        shuffled = [RawPayload(dice.choice((raw.type, dice.randrange(1, 256))), raw.body) for raw in picked]
        for raw in shuffled:
            value = value_or_decode_error(decode, raw)
            if value is not None:
                assert value.payload_type in (raw.type, {130: 20, 131: 21}.get(raw.type)), f"seed {seed}"


# -------------------------------------------------------------------------------- IP and UDP


@given(address_pairs, u8, st.binary(max_size=200))
def test_ip_packets_are_read_as_they_are_built(pair: Pair, traffic_class: int, content: bytes) -> None:
    packet = bytearray(encode_packet(pair[0], pair[1], 253, content))
    set_traffic_class(packet, traffic_class)
    ip = decode_packet(bytes(packet))
    assert (ip.source, ip.destination) == pair
    assert (ip.protocol, ip.traffic_class, ip.total_length) == (253, traffic_class, len(packet))
    assert bytes(packet[ip.header_length :]) == content
    if ip.version == 4:
        assert ones_complement_sum(bytes(packet[:20])) == 0xFFFF


@given(st.binary(max_size=64).map(lambda data: data + bytes(len(data) % 2)))
def test_the_checksum_is_the_loop_of_rfc_1071(data: bytes) -> None:
    total = 0
    for index in range(0, len(data), 2):
        total += int.from_bytes(data[index : index + 2], "big")
        total = (total & 0xFFFF) + (total >> 16)
    assert ones_complement_sum(data) == total
    assert checksum(data) == total ^ 0xFFFF


@given(st.binary(min_size=4, max_size=40).filter(lambda data: len(data) % 2 == 0), u16)
def test_an_adjusted_checksum_is_the_computed_one(data: bytes, word: int) -> None:
    """Except that 0 and 65535 are one number in this arithmetic; the adjustment may write either."""
    before = int.from_bytes(data[:2], "big")
    changed = word.to_bytes(2, "big") + data[2:]
    adjusted = adjust_checksum(checksum(data), before, word)
    assert adjusted % 0xFFFF == checksum(changed) % 0xFFFF


@given(st.binary(min_size=8, max_size=64))
def test_every_datagram_with_room_for_a_header_is_ike_or_esp(data: bytes) -> None:
    assert classify(data) is (Kind.IKE if data[:4] == bytes(4) else Kind.ESP)
