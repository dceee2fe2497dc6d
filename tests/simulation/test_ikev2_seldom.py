"""IKEv2 where messages come late, crossed or odd, which few peers bring about."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.simulation.bounds import DUPLICATE_KEPT_BY_PEER
from tests.simulation.pair import Pair
from tests.simulation.policies import ADDRESS_B, STRANGER, Recipe
from tests.simulation.puppet import DH, ENCR, INTEG, PRF, Puppet, in_clear
from tests.simulation.stage import Stage
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import ChildDown, ChildReplaced, Failed, IkeRekeyFailed, IkeReplaced
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code
from vpnd.model.policy import NegotiationMode
from vpnd.model.proposals import Proposal
from vpnd.model.unreachable import Unreachable
from vpnd.wire.header import Header
from vpnd.wire.iana import DhGroup, Exchange2, IkeVersion, Notify2, Protocol
from vpnd.wire.ikev2 import (
    Delete,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    ProposalPart,
    Sa,
)

SPI = 0xC0FFEE77
LOWEST, HIGHEST = bytes(32), bytes((255,)) * 32
IKE_SPI = bytes(range(1, 9))


def established(recipe: Recipe | None = None) -> tuple[Stage, Puppet]:
    """The puppet has brought up an IKE SA and mapping 0."""
    stage = Stage(recipe)
    puppet = stage.puppet()
    stage.establish(puppet)
    return stage, puppet


def deleted(spi: int) -> Delete:
    """DELETE of the CHILD_SA on which its sender receives with this SPI."""
    return Delete(Protocol.ESP, (spi.to_bytes(4, "big"),))


def ike_successor(puppet: Puppet, nonce: bytes = bytes(range(32))) -> list[Payload]:
    """SA, N, KE: the request for a successor of the IKE SA, or its answer."""
    sa = Sa((ProposalPart(1, Protocol.IKE, IKE_SPI, (ENCR, PRF, INTEG, DH)),))
    return [sa, Nonce(nonce), KeyExchange(DhGroup.CURVE25519, puppet.public)]


def rekey_of(puppet: Puppet, old: int, spi: int, nonce: bytes) -> list[Payload]:
    """N(REKEY_SA), SA, N, TSi, TSr: the puppet's request for a successor of its CHILD_SA `old`."""
    sa, *selectors = puppet.child_payloads(spi, begun_here=True)
    rekeyed = Notify(Notify2.REKEY_SA, protocol=Protocol.ESP, spi=old.to_bytes(4, "big"))
    return [rekeyed, sa, Nonce(nonce), *selectors]


# ------------------------------------------------------------------------------------- headers, fragments


def test_a_message_that_seems_to_be_ours_is_dropped() -> None:
    """The flag says who began the IKE SA (RFC 7296 section 3.1)."""
    stage, puppet = established()
    (sa,) = stage.gateway.ike_sas()
    data = in_clear(sa.spi_r, sa.spi_r, Exchange2.INFORMATIONAL, 0, 2, [])
    assert stage.say(data) == []
    assert stage.endpoint.counters["the flag says that we sent it"] == 1
    assert len(stage.say(puppet.seal(Exchange2.INFORMATIONAL, 2, []))) == 1


def test_a_message_without_payloads_is_not_protected() -> None:
    stage, puppet = established()
    data = in_clear(puppet.spi_i, puppet.spi_r, Exchange2.INFORMATIONAL, 8, 2, [])
    assert stage.say(data) == []
    assert stage.endpoint.counters["not protected"] == 1


def test_an_answer_in_fragments_counts_once_it_is_whole() -> None:
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    init = Notify(Notify2.FRAGMENTATION_SUPPORTED)
    stage.gateway.initiate()
    puppet.take_init(stage.heard[-1])
    stage.say(puppet.init_message(init))
    pieces = puppet.seal_fragments(Exchange2.IKE_AUTH, 1, puppet.auth_payloads(), 100, response=True)
    assert len(pieces) > 1
    for piece in pieces[:-1]:
        assert stage.say(piece) == []
        assert not stage.gateway.ike_sas()
    stage.say(pieces[-1])
    assert len(stage.gateway.ike_sas()) == 1


