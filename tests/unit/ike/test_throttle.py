"""How many attempts of a peer that fails to authenticate are worth a key exchange."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from vpnd.ike.strangers import ADDRESSES_KEPT, BURST, FORGOTTEN_AFTER, FREE_FAILURES, Throttle

HERE, THERE = ip_address("198.51.100.1"), ip_address("198.51.100.2")


@pytest.fixture
def throttle() -> Throttle:
    """One that holds ten failures against HERE."""
    throttle = Throttle()
    begun = [throttle.failed(1000.0, HERE) for _ in range(FREE_FAILURES)]
    assert begun == [False] * (FREE_FAILURES - 1) + [True]
    return throttle


def admitted(throttle: Throttle, now: float, attempts: int = 100) -> int:
    return sum(throttle.admits(now, HERE) for _ in range(attempts))


def test_the_first_failures_cost_nothing() -> None:
    throttle = Throttle()
    for _ in range(FREE_FAILURES - 1):
        throttle.failed(1000.0, HERE)
    assert admitted(throttle, 1000.0) == 100


def test_then_a_burst_and_one_each_second(throttle: Throttle) -> None:
    assert admitted(throttle, 1000.0) == BURST
    assert admitted(throttle, 1000.9) == 0
    assert admitted(throttle, 1001.0) == 1
    assert admitted(throttle, 1004.5) == 3
    assert admitted(throttle, 1050.0) == BURST


def test_a_flood_gets_one_each_second_however_long_it_lasts(throttle: Throttle) -> None:
    count = 0
    for tick in range(100 * 120):
        now = 1000.0 + tick / 100
        if throttle.admits(now, HERE):
            count += 1
            assert not throttle.failed(now, HERE)
    assert count == pytest.approx(BURST + 120, abs=1)


def test_others_are_not_touched(throttle: Throttle) -> None:
    assert admitted(throttle, 1000.0) == BURST
    assert all(throttle.admits(1000.0, THERE) for _ in range(100))


def test_a_proof_clears_the_record_and_so_does_time(throttle: Throttle) -> None:
    assert admitted(throttle, 1000.0) == BURST
    throttle.proved(HERE)
    assert admitted(throttle, 1000.0) == 100
    throttle.proved(THERE)


def test_time_clears_the_record(throttle: Throttle) -> None:
    assert admitted(throttle, 1000.0) == BURST
    assert admitted(throttle, 1000.0 + FORGOTTEN_AFTER) == 100
    assert len(throttle) == 0


def test_a_thousand_addresses_are_held_and_then_the_oldest_goes(throttle: Throttle) -> None:
    for number in range(ADDRESSES_KEPT - 1):
        throttle.failed(1000.0, ip_address(number))
    assert admitted(throttle, 1000.0) == BURST
    throttle.failed(1000.0, THERE)
    assert admitted(throttle, 1000.0) == 100
