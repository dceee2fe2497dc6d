"""Succession of the IKE SA, and everything that may cross it. The successor numbers its messages from 0."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .held import ALL_DOWN, EVERY_ORDER, RECIPE, HeldPair, unlike, winner


def groups(a: tuple[int, ...], b: tuple[int, ...]) -> dict[str, Any]:
    """Configurations whose IKE proposals have these groups."""
    return unlike("proposals", replace(RECIPE, dh=a), replace(RECIPE, dh=b))


def assert_succeeded(held: HeldPair, by: str) -> None:
    """The one IKE SA of both is the one that `by` asked for, and the CHILD_SA is on it, untouched."""
    for gateway in (held.a, held.b):
        (info,) = gateway.ike_sas()
        assert info.initiator is (gateway.name == by)
    told = held.news()
    assert told == {"a": ["IkeReplaced"], "b": ["IkeReplaced"]}, "the CHILD_SA was touched"


# ------------------------------------------------------------------------------- one side alone


def test_regular(held: HeldPair) -> None:
    held.a.rekey_ike()
    held.play("a -> b  CREATE_CHILD_SA 2 {SA, Ni, KEi}")
    assert held.news() == {"a": [], "b": ["IkeReplaced"]}
    held.play("a <- b  CREATE_CHILD_SA 2 {SA, Nr, KEr}")
    assert held.news() == {"a": ["IkeReplaced"], "b": []}
    held.play("""
        a -> b  INFORMATIONAL 3 {D}
        a <- b  INFORMATIONAL 3 {}""")
    assert held.news() == {"a": [], "b": []}
    held.settle()


def test_regular_ke_invalid(initiator: str) -> None:
    held = HeldPair(initiator, **groups((31, 20), (20,)))
    held.a.rekey_ike()
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}
        a -> b  CREATE_CHILD_SA 3 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 3 {SA, Nr, KEr}
        a -> b  INFORMATIONAL 4 {D}
        a <- b  INFORMATIONAL 4 {}""")
    assert_succeeded(held, by="a")
    assert held.failures() == []
    held.settle()


# ------------------------------------------------------------------------------- both rekey


@EVERY_ORDER
def test_collision(held: HeldPair, lowest: str) -> None:
    """The creator of the redundant successor deletes that, the other side the old IKE SA."""
    held.collide(lowest, "rekey_ike")
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {SA, Nr, KEr}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, KEr}""")
    if winner(lowest) == "b":
        held.play("""
            a -> b  INFORMATIONAL 0 {D}
            a <- b  INFORMATIONAL 3 {D}
            a <- b  INFORMATIONAL 0 {}
            a -> b  INFORMATIONAL 3 {}""")
    else:
        held.play("""
            a -> b  INFORMATIONAL 3 {D}
            a <- b  INFORMATIONAL 0 {D}
            a <- b  INFORMATIONAL 3 {}
            a -> b  INFORMATIONAL 0 {}""")
    assert_succeeded(held, by=winner(lowest))
    held.settle()


@EVERY_ORDER
def test_collision_ke_invalid(initiator: str, lowest: str) -> None:
    """Neither guesses the other's group; the requests cross once more with the right one."""
    held = HeldPair(initiator, **groups((31, 20), (19, 20)))
    held.collide(lowest, "rekey_ike")
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}
        a -> b  CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}
        a -> b  CREATE_CHILD_SA 3 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 3 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 3 {SA, Nr, KEr}
        a -> b  CREATE_CHILD_SA 3 {SA, Nr, KEr}""")
    if winner(lowest) == "b":
        held.play("""
            a -> b  INFORMATIONAL 0 {D}
            a <- b  INFORMATIONAL 4 {D}
            a <- b  INFORMATIONAL 0 {}
            a -> b  INFORMATIONAL 4 {}""")
    else:
        held.play("""
            a -> b  INFORMATIONAL 4 {D}
            a <- b  INFORMATIONAL 0 {D}
            a <- b  INFORMATIONAL 4 {}
            a -> b  INFORMATIONAL 0 {}""")
    assert_succeeded(held, by=winner(lowest))
    held.settle()


@EVERY_ORDER
def test_collision_ke_invalid_delayed_retry(initiator: str, lowest: str) -> None:
    """The second try of `a` is late, so that `b` sees no collision."""
    held = HeldPair(initiator, **groups((31, 20), (19, 20)))
    held.collide(lowest, "rekey_ike")
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}
        a -> b  CREATE_CHILD_SA 2 {N(INVALID_KE_PAYLOAD)}
        a <- b  CREATE_CHILD_SA 3 {SA, Ni, KEi}
        a -> b  CREATE_CHILD_SA 3 {SA, Nr, KEr}
        a -> b  CREATE_CHILD_SA 3 {SA, Ni, KEi}
        a <- b  INFORMATIONAL 4 {D}
        a -> b  INFORMATIONAL 4 {}
        a <- b  CREATE_CHILD_SA 3 {N(TEMPORARY_FAILURE)}""")
    assert_succeeded(held, by="b")
    held.settle()


