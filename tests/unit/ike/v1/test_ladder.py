"""What is told of a message stays short, whatever it holds."""

from __future__ import annotations

from vpnd.ike.v1 import ladder
from vpnd.model.numbers import DEFAULT_NUMBERS
from vpnd.wire.iana import Exchange1, Protocol
from vpnd.wire.ikev1 import Delete


def test_of_many_spis_of_a_delete_the_first_are_drawn_and_the_rest_counted() -> None:
    names = tuple(n.to_bytes(4, "big") for n in range(256, 16_256))
    few, many = Delete(Protocol.ESP, names[:2]), Delete(Protocol.ESP, names)
    assert tuple(ladder.detail_of(Exchange1.INFORMATIONAL, (few, many), DEFAULT_NUMBERS)) == (
        "D: ESP 00000100, 00000101",
        f"D: ESP {', '.join(name.hex() for name in names[:8])} and 15992 more",
    )
