"""Succession of CHILD_SAs and IKE SAs, and every collision of RFC 7296 section 2.25.

The cases are those of strongSwan's exchange tests; the collisions run over both outcomes of the nonces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.simulation.bounds import INBOUND_KEPT
from tests.simulation.pair import Pair
from tests.simulation.policies import mapping, mirrored, policy, with_pfs
from tests.simulation.wire import WirePair
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildReplaced,
    Failed,
    IkeDown,
    IkeReplaced,
    OutboundReady,
)
from vpnd.model.diagnosis import Code
from vpnd.model.policy import DpdPolicy, Lifetimes
from vpnd.simulate.gateway import Gateway

SEEDS = range(0, 24, 2)
BUSY = 16.0
"""Seconds until a rekey that met TEMPORARY_FAILURE has certainly been tried again."""


def up(seed: int = 1, pfs: tuple[int, ...] = (), theirs: tuple[int, ...] | None = None) -> WirePair:
    """A tunnel that is up, without PFS or with."""
    child = with_pfs(mapping(), *pfs) if pfs else mapping()
    ours = policy(children=(child,))
    other = mirrored(ours)
    if theirs is not None:
        other = replace(other, children=(with_pfs(other.children[0], *theirs),))
    pair = WirePair(ours, other, seed=seed)
    pair.establish()
    return pair


@pytest.fixture(params=["a", "b"])
def side(request: pytest.FixtureRequest) -> str:
    """Either side begins: the one that began the IKE SA, and the other."""
    return str(request.param)


def of(pair: WirePair, name: str) -> Gateway:
    """The side of this name."""
    return pair.a if name == "a" else pair.b


def rekey_child(pair: WirePair, name: str) -> None:
    """Ask one side to rekey its CHILD_SA."""
    of(pair, name).rekey_child()


def test_a_storm_of_rekeys_is_answered_each_time(side: str) -> None:
    """Those that both sides have deleted make room before their stragglers have all come."""
    pair, times = Pair(), 40
    pair.establish()
    begins = pair.a if side == "a" else pair.b
    for _ in range(times):
        begins.rekey_child()
        pair.world.run_for(INBOUND_KEPT / times)
    for gateway in (pair.a, pair.b):
        assert len(gateway.of(ChildReplaced)) == times
        assert not gateway.of(ChildFailed)
    pair.world.run_for(2 * INBOUND_KEPT)
    assert [len(gateway.installed) for gateway in (pair.a, pair.b)] == [1, 1]


def rekey_ike(pair: WirePair, name: str) -> None:
    """Ask one side to rekey its IKE SA."""
    of(pair, name).rekey_ike()


def delete_child(pair: WirePair, name: str) -> None:
    """Ask one side to close its CHILD_SA."""
    of(pair, name).close_child()


def delete_ike(pair: WirePair, name: str) -> None:
    """Ask one side to close the tunnel."""
    of(pair, name).close()


def step_in(order: str, pair: WirePair, carries: bool = True) -> None:
    """Deliver a datagram of each side that this order names; one that has sent nothing is passed over."""
    for name in order:
        if any(d.sender == name for d in pair.wire):
            pair.step(name, carries)


def assert_one_of_each(pair: WirePair) -> None:
    """Once all timers of the succession have run: one IKE SA, one CHILD_SA, the same on both sides."""
    pair.run()
    pair.assert_carries()
    pair.advance(BUSY + 2 * INBOUND_KEPT)
    pair.assert_agreed()
    pair.assert_carries()
    for subject in (pair.a, pair.b):
        assert len(subject.ike_sas()) == len(subject.installed) == len(subject.sending()) == 1


def arrows(side: str) -> tuple[str, str]:
    """Request and response arrows of an exchange that `side` begins."""
    return ("a -> b", "a <- b") if side == "a" else ("a <- b", "a -> b")


# ------------------------------------------------------------------------------------ CHILD_SA


def test_child_rekey_replaces_both_sas(side: str) -> None:
    pair = up()
    old = {subject.name: next(iter(subject.installed)) for subject in (pair.a, pair.b)}
    rekey_child(pair, side)
    pair.run()
    there, back = arrows(side)
    n = 2 if side == "a" else 0
    assert pair.drawn == [
        f"{there}  CREATE_CHILD_SA {n} {{N(REKEY_SA), SA, Ni, TSi, TSr}}",
        f"{back}  CREATE_CHILD_SA {n} {{SA, Nr, TSi, TSr}}",
        f"{there}  INFORMATIONAL {n + 1} {{D}}",
        f"{back}  INFORMATIONAL {n + 1} {{D}}",
    ]
    beginner, other = of(pair, side), pair.other(of(pair, side))
    assert beginner.last(ChildReplaced).outbound
    assert not other.last(ChildReplaced).outbound
    assert other.last(OutboundReady).spi_in == other.last(ChildReplaced).child.spi_in
    for subject in (pair.a, pair.b):
        assert subject.last(ChildReplaced).old_spi_in == old[subject.name]
        assert old[subject.name] in subject.installed
    pair.advance(INBOUND_KEPT + 0.1)
    for subject in (pair.a, pair.b):
        assert old[subject.name] not in subject.installed
    assert_one_of_each(pair)


def test_no_packet_is_lost_between_any_two_messages(side: str) -> None:
    pair = up()
    rekey_child(pair, side)
    other = pair.other(of(pair, side)).name
    for name in (side, other, side, other):
        pair.step(name)
    assert_one_of_each(pair)


def test_the_narrowed_selectors_are_kept(side: str) -> None:
    pair = up()
    before = next(iter(pair.a.children())).ts_local
    rekey_child(pair, side)
    pair.run()
    assert pair.a.last(ChildReplaced).child.ts_local == before


def test_pfs_is_used_and_another_group_is_asked_for(side: str) -> None:
    pair = up(pfs=(31, 19), theirs=(19, 31) if side == "a" else (31,))
    pair.world.clear_ladder()
    rekey_child(pair, side)
    pair.run()
    assert "KEi" in pair.lines[0][1]
    assert "KEr" in pair.lines[1][1]
    assert of(pair, side).last(ChildReplaced).child.suite.dh in (19, 31)
    assert_one_of_each(pair)


def test_invalid_ke_is_answered_with_the_wanted_group() -> None:
    pair = up(pfs=(31, 19), theirs=(19,))
    pair.world.clear_ladder()
    rekey_child(pair, "a")
    pair.run()
    assert pair.texts[1] == "CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}"
    assert pair.a.last(ChildReplaced).child.suite.dh == 19
    assert_one_of_each(pair)


def test_a_pfs_mismatch_is_named_and_the_old_sa_stays() -> None:
    pair = up(pfs=(31,), theirs=(19,))
    rekey_child(pair, "a")
    pair.run()
    diagnosis = pair.a.diagnosis(ChildFailed)
    assert (diagnosis.code, diagnosis.fact("ours")) == (Code.PFS, "31")
    theirs = pair.b.diagnosis(Failed)
    assert (theirs.code, theirs.fact("theirs"), theirs.fact("ours")) == (Code.PFS, "31", "19")
    assert len(pair.a.installed) == len(pair.b.installed) == 1
    pair.assert_carries()


def test_a_rekey_of_what_the_peer_is_closing_waits() -> None:
    pair = up()
    delete_child(pair, "b")
    pair.take("b")
    rekey_child(pair, "a")
    pair.step("a", carries=False)
    assert pair.lines[-1][1] == "CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}"
    pair.run()
    pair.advance(BUSY)
    pair.assert_agreed()
    assert not pair.a.installed


def test_child_sa_not_found_makes_a_new_one() -> None:
    pair = up()
    pair.forget_child(pair.b)
    rekey_child(pair, "a")
    pair.run()
    texts = pair.texts
    assert texts[1] == "CREATE_CHILD_SA 2 {N(CHILD_SA_NOT_FOUND)}"
    assert texts[2] == "CREATE_CHILD_SA 3 {SA, Ni, TSi, TSr}"
    assert len(pair.a.installed) == 1


def test_rekeying_twice_at_once_is_one_rekey() -> None:
    pair = up()
    rekey_child(pair, "a")
    rekey_child(pair, "a")
    pair.run()
    assert len(pair.a.of(ChildReplaced)) == 1


# --------------------------------------------------------------------------- CHILD_SA collisions


def winners(pairs: Iterator[WirePair]) -> set[str]:
    """Which side's successor stayed, over all pairs."""
    found = set()
    for pair in pairs:
        (child,) = pair.a.children()
        found.add("a" if child.initiator else "b")
    return found


