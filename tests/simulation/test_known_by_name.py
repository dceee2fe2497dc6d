"""A peer that is configured by its domain name, and says its name or its address: both are its identity."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import ADDRESS_B, STRANGER, Recipe
from vpnd.ike.outputs import Failed
from vpnd.model.diagnosis import Code
from vpnd.model.identity import Identity
from vpnd.model.policy import NegotiationMode, PeerPolicy
from vpnd.wire.iana import IkeVersion

SPOKEN = {
    "IKEv2": (IkeVersion.V2, None),
    "IKEv1 main": (IkeVersion.V1, NegotiationMode.MAIN),
    "IKEv1 aggressive": (IkeVersion.V1, NegotiationMode.AGGRESSIVE),
}
NAME = Identity.of("gw.example")
ADDRESS = Identity.of_address(ADDRESS_B)


def pair_of(spoken: str, says: Identity, known_by_name: bool = True) -> Pair:
    """End a has b by its name, which is resolved; b `says` who it is."""
    version, mode = SPOKEN[spoken]
    both = {"version": version, "mode": mode}
    ours = both | {"remote_id": NAME, "known_by_name": known_by_name}
    return Pair(recipe=Recipe(), changes_a=ours, changes_b=both | {"local_id": says})


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("says", [NAME, ADDRESS, Identity.of("GW.example.")], ids=str)
@pytest.mark.parametrize("spoken", SPOKEN)
def test_name_and_address_are_both_right(spoken: str, says: Identity, side: str) -> None:
    pair = pair_of(spoken, says)
    getattr(pair, side).initiate()
    pair.world.run_for(5)
    pair.assert_one_tunnel()


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("says", [NAME, ADDRESS], ids=str)
@pytest.mark.parametrize("spoken", SPOKEN)
def test_both_begin_at_once(spoken: str, says: Identity, side: str) -> None:
    """Both ends find the same one to keep: they compare what was said, not what was configured."""
    pair = pair_of(spoken, says)
    pair.a.initiate()
    pair.b.initiate()
    pair.world.run_for(90)
    pair.assert_one_tunnel()
    getattr(pair, side).rekey_child()
    pair.world.run_for(60)
    assert not pair.a.of(Failed)


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("spoken", SPOKEN)
def test_another_identity_is_refused_and_both_right_ones_are_named(spoken: str, side: str) -> None:
    pair = pair_of(spoken, Identity.of_address(STRANGER))
    getattr(pair, side).initiate()
    pair.world.run_for(60)
    assert not pair.a.installed
    found = [one.diagnosis for one in pair.a.of(Failed) if one.diagnosis.code is Code.IDENTITY]
    assert found, pair.a.of(Failed)
    assert found[0].fact("ours") == "gw.example (FQDN) or 192.0.2.2 (IPV4_ADDR)"


@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_configured_remote_id_is_the_only_one(spoken: str) -> None:
    pair = pair_of(spoken, ADDRESS, known_by_name=False)
    pair.b.initiate()
    pair.world.run_for(60)
    assert not pair.a.installed


def test_an_address_that_the_name_has_no_longer_is_not_its_identity() -> None:
    policy: PeerPolicy = replace(Recipe().pair()[0], remote_id=NAME, known_by_name=True)
    assert policy.is_peer(ADDRESS)
    assert not replace(policy, remote_address=STRANGER).is_peer(ADDRESS)
    assert not replace(policy, remote_address=None).is_peer(ADDRESS)
