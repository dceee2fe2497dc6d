"""DELETE of the IKE SA."""

from __future__ import annotations

from .held import ALL_DOWN, HeldPair


def test_regular(held: HeldPair) -> None:
    held.a.close()
    assert held.news() == {"a": ["ChildDown", "IkeDown"], "b": []}
    held.play("a -> b  INFORMATIONAL 2 {D}")
    assert held.news() == {"a": [], "b": ["ChildDown", "IkeDown"]}
    held.play("a <- b  INFORMATIONAL 2 {}")
    held.settle((), 0)


def test_collision(held: HeldPair) -> None:
    """Each answers as ever, and forgets its own request (RFC 7296 section 2.25.2)."""
    held.a.close()
    held.b.close()
    held.play("""
        a -> b  INFORMATIONAL 2 {D}
        a <- b  INFORMATIONAL 2 {D}""")
    assert held.news() == ALL_DOWN
    held.play("""
        a -x b  INFORMATIONAL 2 {}
        a x- b  INFORMATIONAL 2 {}""")
    held.assert_stays_quiet()
    held.settle((), 0)
