"""F37: the peer does not answer probes, flaps, or is heard in one direction only. In virtual time.

What a real path does to real traffic is in tests/interop/test_failover.py; here every row is many lives of
two tunnels with the same route, and a stream of 100 packets a second that takes the one which carries it.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.tables import TellRow
from tests.unit.tunnel.test_health import Bench
from tests.unit.tunnel.test_health import lossy as path_that_loses
from tests.unit.tunnel.test_route_selection import CHECK, Site, routed
from vpnd.tunnel.health import LOOK_EVERY, HealthState
from vpnd.tunnel.loss import LossTest

SEEDS = range(20)
FEW = SEEDS[::4]
"""Of what takes long to compute, without --full-faults."""
INTERVALS = (1.0, 5.0)
HOUR = 3600.0
SHORTLY = 20.0
"""Seconds: a lossy path is looked at closely all the time, which takes long to compute."""
Path = Callable[[float], bool]
"""Whether an echo request that is sent now is answered."""


def lives(interval: float, seed: int) -> Site:
    """Both tunnels up and healthy, at a moment between two probes that is the seed's own."""
    check = replace(CHECK, interval=interval)
    site = Site(primary=routed("primary", check), secondary=routed("secondary", check))
    site.bring_up("primary")
    site.bring_up("secondary")
    site.run(4 * interval + random.Random(seed).random() * interval)
    assert site.carrier == "primary"
    site.moves.clear()
    return site


def bound(interval: float) -> float:
    """Seconds within which the traffic must have moved."""
    return CHECK.failures * interval + 1


def left_after(site: Site, began: float, path: Path, limit: float) -> float:
    """After how many seconds the traffic leaves a primary whose path is so; `limit` if it does not."""
    site.answers["primary"] = path
    while not site.moves and site.now < began + limit:
        site.run(0.5)
    return site.moves[0][0] - began if site.moves else limit


def silent_in(windows: Callable[[float], bool]) -> Path:
    return lambda at: not windows(at)


@pytest.mark.parametrize("interval", INTERVALS)
def test_silence_moves_the_traffic_in_time_and_its_end_brings_it_back(interval: float, row: TellRow) -> None:
    # Requests or answers lost: to who asks it is the same silence.
    took, back = [], []
    for seed in SEEDS:
        site = lives(interval, seed)
        began = site.now
        took.append(left_after(site, began, lambda at: False, 10 * interval))
        assert [name for _, name in site.moves] == ["secondary"], f"seed {seed}"
        mended = site.now
        site.answers["primary"] = lambda at: True
        site.run(60)
        assert [name for _, name in site.moves] == ["secondary", "primary"], f"seed {seed}"
        back.append(site.moves[1][0] - mended)
    row(
        "faults",
        id="F37",
        fault="NQA: no answers, or one direction only",
        moment=f"healthy, interval {interval:g} s",
        target=f"moved within {bound(interval):g} s, back once",
        figure=f"moved in {max(took):.1f} s at most, back {statistics.median(back):.1f} s after the end",
    )
    assert max(took) <= bound(interval)


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_path_that_is_there_half_of_the_time_does_not_drag_the_traffic_along(
    interval: float, full: bool, row: TellRow
) -> None:
    # Five probes long silent, five probes long there: each silence is long enough to be found.
    period = 10 * interval
    moves = []
    for seed in SEEDS if full else FEW:
        site = lives(interval, seed)
        began = site.now
        site.answers["primary"] = silent_in(lambda at, began=began: (at - began) % period < period / 2)  # type: ignore[misc]  # a default binds the value of this turn
        site.run(HOUR / 3)
        moves.append(len(site.moves))
        assert site.carrier == "secondary", f"seed {seed}"
    row(
        "faults",
        id="F37",
        fault="NQA: flaps, silent for half of the time",
        moment=f"20 minutes, interval {interval:g} s",
        target="moved in time, away from it in the end",
        figure=f"{max(moves)} moves in {HOUR / 3 / period:.0f} flaps",
    )
    # Without a growing wait it would be two moves for each flap.
    assert max(moves) <= 9


@pytest.mark.parametrize("interval", INTERVALS)
def test_half_of_the_packets_lost_moves_the_traffic_once(interval: float, row: TellRow) -> None:
    took, moves = [], []
    for seed in SEEDS:
        site, weather = lives(interval, seed), random.Random(seed)
        took.append(left_after(site, site.now, lambda at, weather=weather: weather.random() >= 0.5, 120))  # type: ignore[misc]  # a default binds the value of this turn
        site.run(SHORTLY)
        moves.append(len(site.moves))
    row(
        "faults",
        id="F37",
        fault="NQA: flaps, 50 % of the packets lost",
        moment=f"healthy, interval {interval:g} s",
        target="leaves it, and stays away",
        figure=f"{max(moves)} move, in {statistics.median(took):.1f} s (median), {max(took):.1f} s at most",
    )
    assert set(moves) == {1}


@pytest.mark.parametrize("interval", INTERVALS)
def test_30_percent_loss_moves_the_traffic(interval: float, row: TellRow) -> None:
    took = []
    for seed in SEEDS:
        site, weather = lives(interval, seed), random.Random(seed)
        took.append(left_after(site, site.now, lambda at, weather=weather: weather.random() >= 0.3, 300))  # type: ignore[misc]  # a default binds the value of this turn
    took.sort()
    within = sum(seconds <= bound(interval) for seconds in took)
    row(
        "failover",
        fault=f"30 % loss (virtual time, {len(took)} seeds)",
        interval=f"{interval:g} s",
        bound=f"{bound(interval):g} s",
        moved=f"{took[0]:.1f} to {took[-1]:.1f} s, median {statistics.median(took):.1f} s, "
        f"within the bound {within} of {len(took)}",
        lost="30 % meanwhile",
    )
    # Chance has the last word: of 1,000 such lives at an interval of 1 s, 96 % are within the bound.
    assert within >= len(took) - 1
    assert took[-1] < 2 * bound(interval)


@pytest.mark.full_faults
def test_20_percent_loss_never_moves_it(row: TellRow) -> None:
    # An hour of the closest look that there is, and an hour of probes.
    echoes = round(HOUR / LOOK_EVERY)
    lossy, sick = 0, 0
    for seed in SEEDS:
        weather, test = random.Random(seed).random, LossTest()
        for _ in range(echoes):
            test.count(weather() < 0.2)
            lossy += test.lossy
        bench = Bench(replace(CHECK, interval=1.0), path=path_that_loses(seed, 0.2), seed=seed)
        bench.run(HOUR)
        sick += bench.states() != [HealthState.HEALTHY]
    row(
        "failover",
        fault=f"20 % loss for an hour (virtual time, {len(SEEDS)} seeds)",
        interval="1 s",
        bound="never",
        moved=f"{lossy + sick} times in {len(SEEDS) * echoes} echo requests",
        lost="20 % meanwhile",
    )
    assert (lossy, sick) == (0, 0)
