"""DELETE of a CHILD_SA, and what may cross it."""

from __future__ import annotations

from vpnd.ike.outputs import ChildDown

from .held import HeldPair


def assert_down_once(held: HeldPair) -> None:
    """Either side has announced one end of one SA pair."""
    assert [len(gateway.of(ChildDown)) for gateway in (held.a, held.b)] == [1, 1]


def test_regular(initiator: str) -> None:
    """The answer names the other half."""
    held = HeldPair(initiator)
    held.a.close_child()
    held.play("""
        a -> b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {D}""")
    assert_down_once(held)
    held.settle(())


def test_collision(initiator: str) -> None:
    """Both delete it: neither answer names it (RFC 7296 section 1.4.1)."""
    held = HeldPair(initiator)
    held.a.close_child()
    held.b.close_child()
    held.play("""
        a -> b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {}
        a -> b  INFORMATIONAL 2 {}""")
    assert_down_once(held)
    held.settle(())


def test_collision_drop(initiator: str) -> None:
    """One DELETE is late: its receiver has forgotten the SA by then."""
    held = HeldPair(initiator)
    held.a.close_child()
    held.b.close_child()
    held.play("""
        a -> b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {}
        a <- b  INFORMATIONAL 2 {D}
        a -> b  INFORMATIONAL 2 {}""")
    assert_down_once(held)
    held.settle(())


def test_collision_ike_rekey(initiator: str) -> None:
    """The DELETE is answered as ever, the rekeying of the IKE SA refused for now (RFC 7296 section 2.25)."""
    held = HeldPair(initiator)
    held.a.close_child()
    held.b.rekey_ike()
    held.play("""
        a -> b  INFORMATIONAL 2 {D}
        a <- b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  INFORMATIONAL 2 {D}
        a -> b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}""")
    assert_down_once(held)
    old = held.a.ike_sas()[0].spi_i
    held.world.clear_sky()
    held.world.run_for(30)
    assert held.a.ike_sas()[0].spi_i != old, "the IKE SA was not rekeyed after all"
    held.settle(())


def test_collision_ike_delete(initiator: str) -> None:
    """Everything goes, and nothing twice."""
    held = HeldPair(initiator)
    held.a.close_child()
    held.b.close()
    held.play("""
        a -> b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {}
        a -> b  INFORMATIONAL 2 {}""")
    assert held.news() == {"a": ["ChildDown", "IkeDown"], "b": ["ChildDown", "IkeDown"]}
    held.settle((), 0)
