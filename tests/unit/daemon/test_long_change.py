"""A configuration that takes its time: what is seen and done meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.daemon.pairs import Pair, with_pair
from vpnd.config.load import load
from vpnd.control.operations import Conflict

ROUTED = 'routes = ["10.2.0.0/16"]'
BACK = 'routes = ["10.1.0.0/16"]\nnegotiation = "passive"'
MORE = {f"n{number}": f'routes = ["10.3.{number}.0/24"]' for number in range(3)}
MORE_BACK = {f"n{number}": f'routes = ["10.4.{number}.0/24"]\nnegotiation = "passive"' for number in range(3)}


async def begin(pair: Pair) -> asyncio.Task[object]:
    """One tunnel is up, and three more are on their way to their interfaces."""
    pair.configure({"t": ROUTED}, {"t": BACK, **MORE_BACK})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    pair.configure({"t": ROUTED, **MORE}, {"t": BACK, **MORE_BACK})
    pair.hq.host.gate = asyncio.Semaphore(0)
    work: asyncio.Task[object] = asyncio.create_task(pair.hq.operator.reload())
    await pair.until(lambda: pair.hq.operator.reloading().running)
    return work


@with_pair
async def test_every_tunnel_is_listed_from_the_start(pair: Pair) -> None:
    work = await begin(pair)
    gate = pair.hq.host.gate
    assert gate is not None
    spi = pair.hq.operator.status().tunnels[0].mappings[0].spi_in
    for prepared in range(3):
        status = pair.hq.operator.status().tunnels
        assert [tunnel.name for tunnel in status] == ["t", "n0", "n1", "n2"]
        waiting = status[1 + prepared :]
        assert [(tunnel.state, tunnel.last_error, tunnel.carries_traffic) for tunnel in waiting] == [
            ("down", None, False)
        ] * (3 - prepared)
        progress = pair.hq.operator.reloading()
        assert (progress.running, progress.done, progress.total) == (True, prepared, 3)
        gate.release()
        await pair.until(lambda done=prepared: pair.hq.operator.reloading().done > done)  # type: ignore[misc]  # a default binds the value of this turn
    result = await work
    assert result.added == ["n0", "n1", "n2"]  # type: ignore[attr-defined]  # what a reload gives
    assert pair.hq.operator.reloading().running is False
    await pair.until(lambda: all(t.state == "up" for t in pair.hq.operator.status().tunnels))
    assert pair.hq.operator.status().tunnels[0].mappings[0].spi_in == spi


@with_pair
async def test_what_is_begun_is_done_though_nobody_waits_for_it(pair: Pair) -> None:
    work = await begin(pair)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await release(pair)
    await pair.until(lambda: all(t.state == "up" for t in pair.hq.operator.status().tunnels))
    assert len(pair.hq.operator.status().tunnels) == 4


async def release(pair: Pair) -> None:
    """What waits at the gate goes on, and nobody waits any more."""
    gate, pair.hq.host.gate = pair.hq.host.gate, None
    if gate is not None:
        gate.release()


@with_pair
async def test_a_tunnel_is_asked_to_be_up_once_it_can_be(pair: Pair) -> None:
    work = await begin(pair)
    with pytest.raises(Conflict, match="not configured yet"):
        await pair.hq.operator.up("n2", 1.0)
    wanted = asyncio.create_task(pair.hq.operator.up("n2", 30.0))
    await asyncio.sleep(1)
    assert not wanted.done()
    await release(pair)
    assert (await wanted).state == "up"
    await work


@with_pair
async def test_a_tunnel_that_is_taken_down_meanwhile_stays_down(pair: Pair) -> None:
    work = await begin(pair)
    await pair.hq.operator.down("n1")
    await release(pair)
    await work
    await pair.until(lambda: pair.hq.service.gateway.tunnels["n2"].state.value == "up")
    await asyncio.sleep(60)
    assert pair.hq.service.gateway.tunnels["n1"].state.value == "down"
    assert (await pair.hq.operator.up("n1", 30.0)).state == "up"


@with_pair
async def test_the_start_lists_every_tunnel_too(pair: Pair) -> None:
    pair.configure({"t": ROUTED, **MORE}, {"t": BACK})
    pair.hq.host.gate = asyncio.Semaphore(0)
    loaded = load(pair.hq.config, pair.hq.state)
    starting = asyncio.create_task(pair.hq.service.start(loaded))
    await pair.until(lambda: len(pair.hq.operator.status().tunnels) == 4)
    assert pair.hq.operator.reloading().running
    assert {tunnel.state for tunnel in pair.hq.operator.status().tunnels} == {"down"}
    await release(pair)
    await starting
    assert not pair.hq.operator.reloading().running


@with_pair
async def test_a_changed_tunnel_is_listed_while_it_is_made_again(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    pair.configure({"t": ROUTED + '\ninterface = "vpn-x"'}, {"t": BACK})
    pair.hq.host.renames = False
    pair.hq.host.gate = asyncio.Semaphore(0)
    work = asyncio.create_task(pair.hq.operator.reload())
    await pair.until(lambda: pair.hq.operator.status().tunnels[0].state == "down")
    await release(pair)
    assert (await work).changed == ["t"]
    await pair.until(lambda: pair.state() == ("up", "up"))


@with_pair
async def test_many_notices_of_the_kernel_make_one_repair(pair: Pair) -> None:
    work = await begin(pair)
    before = len(pair.hq.host.history)
    for _ in range(10):
        pair.hq.watch.on_change()
        await asyncio.sleep(1)
    await release(pair)
    await work
    await asyncio.sleep(30)
    # What guards the new tunnels, the end of the change, and the repair.
    assert len(pair.hq.host.history) == before + 3
