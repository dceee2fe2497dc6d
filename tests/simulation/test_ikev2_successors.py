"""What has no successor although it should: another IKE SA is there before the traffic would stop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.bounds import REFUSED_WAIT, REINITIATE_AGAIN
from tests.simulation.pair import Pair
from tests.simulation.policies import ADDRESS_C, Recipe
from tests.simulation.puppet import Puppet, esp_sa, subnet
from tests.simulation.stage import Stage
from tests.simulation.weather import Datagram
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import (
    ChildDown,
    ChildReplaced,
    ChildUp,
    Failed,
    IkeDown,
    LadderLine,
    OutboundReady,
    PeerDead,
)
from vpnd.simulate.gateway import Gateway
from vpnd.wire.header import Flag, Header
from vpnd.wire.iana import Exchange2, Notify2, Protocol
from vpnd.wire.ikev2 import Delete, Nonce, Notify, Payload, TsI, TsR

LIFETIME = 3600
SILENT = Recipe(dpd=False, ike_lifetime=LIFETIME, child_lifetime=10 * LIFETIME)
SHORT_CHILD = Recipe(dpd=False, ike_lifetime=10 * LIFETIME, child_lifetime=LIFETIME)


class Refusing:
    """A peer that answers every CREATE_CHILD_SA with one notify, and begins again with a peer that does."""

    def __init__(self, recipe: Recipe, notify: Notify2) -> None:
        self.stage = Stage(recipe)
        self.notify = notify
        self.refused: set[tuple[bytes, int]] = set()
        self.puppets: list[Puppet] = [self.stage.puppet(initiator=False)]
        self.stage.establish_from_here(self.puppets[0])
        self._read = len(self.stage.heard)

    def run_for(self, seconds: int) -> None:
        """So much time passes, and each request is answered within a second."""
        for _ in range(seconds):
            self.stage.world.run_for(1)
            self._answer_all()

    def _answer_all(self) -> None:
        while self._read < len(self.stage.heard):
            data = self.stage.heard[self._read]
            self._read += 1
            header = Header.decode(data)
            if header.exchange == Exchange2.IKE_SA_INIT:
                puppet = self.stage.puppet(initiator=False, seed=len(self.puppets))
                self.puppets.append(puppet)
                puppet.take_init(data)
                self.stage.say(puppet.init_message())
            elif not header.flags & Flag.RESPONSE:
                puppet = next(p for p in self.puppets if p.spi_i == header.spi_i)
                self.stage.say(puppet.seal(*self._answer(puppet, header), response=True), port=500)

    def _answer(self, puppet: Puppet, header: Header) -> tuple[int, int, list[Payload]]:
        payloads: list[Payload] = []
        if header.exchange == Exchange2.CREATE_CHILD_SA:
            self.refused.add((header.spi_i, header.message_id))
            payloads = [Notify(self.notify)]
        elif header.exchange == Exchange2.IKE_AUTH:
            payloads = puppet.auth_payloads(0xC0FFEE01 + len(self.puppets))
        return header.exchange, header.message_id, payloads


def assert_replaced_without_a_gap(peer: Refusing) -> None:
    """Another IKE SA is there, with the mapping, and the mapping was there all the time."""
    gateway = peer.stage.gateway
    assert [ike.spi_i for ike in gateway.ike_sas()] == [peer.puppets[-1].spi_i]
    assert len(peer.puppets) == 2
    assert gateway.sends()
    ups = [
        type(event).__name__ for event in gateway.events if type(event).__name__ in ("ChildUp", "ChildDown")
    ]
    assert ups == ["ChildUp", "ChildUp", "ChildDown"]
    assert not gateway.of(Failed)


@pytest.mark.parametrize(
    "notify", [Notify2.TEMPORARY_FAILURE, Notify2.NO_PROPOSAL_CHOSEN, Notify2.INVALID_SYNTAX]
)
def test_an_ike_sa_that_cannot_be_rekeyed_has_another_before_its_end(notify: Notify2) -> None:
    peer = Refusing(SILENT, notify)
    peer.run_for(LIFETIME - 121)
    assert len(peer.refused) > 1
    assert len(peer.puppets) == 1
    peer.run_for(150)
    assert_replaced_without_a_gap(peer)


@pytest.mark.parametrize("recipe", [SILENT, SHORT_CHILD], ids=["IKE SA", "CHILD_SA"])
def test_a_peer_that_makes_no_more_sas_gets_another_ike_sa(recipe: Recipe) -> None:
    """RFC 7296 section 4: a minimal peer answers every CREATE_CHILD_SA so."""
    peer = Refusing(recipe, Notify2.NO_ADDITIONAL_SAS)
    peer.run_for(LIFETIME + 1)
    assert len(peer.refused) == 1
    assert_replaced_without_a_gap(peer)


def test_another_ike_sa_is_begun_again_once_the_first_has_had_its_time() -> None:
    """The peer answers nothing but under the IKE SA that there is, and that with a refusal."""
    peer = Refusing(Recipe(dpd=False, ike_lifetime=10 * LIFETIME), Notify2.NO_ADDITIONAL_SAS)
    gateway, stage = peer.stage.gateway, peer.stage
    stage.world.run_for(LIFETIME)
    begun = []
    for after in (0, REINITIATE_AGAIN - 5, 10):
        stage.world.run_for(after)
        gateway.rekey_ike()
        stage.world.run_for(1)
        data = [one for one in stage.heard if is_rekey(one)][-1]
        header, puppet = Header.decode(data), peer.puppets[0]
        refusal = [Notify(Notify2.NO_ADDITIONAL_SAS)]
        stage.say(puppet.seal(header.exchange, header.message_id, refusal, response=True))
        begun.append(len({one[:8] for one in stage.heard if is_init(one)}))
    assert begun == [2, 2, 3]


def mute(pair: Pair) -> None:
    """What `b` answers to CREATE_CHILD_SA under the present IKE SA is lost."""
    (ike,) = pair.a.ike_sas()

    def silence(datagram: Datagram) -> list[tuple[float, bytes]] | None:
        header = Header.decode(datagram.data)
        answers = header.exchange == Exchange2.CREATE_CHILD_SA and header.flags & Flag.RESPONSE
        return [] if answers and datagram.sender == "b" and header.spi_i == ike.spi_i else None

    pair.world.interceptors.append(silence)


@pytest.mark.parametrize("command", ["rekey_child", "rekey_ike"])
@pytest.mark.parametrize("dpd", [True, False])
def test_an_answer_that_never_comes_makes_no_gap(command: str, dpd: bool) -> None:
    pair = Pair(recipe=Recipe(dpd=dpd))
    pair.establish()
    mute(pair)
    old = pair.a.child().spi_in
    getattr(pair.a, command)()
    for _ in range(60):
        pair.world.run_for(1)
        if dpd:
            pair.a.do("note_activity", pair.a.tunnel)
        assert pair.a.sends()
        assert pair.b.sends()
    pair.world.run_for(30)
    assert pair.a.child().spi_in != old
    assert not pair.a.of(PeerDead)
    assert not pair.a.of(Failed)
    pair.assert_one_tunnel()


@pytest.mark.parametrize(("arrives", "again"), [(9.6, False), (9.9, True)])
def test_a_rekey_that_is_late_is_not_taken_for_one_that_cannot_be(arrives: float, again: bool) -> None:
    """Lives of seconds leave little between the soft and the hard end."""
    pair = Pair(recipe=Recipe(ike_lifetime=10, dpd=False), changes_b={"lifetime": LIFETIME})
    pair.establish()
    (ike,) = pair.a.ike_sas()
    comes = ike.established_at + arrives

    def late(datagram: Datagram) -> list[tuple[float, bytes]] | None:
        header = Header.decode(datagram.data)
        is_rekey = header.exchange == Exchange2.CREATE_CHILD_SA and datagram.sender == "a"
        return [(comes - pair.world.now, datagram.data)] if is_rekey and pair.world.now < comes else None

    pair.world.interceptors.append(late)
    pair.world.clear_ladder()
    pair.world.run_for(12)
    assert pair.a.sends()
    assert ("IKE_SA_INIT" in str(pair.world.ladder())) is again


def test_the_side_that_only_answered_does_not_begin_again() -> None:
    pair = Pair(recipe=Recipe(ike_lifetime=LIFETIME, dpd=False))
    pair.b.initiate()
    pair.world.settle()
    pair.a.rekey_ike()
    pair.world.settle()
    pair.world.interceptors.append(lambda datagram: [])
    pair.a.rekey_child()
    pair.world.clear_ladder()
    pair.world.run_for(60)
    assert "IKE_SA_INIT" not in str(pair.world.ladder())
    assert pair.a.of(IkeDown)
    assert pair.a.of(ChildDown)


def test_the_death_of_a_redundant_ike_sa_is_not_the_peers() -> None:
    """The peer that was asked in vain has begun again: its new IKE SA says that it lives."""
    pair = Pair(recipe=Recipe())
    pair.establish()
    pair.b.endpoint = Endpoint(SeededEntropy(4711))
    pair.b.installed.clear()
    (policy,) = pair.b.policies.values()
    pair.b.endpoint.set_peer(pair.world.now, policy)
    pair.world.run_for(29)
    pair.b.do("set_peer", replace(policy, name="twin", local_address=ADDRESS_C))  # no INITIAL_CONTACT
    pair.b.initiate(tunnel=policy.name)
    for _ in range(30):
        pair.world.run_for(0.2)
        assert pair.a.ike_sas()
    assert not pair.a.of(PeerDead)
    assert len(pair.a.ike_sas()) == 1
    assert len(pair.a.installed) == 1


def test_a_successor_is_one_of_the_same_mapping() -> None:
    """RFC 7296 section 2.9.2: it is not narrower. The peer offers all that it has, as strongSwan 5.9 does."""
    stage = Stage(Recipe(mappings=2))
    puppet = stage.puppet()
    stage.half_open(puppet)
    ours, theirs = subnet(1, 1), subnet(2, 1)
    first = [puppet.identity, puppet.auth_payload(), esp_sa(0xC0FFEE01), TsI(ours), TsR(theirs)]
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, first))
    assert stage.gateway.child(1).spi_out == 0xC0FFEE01
    rekey = Notify(Notify2.REKEY_SA, b"", Protocol.ESP, (0xC0FFEE01).to_bytes(4, "big"))
    everything: list[Payload] = [TsI((*subnet(1, 0), *ours)), TsR((*subnet(2, 0), *theirs))]
    request: list[Payload] = [rekey, esp_sa(0xC0FFEE02), Nonce(bytes(32)), *everything]
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, request))
    assert [child.mapping for child in stage.gateway.children()] == [1, 1]


def sent_on(gateway: Gateway) -> int | None:
    """The inbound SPI of the pair that packets go out on, as the engine has it: with it they have none."""
    sends: int | None = None
    for event in gateway.events:
        match event:
            case ChildUp(child, True) | ChildReplaced(_, child, True):
                sends = child.spi_in
            case OutboundReady(_, spi_in):
                sends = spi_in
            case ChildDown(_, _, spi_in, _) if spi_in == sends:
                sends = None
    return sends


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("seed", range(4))
def test_the_successor_of_a_redundant_pair_is_not_sent_on(side: str, seed: int) -> None:
    """It goes with the redundant IKE SA a moment later, and the pair that stays would not be sent on."""
    pair = Pair(seed)
    pair.a.initiate()
    pair.b.initiate()
    pair.world.run_for(0.5)
    gateway = getattr(pair, side)
    (redundant,) = (child for child in gateway.children() if child != gateway.child())
    gateway.do("rekey_child", redundant.tunnel, redundant.spi_in)
    pair.world.run_for(10)
    pair.assert_one_tunnel()
    for one in (pair.a, pair.b):
        assert sent_on(one) == one.child().spi_in


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("which", ["redundant", "kept"])
def test_nor_is_it_once_one_of_the_two_ike_sas_was_rekeyed(which: str, side: str) -> None:
    """The successor of the redundant one is redundant, also beside the successor of the one that stays."""
    for seed in range(4):
        pair = Pair(seed)
        pair.a.initiate()
        pair.b.initiate()
        pair.world.run_for(0.5)
        gateway = getattr(pair, side)
        kept = gateway.child()
        (redundant,) = (child for child in gateway.children() if child != kept)
        spi_in = (redundant if which == "redundant" else kept).spi_in
        (old,) = (sa for sa in gateway.endpoint.snapshot().sas if spi_in in sa.children)
        gateway.do("rekey_ike", gateway.tunnel, old.spi_i if old.initiator else old.spi_r)
        pair.world.settle()
        (new,) = (sa for sa in gateway.endpoint.snapshot().sas if spi_in in sa.children)
        assert new.spi_i != old.spi_i
        gateway.do("rekey_child", redundant.tunnel, redundant.spi_in)
        pair.world.settle()
        for one in (pair.a, pair.b):
            assert any(event.old_spi_in for event in one.of(ChildReplaced))
            assert sent_on(one) in (kept.spi_in, kept.spi_out)
        pair.world.run_for(20)
        pair.assert_one_tunnel()


def test_a_succession_that_was_asked_for_is_tried_again_when_refused() -> None:
    """So is one by kilobytes: the next by time may be hours away, and the traffic would stop before."""
    peer = Refusing(SHORT_CHILD, Notify2.NO_PROPOSAL_CHOSEN)
    peer.stage.gateway.rekey_child()
    peer.run_for(3 * int(REFUSED_WAIT))
    assert len(peer.refused) == 3 * 2, "each try asks without a key exchange, then with one"


@pytest.mark.parametrize("seconds", [20, 60])
@pytest.mark.parametrize("kind", ["child_lifetime", "ike_lifetime"])
def test_a_short_life_leaves_a_busy_peer_less_time(seconds: int, kind: str) -> None:
    long = Recipe(dpd=False)
    short = (
        replace(long, child_lifetime=seconds)
        if kind == "child_lifetime"
        else replace(long, ike_lifetime=seconds)
    )
    peer = Refusing(short, Notify2.TEMPORARY_FAILURE)
    peer.run_for(seconds - 1)
    assert len(peer.refused) > 1


def test_a_successor_that_the_peer_takes_back_leaves_the_old_one_as_it_was() -> None:
    """A peer that cannot use our answer deletes what it has made of it, and asks again later, as we do."""
    stage = Stage(Recipe(dpd=False))
    puppet = stage.puppet()
    stage.half_open(puppet)
    ours, theirs = subnet(1, 0), subnet(2, 0)
    first = [puppet.identity, puppet.auth_payload(), esp_sa(0xC0FFEE01), TsI(ours), TsR(theirs)]
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, first))
    old = stage.gateway.child().spi_in
    stage.world.run_for(1)
    rekey = Notify(Notify2.REKEY_SA, b"", Protocol.ESP, (0xC0FFEE01).to_bytes(4, "big"))
    for message_id, spi in ((2, 0xC0FFEE02), (4, 0xC0FFEE03)):
        request: list[Payload] = [rekey, esp_sa(spi), Nonce(bytes(32)), TsI(ours), TsR(theirs)]
        stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, message_id, request))
        assert len(stage.gateway.installed) == 2
        delete = Delete(Protocol.ESP, (spi.to_bytes(4, "big"),))
        stage.say(puppet.seal(Exchange2.INFORMATIONAL, message_id + 1, [delete]))
        assert list(stage.gateway.installed) == [old]
        assert [type(event) for event in stage.gateway.events if not isinstance(event, LadderLine)][-2:] == [
            OutboundReady,
            ChildDown,
        ]
    before = len(stage.heard)
    stage.world.run_for(13_000)
    assert any(map(is_rekey, stage.heard[before:]))


def is_init(data: bytes) -> bool:
    """Whether a message belongs to IKE_SA_INIT."""
    return Header.decode(data).exchange == Exchange2.IKE_SA_INIT


def is_rekey(data: bytes) -> bool:
    """Whether a message is a request of CREATE_CHILD_SA."""
    header = Header.decode(data)
    return header.exchange == Exchange2.CREATE_CHILD_SA and not header.flags & Flag.RESPONSE


def test_a_storm_of_rekeys_is_answered_and_leaves_one_child() -> None:
    """Each that is deleted on both sides still receives for 5 s: no reason to refuse the next one."""
    pair = Pair(recipe=Recipe())
    pair.establish()
    for _ in range(60):
        pair.b.rekey_child()
        pair.world.settle()
    assert "NO_ADDITIONAL_SAS" not in str(pair.world.ladder())
    assert len(pair.a.installed) < 30
    pair.world.run_for(10)
    assert len(pair.a.installed) == len(pair.b.installed) == 1
    assert len(pair.a.ike_sas()) == 1
