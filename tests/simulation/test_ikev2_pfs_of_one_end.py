"""PFS that only one end wants: what works, what is tried once, and what is said (RFC 7296 section 1.3.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.bounds import PFS_PROOF, PFS_PROOF_OF_PEER
from tests.simulation.policies import IKE, Recipe, mapping, mirrored, policy, with_pfs
from tests.simulation.wire import WirePair
from vpnd.ike.outputs import ChildFailed, ChildReplaced, Failed
from vpnd.model.diagnosis import Code
from vpnd.model.policy import ChildPolicy, PeerPolicy
from vpnd.simulate.gateway import Gateway
from vpnd.wire.iana import DhGroup

OURS, ANOTHER, THIRD = DhGroup.CURVE25519, DhGroup.ECP_256, DhGroup.ECP_384
"""The IKE SA's own group, a further one of `ike.dh_group`, and one that is in neither."""
TWO_GROUPS = tuple(replace(proposal, dh=(OURS, ANOTHER)) for proposal in IKE)


def tunnel(*groups: int, mappings: int = 1, prove: bool = False) -> PeerPolicy:
    """The policy of an end that wants PFS with these groups, or does not care."""
    children: list[ChildPolicy] = [mapping(index) for index in range(mappings)]
    children = [with_pfs(child, *groups) if groups else child for child in children]
    return policy(proposals=TWO_GROUPS, children=tuple(children), prove_rekey=prove)


def up(ours: PeerPolicy, theirs: PeerPolicy) -> WirePair:
    pair = WirePair(ours, mirrored(theirs))
    pair.establish()
    pair.world.clear_ladder()
    return pair


def rekey(pair: WirePair, side: Gateway) -> None:
    side.rekey_child()
    pair.run()


# ------------------------------------------------------------------------ off here, the peer asks


@pytest.mark.parametrize("group", [OURS, ANOTHER])
def test_a_peer_that_asks_for_a_group_of_ours_gets_it(group: int) -> None:
    pair = up(tunnel(group), tunnel())
    rekey(pair, pair.a)
    assert pair.texts[1] == "CREATE_CHILD_SA 2 {SA, Nr, KEr, TSi, TSr}"
    assert pair.b.last(ChildReplaced).child.suite.dh == group
    pair.assert_agreed()
    pair.assert_carries()


def test_a_peer_that_prefers_another_group_is_asked_for_one_of_ours() -> None:
    pair = up(tunnel(THIRD, ANOTHER), tunnel())
    rekey(pair, pair.a)
    assert pair.texts[1] == "CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}"
    assert pair.b.last(ChildReplaced).child.suite.dh == ANOTHER
    pair.assert_agreed()


def test_a_group_that_is_not_ours_is_refused_with_both_values() -> None:
    pair = up(tunnel(THIRD), tunnel())
    rekey(pair, pair.a)
    theirs = pair.b.diagnosis(Failed)
    assert (theirs.code, theirs.fact("theirs"), theirs.fact("ours")) == (Code.PFS, "20", "none")
    ours = pair.a.diagnosis(ChildFailed)
    assert (ours.code, ours.fact("theirs"), ours.fact("ours")) == (Code.PFS, "off or another group", "20")
    pair.assert_carries()


def test_a_further_child_gets_it_as_well() -> None:
    pair = up(tunnel(OURS, mappings=2), tunnel(mappings=2))
    pair.initiate(mapping=1)
    assert next(c for c in pair.b.children() if c.mapping == 1).suite.dh == OURS
    pair.assert_agreed()


def test_a_peer_that_offers_both_is_answered_as_configured() -> None:
    """No key exchange, since PFS is off here and the peer does not insist."""
    theirs = tunnel(OURS)
    (child,) = theirs.children
    both = replace(child, proposals=tuple(replace(p, dh=(OURS, 0)) for p in child.proposals))
    pair = up(replace(theirs, children=(both,)), tunnel())
    rekey(pair, pair.a)
    assert pair.b.last(ChildReplaced).child.suite.dh is None


# ------------------------------------------------------------------------ off here, the peer insists


@pytest.mark.parametrize("group", [OURS, ANOTHER])
def test_a_refused_rekey_is_tried_once_with_a_key_exchange(group: int) -> None:
    pair = up(tunnel(), tunnel(group))
    rekey(pair, pair.a)
    wanted = [
        "CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}",
        "CREATE_CHILD_SA 2 {N(NO_PROPOSAL_CHOSEN)}",
        "CREATE_CHILD_SA 3 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}",
    ]
    assert pair.texts[:3] == wanted
    if group == OURS:
        assert pair.a.last(ChildReplaced).child.suite.dh == OURS
        assert not pair.a.of(ChildFailed)
    else:
        assert len(pair.texts) == 4, "once"
        assert pair.a.diagnosis(ChildFailed).code is Code.PFS
    pair.assert_agreed()
    pair.assert_carries()