@EVERY_ORDER
def test_collision_delayed_response(held: HeldPair, lowest: str) -> None:
    """`b` is through with everything before `a` has the answer to its own request."""
    held.collide(lowest, "rekey_ike")
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, KEr}""")
    if winner(lowest) == "b":
        # b closes the old IKE SA. a takes over b's successor and never learns of its own.
        held.play("""
            a <- b  INFORMATIONAL 3 {D}
            a -> b  INFORMATIONAL 3 {}
            a <- b  CREATE_CHILD_SA 2 {SA, Nr, KEr}""")
    else:
        held.play("""
            a <- b  INFORMATIONAL 0 {D}
            a -> b  INFORMATIONAL 0 {}
            a <- b  CREATE_CHILD_SA 2 {SA, Nr, KEr}
            a -> b  INFORMATIONAL 3 {D}
            a <- b  INFORMATIONAL 3 {}""")
    assert_succeeded(held, by=winner(lowest))
    held.settle()


@EVERY_ORDER
def test_collision_dropped_request(held: HeldPair, lowest: str) -> None:
    """`b` never sees a collision, for the request of `a` is lost."""
    held.collide(lowest, "rekey_ike")
    held.play("""
        a -x b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, KEr}
        a <- b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 3 {}""")
    assert_succeeded(held, by="b")
    held.assert_stays_quiet()
    held.settle()


@EVERY_ORDER
def test_collision_delayed_request(held: HeldPair, lowest: str) -> None:
    """`b` has its answer when the request of `a` arrives; its DELETE arrives before the refusal."""
    held.collide(lowest, "rekey_ike")
    held.play("""
        a <- b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, KEr}
        a -> b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 3 {}
        a <- b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}""")
    assert_succeeded(held, by="b")
    held.settle()


@EVERY_ORDER
def test_collision_delayed_request_and_delete(held: HeldPair, lowest: str) -> None:
    """The same, and the refusal arrives before the DELETE: it is no reason to try again."""
    held.collide(lowest, "rekey_ike")
    held.play("""
        a <- b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a -> b  CREATE_CHILD_SA 2 {SA, Nr, KEr}
        a -> b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}
        a <- b  INFORMATIONAL 3 {D}
        a -> b  INFORMATIONAL 3 {}""")
    assert_succeeded(held, by="b")
    held.assert_stays_quiet()
    held.settle()


# ------------------------------------------------------------------------------- rekey x delete


def test_collision_delete(held: HeldPair) -> None:
    held.a.rekey_ike()
    held.b.close()
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  INFORMATIONAL 2 {D}
        a <- b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}
        a -> b  INFORMATIONAL 2 {}""")
    assert held.news() == ALL_DOWN
    held.settle((), 0)


def test_collision_delete_drop_delete(held: HeldPair) -> None:
    """The refusal is known before the reason of it."""
    held.a.rekey_ike()
    held.b.close()
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a x- b  INFORMATIONAL 2 {D}
        a <- b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}""")
    held.world.run_for(0.6)
    held.play("""
        a <- b  INFORMATIONAL 2 {D} again
        a -> b  INFORMATIONAL 2 {}""")
    assert held.news() == ALL_DOWN
    held.assert_stays_quiet()
    held.settle((), 0)
