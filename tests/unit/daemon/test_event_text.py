"""What events say of a change, in whole sentences."""

from __future__ import annotations

from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from vpnd.daemon.events import event_text
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.tunnel.commands import AttemptFailed
from vpnd.tunnel.failover import RouteMoved
from vpnd.tunnel.health import HealthChanged, HealthState

UNKNOWN, HEALTHY, UNHEALTHY = HealthState.UNKNOWN, HealthState.HEALTHY, HealthState.UNHEALTHY
TUNNEL: Any = SimpleNamespace(
    name="t",
    policy=SimpleNamespace(
        peer=SimpleNamespace(child=("10.1.0.0/24 - 10.2.0.0/24", "10.1.0.0/24 - 10.3.0.0/24").__getitem__)
    ),
)


class Told:
    """A journal that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def event(self, _tunnel: str, kind: str, text: str, _code: str | None = None) -> None:
        self.texts.append(f"{kind}: {text}")

    def failure(
        self, _tunnel: str, kind: str, _cause: Diagnosis, more: str = "", _unproven: bool = False
    ) -> None:
        self.texts.append(f"{kind}{more}")


@pytest.mark.parametrize(
    ("before", "after", "in_a_row", "said"),
    [
        (HEALTHY, UNHEALTHY, 3, "health-failed: the health check fails: 3 probes in a row were not answered"),
        (UNHEALTHY, HEALTHY, 1, "health-passed: the health check passes again: a probe was answered"),
        (
            UNHEALTHY,
            HEALTHY,
            5,
            "health-passed: the health check passes again: 5 probes in a row were answered",
        ),
        (UNKNOWN, HEALTHY, 1, "health-passed: the health check passes"),
    ],
)
def test_a_verdict_of_the_health_check(
    before: HealthState, after: HealthState, in_a_row: int, said: str
) -> None:
    told = Told()
    event_text.health_changed(told, HealthChanged("t", before, after, in_a_row))  # type: ignore[arg-type]  # a journal, as far as it is used
    assert told.texts == [said]


@pytest.mark.parametrize(
    ("mapping", "facts", "said"),
    [
        (1, {}, "attempt-failed (10.1.0.0/24 - 10.3.0.0/24); trying again in 8 s"),
        (0, {}, "attempt-failed (10.1.0.0/24 - 10.2.0.0/24); trying again in 8 s"),
        (1, {"mapping": "named already"}, "attempt-failed; trying again in 8 s"),
        (None, {}, "attempt-failed; trying again in 8 s"),
    ],
)
def test_a_failed_attempt_names_its_mapping_once(
    mapping: int | None, facts: dict[str, str], said: str
) -> None:
    told = Told()
    failed = AttemptFailed("t", mapping, Diagnosis.of(Code.PEER_REFUSED, **facts), 8.0)
    event_text.attempt_failed(told, TUNNEL, failed)  # type: ignore[arg-type]  # a journal, as far as it is used
    assert told.texts == [said]


@pytest.mark.parametrize(
    ("before", "by_hand", "said"),
    [
        (None, False, []),
        ("s", False, ["carries-traffic: carries 10.0.0.0/8 in place of s"]),
        ("s", True, ["carries-traffic: carries 10.0.0.0/8 in place of s, as asked"]),
    ],
)
def test_the_first_carrier_of_a_route_is_no_event(before: str | None, by_hand: bool, said: list[str]) -> None:
    told = Told()
    event_text.carrier_changed(told, RouteMoved(ip_network("10.0.0.0/8"), "t", before, by_hand))  # type: ignore[arg-type]  # a journal, as far as it is used
    assert told.texts == said
