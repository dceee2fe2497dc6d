"""DELETE of a CHILD_SA, and what may cross it."""

from __future__ import annotations

from .held import ALL_DOWN, HeldPair


def test_regular(held: HeldPair) -> None:
    """The answer names the other half."""
    held.a.close_child()
    held.play("""
        a -> b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {D}""")
    held.assert_down_once()
    held.settle(())


def test_collision(held: HeldPair) -> None:
    """Both delete it: neither answer names it (RFC 7296 section 1.4.1)."""
    held.a.close_child()
    held.b.close_child()
    held.play("""
        a -> b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {}
        a -> b  INFORMATIONAL 2 {}""")
    held.assert_down_once()
    held.settle(())


def test_collision_drop(held: HeldPair) -> None:
    """One DELETE is late: its receiver has forgotten the SA by then."""
    held.a.close_child()
    held.b.close_child()
    held.play("""
        a -> b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {}
        a <- b  INFORMATIONAL 2 {D}
        a -> b  INFORMATIONAL 2 {}""")
    held.assert_down_once()
    held.settle(())


def test_collision_ike_rekey(held: HeldPair) -> None:
    """The DELETE is answered as ever, the rekeying of the IKE SA refused for now (RFC 7296 section 2.25)."""
    held.a.close_child()
    held.b.rekey_ike()
    held.play("""
        a -> b  INFORMATIONAL 2 {D}
        a <- b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  INFORMATIONAL 2 {D}
        a -> b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}""")
    held.assert_down_once()
    held.assert_ike_rekeyed(within=30)
    held.settle(())


def test_collision_ike_delete(held: HeldPair) -> None:
    """Everything goes, and nothing twice."""
    held.a.close_child()
    held.b.close()
    held.play("""
        a -> b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {}
        a -> b  INFORMATIONAL 2 {}""")
    assert held.news() == ALL_DOWN
    held.settle((), 0)
