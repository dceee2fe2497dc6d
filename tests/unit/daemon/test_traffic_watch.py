"""Traffic that does not pass: an event, a reason, and history when it passes again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_stories import VERSIONS, kinds, up
from vpnd.datapath.interface import Drop, SaStats
from vpnd.host.forwarding import Passed
from vpnd.host.host import HostFailed

SECONDS = 13


async def carry(pair: Pair, seconds: int, came: bool = False, left: bool = False) -> None:
    """Packets go through hq's tunnel, one a second each way that is asked for."""
    engine = pair.hq.engine
    for _ in range(seconds):
        spi = next(iter(pair.hq.service.gateway.tunnels["t"].mappings[0].pairs())).spi_in
        before = engine.carried.get(spi, SaStats(0, 0, 0, 0, 0.0, 0.0))
        engine.carried[spi] = SaStats(
            before.packets_in + came, before.packets_out + left, 0, 0, before.last_in, before.last_out
        )
        now = pair.hq.clock.now()
        engine.sent |= {"t": now} if left else {}
        engine.heard |= {"t": now} if came else {}
        await asyncio.sleep(1)


def told(pair: Pair) -> list[str]:
    """The events that are about packets."""
    return [kind for kind in kinds(pair.hq) if kind.startswith("traffic")]


def why(pair: Pair) -> Any:
    return pair.hq.operator.why("t")


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_what_leaves_and_is_not_answered(pair: Pair, version: str) -> None:
    await up(pair, version)
    await carry(pair, SECONDS, left=True)
    assert told(pair) == ["traffic-stuck"]
    assert (why(pair).error.code, why(pair).standing) == ("E-ONEWAY", True)
    assert 'ipsec.encapsulation = "udp"' in why(pair).explanation.change
    status = pair.hq.operator.tunnel("t")
    assert status.impaired is not None
    assert status.impaired.code == "E-ONEWAY"
    await carry(pair, 3, came=True, left=True)
    assert told(pair) == ["traffic-stuck", "traffic-passes"]
    assert (why(pair).error.code, why(pair).standing) == ("E-ONEWAY", False)
    assert pair.hq.operator.tunnel("t").impaired is None


@with_pair
async def test_a_peer_that_cuts_the_icv_elsewhere(pair: Pair) -> None:
    await up(pair)
    for _ in range(SECONDS):
        pair.hq.engine.dropped[Drop.INTEGRITY] = pair.hq.engine.dropped.get(Drop.INTEGRITY, 0) + 1
        await carry(pair, 1, left=True)
    assert why(pair).error.code == "E-ESP-ICV"
    assert "ipsec.sha256_96 = true" in why(pair).explanation.change
    assert why(pair).explanation.where[0].key in ("ipsec.integrity", "ipsec.sha256_96")


@pytest.mark.parametrize(
    ("passed", "forwarding", "code", "words"),
    [
        (Passed(3, 0, 0), False, "E-NOFORWARD", "IP forwarding is off"),
        (Passed(3, 0, 0), True, "E-NOFORWARD", "a firewall rule drops them"),
        (Passed(3, 0, 3), True, "E-NOREPLY", "no answer comes back"),
        (Passed(3, 3, 0), False, "E-NOREPLY", "no answer comes back"),
        (HostFailed("no nft"), True, "E-NOREPLY", "no answer comes back"),
    ],
)
@with_pair
async def test_what_comes_out_and_is_not_answered(
    pair: Pair, passed: Passed | HostFailed, forwarding: bool, code: str, words: str
) -> None:
    await up(pair)
    pair.hq.host.passed, pair.hq.host.forwarding = passed, forwarding
    await carry(pair, SECONDS + 4, came=True)
    assert why(pair).error.code == code
    assert words in why(pair).explanation.what
    assert told(pair) == ["traffic-stuck"]


@with_pair
async def test_nothing_that_comes_meanwhile_decides_nothing(pair: Pair) -> None:
    await up(pair)
    await carry(pair, SECONDS + 4, came=True)
    assert why(pair).error is None or not why(pair).standing


@with_pair
async def test_what_was_wrong_with_packets_that_nobody_sends_any_more_is_history(pair: Pair) -> None:
    await up(pair)
    await carry(pair, SECONDS, left=True)
    assert why(pair).standing
    await asyncio.sleep(90)
    assert (why(pair).error.code, why(pair).standing) == ("E-ONEWAY", False)


@with_pair
async def test_what_was_wrong_with_packets_ends_with_the_sas(pair: Pair) -> None:
    await up(pair)
    await carry(pair, SECONDS, left=True)
    await pair.hq.operator.down("t")
    assert pair.hq.operator.tunnel("t").impaired is None
