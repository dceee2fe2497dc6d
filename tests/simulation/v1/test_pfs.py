"""PFS that only one end wants, in quick mode: the first one as well, for it has a key exchange or none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import Recipe
from tests.simulation.v1.pairs import MODES, pair_of
from vpnd.ike.outputs import ChildFailed, ChildReplaced, Failed
from vpnd.model.diagnosis import Code
from vpnd.model.policy import ChildPolicy, NegotiationMode
from vpnd.wire.iana import DhGroup

OURS, ANOTHER, THIRD = DhGroup.CURVE25519, DhGroup.ECP_256, DhGroup.ECP_384
"""The ISAKMP SA's own group, a further one of `ike.dh_group`, and one that is in neither."""
RECIPE = Recipe(dh=(OURS, ANOTHER))


def child(index: int, *groups: int) -> ChildPolicy:
    """The mapping of end a (0) or b (1), with PFS in these groups."""
    (found,) = RECIPE.pair()[index].children
    return found.with_groups(*groups)


def made(mode: NegotiationMode, a: tuple[int, ...] = (), b: tuple[int, ...] = ()) -> Pair:
    """A pair whose ends want PFS with these groups, or do not care."""
    return pair_of(
        mode, recipe=RECIPE, changes_a={"children": (child(0, *a),)}, changes_b={"children": (child(1, *b),)}
    )


def quicks(pair: Pair) -> list[str]:
    return [rung.text.partition("{")[2] for rung in pair.world.rungs if rung.text.startswith("QUICK")]


@pytest.mark.parametrize("group", [OURS, ANOTHER])
@pytest.mark.parametrize("mode", MODES)
def test_a_peer_that_asks_for_a_group_of_ours_gets_it(mode: NegotiationMode, group: int) -> None:
    pair = made(mode, b=(group,))
    pair.b.initiate()
    pair.world.settle()
    pair.assert_one_tunnel()
    assert pair.a.children()[0].suite.dh == group
    assert quicks(pair)[0] == "HASH, SA, Nonce, KE, ID, ID}"


@pytest.mark.parametrize("mode", MODES)
def test_a_group_that_is_not_ours_is_refused_with_both_values(mode: NegotiationMode) -> None:
    pair = made(mode, b=(THIRD,))
    pair.b.initiate()
    pair.world.run_for(5)
    (failed,) = pair.a.of(Failed)
    facts = failed.diagnosis
    assert (facts.code, facts.fact("theirs"), facts.fact("ours")) == (Code.PFS, "20", "off")
    assert not pair.a.children()


@pytest.mark.parametrize("mode", MODES)
def test_a_refused_first_quick_mode_is_tried_once_with_a_key_exchange(mode: NegotiationMode) -> None:
    pair = made(mode, b=(OURS,))
    pair.a.initiate()
    pair.world.settle()
    pair.assert_one_tunnel()
    assert not pair.a.of(ChildFailed)
    assert pair.a.children()[0].suite.dh == OURS
    begun = [text for text in quicks(pair) if "Nonce" in text]
    assert begun == ["HASH, SA, Nonce, ID, ID}", *["HASH, SA, Nonce, KE, ID, ID}"] * 2]


@pytest.mark.parametrize("mode", MODES)
def test_where_that_does_not_help_it_is_told_once(mode: NegotiationMode) -> None:
    pair = made(mode, b=(THIRD,))
    pair.a.initiate()
    pair.world.run_for(20)
    assert len(pair.a.of(ChildFailed)) == 1
    assert len(pair.b.of(Failed)) == 2, "without and with a key exchange"
    assert not pair.endpoint_a.snapshot().esp_spis
    assert not pair.endpoint_b.snapshot().esp_spis


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("mode", MODES)
def test_a_rekey_begins_with_what_the_peer_has_agreed_to(mode: NegotiationMode, side: str) -> None:
    """From either end: with PFS off the group is that of the pair that is succeeded."""
    pair = made(mode, b=(OURS,))
    pair.a.initiate()
    pair.world.run_for(1)
    pair.world.clear_ladder()
    getattr(pair, side).rekey_child()
    pair.world.run_for(1)
    assert quicks(pair)[0] == "HASH, SA, Nonce, KE, ID, ID}"
    assert pair.a.of(ChildReplaced)[-1].child.suite.dh == OURS
    assert not pair.a.of(ChildFailed)


@pytest.mark.parametrize("mode", MODES)
def test_pfs_here_and_off_at_the_peer_is_refused_with_both_values(mode: NegotiationMode) -> None:
    pair = made(mode, a=(OURS,))
    pair.b.policies["to-a"] = replace(pair.b.policies["to-a"], proposals=())
    pair.b.initiate()
    pair.world.run_for(5)
    facts = pair.a.of(Failed)[0].diagnosis
    assert (facts.code, facts.fact("theirs"), facts.fact("ours")) == (Code.PFS, "off", "31")
