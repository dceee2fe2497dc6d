"""The first SA pair through a NAT that forgets its mappings at any moment of the exchanges."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import ADDRESS_A, ADDRESS_B
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, speaking
from tests.simulation.weather import Datagram, Nat
from vpnd.ike.natt import KEEPALIVE_INTERVAL
from vpnd.ike.outputs import Failed, Keepalive, PathMoved, PeerDead
from vpnd.model.identity import Identity

VERSIONS: list[dict[str, Any]] = [{}, speaking(MAIN), speaking(AGGRESSIVE)]
NAMES = ["ikev2", "main", "aggressive"]
BOX = ip_address("198.51.100.7")
MOMENT = 0.001
UP = 12.0
"""Seconds within which the tunnel carries, with a message or two repeated."""


def behind_nat(changes: dict[str, Any]) -> tuple[Pair, Nat]:
    """`a` is behind a NAT; `b` knows it by its address outside."""
    theirs = changes | {"remote_address": BOX, "remote_id": Identity.of_address(ADDRESS_A)}
    pair = Pair(changes_a=changes, changes_b=theirs)
    nat = Nat([ADDRESS_A], BOX)
    pair.world.nats.append(nat)
    return pair, nat


def forgets(pair: Pair, nat: Nat, number: int, when: str) -> None:
    """The NAT forgets all before message `number` of `a`, or before the answer to it comes."""
    sent = 0

    def fate(datagram: Datagram) -> list[tuple[float, bytes]] | None:
        nonlocal sent
        if datagram.sender == "a":
            sent += 1
            if sent == number and when == "before":
                nat.rebind()
            elif sent == number:
                pair.world.after(MOMENT, nat.rebind)
        return None

    pair.world.interceptors.append(fate)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("changes", VERSIONS, ids=NAMES)
def test_a_nat_that_forgets_at_any_message(changes: dict[str, Any], number: int, when: str) -> None:
    """Whatever the peer repeats is answered back along the way that it came, and the first attempt is up."""
    pair, nat = behind_nat(changes)
    forgets(pair, nat, number, when)
    pair.a.initiate()
    pair.world.run_for(UP)
    assert pair.a.child().udp
    assert pair.b.child().udp
    assert not pair.a.of(Failed) + pair.a.of(PeerDead) + pair.b.of(PeerDead)
    for _ in range(6):
        # An answer may be lost, and a repeat moves nobody: the last one is new.
        pair.world.run_for(KEEPALIVE_INTERVAL / 6)
        pair.a.probe()
    pair.world.run_for(1)
    pair.assert_one_tunnel()
    assert pair.a.of(Keepalive)
    assert not pair.b.of(Keepalive)
    here = nat.outbound(Datagram("a", 0, ADDRESS_A, 4500, ADDRESS_B, 4500, b"", 0))
    there = pair.b.ike_sas()[0].path
    assert (there.remote, there.remote_port) == (here.source, here.source_port)
    carries = [event.path for event in pair.b.of(PathMoved)] or [pair.b.child().path]
    assert carries[-1] == there, "ESP goes where IKE goes"
