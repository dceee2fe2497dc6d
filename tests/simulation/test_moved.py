"""Where the peer is: IKE and ESP follow an authentic packet together, and only where a NAT explains it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import ADDRESS_A
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, speaking
from tests.simulation.weather import Datagram, Nat
from vpnd.ike.outputs import PathMoved, PeerDead
from vpnd.model.child import Path
from vpnd.model.identity import Identity
from vpnd.model.policy import Encapsulation
from vpnd.simulate.gateway import Gateway

VERSIONS: list[dict[str, Any]] = [{}, speaking(MAIN), speaking(AGGRESSIVE)]
NAMES = ["ikev2", "main", "aggressive"]
BOX = ip_address("198.51.100.7")
THIEF = ip_address("203.0.113.66")
every_version = pytest.mark.parametrize("changes", VERSIONS, ids=NAMES)
every_role = pytest.mark.parametrize("here", ["a", "b"], ids=["initiator", "responder"])


def established(changes: dict[str, Any], here: str, nat: bool) -> tuple[Pair, Gateway]:
    """A tunnel, and the gateway whose peer may move; `nat`: it takes the peer to be behind one."""
    theirs = changes | {"encapsulation": Encapsulation.UDP} if nat else changes
    both = (changes, theirs) if here == "a" else (theirs, changes)
    pair = Pair(changes_a=both[0], changes_b=both[1])
    pair.a.initiate()
    pair.world.run_for(1)
    pair.assert_one_tunnel()
    return pair, pair.a if here == "a" else pair.b


def peer_of(pair: Pair, gateway: Gateway) -> Gateway:
    return pair.b if gateway is pair.a else pair.a


def elsewhere(path: Path) -> Path:
    return replace(path, remote=THIEF, remote_port=7777)


def stolen(pair: Pair, thief: Gateway, of: Gateway) -> Datagram:
    """The next message of `of`, which never arrives: an attacker sends it on from elsewhere."""
    kept: list[Datagram] = []

    def keep(datagram: Datagram) -> list[tuple[float, bytes]] | None:
        if datagram.sender == of.name and not kept:
            kept.append(datagram)
            return []
        return None

    pair.world.interceptors.append(keep)
    of.probe()
    pair.world.run_for(0.1)
    pair.world.interceptors.remove(keep)
    (datagram,) = kept
    pair.world.inject(thief.name, datagram.data, THIEF, 7777, thief.ike_sas()[0].path.local_port)
    return datagram


@every_version
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
    assert [output.path for output in pair.b.of(PathMoved)] == [moved], "ESP did not move with IKE"
    assert pair.world.sent[-1].destination_port == moved.remote_port


@every_role
@every_version
def test_without_a_nat_no_esp_moves_the_peer(changes: dict[str, Any], here: str) -> None:
    _, gateway = established(changes, here, nat=False)
    before = gateway.ike_sas()[0].path
    gateway.do("moved", gateway.tunnel, elsewhere(before))
    gateway.do("moved", gateway.tunnel, replace(before, remote_port=5555))
    gateway.do("moved", "unknown", before)
    assert gateway.ike_sas()[0].path == before
    assert not gateway.of(PathMoved)


@every_role
@every_version
def test_without_a_nat_no_message_moves_the_peer(changes: dict[str, Any], here: str) -> None:
    """Its address is not covered by what proves it: who sees a message could send it on from elsewhere."""
    pair, gateway = established(changes, here, nat=False)
    before = gateway.ike_sas()[0].path
    stolen(pair, gateway, peer_of(pair, gateway))
    assert gateway.ike_sas()[0].path == before
    assert not gateway.of(PathMoved)


@every_role
@every_version
def test_behind_a_nat_an_authentic_message_moves_the_peer(changes: dict[str, Any], here: str) -> None:
    pair, gateway = established(changes, here, nat=True)
    stolen(pair, gateway, peer_of(pair, gateway))
    assert gateway.of(PathMoved)[0].path.remote == THIEF


@every_version
def test_the_first_proof_moves_nobody_without_a_nat(changes: dict[str, Any]) -> None:
    """An attacker who holds it back and sends it on from elsewhere would have the whole tunnel."""
    pair = Pair(changes_a=changes, changes_b=changes)
    last = {"ikev2": 2, "main": 3, "aggressive": 2}[NAMES[VERSIONS.index(changes)]]
    sent = []

    def hold(datagram: Datagram) -> list[tuple[float, bytes]] | None:
        if datagram.sender != "a":
            return None
        sent.append(datagram)
        if len(sent) != last:
            return None
        pair.world.inject("b", datagram.data, THIEF, 500, 500)
        return []

    pair.world.interceptors.append(hold)
    pair.a.initiate()
    pair.world.run_for(5)
    (ike,) = pair.b.ike_sas()
    if changes is not VERSIONS[2]:
        # In aggressive mode the proof itself is what says whether there is a NAT, and it came through one.
        assert ike.path.remote == ADDRESS_A
        assert {child.path.remote for child in pair.b.children()} == {ADDRESS_A}


@every_role
@every_version
def test_who_moved_the_peer_with_a_copy_has_it_for_seconds_only(changes: dict[str, Any], here: str) -> None:
    """Behind a NAT one packet that was held back moves the peer; the question that follows finds it again."""
    pair, gateway = established(changes, here, nat=True)
    before = gateway.ike_sas()[0].path
    gateway.do("moved", gateway.tunnel, elsewhere(before))
    assert gateway.ike_sas()[0].path == elsewhere(before)
    pair.world.run_for(3)
    assert gateway.ike_sas()[0].path == before
    assert [moved.path for moved in gateway.of(PathMoved)] == [elsewhere(before), before]
    (sa,) = gateway.endpoint.snapshot().sas
    assert sa.former is None
    pair.world.run_for(60)
    assert not gateway.of(PeerDead)
    assert len(gateway.of(PathMoved)) == 2
    late = [d for d in pair.world.sent if d.destination == THIEF and d.sent_at > pair.world.now - 50]
    assert not late, "the old question is still sent to the sender of the copy"


@every_version
def test_a_sign_of_life_does_not_settle_where_the_peer_is(changes: dict[str, Any]) -> None:
    """The copy itself is one."""
    pair, gateway = established(changes, "b", nat=True)
    before = gateway.ike_sas()[0].path
    gateway.do("moved", gateway.tunnel, elsewhere(before))
    gateway.do("note_activity", gateway.tunnel)
    pair.world.run_for(3)
    assert gateway.ike_sas()[0].path == before


@every_version
def test_a_nat_that_really_moved_is_asked_once(changes: dict[str, Any]) -> None:
    here = {"remote_address": BOX, "remote_id": Identity.of_address(ADDRESS_A)}
    pair = Pair(changes_a=changes, changes_b=changes | here)
    box = Nat([ADDRESS_A], BOX)
    pair.world.nats.append(box)
    pair.a.initiate()
    pair.world.run_for(1)
    box.rebind()
    pair.a.probe()
    pair.world.run_for(10)
    (moved,) = pair.b.of(PathMoved)
    assert pair.b.ike_sas()[0].path == moved.path
    old = {d.destination_port for d in pair.world.sent[-4:] if d.sender == "b"}
    assert old <= {moved.path.remote_port}