def test_an_answer_without_a_responders_spi_is_no_answer() -> None:
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    puppet.spi_r = bytes(8)
    stage.gateway.initiate()
    puppet.take_init(stage.heard[-1])
    assert stage.say(puppet.init_message()) == []
    right = stage.puppet(initiator=False, seed=9)
    right.take_init(stage.heard[-1])
    assert len(stage.say(right.init_message())) == 1


# ------------------------------------------------------------------------------------- policies


def test_what_an_icmp_error_says_of_another_path_is_not_said_of_this_one() -> None:
    stage = Stage()
    stage.gateway.initiate()
    elsewhere = Path(ADDRESS_B, 500, STRANGER, 500)
    stage.gateway.do("handle_unreachable", elsewhere, Unreachable.PORT)
    stage.world.run_for(31)
    assert stage.gateway.diagnosis(Failed).code is Code.SILENT


def test_an_ike_sa_of_another_version_goes_on_as_it_was_agreed() -> None:
    """The tunnel speaks IKEv1 with other algorithms now; what is up has its own policy to its end."""
    pair = Pair()
    pair.establish()
    other = Proposal(Protocol.IKE, ("aes-256",), ("sha512",), ("sha512",), (31,))
    now = replace(
        pair.a.policies["to-b"], version=IkeVersion.V1, mode=NegotiationMode.MAIN, proposals=(other,)
    )
    pair.a.set_peer("b", now)
    pair.b.rekey_ike()
    pair.world.settle()
    assert len(pair.a.of(IkeReplaced)) == 1
    assert not pair.b.of(IkeRekeyFailed)


def test_attempts_at_one_address_wait_for_each_other() -> None:
    stage = Stage()
    policy = stage.gateway.policies["to-a"]
    for number in (1, 2, 3):
        stage.gateway.set_peer("a", replace(policy, name=f"t{number}", children=policy.children))
        stage.gateway.initiate(0, f"t{number}")
    begun = []
    for _ in range(3):
        begun.append([sa.tunnel for sa in stage.endpoint.snapshot().sas])
        stage.world.run_for(31)
    assert begun == [["t1"], ["t2"], ["t3"]]
    assert not stage.endpoint.snapshot().sas


def test_a_mapping_that_is_gone_when_the_keys_are_agreed_is_not_asked_for() -> None:
    stage = Stage(Recipe(mappings=2))
    stage.gateway.initiate(1)
    policy = stage.gateway.policies["to-a"]
    stage.gateway.set_peer("a", replace(policy, children=policy.children[:1]))
    puppet = stage.puppet(initiator=False)
    puppet.take_init(stage.heard[-1])
    (request,) = stage.say(puppet.init_message())
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads(), response=True))
    assert puppet.open(request).header.exchange == Exchange2.IKE_AUTH
    assert [child.mapping for child in stage.gateway.children()] == [0]


def test_of_two_tunnels_with_the_same_identities_one_without_a_child_sa_is_of_the_first() -> None:
    stage = Stage()
    policy = stage.gateway.policies["to-a"]
    (child,) = policy.children
    other = replace(child, local=ip_network("10.7.0.0/24"))
    stage.gateway.set_peer("a", replace(policy, name="second", children=(other,)))
    puppet = stage.puppet()
    stage.half_open(puppet)
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, [puppet.identity, puppet.auth_payload()]))
    assert len(stage.gateway.ike_sas("to-a")) == 1
    assert not stage.gateway.ike_sas("second")


# ------------------------------------------------------------------------------------- CHILD_SAs


def test_a_child_sa_that_was_not_asked_for_yet_is_not_when_the_ike_sa_goes() -> None:
    """Its request waited for the answer to another, and holds no SPI."""
    stage, _ = established(Recipe(mappings=2))
    stage.gateway.probe()
    stage.gateway.initiate(1)
    stage.gateway.close()
    stage.world.run_for(40)
    snapshot = stage.endpoint.snapshot()
    assert not snapshot.sas
    assert not snapshot.esp_spis
    assert {Header.decode(data).exchange for data in stage.heard[2:]} == {Exchange2.INFORMATIONAL}


