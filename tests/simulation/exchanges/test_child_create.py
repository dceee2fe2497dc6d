"""A further CHILD_SA."""

from __future__ import annotations

from .held import HeldPair


def test_duplicate(held: HeldPair) -> None:
    """Nobody asks for what is there."""
    held.a.initiate(0)
    held.b.initiate(0)
    held.assert_quiet()
    assert held.news() == {"a": [], "b": []}
    held.settle()


def test_collision_ike_rekey(held: HeldPair) -> None:
    """Each is refused by the other; the CHILD_SA and the successor of the IKE SA come later."""
    held.a.initiate(1)
    held.b.rekey_ike()
    held.play("""
        a -> b  CREATE_CHILD_SA 2 {SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {SA, Ni, KEi}
        a <- b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}
        a -> b  CREATE_CHILD_SA 2 {N(TEMPORARY_FAILURE)}""")
    held.assert_quiet()
    assert held.news() == {"a": [], "b": []}
    held.a.initiate(1)
    held.assert_quiet()
    old = held.a.ike_sas()[0].spi_i
    held.world.clear_sky()
    held.world.run_for(2.5)
    assert held.a.sends(1), "a mapping without an SA is out for longer"
    held.world.run_for(2.5)
    assert held.a.ike_sas()[0].spi_i != old, "the IKE SA was not rekeyed after all"
    assert held.failures() == []
    held.settle((0, 1))
