"""The peer installs a pair of ours when it has our third message of quick mode, however late that is.

Nothing acknowledges it, so that we can only give the peer time. What is sent on the pair sooner is lost.
"""

from __future__ import annotations

import pytest

from tests.simulation.pair import Pair
from tests.simulation.v1.pairs import pair_of
from tests.simulation.v1.stage import stage_in
from tests.simulation.weather import Datagram
from vpnd.ike.v1.children import SETTLING, SETTLING_BESIDE
from vpnd.ike.v1.quicks import SURPLUS_KEPT
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange1


def hold_third(pair: Pair, seconds: float) -> list[float]:
    """When a's third message of the next quick mode arrives: so many seconds late."""
    arrivals: list[float] = []
    first: set[bytes] = set()

    def intercept(datagram: Datagram) -> list[tuple[float, bytes]] | None:
        quick_mode = Header.decode(datagram.data).exchange == Exchange1.QUICK_MODE
        if datagram.sender != "a" or not quick_mode:
            return None
        if not first:
            first.add(datagram.data)
            return None
        arrivals.append(pair.world.now + seconds)
        return [(seconds, datagram.data)]

    pair.world.interceptors.append(intercept)
    return arrivals


@pytest.mark.parametrize("late", [0.1, 0.5, 1.0, 1.9])
def test_a_successor_is_not_sent_on_before_a_slow_peer_has_it(late: float) -> None:
    pair = pair_of()
    pair.establish()
    old = pair.a.child().spi_in
    arrivals = hold_third(pair, late)
    pair.a.rekey_child()
    pair.world.run_until(lambda: pair.a.child().spi_in != old, within=3 * SETTLING_BESIDE)
    assert pair.world.now >= arrivals[0]
    assert pair.a.child().spi_out == pair.b.child().spi_in, "and b sends on it as well"


def test_a_peer_that_repeats_its_answer_gets_the_time_again() -> None:
    """Its repeat says that it has not had our third message."""
    assert SETTLING_BESIDE < SURPLUS_KEPT
    stage, puppet = stage_in("with a child from here")
    stage.world.run_for(SETTLING)
    old = stage.gateway.child().spi_in
    stage.gateway.rekey_child()
    quick = puppet.answer_quick(stage.heard[-1])
    answer = puppet.quick2(quick, 0x2001)
    (third,) = stage.say(answer)
    stage.world.run_for(SETTLING_BESIDE - 0.5)
    assert stage.say(answer) == [third]
    stage.world.run_for(SETTLING_BESIDE - 0.1)
    assert stage.gateway.child().spi_in == old
    stage.world.run_for(0.2)
    assert stage.gateway.child().spi_out == 0x2001


def test_the_first_pair_waits_less_but_as_long_as_the_peer_repeats_its_answer() -> None:
    stage, puppet = stage_in("sent Quick1, main")
    quick = puppet.answer_quick(stage.heard[-1])
    answer = puppet.quick2(quick)
    (third,) = stage.say(answer)
    for _ in range(3):
        stage.world.run_for(SETTLING - 0.05)
        assert not stage.gateway.sends(0)
        assert stage.say(answer) == [third]
    stage.world.run_for(SETTLING + 0.01)
    assert stage.gateway.sends(0)


def test_one_that_is_sent_on_already_is_not_held_again() -> None:
    stage, puppet = stage_in("sent Quick1, main")
    quick = puppet.answer_quick(stage.heard[-1])
    answer = puppet.quick2(quick)
    stage.say(answer)
    stage.world.run_for(SETTLING + 0.01)
    stage.say(answer)
    assert stage.gateway.sends(0)
