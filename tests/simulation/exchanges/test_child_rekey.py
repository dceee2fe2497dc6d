"""Succession of a CHILD_SA, and everything that may cross it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vpnd.ike.outputs import ChildDown, PeerDead

from .held import ALL_DOWN, EVERY_ORDER, RECIPE, HeldPair, unlike, winner


def groups(a: tuple[int, ...], b: tuple[int, ...]) -> dict[str, Any]:
    """Configurations with perfect forward secrecy by these groups."""
    return unlike("children", replace(RECIPE, pfs=a), replace(RECIPE, pfs=b))


# ------------------------------------------------------------------------------- one side alone


def test_regular(held: HeldPair) -> None:
    """The responder sends on the successor once the initiator's DELETE shows that it has it."""
    held.a.rekey_child()
    held.play("a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}")
    assert held.news() == {"a": [], "b": ["ChildReplaced"]}
    held.play("a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}")
    assert held.news() == {"a": ["ChildReplaced"], "b": []}
    held.play("a -> b  INFORMATIONAL 3 {D}")
    assert held.news() == {"a": [], "b": ["OutboundReady"]}
    held.play("a <- b  INFORMATIONAL 3 {D}")
    assert held.news() == {"a": [], "b": []}
    assert held.sender_of() == "a"
    held.settle()


def test_regular_ke_invalid(initiator: str) -> None:
    held = HeldPair(initiator, **groups((31, 20), (20,)))
    held.a.rekey_child()
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}
        a -> b  CREATE_CHILD_SA 3 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}
        a <- b  CREATE_CHILD_SA 3 {SA, Nr, KEr, TSi, TSr}
        a -> b  INFORMATIONAL 4 {D}
        a <- b  INFORMATIONAL 4 {D}""")
    assert held.a.child().suite.dh == held.b.child().suite.dh == 20
    assert held.failures() == []
    held.settle()


def test_regular_responder_ignore_soft_expire(held: HeldPair) -> None:
    """While the DELETE of the old SA is awaited its soft lifetime begins nothing."""
    old = held.b.child()
    held.a.rekey_child()
    held.play("a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}")
    held.b.do("rekey_child", held.b.tunnel, old.spi_in)
    held.play("a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}")
    held.b.do("rekey_child", held.b.tunnel, old.spi_in)
    held.play("""
        a -> b  INFORMATIONAL 3 {D}
        a <- b  INFORMATIONAL 3 {D}""")
    held.b.do("rekey_child", held.b.tunnel, old.spi_in)
    held.assert_quiet()
    assert held.sender_of() == "a"
    held.settle()


@pytest.mark.parametrize("answer_first", [True, False])
def test_regular_responder_handle_hard_expire(held: HeldPair, answer_first: bool) -> None:
    """The old SA ends at the responder, which says so: both delete it, and neither answer names it."""
    old = held.b.child()
    held.a.rekey_child()
    held.play("a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}")
    if answer_first:
        held.play("a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}")
    held.news()
    held.b.do("close_child", held.b.tunnel, old.spi_in)
    assert held.news()["b"] == ["OutboundReady", "ChildDown"]
    if not answer_first:
        held.play("a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}")
    held.play("""
        a <- b  INFORMATIONAL 2 {D}
        a -> b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 3 {}""")
    assert held.sender_of() == "a"
    held.settle()


@pytest.mark.parametrize("answer_first", [True, False])
def test_regular_responder_delete(held: HeldPair, answer_first: bool) -> None:
    """The responder deletes the successor while the old SA waits for its DELETE: both are gone."""
    held.a.rekey_child()
    held.play("a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}")
    successor = held.newest("b")
    if answer_first:
        held.play("a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}")
    held.b.do("close_child", held.b.tunnel, successor)
    if not answer_first:
        held.play("a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}")
    held.play("""
        a <- b  INFORMATIONAL 2 {D}
        a -> b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 3 {D}""")
    held.assert_down_once()
    held.settle(())


def test_regular_responder_lost_sa(held: HeldPair) -> None:
    """The responder does not know the SA any more: a new one takes its place."""
    held.lose_child("b")
    held.a.rekey_child()
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(CHILD_SA_NOT_FOUND)}""")
    assert held.news()["a"] == ["ChildDown"]
    held.play("""
        a -> b  CREATE_CHILD_SA 3 {SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 3 {SA, Nr, TSi, TSr}""")
    assert held.news() == {"a": ["ChildUp"], "b": ["ChildUp"]}
    held.settle()


