"""Where the successor of an ISAKMP SA begins."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from vpnd.ike.natt import Nat
from vpnd.ike.v1.succession import path_of_successor
from vpnd.model.child import Path

OURS, THEIRS, MOVED = (ip_address(f"192.0.2.{octet}") for octet in (1, 2, 3))
FLOATED = Path(OURS, 4500, THEIRS, 61234)
"""The peer is behind a NAT, which has a port of its own for it."""


@pytest.mark.parametrize(
    ("nat", "remote", "path"),
    [
        (Nat(theirs=True), THEIRS, FLOATED),
        (Nat(ours=True), THEIRS, FLOATED),
        (Nat(), THEIRS, Path(OURS, 500, THEIRS, 500)),
        (Nat(theirs=True), MOVED, Path(OURS, 500, MOVED, 500)),
        (Nat(), None, Path(OURS, 500, THEIRS, 500)),
    ],
)
def test_a_successor_goes_through_the_nat_unless_the_name_of_the_peer_has_moved(
    nat: Nat, remote: Any, path: Path
) -> None:
    session: Any = SimpleNamespace(
        policy=SimpleNamespace(local_address=OURS, remote_address=remote),
        configured_remote=THEIRS,
        nat=nat,
        path=FLOATED,
    )
    assert path_of_successor(session) == path
