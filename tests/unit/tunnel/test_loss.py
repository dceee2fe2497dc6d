"""The sequential test: what is borne, what is too much, and how soon that is known."""

from __future__ import annotations

import random

import pytest

from vpnd.tunnel.loss import RUN, LossTest


def until_lossy(seed: int, loss: float, limit: int) -> int | None:
    """After how many echo requests the loss is found to be too much, or None."""
    weather, test = random.Random(seed), LossTest()
    for number in range(1, limit + 1):
        test.count(weather.random() < loss)
        if test.lossy:
            return number
    return None


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("loss", [0.0, 0.1, 0.2])
def test_what_can_be_borne_is_never_too_much(loss: float, seed: int) -> None:
    assert until_lossy(seed, loss, 50_000) is None, f"seed {seed}"


@pytest.mark.parametrize(("loss", "soon"), [(0.30, 600), (0.40, 220), (0.51, 120)])
def test_too_much_is_found_soon(loss: float, soon: int) -> None:
    found = [until_lossy(seed, loss, 100_000) for seed in range(50)]
    known = [number for number in found if number is not None]
    assert len(known) == len(found)
    assert sum(known) / len(known) < soon


def test_a_path_without_loss_is_not_doubtful_and_one_loss_makes_it_so_for_a_while() -> None:
    test = LossTest()

    def doubtful_after(*losses: bool) -> bool:
        for lost in losses:
            test.count(lost)
        return test.doubtful

    assert not doubtful_after(False)
    assert doubtful_after(True)
    assert doubtful_after(*[False] * 19)
    assert not doubtful_after(False)


def test_an_outage_of_any_length_is_not_loss() -> None:
    test = LossTest()
    for _ in range(1000):
        test.count(True)
    assert not test.lossy
    assert not test.doubtful
    test.count(False)
    assert test.doubtful


def test_runs_up_to_the_bound_count() -> None:
    test = LossTest()
    for _ in range(40):
        for _ in range(RUN):
            test.count(True)
        test.count(False)
    assert test.lossy


def test_it_ends_when_the_path_is_good_again() -> None:
    test = LossTest()
    weather = random.Random(5)
    for _ in range(2000):
        test.count(weather.random() < 0.35)
    assert test.lossy
    for _ in range(80):
        test.count(False)
    assert not test.lossy
