"""SIGTERM at any moment: nothing that guards the traffic goes with it, and nothing new is begun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import pytest

from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED, up
from vpnd.daemon.routing import ROUTES_TABLE, WORST_METRIC
from vpnd.host.nftables import Shield
from vpnd.host.routes import LINK_GROUP, Route, Wanted

TO = ip_network("10.2.0.0/16")
GUARD = Wanted(frozenset({Route(TO, ROUTES_TABLE, None, WORST_METRIC)}))
FILTER = Shield(LINK_GROUP, frozenset({TO}))


@with_pair
async def test_the_end_before_the_start_leaves_the_guard(pair: Pair) -> None:
    """`vpnd guard` has set it before, and the daemon has not read its configuration into anything yet."""
    host = pair.hq.host
    host.wanted, host.shielded = GUARD, FILTER
    await pair.hq.service.stop()
    assert host.closed
    assert (host.wanted, host.shielded) == (GUARD, FILTER)


@pytest.mark.parametrize("version", ["ikev2", "ikev1"])
@with_pair
async def test_the_end_says_delete_to_each_peer(pair: Pair, version: str) -> None:
    ike = f'\n[tunnels.t.ike]\nversion = "{version}"'
    await up(pair, ROUTED + ike, BACK + ike)
    await pair.hq.service.stop()
    # IKEv1 acknowledges no DELETE: it may still be under way.
    await pair.until(lambda: not pair.branch.engine.installed, seconds=1)
    (said,) = (event for event in pair.branch.journal.events.recent() if event.event == "tunnel-lost")
    assert said.code == "E-PEER-DELETED"
    assert said.text.startswith("192.0.2.1 closed the tunnel with DELETE")


@with_pair
async def test_a_delete_that_is_lost_at_the_end_is_sent_again(pair: Pair) -> None:
    """The end waits a moment for the peer's answer: by its own DPD the peer would find out much later."""
    await up(pair, ROUTED, BACK)
    pair.wire.cut = True
    ending = asyncio.create_task(pair.hq.service.stop())
    await pair.until(lambda: not pair.hq.service.gateway.tunnels)
    pair.wire.cut = False
    assert pair.branch.engine.installed
    await ending
    await pair.until(lambda: not pair.branch.engine.installed, seconds=1)


@with_pair
async def test_a_reload_that_the_end_overtakes_begins_nothing(pair: Pair) -> None:
    await up(pair)
    files_read = asyncio.Event()

    async def slow(call: Callable[..., Any], /, *arguments: Any, **more: Any) -> Any:
        await files_read.wait()
        return call(*arguments, **more)

    pair.hq.service.in_thread = slow
    pair.configure({"t": ROUTED, "u": 'routes = ["10.3.0.0/16"]'}, {"t": BACK, "u": BACK})
    work = asyncio.create_task(pair.hq.operator.reload())
    await asyncio.sleep(0)
    pair.wire.cut = True
    ending = asyncio.create_task(pair.hq.service.stop())
    await asyncio.sleep(0.1)
    files_read.set()
    await ending
    assert pair.hq.host.interfaces == {}
    assert len(pair.hq.service.gateway.tunnels) == 0
    assert all(route.device is None for route in pair.hq.host.wanted.routes)
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
