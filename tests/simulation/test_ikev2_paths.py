"""IKEv2 where the path matters: NAT, forced UDP encapsulation, and messages that need fragments."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import permutations

import pytest

from vpnd.ike.outputs import Established, PathMoved
from vpnd.model.identity import Identity
from vpnd.model.policy import Encapsulation

from .pair import Pair
from .policies import ADDRESS_A, Recipe
from .weather import Nat

OUTSIDE = ip_address("198.51.100.9")


def behind_nat() -> tuple[Pair, Nat]:
    """`a` sits behind a NAT; `b` knows it by the NAT's address and by its own identity."""
    pair = Pair(changes_b={"remote_address": OUTSIDE})
    nat = Nat([ADDRESS_A], OUTSIDE)
    pair.world.nats.append(nat)
    return pair, nat


def test_a_nat_is_found_and_everything_moves_to_port_4500() -> None:
    pair, _ = behind_nat()
    pair.a.initiate()
    pair.world.settle()
    pair.assert_one_tunnel()
    for gateway in (pair.a, pair.b):
        assert gateway.ike_sas()[0].nat
        (child,) = gateway.children()
        assert child.udp
        assert child.path.local_port == 4500
    assert pair.b.children()[0].path.remote == OUTSIDE
    ports = [(d.source_port, d.destination_port) for d in pair.world.sent if d.sender == "a"]
    assert ports == [(500, 500), (4500, 4500)]


def test_without_a_nat_esp_has_no_udp_header() -> None:
    pair = Pair()
    pair.establish()
    assert [child.udp for child in (*pair.a.children(), *pair.b.children())] == [False, False]


@pytest.mark.parametrize("forced", ["a", "b"])
def test_udp_can_be_forced_by_either_side(forced: str) -> None:
    changes: dict[str, object] = {"encapsulation": Encapsulation.UDP}
    pair = Pair(changes_a=changes) if forced == "a" else Pair(changes_b=changes)
    pair.a.initiate()
    pair.world.settle()
    pair.assert_one_tunnel()
    assert [child.udp for child in (*pair.a.children(), *pair.b.children())] == [True, True]


def test_a_nat_that_forgets_is_followed_after_authentication_only() -> None:
    pair, nat = behind_nat()
    pair.a.initiate()
    pair.world.settle()
    old = pair.b.ike_sas()[0].path
    nat.rebind()
    pair.a.probe()
    pair.world.run_for(2)
    new = pair.b.ike_sas()[0].path
    assert new.remote_port != old.remote_port
    assert [moved.path for moved in pair.b.of(PathMoved)] == [new]
    pair.assert_one_tunnel()
    request = next(d for d in reversed(pair.world.sent) if d.sender == "a")
    for data in (request.data, request.data[:-1] + bytes((request.data[-1] ^ 1,))):
        pair.world.inject("b", data, ip_address("203.0.113.5"), 7777, 4500)
    assert pair.b.ike_sas()[0].path == new, "a replayed or forged message moved the peer"


# ------------------------------------------------------------------------------- fragments


def large_pair() -> Pair:
    """Long names on both sides, and `a` offers its algorithms in every order, so that IKE_AUTH is large."""
    here, there = (Identity.of(f"{side}.{'x' * 240}.example") for side in ("a", "b"))
    child_a, child_b = Recipe().child(0, 1, 2), Recipe().child(0, 2, 1)
    (esp,) = child_a.proposals
    orders = permutations(("aes-128", "aes-192", "aes-256", "3des"))
    offer = replace(child_a, proposals=tuple(replace(esp, encryption=order) for order in orders))
    return Pair(
        changes_a={"local_id": here, "remote_id": there, "children": (offer,)},
        changes_b={"local_id": there, "remote_id": here, "children": (child_b,)},
    )


LARGEST_DATAGRAM = 1280 - 20 - 8
"""What an IPv4 packet of 1280 octets carries in UDP."""


def test_a_message_too_large_for_one_datagram_travels_in_fragments() -> None:
    pair = large_pair()
    pair.a.initiate()
    pair.world.settle()
    pair.assert_one_tunnel()
    sizes = [len(d.data) for d in pair.world.sent if d.sender == "a"]
    assert len(sizes) > 2
    assert max(sizes) <= LARGEST_DATAGRAM


@pytest.mark.parametrize("lost", [2, 3, 4])
def test_a_lost_fragment_is_sent_again_with_all_the_others(lost: int) -> None:
    pair = large_pair()
    pair.world.drop("a", lost)
    pair.a.initiate()
    pair.world.run_for(5)
    pair.assert_one_tunnel()
    assert len(pair.b.of(Established)) == 1


def test_fragments_in_reverse_order_make_the_same_message() -> None:
    pair = large_pair()
    pair.world.interceptors.append(lambda d: [(0.05 - 0.01 * d.number, d.data)])
    pair.a.initiate()
    pair.world.settle()
    pair.assert_one_tunnel()
