"""The pings that floods are measured by: each answer counts for the request that it answers."""

from __future__ import annotations

import pytest

from tests.lab.echo import ECHO_REPLY
from tests.lab.pings import IDENTIFIER, number_of, request

HEADER = bytes([0x45]) + bytes(19)


def answer(number: int) -> bytes:
    """What the other end sends back, in its packet."""
    return HEADER + bytes([ECHO_REPLY]) + request(number)[1:]


@pytest.mark.parametrize("number", [0, 1, 65535, 65536, 70_000])
def test_an_answer_is_told_by_its_number_also_beyond_16_bits(number: int) -> None:
    assert number_of(answer(number)) == number


@pytest.mark.parametrize(
    "packet",
    [
        HEADER + request(7),
        answer(7)[:-1],
        answer(7)[:20],
        answer(7).replace(IDENTIFIER.to_bytes(2, "big"), b"\1\1"),
    ],
)
def test_what_answers_none_of_ours_is_none(packet: bytes) -> None:
    assert number_of(packet) is None
