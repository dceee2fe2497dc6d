"""What a health check's verdict does: traffic stops and goes on, and the peer is asked for a sign of life."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from tests.unit.daemon.pairs import Pair, with_pair
from vpnd.daemon.gateway import Gateway
from vpnd.datapath.interface import Acquire
from vpnd.wire.icmp import Echo

CHECK = """
[tunnels.t.health_check]
enabled = true
local = "169.254.1.1"
remote = "169.254.1.2"
interval_ms = 1000
timeout_ms = 500
failures = 3
recoveries = 3
"""
ENDS = (ip_address("169.254.1.1"), ip_address("169.254.1.2"))
ROUTED = 'routes = ["10.2.0.0/16"]'
BACK = 'routes = ["10.1.0.0/16"]\nnegotiation = "passive"'


def answer(pair: Pair) -> None:
    """Every probe that has left since the last look comes back."""
    packets, pair.hq.engine.packets = pair.hq.engine.packets, []
    for tunnel, packet in packets:
        echo = Echo.decode(packet)
        assert echo is not None
        pair.hq.service.gateway.on_reply(tunnel, echo.answer())


def answered_until(pair: Pair, state: str) -> bool:
    answer(pair)
    return pair.state()[0] == state


@pytest.mark.parametrize("version", ["ikev2", "ikev1"])
@with_pair
async def test_an_unhealthy_tunnel_is_interrupted_until_it_is_healthy_again(
    pair: Pair, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ike = f'\n[tunnels.t.ike]\nversion = "{version}"'
    pair.configure({"t": ROUTED + CHECK + ike}, {"t": BACK + ike})
    await pair.start()
    gateway: Gateway = pair.hq.service.gateway
    await pair.until(lambda: answered_until(pair, "up"))
    probe = gateway.endpoint.probe

    def noted(now: float, name: str) -> None:
        asked.append(name)
        probe(now, name)

    monkeypatch.setattr(gateway.endpoint, "probe", noted)
    assert pair.hq.engine.interrupted == []
    await pair.until(lambda: pair.state()[0] == "unhealthy")
    assert pair.hq.engine.interrupted == [("t", True, ENDS)]
    assert asked == ["t"]
    unhealthy = pair.hq.operator.status().tunnels[0]
    assert unhealthy.carries_traffic is False
    assert unhealthy.health is not None
    assert 0 < unhealthy.health.lost < unhealthy.health.sent
    assert unhealthy.health.loss_percent == round(100 * unhealthy.health.lost / unhealthy.health.sent, 1)
    assert pair.hq.engine.installed
    pair.hq.engine.packets.clear()
    await pair.until(lambda: answered_until(pair, "up"))
    assert pair.hq.engine.interrupted == [("t", True, ENDS), ("t", False, ENDS)]
    assert asked == ["t"]
    assert pair.hq.operator.status().tunnels[0].carries_traffic is True


@with_pair
async def test_a_probe_does_not_bring_back_what_dead_peer_detection_has_disconnected(pair: Pair) -> None:
    """One that finds no SA does bring up what only waits for traffic."""
    triggered, gone = 'negotiation = "traffic-triggered"\n', 'dpd.action = "disconnect"\n'
    pair.configure({"t": triggered + gone + ROUTED + CHECK}, {"t": gone + BACK})
    await pair.start()
    await pair.until(lambda: answered_until(pair, "up"))
    pair.wire.cut = True
    await pair.until(lambda: pair.state()[0] == "waiting", 300)
    pair.wire.cut = False
    await asyncio.sleep(120)
    assert pair.state()[0] == "waiting"
    pair.hq.engine.on_notice(Acquire("t", 0, ip_address("10.1.0.1"), ip_address("10.2.0.1"), 1))
    await pair.until(lambda: answered_until(pair, "up"))
