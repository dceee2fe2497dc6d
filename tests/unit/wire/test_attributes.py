"""Attributes: TV and TLV."""

import pytest

from vpnd.wire.attributes import MAX_ATTRIBUTES, Attribute, decode_attributes, encode_attributes
from vpnd.wire.errors import DecodeError


def test_both_forms_are_read_for_any_type() -> None:
    # Life duration, 86400 s, as TLV; life type as TV; the same life type as TLV.
    data = bytes.fromhex("000c 0004 00015180  800b 0001  000b 0002 0001")
    attributes = decode_attributes(data)
    assert attributes == (
        Attribute(12, bytes.fromhex("00015180")),
        Attribute(11, 1),
        Attribute(11, b"\x00\x01"),
    )
    assert [attribute.number for attribute in attributes] == [86400, 1, 1]
    assert encode_attributes(attributes) == data


def test_a_number_beyond_16_bits_travels_as_tlv() -> None:
    assert encode_attributes([Attribute(12, 65535)]) == bytes.fromhex("800c ffff")
    assert encode_attributes([Attribute(12, 65536)]) == bytes.fromhex("000c 0004 00010000")


def test_an_empty_value_is_the_number_zero() -> None:
    assert decode_attributes(bytes.fromhex("0001 0000"))[0].number == 0


def test_a_number_beyond_64_bits_is_the_largest() -> None:
    assert Attribute(12, b"\x00" * 9 + b"\x07").number == 7
    assert Attribute(12, b"\xff" * 8).number == 2**64 - 1
    assert len(str(Attribute(12, b"\xff" * 65535).number)) == 20


@pytest.mark.parametrize(
    "data", ["80", "8001", "800100", "0001", "0001 00", "0001 0001", "0001 0005 00010203", "0001 ffff 00"]
)
def test_a_cut_attribute_is_refused(data: str) -> None:
    with pytest.raises(DecodeError):
        decode_attributes(bytes.fromhex(data))


def test_the_number_of_attributes_is_bounded() -> None:
    one = bytes.fromhex("8001 0001")
    assert len(decode_attributes(one * MAX_ATTRIBUTES)) == MAX_ATTRIBUTES
    with pytest.raises(DecodeError, match="attribute count"):
        decode_attributes(one * (MAX_ATTRIBUTES + 1))