def test_regular_responder_incorrect_delete(held: HeldPair) -> None:
    """A responder that deletes the old SA itself, and whose DELETE overtakes its answer."""
    old = held.b.child()
    held.a.rekey_child()
    held.play("a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}")
    held.b.do("close_child", held.b.tunnel, old.spi_in)
    held.play("""
        a <- b  INFORMATIONAL 2 {D}
        a -> b  INFORMATIONAL 2 {D}
        a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}""")
    held.assert_quiet()
    assert held.sender_of() == "a"
    held.settle()


def test_regular_delete_timeout(held: HeldPair) -> None:
    """The DELETE of the old SA is never answered: whatever ends then, the old SA ends once."""
    old = held.a.child()
    held.a.rekey_child()
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}""")
    held.world.run_for(120)
    assert held.a.of(PeerDead)
    ended = [down.spi_in for down in held.a.of(ChildDown)]
    assert ended.count(old.spi_in) == 1
    assert len(ended) == len(set(ended)) == 2
    assert not held.a.installed


# ------------------------------------------------------------------------------- both rekey


@EVERY_ORDER
def test_collision(held: HeldPair, lowest: str) -> None:
    held.collide(lowest, "rekey_child")
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}""")
    assert held.news() == {"a": ["ChildReplaced"], "b": ["ChildReplaced"]}
    held.play("""
        a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a -> b  INFORMATIONAL 3 {D}
        a <- b  INFORMATIONAL 3 {D}
        a <- b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 3 {D}""")
    told = {"a": ["OutboundReady"], "b": ["ChildReplaced"]}
    if winner(lowest) == "a":
        told = {"a": ["ChildReplaced"], "b": ["OutboundReady"]}
    assert held.news() == told
    assert held.sender_of() == winner(lowest)
    held.settle()


