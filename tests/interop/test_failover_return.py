"""The primary tunnel has failed and is well again: traffic comes back late, by itself, and without loss."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.process import wait_until
from tests.lab.two_paths import Stream, two_paths
from vpnd.tunnel.failover import RETURN_AFTER

pytestmark = [pytest.mark.root, pytest.mark.slow]

CLOCKS = 1.0
"""Seconds between what the hold-down counts from and the event's time, on a busy machine."""


def test_traffic_comes_back_after_the_hold_down_and_without_loss(lab: Lab) -> None:
    paths = two_paths(lab)
    with paths.dropping("primary", "ip protocol esp"):
        wait_until(lambda: paths.carrier() == "secondary", "traffic to move")
        before = len(paths.ours.events())
    for end in (paths.ours, paths.peers["primary"]):
        end.wait_state("primary", "up")
    with Stream(paths, 100) as stream:
        wait_until(lambda: paths.carrier() == "primary", "traffic to come back")
        wait_until(
            lambda: len(told(paths.ours.events()[before:], "primary", "carries-traffic")) == 1, "word of it"
        )
    events = paths.ours.events()[before:]
    (well,), (back,) = told(events, "primary", "tunnel-up"), told(events, "primary", "carries-traffic")
    assert at(back) - at(well) >= RETURN_AFTER - CLOCKS
    assert told(events, "primary", "health-failed") == []
    assert stream.lost == 0


def told(events: list[dict[str, Any]], tunnel: str, kind: str) -> list[dict[str, Any]]:
    return [event for event in events if (event["tunnel"], event["event"]) == (tunnel, kind)]


def at(event: dict[str, Any]) -> float:
    """Seconds."""
    return datetime.fromisoformat(event["at"]).timestamp()
