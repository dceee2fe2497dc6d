"""ESP shows where the peer is now: IKE follows it there, where a NAT explains it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import ADDRESS_A
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, speaking
from tests.simulation.weather import Nat
from vpnd.model.identity import Identity

VERSIONS: list[dict[str, Any]] = [{}, speaking(MAIN), speaking(AGGRESSIVE)]
BOX = ip_address("198.51.100.7")


@pytest.mark.parametrize("changes", VERSIONS, ids=["ikev2", "main", "aggressive"])
def test_ike_goes_where_authentic_esp_came_from(changes: dict[str, Any]) -> None:
    here = {"remote_address": BOX, "remote_id": Identity.of_address(ADDRESS_A)}
    pair = Pair(changes_a=changes, changes_b=changes | here)
    box = Nat([ADDRESS_A], BOX)
    pair.world.nats.append(box)
    pair.a.initiate()
    pair.world.run_for(1)
    before = pair.b.ike_sas()[0].path
    moved = replace(before, remote_port=before.remote_port + 1)
    pair.b.do("moved", pair.b.tunnel, moved)
    assert pair.b.ike_sas()[0].path == moved
    pair.b.probe()
    assert pair.world.sent[-1].destination_port == moved.remote_port


@pytest.mark.parametrize("changes", VERSIONS, ids=["ikev2", "main", "aggressive"])
def test_without_a_nat_nobody_moves(changes: dict[str, Any]) -> None:
    pair = Pair(changes_a=changes, changes_b=changes)
    pair.establish()
    before = pair.b.ike_sas()[0].path
    pair.b.do("moved", pair.b.tunnel, replace(before, remote_port=5555))
    pair.b.do("moved", "unknown", before)
    assert pair.b.ike_sas()[0].path == before
