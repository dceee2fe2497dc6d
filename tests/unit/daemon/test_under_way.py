"""What happens to an attempt that is under way when something else is decided."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED
from tests.unit.daemon.test_refused import seconds
from tests.unit.daemon.test_stories import VERSIONS
from vpnd.control.operations import OperationError
from vpnd.ike.session import Phase
from vpnd.model.selectors import parse_address

NEGOTIATIONS = ("active", "passive", "traffic-triggered")


async def connecting(pair: Pair, version: str, negotiation: str = "active") -> asyncio.Task[None]:
    """The tunnel of hq is brought up by hand, and its peer does not answer."""
    spoken = f'negotiation = "{negotiation}"\n[tunnels.t.ike]\nversion = "{version}"'
    pair.configure({"t": f"{ROUTED}\n{spoken}"}, {"t": f'{BACK}\n[tunnels.t.ike]\nversion = "{version}"'})
    await pair.start()
    pair.wire.cut = True
    begun = asyncio.create_task(_bring_up(pair))
    await seconds(pair, 2)
    return begun


async def _bring_up(pair: Pair) -> None:
    with contextlib.suppress(OperationError):
        await pair.hq.operator.up("t", 60)


@pytest.mark.parametrize("negotiation", NEGOTIATIONS)
@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_a_reset_begins_the_attempt_that_is_under_way_again(
    pair: Pair, version: str, negotiation: str
) -> None:
    begun = await connecting(pair, version, negotiation)
    pair.wire.cut = False
    await pair.hq.operator.reset("t", 20)
    assert pair.state() == ("up", "up")
    assert pair.hq.operator.why("t").error is None
    begun.cancel()


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_an_attempt_that_is_taken_down_is_no_failure(pair: Pair, version: str) -> None:
    begun = await connecting(pair, version)
    await pair.hq.operator.down("t")
    begun.cancel()
    assert pair.hq.operator.why("t").error is None
    assert "attempt-failed" not in [kind for _, kind in pair.hq.events()]


@pytest.mark.parametrize("negotiation", NEGOTIATIONS)
@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_an_attempt_goes_on_from_the_new_address_of_this_machine(
    pair: Pair, version: str, negotiation: str
) -> None:
    begun = await connecting(pair, version, negotiation)
    moved = parse_address("192.0.2.77")
    pair.hq.host.addresses = {moved}
    pair.hq.host.source = moved
    pair.hq.watch.on_change()
    await seconds(pair, 1)
    sas = pair.hq.service.gateway.endpoint.snapshot().sas
    attempts = [sa for sa in sas if sa.initiator and sa.phase is Phase.CONNECTING]
    assert {sa.path.local for sa in attempts} == {moved}
    assert pair.hq.service.gateway.tunnels["t"].attempt.mapping is not None
    begun.cancel()
