"""SPIs that a gateway gives out, and rungs of its ladder."""

from __future__ import annotations

import pytest

from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import LadderLine
from vpnd.ike.registry import Registry


class Scripted:
    """An entropy that says these bytes, one piece after the other."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def bytes(self, length: int) -> bytes:
        piece = self._pieces.pop(0)
        assert len(piece) == length
        return piece

    def below(self, bound: int) -> int:
        raise AssertionError(bound)


def test_an_esp_spi_is_none_that_is_reserved_and_none_that_is_in_use() -> None:
    """RFC 4303 section 2.1: 0 is for local use, and IANA keeps 1 to 255."""
    drawn = [0, 1, 255, 256, 256, 257, 256]
    registry = Registry(Scripted(*(spi.to_bytes(4, "big") for spi in drawn)), Limits())
    assert [registry.new_esp_spi(), registry.new_esp_spi()] == [256, 257]
    registry.release_esp_spi(256)
    assert registry.new_esp_spi() == 256


def test_an_ike_spi_is_not_zero() -> None:
    """RFC 7296 section 3.1: only the responder's SPI is zero, in the first message."""
    registry = Registry(Scripted(bytes(8), b"\0" * 7 + b"\1"), Limits())
    assert registry.new_ike_spi() == b"\0" * 7 + b"\1"


@pytest.mark.parametrize(
    ("most", "stranger", "kept"),
    [(1, True, ("SA",)), (0, True, ()), (0, False, ("SA",))],
    ids=["few", "many", "many, and this is the peer"],
)
def test_of_many_strangers_no_details_are_kept(most: int, stranger: bool, kept: tuple[str, ...]) -> None:
    registry = Registry(SeededEntropy(1), Limits(half_open_before_cookies=most))
    registry.draw("t", False, "IKE_SA_INIT", 100, ("SA",), stranger)
    (line,) = registry.outputs
    assert isinstance(line, LadderLine)
    assert line.detail == kept
