"""Packets without an answer: the peer is asked, a new IKE SA is tried, and the operator can read it."""

from __future__ import annotations

import asyncio
import gc

import pytest

from tests.unit.daemon.pairs import PROVED, Pair, with_pair
from tests.unit.daemon.test_stories import ROUTED, VERSIONS, kinds, up
from vpnd.tunnel.silence_detector import SilenceDetector


async def carry(pair: Pair, seconds: int, answered: bool) -> None:
    """Packets leave hq for so long; their answers come, or do not."""
    for _ in range(seconds):
        pair.hq.engine.sent["t"] = pair.hq.clock.now()
        if answered:
            pair.hq.engine.heard["t"] = pair.hq.clock.now()
        await asyncio.sleep(1)


def asked(pair: Pair) -> int:
    """How many IKE messages hq has sent."""
    return sum(line.direction == "out" for line in pair.hq.journal.traced("t"))


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_a_silent_peer_is_tried_again_beside_what_there_is(pair: Pair, version: str) -> None:
    await up(pair, version)
    before = set(pair.hq.engine.installed)
    pair.wire.cut = True
    await carry(pair, 6, answered=False)
    assert kinds(pair.hq) == ["peer-silent"]
    assert set(pair.hq.engine.installed) == before
    assert pair.state()[0] == "up"
    pair.wire.cut = False
    await carry(pair, 8, answered=True)
    assert kinds(pair.hq)[0] == "peer-silent"
    assert "peer-answers" in kinds(pair.hq)
    assert "tunnel-lost" not in kinds(pair.hq)
    await asyncio.sleep(10)
    assert len(pair.hq.operator.tunnel("t").ike_sas) == 1
    assert set(pair.hq.engine.sending.values()) - before, "packets go by the new pair"


@with_pair
async def test_answered_packets_ask_nothing(pair: Pair) -> None:
    await up(pair, more="\ndpd.timeout = 60")
    before = asked(pair)
    await carry(pair, 8, answered=True)
    assert asked(pair) == before
    assert kinds(pair.hq) == []


@with_pair
async def test_a_passive_end_asks_and_begins_nothing(pair: Pair) -> None:
    await up(pair)
    pair.wire.cut = True
    for _ in range(8):
        pair.branch.engine.sent["t"] = pair.branch.clock.now()
        await asyncio.sleep(1)
    assert kinds(pair.branch) == []
    assert any(line.text.startswith("INFORMATIONAL") for line in pair.branch.journal.traced("t"))
    assert len([line for line in pair.branch.journal.traced("t") if "IKE_SA_INIT" in line.text]) == 2


@with_pair
async def test_without_dead_peer_detection_nobody_asks(pair: Pair) -> None:
    off = "[tunnels.t.dpd]\nenabled = false"
    pair.configure({"t": f"{ROUTED}\n{off}"}, {"t": 'routes = ["10.1.0.0/16"]\nnegotiation = "passive"'})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    await asyncio.sleep(PROVED)
    pair.wire.cut = True
    before = asked(pair)
    await carry(pair, 10, answered=False)
    assert asked(pair) == before


def detectors() -> int:
    """How many there are in this process."""
    gc.collect()
    return sum(isinstance(one, SilenceDetector) for one in gc.get_objects())


@with_pair
async def test_a_tunnel_that_is_removed_is_forgotten(pair: Pair) -> None:
    before = detectors()
    await up(pair)
    pair.wire.cut = True
    await carry(pair, 2, answered=False)
    assert detectors() == before + 1
    pair.configure({}, {})
    await pair.hq.operator.reload()
    assert detectors() == before
