"""IKEv2 between two vpnd in calm weather, each exchange as the RFC draws it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildUp,
    Established,
    Failed,
    IkeDown,
    LadderLine,
    PeerDead,
)
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code
from vpnd.model.identity import Identity
from vpnd.model.secret import Secret
from vpnd.model.unreachable import Unreachable
from vpnd.simulate.ladder import Ladder
from vpnd.wire.iana import DhGroup

from .pair import Pair
from .policies import ADDRESS_A, ADDRESS_B, Recipe

INIT = """
    a -> b  IKE_SA_INIT 0  {SA, KEi, Ni, N(NAT_DETECTION_SOURCE_IP), N(NAT_DETECTION_DESTINATION_IP),\
 N(FRAGMENTATION_SUPPORTED), V}
    a <- b  IKE_SA_INIT 0  {SA, KEr, Nr, N(NAT_DETECTION_SOURCE_IP), N(NAT_DETECTION_DESTINATION_IP),\
 N(FRAGMENTATION_SUPPORTED), N(CHILDLESS_IKEV2_SUPPORTED), V}"""
AUTH = """
    a -> b  IKE_AUTH 1     {IDi, N(INITIAL_CONTACT), IDr, AUTH, SA, TSi, TSr}
    a <- b  IKE_AUTH 1     {IDr, AUTH, SA, TSi, TSr}"""


def test_the_handshake_is_two_exchanges() -> None:
    pair = Pair()
    pair.a.initiate()
    assert pair.ladder() == INIT + AUTH
    pair.assert_one_tunnel()
    for gateway, initiator in ((pair.a, True), (pair.b, False)):
        (info,) = gateway.ike_sas()
        assert info.initiator is initiator
        assert not info.nat
        assert info.established_at <= pair.world.now < info.expires_at
        assert [child.initiator for child in gateway.children()] == [initiator]


def test_each_side_draws_what_it_sees_and_both_draw_the_same() -> None:
    pair = Pair()
    pair.a.initiate()
    pair.world.settle()
    drawn = [
        [line.text for line in gateway.of(LadderLine) if line.outbound is outbound]
        for gateway, outbound in ((pair.a, True), (pair.b, False), (pair.a, False), (pair.b, True))
    ]
    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[3]


def test_asking_again_for_what_is_up_does_nothing() -> None:
    pair = Pair()
    pair.establish()
    pair.a.initiate(0)
    pair.b.initiate(0)
    assert pair.ladder() == ""


def test_a_further_mapping_is_one_exchange_on_the_same_ike_sa() -> None:
    pair = Pair(recipe=Recipe(mappings=2))
    pair.establish()
    pair.a.initiate(1)
    assert (
        pair.ladder()
        == """
        a -> b  CREATE_CHILD_SA 2  {SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2  {SA, Nr, TSi, TSr}"""
    )
    pair.assert_one_tunnel(2)


def test_the_responder_asks_for_a_mapping_with_its_own_message_ids() -> None:
    pair = Pair(recipe=Recipe(mappings=2))
    pair.establish()
    pair.b.initiate(1)
    assert (
        pair.ladder()
        == """
        a <- b  CREATE_CHILD_SA 0  {SA, Ni, TSi, TSr}
        a -> b  CREATE_CHILD_SA 0  {SA, Nr, TSi, TSr}"""
    )
    pair.assert_one_tunnel(2)


def test_a_child_with_perfect_forward_secrecy_carries_a_key_exchange() -> None:
    pair = Pair(recipe=Recipe(mappings=2, pfs=(DhGroup.CURVE25519,)))
    pair.establish()
    pair.a.initiate(1)
    assert (
        pair.ladder()
        == """
        a -> b  CREATE_CHILD_SA 2  {SA, Ni, KEi, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2  {SA, Nr, KEr, TSi, TSr}"""
    )
    pair.assert_one_tunnel(2)
    assert [child.suite.dh for child in pair.a.children(1)] == [DhGroup.CURVE25519]


def test_twenty_mappings_come_up_one_after_the_other() -> None:
    pair = Pair(recipe=Recipe(mappings=20))
    for mapping in range(20):
        pair.a.initiate(mapping)
    pair.world.run_for(5)
    pair.assert_one_tunnel(20)
    assert len(pair.a.of(Established)) == 1


@pytest.mark.parametrize("closer", ["a", "b"])
def test_delete_of_a_child(closer: str) -> None:
    pair = Pair(recipe=Recipe(mappings=2))
    pair.establish(2)
    pair.world.gateways[closer].close_child(1)
    if closer == "a":
        expected = """
            a -> b  INFORMATIONAL 3  {D}
            a <- b  INFORMATIONAL 3  {D}"""
    else:
        expected = """
            a <- b  INFORMATIONAL 0  {D}
            a -> b  INFORMATIONAL 0  {D}"""
    assert pair.ladder() == expected
    pair.assert_one_tunnel(1)
    other = pair.b if closer == "a" else pair.a
    assert [down.diagnosis.code for down in other.of(ChildDown)] == [Code.PEER_DELETED]


@pytest.mark.parametrize("closer", ["a", "b"])
def test_delete_of_the_ike_sa_takes_its_children_along(closer: str) -> None:
    pair = Pair(recipe=Recipe(mappings=2))
    pair.establish(2)
    pair.world.gateways[closer].close()
    if closer == "a":
        expected = """
            a -> b  INFORMATIONAL 3  {D}
            a <- b  INFORMATIONAL 3  {}"""
    else:
        expected = """
            a <- b  INFORMATIONAL 0  {D}
            a -> b  INFORMATIONAL 0  {}"""
    assert pair.ladder() == expected
    pair.assert_nothing_left()
    for gateway in (pair.a, pair.b):
        downs = [type(e) for e in gateway.events if isinstance(e, ChildDown | IkeDown)]
        assert downs == [ChildDown, ChildDown, IkeDown]
    assert [down.diagnosis.code for down in pair.world.gateways[closer].of(IkeDown)] == [
        Code.DOWN_BY_OPERATOR
    ]


def test_the_tunnel_comes_up_again_after_a_delete() -> None:
    pair = Pair()
    pair.establish()
    pair.a.close()
    pair.world.settle()
    pair.b.initiate()
    pair.world.settle()
    pair.assert_one_tunnel()
    assert pair.b.ike_sas()[0].initiator


# ------------------------------------------------------------------------------- liveness


@pytest.mark.parametrize("asker", ["a", "b"])
def test_liveness(asker: str) -> None:
    pair = Pair()
    pair.establish()
    pair.world.gateways[asker].probe()
    number = 2 if asker == "a" else 0
    there, back = ("->", "<-") if asker == "a" else ("<-", "->")
    assert (
        pair.ladder()
        == f"""
        a {there} b  INFORMATIONAL {number}  {{}}
        a {back} b  INFORMATIONAL {number}  {{}}"""
    )
    pair.assert_one_tunnel()


def test_a_dead_peer_is_found_and_everything_of_it_goes() -> None:
    pair = Pair(recipe=Recipe(mappings=2))
    pair.establish(2)
    pair.world.silence("b")
    start = pair.world.now
    pair.a.probe()
    pair.world.run_until(lambda: pair.a.of(PeerDead), within=61)
    assert 29 <= pair.world.now - start <= 31
    pair.world.run_for(10)
    assert not pair.a.installed
    assert not pair.a.ike_sas()
    assert [type(e) for e in pair.a.events if isinstance(e, ChildDown | IkeDown)] == [
        ChildDown,
        ChildDown,
        IkeDown,
    ]


def test_a_peer_that_answers_once_in_a_while_is_alive() -> None:
    pair = Pair()
    pair.establish()
    sent = len([d for d in pair.world.sent if d.sender == "a"])
    pair.world.drop("a", *(sent + n for n in range(1, 5)))
    pair.a.probe()
    pair.world.run_for(40)
    assert not pair.a.of(PeerDead)
    pair.assert_one_tunnel()


# ------------------------------------------------------------------------------- cookie, group


def test_a_responder_under_load_asks_for_a_cookie() -> None:
    pair = Pair(limits_b=Limits(half_open_before_cookies=0))
    pair.a.initiate()
    request, answer = Ladder(INIT).steps
    first = request.replace("a -> b", "")
    assert (
        pair.ladder()
        == f"""
        {request}
        a <- b  IKE_SA_INIT 0  {{N(COOKIE)}}
        a -> b  {first.replace("{SA", "{N(COOKIE), SA")}
        {answer}"""
        + AUTH
    )
    pair.assert_one_tunnel()


def test_no_state_is_kept_before_the_cookie() -> None:
    pair = Pair(limits_b=Limits(half_open_before_cookies=0))
    pair.world.drop("b", 1)
    pair.a.initiate()
    pair.world.settle()
    assert not pair.endpoint_b.snapshot().half_open
    assert pair.endpoint_b.next_timeout() is None
    pair.world.run_for(5)
    pair.assert_one_tunnel()


def test_a_wrong_guess_of_the_group_costs_one_round() -> None:
    pair = Pair(
        changes_a={"proposals": (Recipe(dh=(DhGroup.ECP_256, DhGroup.CURVE25519)).ike_proposal(),)},
        changes_b={"proposals": (Recipe(dh=(DhGroup.CURVE25519,)).ike_proposal(),)},
    )
    pair.a.initiate()
    request, answer = Ladder(INIT).steps
    assert (
        pair.ladder()
        == f"""
        {request}
        a <- b  IKE_SA_INIT 0  {{N(INVALID_KE_PAYLOAD)}}
        {request}
        {answer}"""
        + AUTH
    )
    pair.assert_one_tunnel()
    assert pair.a.ike_sas()[0].suite.dh == DhGroup.CURVE25519


def test_cookie_and_wrong_group_together() -> None:
    pair = Pair(
        changes_a={"proposals": (Recipe(dh=(DhGroup.ECP_256, DhGroup.CURVE25519)).ike_proposal(),)},
        changes_b={"proposals": (Recipe(dh=(DhGroup.CURVE25519,)).ike_proposal(),)},
        limits_b=Limits(half_open_before_cookies=0),
    )
    pair.a.initiate()
    pair.world.run_for(5)
    pair.assert_one_tunnel()
    assert len(pair.ladder().steps) <= 10


# ------------------------------------------------------------------------------- what does not fit


MISMATCHES: dict[str, tuple[dict[str, object], set[Code]]] = {
    "encryption": ({"proposals": (Recipe(encryption=("aes-256",)).ike_proposal(),)}, {Code.P1_ENCRYPTION}),
    "integrity": ({"proposals": (Recipe(integrity=("sha512",)).ike_proposal(),)}, {Code.P1_INTEGRITY}),
    "group": ({"proposals": (Recipe(dh=(DhGroup.ECP_384,)).ike_proposal(),)}, {Code.P1_DH}),
    "key": ({"psk": Secret(b"another key")}, {Code.PSK}),
    "our identity": ({"local_id": Identity.of("branch.example")}, {Code.PSK, Code.IDENTITY}),
    "their identity": ({"remote_id": Identity.of("hub.example")}, {Code.IDENTITY, Code.PSK}),
}


@pytest.mark.parametrize("what", sorted(MISMATCHES))
def test_a_mismatch_of_the_ike_sa_fails_on_both_sides_and_leaves_nothing(what: str) -> None:
    changes, codes = MISMATCHES[what]
    pair = Pair(changes_b=changes)
    start = pair.world.now
    pair.a.initiate()
    pair.world.run_until(lambda: pair.a.of(Failed), within=35)
    assert pair.world.now - start < 5, "the refusal was not taken for what it is"
    pair.world.run_for(60)
    pair.assert_nothing_left()
    assert {failed.diagnosis.code for failed in pair.b.of(Failed)} <= codes
    assert len(pair.a.of(Failed)) == 1
    assert pair.a.of(Failed)[0].initiator
    assert not pair.a.of(ChildUp)
    assert not pair.b.of(ChildUp)


def codes_of(pair: Pair) -> list[Code]:
    """What either side says went wrong."""
    failures: list[Failed | ChildFailed] = []
    for gateway in (pair.a, pair.b):
        failures += [*gateway.of(Failed), *gateway.of(ChildFailed)]
    return [failure.diagnosis.code for failure in failures]


CHILD_MISMATCHES = {
    "encryption": (Recipe(encryption=("aes-256",)), Code.P2_ENCRYPTION),
    "integrity": (Recipe(integrity=("sha512",)), Code.P2_INTEGRITY),
}


@pytest.mark.parametrize("what", sorted(CHILD_MISMATCHES))
def test_a_mismatch_of_the_first_child_is_named(what: str) -> None:
    other, code = CHILD_MISMATCHES[what]
    pair = Pair(changes_b={"children": (other.child(0, 2, 1),)})
    pair.a.initiate()
    pair.world.run_for(60)
    assert not pair.a.installed
    assert not pair.b.installed
    assert code in codes_of(pair)


def test_selectors_that_do_not_meet_are_refused() -> None:
    pair = Pair(changes_b={"children": (Recipe().child(0, 7, 8),)})
    pair.a.initiate()
    pair.world.run_for(60)
    assert not pair.a.installed
    assert not pair.b.installed
    assert Code.TRAFFIC_SELECTORS in codes_of(pair)
    pair.assert_agreement()


def test_a_closed_port_is_told_from_silence() -> None:
    pair = Pair()
    pair.world.silence("b")
    pair.a.initiate()
    pair.a.do("handle_unreachable", Path(ADDRESS_A, 500, ADDRESS_B, 500), Unreachable.PORT)
    pair.world.run_until(lambda: pair.a.of(Failed), within=40)
    assert [failed.diagnosis.code for failed in pair.a.of(Failed)] == [Code.PORT_CLOSED]


def test_an_icmp_error_ends_nothing_that_is_established() -> None:
    pair = Pair()
    pair.establish()
    pair.a.do("handle_unreachable", pair.a.ike_sas()[0].path, Unreachable.PORT)
    pair.world.run_for(10)
    pair.assert_one_tunnel()


# ------------------------------------------------------------------------------- both at once


def test_crossing_deletes_of_the_ike_sa() -> None:
    pair = Pair(recipe=Recipe(mappings=2))
    pair.establish(2)
    pair.a.close()
    pair.b.close()
    pair.world.run_for(20)
    pair.assert_nothing_left()
    for gateway in (pair.a, pair.b):
        assert len(gateway.of(IkeDown)) == 1
        assert len(gateway.of(ChildDown)) == 2


def test_crossing_deletes_of_one_child() -> None:
    pair = Pair(recipe=Recipe(mappings=2))
    pair.establish(2)
    pair.a.close_child(1)
    pair.b.close_child(1)
    pair.world.run_for(20)
    pair.assert_one_tunnel(1)
    assert len(pair.a.of(ChildDown)) == len(pair.b.of(ChildDown)) == 1


def test_a_new_child_crosses_a_delete_of_the_ike_sa() -> None:
    pair = Pair(recipe=Recipe(mappings=2))
    pair.establish()
    pair.a.initiate(1)
    pair.b.close()
    pair.world.run_for(60)
    pair.assert_agreement()
    assert not pair.b.ike_sas()
    assert not pair.a.installed


def test_both_sides_ask_for_the_same_new_child_at_once() -> None:
    pair = Pair(recipe=Recipe(mappings=2))
    pair.establish()
    pair.a.initiate(1)
    pair.b.initiate(1)
    pair.world.run_for(60)
    pair.assert_one_tunnel(2)


def test_liveness_crosses_liveness() -> None:
    pair = Pair()
    pair.establish()
    pair.a.probe()
    pair.b.probe()
    assert sorted(pair.ladder().steps) == sorted(
        [
            "a -> b INFORMATIONAL 2 {}",
            "a <- b INFORMATIONAL 0 {}",
            "a -> b INFORMATIONAL 0 {}",
            "a <- b INFORMATIONAL 2 {}",
        ]
    )


# ------------------------------------------------------------------------------- restarts


def test_a_peer_that_lost_its_memory_replaces_what_it_had() -> None:
    """F6: `a` restarts without a DELETE; its authenticated INITIAL_CONTACT ends the old SAs at `b`."""
    pair = Pair()
    pair.establish()
    reborn = Pair(seed=99)
    pair.a.endpoint = reborn.a.endpoint
    pair.a.installed.clear()
    pair.a.initiate()
    pair.world.run_for(1)
    pair.assert_one_tunnel()
    assert len(pair.b.of(IkeDown)) == 1


def test_two_tunnels_between_the_same_gateways_do_not_disturb_each_other() -> None:
    """The second tunnel has other identities; INITIAL_CONTACT of one must not end the other."""
    pair = Pair()
    second_a, second_b = Recipe().pair()
    here, there = Identity.of("a2.example"), Identity.of("b2.example")
    pair.a.set_peer("b", replace(second_a, name="to-b-2", local_id=here, remote_id=there))
    pair.b.set_peer("a", replace(second_b, name="to-a-2", local_id=there, remote_id=here))
    pair.a.initiate(0, "to-b")
    pair.a.initiate(0, "to-b-2")
    pair.world.run_for(5)
    for gateway, tunnels in ((pair.a, ("to-b", "to-b-2")), (pair.b, ("to-a", "to-a-2"))):
        for tunnel in tunnels:
            assert len(gateway.ike_sas(tunnel)) == 1
            assert len(gateway.children(tunnel=tunnel)) == 1
        assert not gateway.of(IkeDown)


@pytest.mark.parametrize("first", ["to-b", "to-b-2"])
def test_a_peer_that_lost_its_memory_replaces_each_of_two_tunnels_that_are_told_apart_by_mappings_only(
    first: str,
) -> None:
    """Both have the same identities and key, and INITIAL_CONTACT is never said: what is asked for decides."""
    pair = Pair()
    for gateway, peer, policy in zip((pair.a, pair.b), ("b", "a"), Recipe().pair(), strict=True):
        networks = (4, 5) if gateway is pair.a else (5, 4)
        children = (Recipe().child(0, *networks),)
        gateway.set_peer(peer, replace(policy, name=f"{policy.name}-2", children=children))
    both = ("to-b", "to-b-2")
    for tunnel in both:
        pair.a.initiate(0, tunnel)
    pair.world.run_for(5)
    policies = tuple(pair.a.policies.values())
    pair.a.endpoint = Endpoint(SeededEntropy(99))
    pair.a.installed.clear()
    for policy in policies:
        pair.a.set_peer("b", policy)
    for tunnel in sorted(both, key=lambda name: name != first):
        pair.a.initiate(0, tunnel)
        pair.world.run_for(2)
    pair.world.run_for(20)
    for gateway, tunnels in ((pair.a, both), (pair.b, ("to-a", "to-a-2"))):
        for tunnel in tunnels:
            assert len(gateway.ike_sas(tunnel)) == len(gateway.children(tunnel=tunnel)) == 1
