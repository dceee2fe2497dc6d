"""IKEv1 in bad weather: main, aggressive and quick mode come up, and both sides end alike."""

from __future__ import annotations

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, MODES, TWO_MAPPINGS, pair_of
from tests.simulation.weather import CALM, STORM, Weather, blocks
from vpnd.ike.outputs import ChildUp, Established, Failed
from vpnd.model.policy import NegotiationMode

MESSAGES = {(MAIN, "a"): 5, (MAIN, "b"): 4, (AGGRESSIVE, "a"): 4, (AGGRESSIVE, "b"): 2}
"""How many each side sends, from its first to the end of quick mode."""

SEEDS = 1000
BLOCKS = 10


def up(pair: Pair, mapping: int) -> bool:
    """Whether both sides send on an SA pair of the mapping."""
    return pair.a.sends(mapping) and pair.b.sends(mapping)


def persist(pair: Pair, mapping: int, within: float = 300.0) -> None:
    """Ask for a mapping until both sides have it, as the lifecycle does: again after each failure."""
    end = pair.world.now + within
    while not up(pair, mapping):
        if pair.world.now > end:
            pair.world.fail(f"mapping {mapping} is not up after {within:g} s")
        pair.a.initiate(mapping)
        pair.world.run_for(1.0)


def converge(pair: Pair) -> None:
    """Calm, and time for whatever is not settled yet."""
    pair.world.default_weather = CALM
    pair.world.run_for(60)


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(BLOCKS))
@pytest.mark.parametrize("mode", MODES)
def test_a_thousand_handshakes_and_two_quick_modes_each_in_a_storm(mode: NegotiationMode, block: int) -> None:
    """30 % loss, 20 % duplicates, reordering: 1,000 seeds in each mode, 300 of them in each run."""
    for seed in range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS):
        pair = pair_of(mode, seed, STORM, TWO_MAPPINGS)
        persist(pair, 0)
        persist(pair, 1)
        converge(pair)
        pair.assert_one_tunnel(2)
        pair.a.close()
        pair.world.settle()
        pair.assert_nothing_left()


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    ("mode", "sender", "number"),
    [(mode, sender, number) for (mode, sender), many in MESSAGES.items() for number in range(1, many + 1)],
)
def test_each_message_may_be_lost(mode: NegotiationMode, sender: str, number: int, times: int) -> None:
    """F2: drop exactly message k, once and three times; also the last, which nothing acknowledges."""
    calm = pair_of(mode)
    calm.a.initiate()
    calm.world.settle()
    assert sum(d.sender == sender for d in calm.world.sent) == MESSAGES[mode, sender]
    pair = pair_of(mode)
    pair.world.drop(sender, *range(number, number + times))
    start = pair.world.now
    pair.a.initiate()
    pair.world.run_until(lambda: up(pair, 0), within=30)
    assert pair.world.now - start <= (4.0 if times == 1 else 16.0)
    pair.world.run_for(1)
    pair.assert_one_tunnel()
    for name, own in (("a", pair.a), ("b", pair.b)):
        sent = [d.data for d in pair.world.sent if d.sender == name]
        first = [d.data for d in calm.world.sent if d.sender == name]
        assert len(set(sent)) == len(first), "a repeated message differs from the first"
        assert [len(own.of(kind)) for kind in (Established, ChildUp)] == [1, 1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("copies", [2, 5, 50])
def test_copies_of_every_message_make_no_further_sa(mode: NegotiationMode, copies: int) -> None:
    """F3: every message arrives `copies` times."""
    pair = pair_of(mode, recipe=TWO_MAPPINGS)
    pair.world.interceptors.append(lambda d: [(0.01 + 0.001 * n, d.data) for n in range(copies)])
    pair.a.initiate(0)
    pair.world.run_for(5)
    pair.a.initiate(1)
    pair.world.run_for(5)
    pair.assert_one_tunnel(2)
    for gateway in (pair.a, pair.b):
        assert [len(gateway.of(kind)) for kind in (Established, ChildUp)] == [1, 2]
    pair.a.close()
    pair.world.run_for(20)
    pair.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "within", "share"), [(0.05, 5, 0.99), (0.2, 20, 0.99), (0.5, 60, 0.90)])
def test_loss_delays_but_does_not_prevent(loss: float, within: float, share: float) -> None:
    """F1: the share of handshakes and quick modes that are done in time, over fixed seeds."""
    done = 0
    seeds = 100
    for seed in range(seeds):
        pair = pair_of(MODES[seed % 2], seed, Weather(loss=loss))
        end = pair.world.now + within
        while not up(pair, 0) and pair.world.now < end:
            pair.a.initiate()
            pair.world.run_for(0.5)
        done += up(pair, 0)
    assert done >= share * seeds, f"{done} of {seeds}"


@pytest.mark.parametrize("seed", range(20))
def test_messages_three_seconds_late_and_out_of_order_converge(seed: int) -> None:
    """F4: each message takes between 0 and 3 s."""
    pair = pair_of(MODES[seed % 2], seed, Weather(delay=(0.0, 3.0)), TWO_MAPPINGS)
    pair.a.initiate(0)
    pair.a.initiate(1)
    pair.world.run_for(60)
    pair.assert_one_tunnel(2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_both_ends_start_at_once(seed: int) -> None:
    """F13: one ISAKMP SA and one SA pair are left, and they stay for ten minutes."""
    pair = pair_of(MODES[seed // 3 % 2], seed, Weather(loss=0.1 * (seed % 3), delay=(0.005, 0.1)))
    pair.a.initiate()
    if seed % 2:
        pair.world.run_for(0.01 * (seed % 11))
    pair.b.initiate()
    pair.world.run_for(10)
    if seed % 3:
        converge(pair)
    pair.assert_one_tunnel()
    ups = len(pair.a.of(ChildUp)) + len(pair.b.of(ChildUp))
    pair.world.run_for(600 if seed < 6 else 60)
    pair.assert_one_tunnel()
    assert len(pair.a.of(ChildUp)) + len(pair.b.of(ChildUp)) == ups, "the tunnel flapped"


@pytest.mark.parametrize("mode", MODES)
def test_the_attempt_gives_up_when_nobody_answers(mode: NegotiationMode) -> None:
    pair = pair_of(mode)
    pair.world.silence("b")
    start = pair.world.now
    pair.a.initiate()
    pair.world.run_until(lambda: pair.a.of(Failed), within=40)
    assert 25 <= pair.world.now - start <= 35
    pair.world.run_for(120)
    pair.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize("mode", [MAIN, AGGRESSIVE])
def test_two_hundred_mappings_come_up_one_after_the_other(mode: NegotiationMode) -> None:
    pair = pair_of(mode, recipe=Recipe(mappings=200))
    for mapping in range(200):
        pair.a.initiate(mapping)
    pair.world.settle()
    pair.assert_one_tunnel(200)
    assert len(pair.a.of(Established)) == 1
    quick = [rung.text for rung in pair.world.rungs if rung.text.startswith("QUICK_MODE")]
    assert len(quick) == 600
    names = [text.split()[1] for text in quick]
    assert names == [name for name in dict.fromkeys(names) for _ in range(3)], "quick modes overlapped"