def test_a_child_sa_is_closed_once() -> None:
    stage, puppet = established()
    (child,) = stage.gateway.children()
    for _ in range(2):
        stage.gateway.do("close_child", stage.gateway.tunnel, child.spi_in)
    assert len(stage.gateway.of(ChildDown)) == 1
    assert len(stage.heard) == 3
    assert stage.say(puppet.seal(Exchange2.INFORMATIONAL, 0, [deleted(0xC0FFEE01)], response=True)) == []


def test_what_the_peer_deletes_while_our_delete_waits_is_not_deleted_again() -> None:
    stage, puppet = established()
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, rekey_of(puppet, 0xC0FFEE01, SPI, HIGHEST)))
    stage.gateway.rekey_child()
    request = puppet.open(stage.heard[-1])
    assert request.header.exchange == Exchange2.CREATE_CHILD_SA
    stage.gateway.probe()
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 3, [deleted(0xC0FFEE01)]))
    (answer,) = stage.say(puppet.seal(Exchange2.INFORMATIONAL, 4, [deleted(0xC0FFEE01)]))
    assert not puppet.open(answer).payloads
    assert [child.spi_out for child in stage.gateway.children()][-1] == SPI


def test_a_delete_that_the_peer_has_made_needless_is_not_sent() -> None:
    """Ours waits for the answer to another request; the peer's own comes before."""
    stage, puppet = established(Recipe(mappings=2))
    stage.gateway.rekey_child()
    stage.gateway.initiate(1)
    made = [*puppet.child_payloads(SPI, begun_here=False), Nonce(HIGHEST)]
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 0, made, response=True))
    assert Header.decode(stage.heard[-1]).exchange == Exchange2.CREATE_CHILD_SA
    assert len(stage.say(puppet.seal(Exchange2.INFORMATIONAL, 2, [deleted(0xC0FFEE01)]))) == 1
    more = [*puppet.child_payloads(SPI + 1, 1, begun_here=False), Nonce(HIGHEST)]
    assert stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 1, more, response=True)) == []
    assert [stage.gateway.child(mapping).spi_out for mapping in (0, 1)] == [SPI, SPI + 1]


def test_a_successor_of_ours_stays_after_the_peers_delete_of_what_both_rekeyed() -> None:
    """The peer has the lowest nonce, and has deleted the old CHILD_SA before it answers us."""
    stage, puppet = established()
    stage.gateway.rekey_child()
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, rekey_of(puppet, 0xC0FFEE01, SPI, LOWEST)))
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 3, [deleted(0xC0FFEE01)]))
    heard = len(stage.heard)
    made = [*puppet.child_payloads(SPI + 1, begun_here=False), Nonce(HIGHEST)]
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 0, made, response=True))
    assert stage.gateway.child().spi_out == SPI + 1
    assert len(stage.heard) == heard
    assert len(stage.gateway.of(ChildReplaced)) == 2


# ------------------------------------------------------------------------------------- successors of IKE SAs


def crossed() -> tuple[Stage, Puppet]:
    """Both have asked for a successor of the IKE SA, and the puppet has an answer to its request."""
    stage, puppet = established()
    stage.gateway.rekey_ike()
    assert len(stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, ike_successor(puppet)))) == 1
    return stage, puppet


def test_an_answer_that_cannot_be_used_leaves_the_successor_that_the_peer_has_begun() -> None:
    stage, puppet = crossed()
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 0, ike_successor(puppet)[1:], response=True))
    assert stage.gateway.ike_sas()[-1].spi_i == IKE_SPI
    assert not stage.gateway.of(IkeRekeyFailed)


@pytest.mark.parametrize(
    "refusal",
    [
        Notify(Notify2.TEMPORARY_FAILURE),
        Notify(Notify2.NO_PROPOSAL_CHOSEN),
        Notify(Notify2.INVALID_KE_PAYLOAD, (19).to_bytes(2, "big")),
    ],
    ids=["busy", "no proposal", "another group"],
)
def test_a_refusal_under_an_ike_sa_that_has_its_successor_begins_nothing(refusal: Notify) -> None:
    """The peer has closed it already, and answers our request last."""
    stage = Stage(Recipe(dh=(31, 19)))
    puppet = stage.puppet()
    stage.establish(puppet)
    stage.gateway.rekey_ike()
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, ike_successor(puppet)))
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 3, [puppet.delete_ike()]))
    assert len(stage.gateway.of(IkeReplaced)) == 1
    heard = len(stage.heard)
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 0, [refusal], response=True))
    assert len(stage.heard) == heard
    assert len(stage.gateway.of(IkeReplaced)) == 1