@EVERY_ORDER
def test_collision_delayed_response(held: HeldPair, lowest: str) -> None:
    """`b` is through with everything before `a` has the answer to its own request."""
    held.collide(lowest, "rekey_child")
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a <- b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 3 {D}
        a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a -> b  INFORMATIONAL 3 {D}
        a <- b  INFORMATIONAL 3 {D}""")
    assert held.sender_of() == winner(lowest)
    held.settle()


@EVERY_ORDER
def test_collision_delayed_response_delete(held: HeldPair, lowest: str) -> None:
    """`b` is through, and deletes the successor that stays too, before `a` has its answer."""
    held.collide(lowest, "rekey_child")
    held.play("a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}")
    made_for_a = held.newest("b")
    held.play("""
        a <- b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a <- b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 3 {D}""")
    stays = held.newest("b") if winner(lowest) == "b" else made_for_a
    held.b.do("close_child", held.b.tunnel, stays)
    held.play("a <- b  INFORMATIONAL 4 {D}")
    # The successor that a asked for is not known to it yet.
    held.play("a -> b  INFORMATIONAL 4 " + ("{D}" if winner(lowest) == "b" else "{}"))
    held.play("a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}")
    held.play("""
        a -> b  INFORMATIONAL 3 {D}
        a <- b  INFORMATIONAL 3 {D}""")
    held.settle(())


@EVERY_ORDER
@pytest.mark.parametrize("answer_first", [True, False])
def test_collision_delayed_request(held: HeldPair, lowest: str, answer_first: bool) -> None:
    """`b` has its answer and has deleted the old SA when it learns that `a` would rekey it as well."""
    held.collide(lowest, "rekey_child")
    held.play("""
        a <- b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}""")
    if answer_first:
        held.play("a <- b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}")
    held.play("""
        a <- b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 3 {D}""")
    if not answer_first:
        held.play("a <- b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}")
    assert held.sender_of() == "b"
    assert held.failures() == []
    held.settle()


@EVERY_ORDER
def test_collision_delayed_request_more(held: HeldPair, lowest: str) -> None:
    """The old SA is gone on both sides when the request that would rekey it arrives."""
    held.collide(lowest, "rekey_child")
    held.play("""
        a <- b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a <- b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 3 {D}
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(CHILD_SA_NOT_FOUND)}""")
    assert held.sender_of() == "b"
    assert held.failures() == []
    held.settle()


@EVERY_ORDER
def test_collision_delayed_request_more_delete(held: HeldPair, lowest: str) -> None:
    """The old SA and its successor are gone when the request that would rekey the old one arrives."""
    held.collide(lowest, "rekey_child")
    held.play("""
        a <- b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a <- b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 3 {D}""")
    held.b.close_child()
    held.play("""
        a <- b  INFORMATIONAL 4 {D}
        a -> b  INFORMATIONAL 4 {D}
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(CHILD_SA_NOT_FOUND)}""")
    held.settle(())


@EVERY_ORDER
def test_collision_ke_invalid(initiator: str, lowest: str) -> None:
    """Neither guesses the other's group; the requests cross once more with the right one."""
    held = HeldPair(initiator, **groups((31, 20), (19, 20)))
    held.collide(lowest, "rekey_child")
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}
        a -> b  CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}
        a -> b  CREATE_CHILD_SA 3 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}
        a <- b  CREATE_CHILD_SA 3 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}
        a <- b  CREATE_CHILD_SA 3 {SA, Nr, KEr, TSi, TSr}
        a -> b  CREATE_CHILD_SA 3 {SA, Nr, KEr, TSi, TSr}
        a -> b  INFORMATIONAL 4 {D}
        a <- b  INFORMATIONAL 4 {D}
        a <- b  INFORMATIONAL 4 {D}
        a -> b  INFORMATIONAL 4 {D}""")
    assert held.sender_of() == winner(lowest)
    held.settle()


@EVERY_ORDER
def test_collision_ke_invalid_delayed_retry(initiator: str, lowest: str) -> None:
    """The second try of `a` is late, so that `b` sees no collision."""
    held = HeldPair(initiator, **groups((31, 20), (19, 20)))
    held.collide(lowest, "rekey_child")
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}
        a -> b  CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}
        a <- b  CREATE_CHILD_SA 3 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}
        a -> b  CREATE_CHILD_SA 3 {SA, Nr, KEr, TSi, TSr}
        a -> b  CREATE_CHILD_SA 3 {N(REKEY_SA), SA, Ni, KEi, TSi, TSr}
        a <- b  CREATE_CHILD_SA 3 {N(TEMPORARY_FAILURE)}
        a <- b  INFORMATIONAL 4 {D}
        a -> b  INFORMATIONAL 4 {D}""")
    assert held.sender_of() == "b"
    held.settle()


@pytest.mark.parametrize("lowest", ["Ni of b", "Nr of a"])
def test_collision_responder_incorrect_delete(held: HeldPair, lowest: str) -> None:
    """`b` has lost and deletes the old SA all the same, before `a` has its answer."""
    old = held.b.child()
    held.collide(lowest, "rekey_child")
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}""")
    held.b.do("close_child", held.b.tunnel, old.spi_in)
    held.play("""
        a <- b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 3 {D}
        a <- b  INFORMATIONAL 4 {D}
        a -> b  INFORMATIONAL 4 {D}
        a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}""")
    assert held.sender_of() == "a"
    held.settle()


# ------------------------------------------------------------------------------- rekey x delete


def test_collision_delete(held: HeldPair) -> None:
    held.a.rekey_child()
    held.b.close_child()
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  INFORMATIONAL 2 {D}
        a <- b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}
        a -> b  INFORMATIONAL 2 {D}""")
    held.assert_down_once()
    held.settle(())


