"""The exchanges of IKEv1 as the RFCs draw them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.simulation.bounds import DELETED_KEPT, SETTLING_BESIDE
from tests.simulation.pair import Pair
from tests.simulation.policies import ADDRESS_A, ADDRESS_B, Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, MODES, TWO_MAPPINGS, expect, pair_of
from tests.simulation.weather import Nat
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import (
    ChildDown,
    ChildReplaced,
    ChildUp,
    Established,
    Failed,
    IkeDown,
    IkeReplaced,
    PeerDead,
)
from vpnd.model.diagnosis import Code
from vpnd.model.identity import Identity
from vpnd.model.policy import DpdPolicy, Encapsulation, NegotiationMode

PFS = Recipe(pfs=(31,))
UDP = Recipe(encapsulation=Encapsulation.UDP)


def established(mode: NegotiationMode = MAIN, recipe: Recipe | None = None, mappings: int = 1) -> Pair:
    """A pair with its first mappings up."""
    pair = pair_of(mode, recipe=recipe)
    pair.establish(mappings)
    return pair


def test_main_mode_then_quick_mode() -> None:
    pair = pair_of(MAIN)
    pair.a.initiate()
    expect(
        pair,
        """
        a -> b  MAIN_MODE    {SA, VID, VID, VID, VID, VID, VID, VID}
        a <- b  MAIN_MODE    {SA, VID, VID, VID, VID}
        a -> b  MAIN_MODE    {KE, Nonce, NAT-D, NAT-D}
        a <- b  MAIN_MODE    {KE, Nonce, NAT-D, NAT-D}
        a -> b  MAIN_MODE*   {ID, HASH, N(INITIAL_CONTACT)}
        a <- b  MAIN_MODE*   {ID, HASH}
        a -> b  QUICK_MODE*  {HASH, SA, Nonce, ID, ID}
        a <- b  QUICK_MODE*  {HASH, SA, Nonce, ID, ID}
        a -> b  QUICK_MODE*  {HASH}""",
    )
    pair.assert_one_tunnel()


def test_aggressive_mode_then_quick_mode() -> None:
    pair = pair_of(AGGRESSIVE)
    pair.a.initiate()
    expect(
        pair,
        """
        a -> b  AGGRESSIVE_MODE   {SA, KE, Nonce, ID, VID, VID, VID, VID, VID, VID, VID}
        a <- b  AGGRESSIVE_MODE   {SA, KE, Nonce, ID, HASH, NAT-D, NAT-D, VID, VID, VID, VID}
        a -> b  AGGRESSIVE_MODE*  {HASH, NAT-D, NAT-D, N(INITIAL_CONTACT)}
        a -> b  QUICK_MODE*       {HASH, SA, Nonce, ID, ID}
        a <- b  QUICK_MODE*       {HASH, SA, Nonce, ID, ID}
        a -> b  QUICK_MODE*       {HASH}""",
    )
    pair.assert_one_tunnel()


def test_first_messages_are_small() -> None:
    """No path cuts them."""
    pair = pair_of(MAIN)
    pair.a.initiate()
    pair.world.settle()
    assert max(len(datagram.data) for datagram in pair.world.sent) < 500


@pytest.mark.parametrize("mode", MODES)
def test_quick_mode_with_pfs_has_a_key_exchange_and_other_keys(mode: NegotiationMode) -> None:
    pair = pair_of(mode, recipe=PFS)
    pair.a.initiate()
    pair.world.settle()
    quick = [rung.text.partition("{")[2] for rung in pair.world.rungs if rung.text.startswith("QUICK")]
    assert quick == ["HASH, SA, Nonce, KE, ID, ID}", "HASH, SA, Nonce, KE, ID, ID}", "HASH}"]
    pair.assert_one_tunnel()
    assert pair.a.children()[0].suite.dh == 31


def test_a_second_mapping_is_one_more_quick_mode() -> None:
    pair = established(recipe=TWO_MAPPINGS)
    pair.b.initiate(1)
    expect(
        pair,
        """
        a <- b  QUICK_MODE*  {HASH, SA, Nonce, ID, ID}
        a -> b  QUICK_MODE*  {HASH, SA, Nonce, ID, ID}
        a <- b  QUICK_MODE*  {HASH}""",
    )
    pair.assert_one_tunnel(2)


@pytest.mark.parametrize("mode", MODES)
def test_forced_udp_moves_to_port_4500_with_the_proof(mode: NegotiationMode) -> None:
    pair = pair_of(mode, recipe=UDP)
    pair.a.initiate()
    pair.world.settle()
    ports = [(d.source_port, d.destination_port) for d in pair.world.sent if d.sender == "a"]
    assert ports[0] == (500, 500)
    assert set(ports[-3:]) == {(4500, 4500)}
    assert pair.a.children()[0].udp
    assert pair.b.child().udp
    pair.assert_one_tunnel()


@pytest.mark.parametrize("mode", MODES)
def test_an_initiator_behind_a_nat(mode: NegotiationMode) -> None:
    outside = ip_address("198.51.100.7")
    changes = {"remote_address": outside, "remote_id": Identity.of_address(ADDRESS_A)}
    pair = pair_of(mode, changes_b=changes)
    pair.world.nats.append(Nat([ADDRESS_A], outside))
    pair.a.initiate()
    pair.world.settle()
    assert pair.a.children()[0].udp
    assert pair.b.child().udp
    assert pair.b.ike_sas()[0].path.remote == outside
    assert pair.b.ike_sas()[0].path.remote_port not in (500, 4500)
    pair.a.probe()
    pair.world.settle()
    pair.assert_agreement()


# ------------------------------------------------------------------------------------- the life of SAs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", ["a", "b"])
def test_renewal_of_the_isakmp_sa_keeps_every_pair(mode: NegotiationMode, side: str) -> None:
    pair = established(mode, TWO_MAPPINGS, 2)
    gateway = getattr(pair, side)
    before = sorted(pair.a.installed), sorted(pair.b.installed), pair.a.ike_sas()[0].spi_i
    gateway.rekey_ike()
    pair.world.run_for(10)
    assert (sorted(pair.a.installed), sorted(pair.b.installed)) == before[:2]
    assert pair.a.ike_sas()[0].spi_i != before[2]
    for one in (pair.a, pair.b):
        assert len(one.of(IkeReplaced)) == 1
        assert not one.of(ChildDown)
        assert not one.of(IkeDown)
    pair.assert_one_tunnel(2)
    # A quick mode, a probe and the end go over the successor.
    pair.a.rekey_child(1)
    pair.a.probe()
    pair.world.settle()
    pair.a.close()
    pair.world.settle()
    pair.assert_nothing_left()


@pytest.mark.parametrize("mode", MODES)
def test_both_sides_renew_at_once(mode: NegotiationMode) -> None:
    pair = established(mode, TWO_MAPPINGS, 2)
    pair.a.rekey_ike()
    pair.b.rekey_ike()
    pair.world.run_for(20)
    pair.assert_one_tunnel(2)
    assert not pair.a.of(ChildDown)
    assert not pair.b.of(ChildDown)


def test_the_lifetime_of_the_isakmp_sa_passes_without_a_loss() -> None:
    recipe = Recipe(ike_lifetime=3600, child_lifetime=86_400)
    quiet = {"dpd": DpdPolicy(enabled=False)}
    pair = pair_of(recipe=recipe, changes_a=quiet, changes_b=quiet)
    pair.establish()
    pair.world.run_for(3 * 3600)
    assert not pair.a.of(ChildDown)
    assert not pair.a.of(IkeDown)
    assert len(pair.a.of(IkeReplaced)) >= 3
    pair.assert_one_tunnel()


def test_a_renewal_that_fails_is_tried_again_and_nobody_is_alarmed() -> None:
    pair = established(recipe=Recipe(ike_lifetime=3600, child_lifetime=86_400))
    pair.world.interceptors.append(lambda d: [] if d.data[18] == 2 else None)
    pair.a.rekey_ike()
    pair.world.run_for(60)
    assert not pair.a.of(Failed)
    assert not pair.a.of(ChildDown)
    pair.world.clear_sky()
    pair.world.run_for(120)
    assert pair.a.of(IkeReplaced)
    pair.assert_one_tunnel()


def test_a_child_is_succeeded_and_the_old_pair_lives_to_its_end() -> None:
    pair = established(recipe=Recipe(child_lifetime=3600))
    old = pair.a.child().spi_in
    pair.a.rekey_child()
    pair.world.settle()
    assert [event.old_spi_in for event in pair.a.of(ChildReplaced)] == [old]
    assert pair.a.child().spi_in == old, "the peer is given a moment to install the successor"
    pair.world.run_for(SETTLING_BESIDE)
    assert pair.a.child().spi_in != old
    assert pair.b.child().spi_in == pair.a.child().spi_out
    assert old in pair.a.installed
    pair.world.run_for(3600)
    assert old not in pair.a.installed
    pair.assert_agreement()


def test_a_successor_is_sent_on_at_once_when_there_is_nothing_else() -> None:
    pair = established()
    old = pair.a.child().spi_in
    pair.a.rekey_child()
    pair.world.settle()
    pair.a.do("close_child", pair.a.tunnel, old)
    assert old not in pair.a.installed
    assert pair.a.child().spi_in != old
    assert pair.b.child().spi_in == pair.a.child().spi_out
    pair.world.run_for(DELETED_KEPT + 1)
    pair.assert_one_tunnel()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_lifetimes_pass_for_a_day(seed: int) -> None:
    """Soft limits, crossing quick modes, hard ends: one mapping is never without a pair."""
    quiet = {"dpd": DpdPolicy(enabled=False)}
    recipe = Recipe(child_lifetime=3600, ike_lifetime=7200)
    pair = pair_of(MODES[seed % 2], seed, recipe=recipe, changes_a=quiet, changes_b=quiet)
    pair.establish()
    for _ in range(24):
        pair.world.run_for(3600)
        assert pair.a.children(0)
        assert pair.b.children(0)
        assert len(pair.a.installed) <= 3
        assert len(pair.a.ike_sas()) == 1
    pair.assert_agreement()
    assert len(pair.a.of(ChildUp)) == len(pair.b.of(ChildUp)) == 1


def test_both_sides_succeed_a_child_at_once_and_one_successor_is_left() -> None:
    pair = established()
    pair.a.rekey_child()
    pair.b.rekey_child()
    pair.world.run_for(5)
    assert len(pair.a.installed) == len(pair.b.installed) == 2
    assert pair.a.child().spi_in == pair.b.child().spi_out
    pair.assert_agreement()


def test_delete_of_a_child() -> None:
    pair = established(recipe=TWO_MAPPINGS, mappings=2)
    pair.b.close_child(1)
    expect(pair, "a <- b  INFORMATIONAL*  {HASH, D}")
    pair.assert_one_tunnel(1)


def test_delete_of_everything_names_the_children_first() -> None:
    pair = established(recipe=TWO_MAPPINGS, mappings=2)
    pair.a.close()
    expect(
        pair,
        """
        a -> b  INFORMATIONAL*  {HASH, D}
        a -> b  INFORMATIONAL*  {HASH, D}
        a -> b  INFORMATIONAL*  {HASH, D}""",
    )
    pair.assert_nothing_left()
    assert [event.diagnosis.code for event in pair.b.of(IkeDown)] == [Code.PEER_DELETED]


def test_a_peer_that_restarts_replaces_what_it_had() -> None:
    """F6: INITIAL_CONTACT."""
    pair = established()
    old = sorted(pair.b.installed)
    spis = pair.b.ike_sas()[0].spi_r
    pair.a.endpoint = pair.endpoint_a = Endpoint(SeededEntropy(77))
    pair.a.installed.clear()
    pair.a.endpoint.set_peer(pair.world.now, pair.a.policies["to-b"])
    pair.a.initiate()
    pair.world.settle()
    assert pair.b.ike_sas()[0].spi_r != spis
    assert not set(old) & set(pair.b.installed)
    pair.assert_one_tunnel()


def test_initial_contact_leaves_other_tunnels_alone() -> None:
    pair = established()
    other_a = replace(
        pair.a.policies["to-b"],
        name="other",
        psk=pair.a.policies["to-b"].psk,
        local_id=Identity.of("x.example"),
    )
    other_b = replace(pair.b.policies["to-a"], name="other", remote_id=Identity.of("x.example"))
    pair.a.set_peer("b", other_a)
    pair.b.set_peer("a", other_b)
    pair.a.initiate(0, "other")
    pair.world.settle()
    for gateway, tunnel in ((pair.a, "to-b"), (pair.b, "to-a")):
        assert len(gateway.ike_sas(tunnel)) == len(gateway.ike_sas("other")) == 1
        assert len(gateway.children(tunnel=tunnel)) == len(gateway.children(tunnel="other")) == 1


# ------------------------------------------------------------------------------------- liveness


@pytest.mark.parametrize("timeout", [30, 45, 60])
def test_a_dead_peer_is_found_in_time(timeout: int) -> None:
    """F7: between T and T + 1 s after the last sign of life."""
    policy = pair_of().a.policies["to-b"].dpd
    pair = pair_of(changes_a={"dpd": replace(policy, timeout=timeout)})
    pair.establish()
    pair.world.run_for(100)
    heard = pair.a.ike_sas()[0].last_heard
    pair.world.silence("b")
    pair.world.run_until(lambda: pair.a.of(PeerDead), within=2 * timeout)
    assert heard + timeout <= pair.world.now <= heard + timeout + timeout / 3 + 1
    last = max(heard, pair.world.now - timeout)
    assert timeout <= pair.world.now - last <= timeout + 1
    assert not pair.a.installed


def test_traffic_is_a_sign_of_life() -> None:
    pair = established()
    for _ in range(20):
        pair.world.run_for(5)
        pair.a.do("note_activity", "to-b")
        pair.b.do("note_activity", "to-a")
    assert [step for step in pair.ladder().steps if "R_U_THERE" in step] == []


def test_a_machine_that_slept_asks_before_it_despairs() -> None:
    pair = established()
    pair.world.now += 3600
    pair.world.run_for(10)
    assert not pair.a.of(PeerDead)
    pair.assert_one_tunnel()


def test_a_probe_is_answered() -> None:
    pair = established()
    pair.a.probe()
    expect(
        pair,
        """
        a -> b  INFORMATIONAL*  {HASH, N(R_U_THERE)}
        a <- b  INFORMATIONAL*  {HASH, N(R_U_THERE_ACK)}""",
    )


def test_the_other_address_is_unknown() -> None:
    pair = pair_of(changes_b={"remote_address": ip_address("203.0.113.1")})
    pair.a.initiate()
    pair.world.run_for(40)
    assert [d.sender for d in pair.world.sent] == ["a"] * 14
    (failed,) = pair.a.of(Failed)
    assert failed.diagnosis.code is Code.SILENT
    assert failed.diagnosis.fact("peer") == ADDRESS_B or str(ADDRESS_B) == failed.diagnosis.fact("peer")
    assert not pair.b.of(Established)
