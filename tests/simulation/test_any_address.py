"""A peer of any address is known by its identity, and a tunnel has one such peer at a time."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tests.simulation.policies import ADDRESS_A, ADDRESS_B, ADDRESS_C, STRANGER, Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN
from tests.simulation.v1.puppet import DPD
from tests.simulation.weather import Datagram, Nat
from tests.simulation.world import World
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.contest import ANSWER_WITHIN
from vpnd.ike.endpoint import UNKNOWN_PEER, Endpoint
from vpnd.ike.outputs import ChildDown, Established, Failed, IkeDown
from vpnd.model.diagnosis import Code
from vpnd.model.identity import Identity
from vpnd.model.policy import PeerPolicy
from vpnd.model.secret import Secret
from vpnd.model.selectors import Address
from vpnd.simulate.gateway import Gateway
from vpnd.wire.iana import IkeVersion

SPOKEN = {"ikev2": (IkeVersion.V2, None), "main": (IkeVersion.V1, MAIN)}
BRANCH, SHOP, HUB = "branch.example", "shop.example", "hub.example"
BOX = ip_address("198.51.100.7")


class Stage:
    """The hub `b`, whose tunnels `branch` and `shop` have peers of any address, and machines that begin."""

    def __init__(self, spoken: str) -> None:
        self.version, self.mode = SPOKEN[spoken]
        self.world = World()
        self.seed = 100
        self.hub = self.world.add_gateway("b", ADDRESS_B, Endpoint(SeededEntropy(1)))
        for name, identity, there in (("branch", BRANCH, 1), ("shop", SHOP, 3)):
            self.hub.set_peer("a", self._any(name, identity, there))

    def _any(self, name: str, identity: str, there: int) -> PeerPolicy:
        policy = self.policy(name, ADDRESS_B, ADDRESS_A, 2, there)
        local, remote = Identity.of(HUB), Identity.of(identity)
        return replace(policy, remote_address=None, any_address=True, local_id=local, remote_id=remote)

    def policy(self, name: str, local: Address, remote: Address, here: int, there: int) -> PeerPolicy:
        policy = Recipe().policy(name, local, remote, here, there)
        return replace(policy, version=self.version, mode=self.mode)

    def machine(self, name: str, address: Address, identity: str = BRANCH, **changes: Any) -> Gateway:
        """A machine at this address with this identity, started now; one of the same name is no more.

        `changes` are of its policy.
        """
        self.seed += 1
        gateway = self.world.add_gateway(name, address, Endpoint(SeededEntropy(self.seed)))
        policy = self.policy("to-hub", address, ADDRESS_B, 1 if identity == BRANCH else 3, 2)
        known = replace(policy, local_id=Identity.of(identity), remote_id=Identity.of(HUB))
        gateway.set_peer("b", replace(known, **changes))
        return gateway

    def begin(self, gateway: Gateway, seconds: float = 1.0) -> None:
        gateway.initiate()
        self.world.run_for(seconds)

    def at(self, tunnel: str = "branch") -> list[Address]:
        """Where the hub has peers of a tunnel."""
        return [ike.path.remote for ike in self.hub.ike_sas(tunnel)]

    def codes(self) -> list[Code]:
        return [failed.diagnosis.code for failed in self.hub.of(Failed)]


@pytest.fixture(params=sorted(SPOKEN))
def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(request.param)


def test_a_peer_is_known_by_its_identity_wherever_it_is(stage: Stage) -> None:
    stage.begin(stage.machine("a", STRANGER))
    assert stage.at("branch") == [STRANGER]
    assert stage.at("shop") == []
    assert {pair.child.tunnel for pair in stage.hub.installed.values()} == {"branch"}


def test_two_peers_behind_one_nat_are_told_apart(stage: Stage) -> None:
    stage.world.nats.append(Nat([ADDRESS_A, ADDRESS_C], BOX))
    stage.begin(stage.machine("a", ADDRESS_A))
    stage.begin(stage.machine("c", ADDRESS_C, SHOP))
    stage.world.run_for(2 * ANSWER_WITHIN)
    assert stage.at("branch") == stage.at("shop") == [BOX]
    assert len({ike.path.remote_port for t in ("branch", "shop") for ike in stage.hub.ike_sas(t)}) == 2
    assert {pair.child.tunnel for pair in stage.hub.installed.values()} == {"branch", "shop"}


def test_an_unknown_identity_and_a_wrong_key_are_refused(stage: Stage) -> None:
    stage.begin(stage.machine("a", STRANGER, "other.example"), 5)
    stage.begin(stage.machine("c", ADDRESS_C, psk=Secret(b"another key of some length")), 35)
    assert not stage.hub.of(Established)
    assert not stage.hub.installed
    assert set(stage.codes()) == {Code.IDENTITY, Code.PSK}


def test_aggressive_mode_has_no_such_peer() -> None:
    stage = Stage("main")
    stage.begin(stage.machine("a", STRANGER, mode=AGGRESSIVE), 5)
    assert [d for d in stage.world.sent if d.sender == "b"] == []
    # Each of the repeats; the daemon logs one line a minute.
    assert set(stage.codes()) == {Code.MODE}


def test_another_machine_with_the_same_identity_is_refused_while_the_first_answers(stage: Stage) -> None:
    first, second = stage.machine("a", ADDRESS_A), stage.machine("c", ADDRESS_C)
    stage.begin(first)
    stage.begin(second, ANSWER_WITHIN / 2)
    assert stage.at() == [ADDRESS_A]
    assert not second.of(Established)
    stage.world.run_for(ANSWER_WITHIN)
    assert stage.at() == [ADDRESS_A]
    assert stage.codes() == [Code.IDENTITY_TAKEN]
    stage.world.run_for(35)
    assert len(second.of(Failed)) == 1
    assert not second.of(Established)
    assert first.sends(0)


def test_two_machines_that_are_configured_alike_do_not_take_the_tunnel_from_each_other(stage: Stage) -> None:
    first, second = stage.machine("a", ADDRESS_A), stage.machine("c", ADDRESS_C)
    stage.begin(first)
    spis = [ike.spi_i for ike in stage.hub.ike_sas("branch")]
    for _ in range(5):
        stage.begin(second, 40)
    assert [ike.spi_i for ike in stage.hub.ike_sas("branch")] == spis
    assert stage.codes() == [Code.IDENTITY_TAKEN] * 5
    assert not stage.hub.of(IkeDown)


def test_a_peer_that_has_moved_is_let_in_once_its_old_place_is_silent(stage: Stage) -> None:
    stage.begin(stage.machine("a", ADDRESS_A))
    moved = stage.machine("a", ADDRESS_C)
    stage.begin(moved, ANSWER_WITHIN / 2)
    assert stage.at() == [ADDRESS_A], "the old SAs stay until it is known that nobody has them"
    stage.world.run_for(ANSWER_WITHIN)
    assert stage.at() == [ADDRESS_C]
    assert [down.diagnosis.code for down in stage.hub.of(IkeDown)] == [Code.PEER_ELSEWHERE]
    assert {down.diagnosis.code for down in stage.hub.of(ChildDown)} == {Code.PEER_ELSEWHERE}
    assert {pair.child.path.remote for pair in stage.hub.installed.values()} == {ADDRESS_C}
    assert moved.sends(0)
    assert not stage.codes()


def test_a_peer_that_was_restarted_at_its_place_is_let_in_at_once(stage: Stage) -> None:
    stage.begin(stage.machine("a", ADDRESS_A))
    stage.begin(stage.machine("a", ADDRESS_A), ANSWER_WITHIN / 2)
    assert stage.at() == [ADDRESS_A]
    assert len(stage.hub.of(Established)) == 2
    assert [down.diagnosis.code for down in stage.hub.of(IkeDown)] == [Code.PEER_RESTARTED]


def test_a_held_peer_may_repeat_its_proof_and_gets_one_answer(stage: Stage) -> None:
    stage.begin(stage.machine("a", ADDRESS_A))
    moved = stage.machine("a", ADDRESS_C)
    sent = len(stage.world.sent)
    stage.begin(moved, ANSWER_WITHIN - 0.5)
    proofs = [d for d in stage.world.sent[sent:] if d.sender == "a"]
    assert len(proofs) > 3, "it repeats its proof meanwhile"
    to_newcomer = [d for d in stage.world.sent[sent:] if d.sender == "b" and d.destination == ADDRESS_C]
    assert len(to_newcomer) == (1 if stage.version is IkeVersion.V2 else 2)
    stage.world.run_for(5)
    assert stage.at() == [ADDRESS_C]
    assert len(moved.of(Established)) == 1
    assert isinstance(stage.hub.endpoint, Endpoint)
    assert stage.hub.endpoint.counters["held until the present peer has answered"] == 2


def test_of_two_that_are_held_one_gets_the_tunnel(stage: Stage) -> None:
    stage.begin(stage.machine("a", ADDRESS_A))
    stage.world.silence("a")
    one, other = stage.machine("c", ADDRESS_C), stage.machine("d", STRANGER)
    one.initiate()
    other.initiate()
    stage.world.run_for(3 * ANSWER_WITHIN)
    assert len(stage.at()) == 1
    assert stage.codes() == [Code.IDENTITY_TAKEN]
    stage.world.run_for(30)
    assert sorted(len(g.of(Established)) for g in (one, other)) == [0, 1]


def test_a_copy_behind_the_same_nat_is_refused_as_well(stage: Stage) -> None:
    stage.world.nats.append(Nat([ADDRESS_A, ADDRESS_C], BOX))
    stage.begin(stage.machine("a", ADDRESS_A))
    (before,) = stage.hub.ike_sas("branch")
    stage.begin(stage.machine("c", ADDRESS_C), 2 * ANSWER_WITHIN)
    assert [ike.spi_i for ike in stage.hub.ike_sas("branch")] == [before.spi_i]
    assert stage.codes() == [Code.IDENTITY_TAKEN]


def test_a_peer_of_one_address_is_not_held(stage: Stage) -> None:
    """Behind its NAT it may come back by another port; its address is its own."""
    own = stage.policy("own", ADDRESS_B, BOX, 2, 1)
    own = replace(own, local_id=Identity.of(HUB), remote_id=Identity.of("own.example"))
    stage.hub.set_peer("a", own)
    box = Nat([ADDRESS_A], BOX)
    stage.world.nats.append(box)
    children = stage.policy("x", ADDRESS_A, ADDRESS_B, 1, 2).children
    stage.begin(stage.machine("a", ADDRESS_A, "own.example", children=children))
    box.rebind()
    again = stage.machine("a", ADDRESS_A, "own.example", children=children)
    stage.begin(again, ANSWER_WITHIN / 2)
    assert again.of(Established)
    assert len(stage.at("own")) == 1


def test_esp_is_no_answer_of_a_peer_that_can_be_asked(stage: Stage) -> None:
    """It is counted once a second, so that it may have come before the question."""
    stage.begin(stage.machine("a", ADDRESS_A))
    stage.begin(stage.machine("a", ADDRESS_C), ANSWER_WITHIN / 2)
    stage.hub.do("note_activity", "branch")
    stage.world.run_for(ANSWER_WITHIN)
    assert stage.at() == [ADDRESS_C]


def without_dpd(datagram: Datagram) -> list[tuple[float, bytes]] | None:
    """Machine a says nothing of dead peer detection (RFC 3706)."""
    if datagram.sender != "a" or DPD not in datagram.data:
        return None
    return [(0.01, datagram.data.replace(DPD, bytes(len(DPD))))]


@pytest.mark.parametrize("heard", [True, False])
def test_a_peer_that_cannot_be_asked_is_there_while_it_sends_esp(heard: bool) -> None:
    stage = Stage("main")
    stage.world.interceptors.append(without_dpd)
    stage.begin(stage.machine("a", ADDRESS_A))
    stage.world.interceptors.remove(without_dpd)
    stage.begin(stage.machine("c", ADDRESS_C), ANSWER_WITHIN / 2)
    if heard:
        stage.hub.do("note_activity", "branch")
    stage.world.run_for(ANSWER_WITHIN)
    assert stage.at() == [ADDRESS_A if heard else ADDRESS_C]


def test_a_tunnel_that_is_removed_while_a_peer_is_held_is_not_given_away(stage: Stage) -> None:
    stage.begin(stage.machine("a", ADDRESS_A))
    stage.world.silence("a")
    stage.begin(stage.machine("c", ADDRESS_C), ANSWER_WITHIN / 2)
    stage.hub.do("remove_peer", "branch")
    stage.world.run_for(40)
    assert stage.at() == []
    assert not stage.hub.installed


def test_only_the_peer_begins(stage: Stage) -> None:
    stage.hub.initiate(0, "branch")
    stage.world.run_for(5)
    assert stage.codes() == [Code.PEER_BEGINS]
    assert not stage.world.sent


def test_a_peer_of_any_address_is_not_called_once_more(stage: Stage) -> None:
    stage.begin(stage.machine("a", ADDRESS_A))
    before = [ike.spi_i for ike in stage.hub.ike_sas("branch")]
    stage.hub.do("reinitiate", "branch")
    stage.world.run_for(5)
    assert [ike.spi_i for ike in stage.hub.ike_sas("branch")] == before
    assert stage.codes() == []


def test_the_hub_renews_what_the_peer_has_begun(stage: Stage) -> None:
    peer = stage.machine("a", ADDRESS_A)
    stage.begin(peer)
    (before,) = stage.hub.ike_sas("branch")
    stage.hub.do("rekey_ike", "branch")
    stage.world.run_for(5)
    assert stage.hub.ike_sas("branch")[-1].spi_i != before.spi_i
    spi_in = next(iter(stage.hub.installed))
    stage.hub.do("rekey_child", "branch", spi_in)
    stage.world.run_for(5)
    assert peer.sends(0)
    assert not stage.codes()


def test_a_peer_behind_a_nat_renews_along_the_path_that_the_nat_knows() -> None:
    stage = Stage("main")
    stage.world.nats.append(Nat([ADDRESS_A], BOX))
    stage.begin(stage.machine("a", ADDRESS_A))
    (before,) = stage.hub.ike_sas("branch")
    stage.hub.do("rekey_ike", "branch")
    stage.world.run_for(5)
    after = stage.hub.ike_sas("branch")[-1]
    assert after.spi_i != before.spi_i
    assert after.path == before.path


def test_a_machine_with_its_own_tunnel_is_that_tunnels(stage: Stage) -> None:
    own = stage.policy("own", ADDRESS_B, ADDRESS_C, 2, 3)
    own = replace(own, local_id=Identity.of(HUB), remote_id=Identity.of("own.example"))
    stage.hub.set_peer("c", own)
    machine = stage.machine("c", ADDRESS_C, "own.example")
    second = stage.policy("second", ADDRESS_C, ADDRESS_B, 1, 2)
    machine.set_peer("b", replace(second, local_id=Identity.of(BRANCH), remote_id=Identity.of(HUB)))
    for tunnel in ("to-hub", "second"):
        machine.initiate(0, tunnel)
        stage.world.run_for(1)
    assert stage.at("own") == [ADDRESS_C]
    assert stage.at("branch") == [ADDRESS_C]


def test_first_messages_from_addresses_that_no_tunnel_names_are_counted(stage: Stage) -> None:
    """One of them may be a peer by name that has moved, so that its name is looked up again."""
    stage.begin(stage.machine("a", STRANGER))
    assert isinstance(stage.hub.endpoint, Endpoint)
    assert stage.hub.endpoint.knocks == 1
    assert stage.hub.endpoint.counters[UNKNOWN_PEER] == 0
