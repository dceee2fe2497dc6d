"""What metrics show of a tunnel besides its status: how often it was negotiated, rekeyed and lost."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.daemon.fakes import KEY, Machine, configuration
from tests.unit.daemon.pairs import PROVED, Pair, with_pair
from vpnd.control.operations import NegotiationFailed, TunnelFigures
from vpnd.tunnel.history import BOUNDS

ROUTED = 'routes = ["10.2.0.0/16"]'
BACK = 'routes = ["10.1.0.0/16"]\nnegotiation = "passive"'
VERSIONS = ["ikev2", "ikev1"]


async def up(pair: Pair, version: str, more: str = "") -> None:
    ike = f'\n[tunnels.t.ike]\nversion = "{version}"'
    pair.configure({"t": f"{ROUTED}{more}{ike}"}, {"t": f"{BACK}{ike}"})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    await asyncio.sleep(PROVED)


def figures(machine: Machine) -> TunnelFigures:
    (found,) = machine.operator.figures()
    return found


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_each_setup_and_each_rekey_is_counted_at_both_ends(pair: Pair, version: str) -> None:
    await up(pair, version)
    before = [figures(machine).rekeys for machine in (pair.hq, pair.branch)]
    await pair.hq.operator.rekey("t", ike=True, child=True, timeout=9)
    await asyncio.sleep(3)
    for machine, earlier in zip((pair.hq, pair.branch), before, strict=True):
        found = figures(machine)
        assert found.rekeys == {"ike": earlier["ike"] + 1, "esp": earlier["esp"] + 1}
        assert found.established == 1
        assert found.failures == {}
    await pair.hq.operator.reset("t", 9)
    assert figures(pair.hq).established == 2


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_a_lost_peer_and_each_attempt_after_it_is_a_failure(pair: Pair, version: str) -> None:
    await up(pair, version)
    pair.wire.cut = True
    await pair.until(lambda: pair.state()[0] == "connecting", 90)
    assert figures(pair.hq).failures == {"E-DPD": 1}
    assert figures(pair.hq).status.state == "connecting"
    await pair.until(lambda: len(figures(pair.hq).failures) == 2, 300)
    assert figures(pair.hq).failures["E-SILENT"] == 1
    assert figures(pair.hq).established == 1


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_a_wrong_key_is_counted_by_its_code(pair: Pair, version: str) -> None:
    ike = f'\n[tunnels.t.ike]\nversion = "{version}"'
    pair.configure({"t": f"{ROUTED}{ike}"}, {"t": f"{BACK}{ike}"})
    wrong = pair.hq.config.read_text().replace(KEY, KEY[::-1])
    pair.hq.write(wrong)
    await pair.start()
    with pytest.raises(NegotiationFailed):
        await pair.hq.operator.up("t", 30)
    assert figures(pair.hq).failures["E-PSK"] >= 1
    assert figures(pair.hq).established == 0


@with_pair
async def test_what_the_operator_ends_is_no_failure(pair: Pair) -> None:
    await up(pair, "ikev2")
    await pair.hq.operator.down("t")
    await asyncio.sleep(5)
    assert figures(pair.hq).failures == {}
    assert figures(pair.hq).status.state == "down"


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_nor_is_an_attempt_that_the_operator_ends(pair: Pair, version: str) -> None:
    ike = f'\n[tunnels.t.ike]\nversion = "{version}"'
    pair.configure({"t": f"{ROUTED}{ike}"}, {"t": f"{BACK}{ike}"})
    pair.wire.cut = True
    await pair.start()
    await asyncio.sleep(2)
    assert figures(pair.hq).status.state == "connecting"
    await pair.hq.operator.down("t")
    await asyncio.sleep(5)
    assert figures(pair.hq).failures == {}


@with_pair
async def test_a_reload_says_where_metrics_are_served_from_now_on(pair: Pair) -> None:
    await up(pair, "ikev2")
    service = pair.hq.service
    service.applied.clear()
    pair.hq.write(f'{pair.hq.config.read_text()}[metrics]\nlisten = "127.0.0.1:9150"\n')
    await pair.hq.operator.reload()
    assert service.applied.is_set()
    assert str(service.policy.metrics) == "127.0.0.1:9150"


@with_pair
async def test_a_tunnel_that_is_removed_is_forgotten(pair: Pair) -> None:
    await up(pair, "ikev2")
    (before,) = pair.hq.operator.figures()
    assert before.established == 1
    text = pair.hq.config.read_text()
    pair.hq.write(configuration("hq", "192.0.2.1", "192.0.2.2", {}))
    await pair.hq.operator.reload()
    assert list(pair.hq.operator.figures()) == []
    await asyncio.sleep(5)
    pair.wire.cut = True
    pair.hq.write(text)
    await pair.hq.operator.reload()
    assert figures(pair.hq).established == 0


@with_pair
async def test_a_tunnel_that_goes_while_the_others_are_read_is_left_out(pair: Pair) -> None:
    more = {name: f"{ROUTED}\npriority = {number}" for number, name in enumerate("abc")}
    pair.configure(more, {"t": BACK})
    await pair.hq.start()
    reading = pair.hq.operator.figures()
    assert next(reading).status.name == "a"
    del more["b"]
    pair.configure(more, {"t": BACK})
    await pair.hq.operator.reload()
    assert [found.status.name for found in reading] == ["c"]


@with_pair
async def test_the_health_check_is_a_histogram_and_without_one_there_is_none(pair: Pair) -> None:
    check = '\n[tunnels.t.health_check]\nenabled = true\nlocal = "169.254.128.1"\nremote = "169.254.128.2"'
    await up(pair, "ikev2", check)
    found = figures(pair.hq)
    assert found.rtt is not None
    assert found.jitter is not None
    assert found.rtt.bounds == found.jitter.bounds == BOUNDS
    assert figures(pair.branch).rtt is None
    assert figures(pair.branch).jitter is None
