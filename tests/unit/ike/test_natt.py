"""What NAT detection says of whose side a NAT is on."""

from __future__ import annotations

import pytest

from vpnd.ike.natt import Nat


@pytest.mark.parametrize(
    ("nat", "at"),
    [
        (Nat(), None),
        (Nat(ours=True), "here"),
        (Nat(theirs=True), "there"),
        (Nat(ours=True, theirs=True), "both"),
    ],
)
def test_whose_side_it_is_on(nat: Nat, at: str | None) -> None:
    assert nat.at == at
    assert nat.found == (at is not None)
