"""Which SA pair of a mapping sends, over all IKE SAs of a tunnel."""

from __future__ import annotations

import pytest

from tests.unit.tunnel.lives import DELETED, child
from vpnd.ike.outputs import ChildDown, ChildReplaced, ChildRetired, ChildUp, OutboundReady
from vpnd.ike.pairs import Pairs


def up(pairs: Pairs, *spis: int) -> None:
    for spi_in in spis:
        assert pairs.follow(ChildUp(child(0, spi_in))) is None


def replaced(pairs: Pairs, old: int, new: int) -> None:
    assert pairs.follow(ChildReplaced(old, child(0, new), outbound=True)) is None


def down(pairs: Pairs, spi_in: int) -> int | None:
    """The pair that sends instead, if another one does."""
    ready = pairs.follow(ChildDown("branch", 0, spi_in, DELETED))
    assert ready is None or ready.tunnel == "branch"
    return None if ready is None else ready.spi_in


def retired(pairs: Pairs, spi_in: int) -> int | None:
    ready = pairs.follow(ChildRetired("branch", 0, spi_in))
    return None if ready is None else ready.spi_in


def test_when_the_sending_pair_goes_the_newest_other_one_sends() -> None:
    pairs = Pairs()
    up(pairs, 0x5000, 0x6000, 0x7000)
    assert down(pairs, 0x7000) == 0x6000
    assert down(pairs, 0x5000) is None
    assert down(pairs, 0x6000) is None


@pytest.mark.parametrize("gone", [0x5000, 0x7000])
def test_a_pair_that_was_retired_is_never_sent_on_again(gone: int) -> None:
    """It receives to its end; also where the other one, which sends from now on, goes before it."""
    pairs, other = Pairs(), 0x5000 + 0x7000 - gone
    up(pairs, 0x5000, 0x7000)
    assert retired(pairs, gone) == (other if gone == 0x7000 else None)
    assert down(pairs, other) is None
    assert down(pairs, gone) is None


def test_one_that_has_no_other_is_not_retired() -> None:
    pairs = Pairs()
    up(pairs, 0x5000)
    assert retired(pairs, 0x5000) is None
    assert retired(pairs, 0x9000) is None
    up(pairs, 0x6000)
    assert down(pairs, 0x6000) == 0x5000


def test_a_pair_that_was_succeeded_does_not_send_when_its_successor_goes() -> None:
    pairs = Pairs()
    up(pairs, 0x5000)
    replaced(pairs, 0x5000, 0x5100)
    assert down(pairs, 0x5100) is None
    assert down(pairs, 0x5000) is None


def test_the_successor_of_a_pair_that_does_not_send_does_not_send_either() -> None:
    pairs = Pairs()
    up(pairs, 0x5000, 0x7000)
    replaced(pairs, 0x5000, 0x5100)
    assert down(pairs, 0x5000) is None
    assert down(pairs, 0x7000) == 0x5100


def test_what_ike_has_named_sends_and_is_one_to_fall_back_to() -> None:
    pairs = Pairs()
    up(pairs, 0x5000)
    replaced(pairs, 0x5000, 0x5100)
    assert pairs.follow(OutboundReady("branch", 0x5000)) is None
    assert down(pairs, 0x5100) is None
    up(pairs, 0x5200)
    assert down(pairs, 0x5200) == 0x5000


def test_the_old_pair_can_be_named_while_none_sends() -> None:
    pairs = Pairs()
    up(pairs, 0x5000)
    replaced(pairs, 0x5000, 0x5100)
    down(pairs, 0x5100)
    pairs.follow(OutboundReady("branch", 0x5000))
    up(pairs, 0x5200)
    assert down(pairs, 0x5200) == 0x5000


def test_a_successor_of_what_is_gone_sends() -> None:
    pairs = Pairs()
    replaced(pairs, 0x5000, 0x5100)
    up(pairs, 0x5200)
    assert down(pairs, 0x5200) == 0x5100


def test_each_mapping_and_tunnel_has_its_own() -> None:
    pairs = Pairs()
    up(pairs, 0x5000)
    pairs.follow(ChildUp(child(1, 0x6000)))
    pairs.follow(ChildUp(child(0, 0x7000, tunnel="other")))
    assert down(pairs, 0x5000) is None
    assert down(pairs, 0x9999) is None
    assert pairs.follow(OutboundReady("branch", 0x9999)) is None