def test_both_rekey_the_child_at_once_and_both_outcomes_occur() -> None:
    def collided() -> Iterator[WirePair]:
        for seed in SEEDS:
            pair = up(seed)
            rekey_child(pair, "a")
            rekey_child(pair, "b")
            for name in "abab":
                pair.step(name)
            assert_one_of_each(pair)
            yield pair

    assert winners(collided()) == {"a", "b"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("order", ["bbaa", "baab", "abba", "babaab", "bababa"])
def test_collision_with_delayed_answers(seed: int, order: str) -> None:
    pair = up(seed)
    rekey_child(pair, "a")
    rekey_child(pair, "b")
    step_in(order, pair)
    assert_one_of_each(pair)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_request_that_comes_after_the_other_s_answer_is_refused_for_now(seed: int) -> None:
    pair = up(seed)
    rekey_child(pair, "b")
    rekey_child(pair, "a")
    delayed = pair.take("b")
    pair.step("a")
    pair.step("b")
    pair.deliver(delayed)
    assert pair.lines[-1][1] == "CREATE_CHILD_SA 0 {N(TEMPORARY_FAILURE)}"
    assert_one_of_each(pair)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_request_that_comes_after_everything_finds_nothing(seed: int) -> None:
    pair = up(seed)
    rekey_child(pair, "b")
    rekey_child(pair, "a")
    delayed = pair.take("b")
    for name in "abab":
        if any(d.sender == name for d in pair.wire):
            pair.step(name)
    pair.deliver(delayed)
    assert pair.lines[-1][1] == "CREATE_CHILD_SA 0 {N(CHILD_SA_NOT_FOUND)}"
    assert_one_of_each(pair)


@pytest.mark.parametrize("order", ["ab", "ba", "aabb", "bbaa", "abba"])
def test_rekey_meets_delete_of_the_same_child(order: str) -> None:
    pair = up()
    rekey_child(pair, "a")
    delete_child(pair, "b")
    step_in(order, pair, carries=False)
    pair.run()
    pair.advance(2 * BUSY)
    pair.assert_agreed()
    pair.assert_carries()


def test_both_delete_the_child_at_once() -> None:
    pair = up()
    delete_child(pair, "a")
    delete_child(pair, "b")
    pair.run()
    assert [text.split(" ", 2)[2] for _, text in pair.lines] == ["{D}", "{D}", "{}", "{}"]
    pair.assert_agreed()
    assert not pair.a.installed
    assert len(pair.a.of(ChildDown)) == len(pair.b.of(ChildDown)) == 1


# -------------------------------------------------------------------------------------- IKE SA


def test_ike_rekey_keeps_the_children(side: str) -> None:
    pair = up()
    before = pair.a.children()
    old = pair.a.ike_sas()[0]
    rekey_ike(pair, side)
    pair.run()
    there, back = arrows(side)
    n = 2 if side == "a" else 0
    assert pair.drawn == [
        f"{there}  CREATE_CHILD_SA {n} {{SA, Ni, KEi}}",
        f"{back}  CREATE_CHILD_SA {n} {{SA, Nr, KEr}}",
        f"{there}  INFORMATIONAL {n + 1} {{D}}",
        f"{back}  INFORMATIONAL {n + 1} {{}}",
    ]
    for subject in (pair.a, pair.b):
        replaced = subject.last(IkeReplaced)
        assert (replaced.old_spi_i, replaced.old_spi_r) == (old.spi_i, old.spi_r)
        assert not subject.of(IkeDown)
        assert not subject.of(ChildDown)
    assert pair.a.children() == before
    assert pair.a.ike_sas()[0].initiator is (side == "a")
    assert_one_of_each(pair)


def test_the_successor_carries_every_exchange(side: str) -> None:
    pair = up()
    rekey_ike(pair, side)
    pair.run()
    for name in ("a", "b"):
        rekey_child(pair, name)
        pair.run()
        pair.advance(2 * INBOUND_KEPT)
    rekey_ike(pair, "b")
    pair.run()
    assert_one_of_each(pair)
    delete_child(pair, side)
    pair.run()
    assert not pair.a.installed
    assert not pair.b.installed


def test_ike_rekey_asks_for_another_group() -> None:
    ours = policy()
    both = tuple(replace(p, dh=(31, 19)) for p in ours.proposals)
    pair = WirePair(ours)
    pair.establish()
    pair.a.set_peer("b", replace(ours, proposals=both))
    only = tuple(replace(p, dh=(19,)) for p in ours.proposals)
    pair.b.set_peer("a", replace(mirrored(ours), proposals=only))
    rekey_ike(pair, "a")
    pair.run()
    assert pair.lines[1][1] == "CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}"
    assert pair.a.ike_sas()[0].suite.dh == 19
    assert_one_of_each(pair)


def test_both_rekey_the_ike_sa_at_once_and_both_outcomes_occur() -> None:
    outcomes = set()
    for seed in SEEDS:
        pair = up(seed)
        rekey_ike(pair, "a")
        rekey_ike(pair, "b")
        for name in "abab":
            pair.step(name)
        assert_one_of_each(pair)
        outcomes.add(pair.a.ike_sas()[0].initiator)
        assert not pair.a.of(IkeDown)
        assert not pair.b.of(IkeDown)
    assert outcomes == {True, False}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("order", ["bbaa", "baab", "abba", "babaab", "aabb"])
def test_ike_collision_with_delayed_answers(seed: int, order: str) -> None:
    pair = up(seed)
    rekey_ike(pair, "a")
    rekey_ike(pair, "b")
    step_in(order, pair)
    assert_one_of_each(pair)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lost", ["a", "b"])
def test_ike_collision_with_a_lost_request(seed: int, lost: str) -> None:
    pair = up(seed)
    rekey_ike(pair, "a")
    rekey_ike(pair, "b")
    pair.take(lost)
    pair.run()
    assert_one_of_each(pair)


def test_child_and_ike_at_once_meet_temporary_failure_and_try_again() -> None:
    pair = up()
    rekey_child(pair, "a")
    rekey_ike(pair, "b")
    pair.step("a")
    pair.step("b")
    answers = [text for _, text in pair.lines[-2:]]
    assert answers == [
        "CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}",
        "CREATE_CHILD_SA 0 {N(TEMPORARY_FAILURE)}",
    ]
    assert_one_of_each(pair)
    assert pair.a.of(ChildReplaced)
    assert pair.a.of(IkeReplaced)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_ike_rekey_meets_delete_of_the_ike_sa(order: str) -> None:
    pair = up()
    rekey_ike(pair, "a")
    delete_ike(pair, "b")
    for name in order:
        pair.step(name, carries=False)
    pair.run()
    pair.advance(60)
    for subject in (pair.a, pair.b):
        assert not subject.ike_sas()
        assert not subject.installed
        assert len(subject.of(IkeDown)) == 1
        assert subject.next_timeout() is None


def test_both_close_at_once() -> None:
    pair = up()
    delete_ike(pair, "a")
    delete_ike(pair, "b")
    pair.run()
    pair.advance(60)
    for subject in (pair.a, pair.b):
        assert len(subject.of(IkeDown)) == 1
        assert subject.next_timeout() is None


# ------------------------------------------------------------------------------------ lifetimes


def test_successors_come_before_the_end_for_ever() -> None:
    ours = policy(lifetime=1000, children=(mapping(lifetimes=Lifetimes(100)),))
    pair = WirePair(ours)
    pair.establish()
    for _ in range(60):
        pair.advance(50)
        pair.assert_carries()
        for subject in (pair.a, pair.b):
            assert len(subject.ike_sas()) == 1
            assert 1 <= len(subject.installed) <= 3
    for subject in (pair.a, pair.b):
        assert not subject.of(IkeDown)
        assert len(subject.of(IkeReplaced)) >= 3
        assert len(subject.of(ChildReplaced)) >= 30
        assert {down.diagnosis.fact("detail") for down in subject.of(ChildDown)} == {"rekeyed"}


def test_the_hard_end_of_a_child_whose_peer_refuses_to_rekey() -> None:
    pair = up(pfs=(31,), theirs=(19,))
    pair.advance(3601)
    down = pair.a.last(ChildDown)
    assert down.diagnosis.code is Code.LIFETIME
    assert not pair.a.installed
    assert not pair.b.installed
    assert pair.a.ike_sas()


def test_the_hard_end_of_an_ike_sa_that_cannot_be_rekeyed() -> None:
    ours = policy(lifetime=1000, children=(mapping(lifetimes=Lifetimes(100_000)),))
    pair = WirePair(ours)
    pair.establish()
    other = tuple(replace(p, dh=(19,)) for p in ours.proposals)
    pair.b.set_peer("a", replace(mirrored(ours), proposals=other, lifetime=100_000))
    pair.advance(1001)
    for subject in (pair.a, pair.b):
        assert not subject.ike_sas()
        assert not subject.installed
        assert subject.diagnosis(IkeDown).code is Code.LIFETIME


def test_a_rekey_answer_that_never_comes_ends_in_a_dead_peer_before_the_hard_end() -> None:
    """F14: with DPD the silence is noticed, and the tunnel can begin again."""
    ours = policy(children=(mapping(lifetimes=Lifetimes(400)),), dpd=DpdPolicy(True, 30))
    pair = WirePair(ours)
    pair.establish()
    pair.filter = lambda name, data: []
    pair.advance(100)
    assert pair.a.diagnosis(IkeDown).code is Code.PEER_DEAD
    assert not pair.a.installed