def test_collision_delete_drop_delete(held: HeldPair) -> None:
    """The refusal is known before the reason of it: nothing is left to rekey when its time comes."""
    held.a.rekey_child()
    held.b.close_child()
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a x- b  INFORMATIONAL 2 {D}
        a <- b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}""")
    held.world.run_for(0.6)
    held.play("""
        a <- b  INFORMATIONAL 2 {D} again
        a -> b  INFORMATIONAL 2 {D}""")
    held.assert_stays_quiet()
    held.settle(())


def test_collision_delete_drop_rekey(held: HeldPair) -> None:
    """The request to rekey arrives when the SA is gone."""
    held.a.rekey_child()
    held.b.close_child()
    held.play("""
        a <- b  INFORMATIONAL 2 {D}
        a -> b  INFORMATIONAL 2 {D}
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(CHILD_SA_NOT_FOUND)}""")
    assert held.failures() == []
    held.settle(())


def test_collision_delete_delayed_response(held: HeldPair) -> None:
    """`b` answers and deletes what it has just made; the DELETE overtakes the answer."""
    held.a.rekey_child()
    held.play("a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}")
    held.b.do("close_child", held.b.tunnel, held.newest("b"))
    held.play("""
        a <- b  INFORMATIONAL 2 {D}
        a -> b  INFORMATIONAL 2 {}
        a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a -> b  INFORMATIONAL 3 {D}
        a <- b  INFORMATIONAL 3 {D}""")
    held.settle(())


def test_collision_ike_rekey(held: HeldPair) -> None:
    """Each is refused by the other, and each tries again later (RFC 7296 section 2.25)."""
    held.a.rekey_child()
    held.b.rekey_ike()
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}
        a -> b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}""")
    held.assert_quiet()
    assert held.news() == {"a": [], "b": []}
    child, ike = held.a.child(), held.a.ike_sas()[0]
    held.world.clear_sky()
    held.world.run_for(4)
    assert held.a.ike_sas()[0].spi_i != ike.spi_i, "the IKE SA was not rekeyed after all"
    assert held.a.child().spi_in == child.spi_in, "both were tried again at once, and may meet again"
    held.world.run_for(36)
    assert held.a.child().spi_in != child.spi_in, "the CHILD_SA was not rekeyed after all"
    assert held.failures() == []
    held.settle()


def test_collision_ike_delete(held: HeldPair) -> None:
    held.a.rekey_child()
    held.b.close()
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  INFORMATIONAL 2 {D}
        a <- b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}
        a -> b  INFORMATIONAL 2 {}""")
    assert held.news() == ALL_DOWN
    held.settle((), 0)


# ------------------------------------------------------------------------------- further


def test_a_rival_that_is_rekeyed_itself_still_wins(held: HeldPair) -> None:
    """`b` has rekeyed its successor once more before `a` has the answer that makes the redundant one."""
    held.collide("Ni of a", "rekey_child")
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a <- b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 3 {D}""")
    held.b.rekey_child()
    held.play("""
        a <- b  CREATE_CHILD_SA 4 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a -> b  CREATE_CHILD_SA 4 {SA, Nr, TSi, TSr}
        a <- b  INFORMATIONAL 5 {D}
        a -> b  INFORMATIONAL 5 {D}
        a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a -> b  INFORMATIONAL 3 {D}
        a <- b  INFORMATIONAL 3 {D}""")
    assert held.sender_of() == "b"
    held.settle()