def test_the_next_rekey_begins_with_what_the_peer_has_agreed_to() -> None:
    pair = up(tunnel(), tunnel(OURS))
    rekey(pair, pair.a)
    pair.world.clear_ladder()
    rekey(pair, pair.a)
    assert pair.texts[:2] == [
        "CREATE_CHILD_SA 5 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}",
        "CREATE_CHILD_SA 5 {SA, Nr, KEr, TSi, TSr}",
    ]
    pair.assert_agreed()


def test_a_refused_further_child_is_tried_once_with_a_key_exchange() -> None:
    pair = up(tunnel(mappings=2), tunnel(OURS, mappings=2))
    pair.initiate(mapping=1)
    assert not pair.a.of(ChildFailed)
    assert next(c for c in pair.a.children() if c.mapping == 1).suite.dh == OURS
    pair.assert_agreed()


def test_both_values_are_named_where_nothing_helps() -> None:
    pair = up(tunnel(), tunnel(THIRD))
    rekey(pair, pair.a)
    assert len(pair.texts) == 4, "asked twice, refused twice"
    (failed,) = pair.a.of(ChildFailed)
    facts = failed.diagnosis
    assert (facts.code, facts.fact("ours")) == (Code.PFS, "off")
    assert facts.fact("theirs") == "another group than ours of the IKE SA"
    assert not pair.a.endpoint.snapshot().esp_spis - set(pair.a.installed)
    pair.assert_carries()


# ------------------------------------------------------------------------ the early proof


@pytest.mark.parametrize("theirs", [(), (OURS,)])
def test_the_first_rekey_is_proved_early_and_once(theirs: tuple[int, ...]) -> None:
    pair = up(tunnel(prove=True), tunnel(*theirs))
    pair.advance(PFS_PROOF + 0.1)
    assert pair.a.last(ChildReplaced).child.suite.dh == (OURS if theirs else None)
    pair.assert_agreed()
    pair.assert_carries()
    pair.advance(60)
    assert len(pair.a.of(ChildReplaced)) == 1


def test_the_side_that_answers_proves_it_if_the_other_does_not() -> None:
    pair = up(tunnel(OURS, prove=False), tunnel(prove=True))
    pair.advance(PFS_PROOF_OF_PEER + 0.1)
    assert len(pair.b.of(ChildReplaced)) == 1
    pair = up(tunnel(), tunnel(prove=True))
    pair.advance(PFS_PROOF_OF_PEER + 0.1)
    (replaced,) = pair.b.of(ChildReplaced)
    assert replaced.child.initiator, "begun by b"
    pair.assert_agreed()


def again(pair: WirePair, ours: PeerPolicy) -> int:
    """Close the tunnel, configure `ours`, bring it up again; the rekeys that come by themselves then."""
    before = len(pair.a.of(ChildReplaced))
    pair.a.close()
    pair.run()
    pair.advance(60)
    pair.a.set_peer("b", ours)
    pair.establish()
    pair.advance(PFS_PROOF + 5)
    return len(pair.a.of(ChildReplaced)) - before


def test_it_is_proved_again_for_another_configuration_only() -> None:
    ours = tunnel(prove=True)
    pair = up(ours, tunnel())
    pair.advance(PFS_PROOF + 0.1)
    assert again(pair, ours) == 0
    assert again(pair, replace(ours, lifetime=80000)) == 1


def test_a_refusal_is_proof_enough() -> None:
    ours = tunnel(prove=True)
    pair = up(ours, tunnel(THIRD))
    pair.advance(PFS_PROOF + 0.1)
    assert len(pair.a.of(ChildFailed)) == 1
    again(pair, ours)
    assert len(pair.a.of(ChildFailed)) == 1
    pair.assert_carries()


def test_the_groups_that_a_peer_gets_on_request_begin_with_the_ike_sas_own() -> None:
    """Also where the configuration has changed since: that group is the one both ends have shown to have."""
    policy = policy_with_groups((14, 31))
    assert policy.groups_on_request(31) == (31, 14)
    assert policy.groups_on_request(19) == (19, 14, 31)
    assert policy.groups_on_request(None) == (14, 31)


def policy_with_groups(groups: tuple[int, ...]) -> PeerPolicy:
    """One end's configuration with these groups for IKE."""
    return Recipe(dh=groups).pair()[0]
