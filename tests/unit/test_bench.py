"""What the benchmarks make of runs: rates, paired ratios, the largest rate without loss, and goals."""

from __future__ import annotations

import pytest

from bench.datagrams import Carried
from bench.datapath import GOALS, NATIVE, PYTHON, STRONGSWAN, Datapath
from bench.measure import MOST_LOST, TRIALS, Sample, largest, of_tcp, of_udp, paired


def test_what_iperf3_says_of_both_ways_is_added() -> None:
    """Of one way, there is no other; CPU time is of a second of the run."""
    end = {"sum_received": {"seconds": 2.0, "bytes": 250_000_000}}
    one = of_tcp(end, (1.0, 0.5))
    both = of_tcp({**end, "sum_received_bidir_reverse": {"bytes": 125_000_000}}, (1.0, 0.5))
    assert (one.megabits, both.megabits) == (1000, 1500)
    assert (one.sender_cpu, one.receiver_cpu, one.packets_per_second) == (0.5, 0.25, None)
    assert one.cpu_per_gigabit == pytest.approx(0.75)


def test_datagrams_that_do_not_arrive_are_lost() -> None:
    """CPU time is for those that arrived."""
    sample = of_udp(Carried(sent=4000, arrived=1000, seconds=2.0), 36, (0.002, 0.004))
    assert (sample.packets_per_second, sample.lost) == (500, 0.75)
    assert sample.megabits == pytest.approx(500 * 36 * 8 / 1e6)
    assert sample.cpu_per_million == pytest.approx(6)
    assert of_udp(Carried(0, 0, 1.0), 36, (0, 0)).cpu_per_million is None


def test_ratios_are_of_one_round() -> None:
    """A round that was slow for both weighs as every other, and one without a figure not at all."""
    assert paired([100, 10, 30], [50, 5, 10]) == 2
    assert paired([1.0, None], [2.0, 1.0]) == 0.5
    assert paired([1.0], [0]) is None


@pytest.mark.parametrize("capacity", [60_000, 100_000, 170_000])
def test_the_largest_rate_is_found(capacity: float) -> None:
    """Whether a flood arrives more slowly than what the way carries, or not."""
    tried: list[float] = []

    def run(rate: float) -> Sample:
        tried.append(rate)
        arrived = min(rate, capacity)
        return Sample(0, arrived, 0, 0, 1 - arrived / rate)

    found = largest(run, 100_000)
    assert found.packets_per_second is not None
    assert found.lost is not None
    assert found.lost <= MOST_LOST
    assert capacity * 0.96 < found.packets_per_second <= capacity
    assert len(tried) == TRIALS


def test_a_way_that_always_loses_carries_nothing() -> None:
    """No rate was good: none is told."""
    assert largest(lambda rate: Sample(1, rate / 2, 0, 0, 0.5), 1000).packets_per_second == 0


def test_goals_are_told_where_both_were_measured() -> None:
    """The ratio of the pairs; a goal of one figure needs no other stack."""
    found = Datapath()
    tcp = {NATIVE: [Sample(2400, None, 0, 0)], STRONGSWAN: [Sample(100, None, 0, 0)]}
    found.samples = {"gcm": {"tcp": tcp}}
    found.pings = {PYTHON: [0.4], NATIVE: [0.3], STRONGSWAN: [0.2]}
    told = {goal.words(): (value, goal.is_reached(value)) for goal in GOALS if (value := found.figure(goal))}
    assert told == {
        "AES-128-GCM, TCP, 1 stream: native / strongSwan": (24, True),
        "idle ping: native / strongSwan": (pytest.approx(1.5), False),
        "idle ping, microseconds a hop: python": (pytest.approx(100), True),
    }
    assert len(found.document()["goals"]) == len(told)
