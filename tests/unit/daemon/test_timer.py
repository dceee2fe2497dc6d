"""The gateway's timer is armed again whatever fails: without it nothing is retransmitted or rekeyed."""

from __future__ import annotations

import pytest

from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED, up
from tests.unit.daemon.test_refused import seconds
from vpnd.daemon.upkeep.peer_liveness import PeerLiveness
from vpnd.ike.endpoint import Endpoint
from vpnd.tunnel.route_selection import RouteSelection
from vpnd.tunnel.tunnels import Tunnels


@pytest.mark.parametrize("part", [Endpoint, Tunnels, RouteSelection, PeerLiveness])
@with_pair
async def test_a_bug_in_a_deadline_is_told_and_the_timer_goes_on(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, part: type
) -> None:
    await up(pair, ROUTED, BACK)
    gateway = pair.hq.service.gateway
    ticks: list[float] = []
    timed_out = gateway.tunnels.handle_timeout

    def tick(now: float) -> None:
        ticks.append(now)
        timed_out(now)

    monkeypatch.setattr(gateway.tunnels, "handle_timeout", tick)
    told: list[str] = []
    for machine in (pair.hq, pair.branch):
        monkeypatch.setattr(machine.journal, "fault", lambda _tunnel, text, _error: told.append(text))

    def bug(_: object) -> float | None:
        raise ZeroDivisionError("a bug in a deadline")

    with monkeypatch.context() as broken:
        broken.setattr(part, "next_timeout", bug)
        await seconds(pair, 10)
    assert gateway.faults > 0
    assert any("the deadlines" in text for text in told)
    # Once a second: neither not at all nor without a pause.
    assert 8 <= len(ticks) <= 25
    assert pair.state() == ("up", "up")
    ticks.clear()
    faults = gateway.faults
    await seconds(pair, 10)
    assert ticks
    assert gateway.faults == faults