def test_a_rekey_that_waits_is_not_done_by_the_successor() -> None:
    stage, puppet = established()
    stage.gateway.probe()
    stage.gateway.rekey_ike()
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, ike_successor(puppet)))
    assert stage.gateway.ike_sas()[-1].spi_i == IKE_SPI
    heard = len(stage.heard)
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 0, [], response=True))
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 3, [puppet.delete_ike()]))
    stage.world.run_for(3)
    said = {Header.decode(data).exchange for data in stage.heard[heard:]}
    assert Exchange2.CREATE_CHILD_SA not in said


# ------------------------------------------------------------------------------------- several IKE SAs


def several(count: int) -> tuple[Stage, list[Puppet]]:
    """The peer has begun so many at once, each with a CHILD_SA of mapping 0."""
    stage = Stage()
    puppets = [stage.puppet(seed=seed) for seed in range(1, count + 1)]
    for number, puppet in enumerate(puppets, 1):
        stage.half_open(puppet)
        spi = 0xC0FFEE00 + number
        stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads(spi)))
    return stage, puppets


def test_more_ike_sas_than_may_be_are_closed_at_once() -> None:
    most = Limits().ike_sas_per_tunnel
    stage, puppets = several(most + 1)
    assert len(stage.gateway.ike_sas()) == most
    assert puppets[0].spi_i not in [sa.spi_i for sa in stage.gateway.ike_sas()]
    requests = [data for data in stage.heard if Header.decode(data).exchange == Exchange2.INFORMATIONAL]
    assert isinstance(puppets[0].open(requests[-1]).payloads[0], Delete)


def test_of_three_the_oldest_stays_where_the_newest_goes() -> None:
    """Both were to yield to it: one of them stays, and the other yields to that."""
    stage, puppets = several(3)
    stage.say(puppets[2].seal(Exchange2.INFORMATIONAL, 2, [puppets[2].delete_ike()]))
    stage.world.run_for(DUPLICATE_KEPT_BY_PEER + 0.1)
    first, second = stage.endpoint.snapshot().sas[:2]
    assert [one.spi_i for one in (first, second)] == [one.spi_i for one in puppets[:2]]
    assert ("DUPLICATE" in first.deadlines) is not ("DUPLICATE" in second.deadlines)


def yielding() -> tuple[Stage, Puppet]:
    """The first of two IKE SAs is redundant, for the other one has answered: its puppet."""
    stage, (first, second) = several(2)
    stage.say(second.seal(Exchange2.INFORMATIONAL, 2, []))
    assert stage.gateway.child().spi_out == 0xC0FFEE02
    return stage, first


def test_a_child_sa_that_is_made_on_a_redundant_ike_sa_is_not_sent_on() -> None:
    stage, first = yielding()
    sa, *selectors = first.child_payloads(SPI)
    (answer,) = stage.say(first.seal(Exchange2.CREATE_CHILD_SA, 2, [sa, Nonce(HIGHEST), *selectors]))
    assert len(first.open(answer).payloads) >= 4
    assert SPI in [child.spi_out for child in stage.gateway.children()]
    assert stage.gateway.child().spi_out == 0xC0FFEE02


def test_what_comes_back_on_a_redundant_ike_sa_is_not_sent_on() -> None:
    """The peer takes back the successor of a CHILD_SA."""
    stage, first = yielding()
    stage.say(first.seal(Exchange2.CREATE_CHILD_SA, 2, rekey_of(first, 0xC0FFEE01, SPI, HIGHEST)))
    assert SPI in [child.spi_out for child in stage.gateway.children()]
    stage.say(first.seal(Exchange2.INFORMATIONAL, 3, [deleted(SPI)]))
    assert SPI not in [child.spi_out for child in stage.gateway.children()]
    assert stage.gateway.child().spi_out == 0xC0FFEE02
