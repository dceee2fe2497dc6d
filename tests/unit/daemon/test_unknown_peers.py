"""Machines that begin IKE and are no tunnel's peer: the event, and for whom they may be the peer."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.unit.daemon.fakes import configuration
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_stories import BACK, ROUTED, up
from tests.unit.ike.test_unknown_peers import FIRST, V4, V6, first_message, path
from vpnd.config.kept import REASONS_FILE
from vpnd.daemon.kept_reasons import KeptReasons
from vpnd.wire.iana import Exchange2, IkeVersion

CODE = "E-UNKNOWN-PEER"


def knock(pair: Pair, address: str = V4, port: int = 500, times: int = 1) -> None:
    """A machine elsewhere begins IKE with hq."""
    for _ in range(times):
        pair.hq.receive(path(address, port), first_message(IkeVersion.V2, Exchange2.IKE_SA_INIT))


def told(pair: Pair) -> list[str]:
    return [one.text for one in pair.hq.journal.events.recent() if one.code == CODE]


@pytest.mark.parametrize(("address", "port"), [(V4, 500), (V4, 4500), (V6, 500), (V6, 4500)])
@with_pair
async def test_a_machine_that_no_tunnel_knows_is_an_event(pair: Pair, address: str, port: int) -> None:
    await up(pair)
    knock(pair, address, port, times=5)
    (text,) = told(pair)
    assert text.startswith(
        f"a machine at {address} (UDP {port}) begins IKEv2, and no tunnel has that address"
    )
    why = pair.hq.operator.why("t")
    assert not why.standing, "the tunnel is up"


@with_pair
async def test_it_is_a_warning_only_where_a_tunnel_is_not_up(
    pair: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    await up(pair)
    knock(pair)
    pair.wire.cut = True
    await pair.until(lambda: pair.state()[0] != "up", 120)
    knock(pair, V6)
    lines = [line for line in capfd.readouterr().out.splitlines() if "begins IKEv2" in line]
    assert [line.split()[1] == "!" for line in lines] == [False, True], lines


@with_pair
async def test_the_peer_of_a_tunnel_that_is_down_is_known(pair: Pair) -> None:
    pair.configure({"t": BACK.replace("10.1.", "10.2.")}, {"t": ROUTED.replace("10.2.", "10.1.")})
    await pair.start()
    await pair.hq.operator.down("t")
    await pair.branch.operator.down("t")
    asking = asyncio.ensure_future(pair.branch.operator.up("t", 20))
    await asyncio.sleep(15)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert told(pair) == []


@with_pair
async def test_a_tunnel_that_waits_may_have_several_machines_as_its_peer(pair: Pair) -> None:
    """Those that come again are named before those that came once, and a few of many."""
    pair.hq.write(configuration("hq", "192.0.2.1", "192.0.2.9", {"t": BACK}))
    await pair.hq.start()
    assert pair.hq.operator.why("t").error is None
    kept = KeptReasons(pair.hq.service, pair.hq.operator.why, pair.hq.state)
    await kept.keep()
    knock(pair, times=4)
    for number in range(1, 9):
        knock(pair, f"203.0.113.{number}")
    why = pair.hq.operator.why("t")
    assert why.error is not None
    assert why.explanation is not None
    assert (why.error.code, why.standing, why.state) == (CODE, True, "waiting")
    assert why.explanation.peer_said == "4 first messages lately"
    assert f'customer_gateways.other.address = "{V4}"' in (why.explanation.change or "")
    others = [text for text in why.explanation.also_possible if "203.0.113." in text]
    assert len(others) == 2
    assert "ike.version" not in (why.explanation.change or "")
    await kept.keep()
    document = json.loads((pair.hq.state / REASONS_FILE).read_text())
    assert document["tunnels"]["t"]["error"]["code"] == CODE
    await asyncio.sleep(601)
    assert pair.hq.operator.why("t").error is None


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        (
            "[customer_gateways.other]",
            '[customer_gateways."the other"]',
            'customer_gateways."the other".address',
        ),
        ('"other"', '{ address = "192.0.2.9" }', "customer_gateway.address"),
    ],
)
@with_pair
async def test_the_key_is_where_the_address_stands(pair: Pair, before: str, after: str, key: str) -> None:
    text = configuration("hq", "192.0.2.1", "192.0.2.9", {"t": BACK}).replace(before, after)
    pair.hq.write(text.replace('gateway = "other"', 'gateway = "the other"'))
    await pair.hq.start()
    knock(pair)
    assert f'set {key} = "{V4}"' in pair.hq.operator.why("t").explanation.change  # type: ignore[union-attr,operator] # there is one


@pytest.mark.parametrize(("version", "exchange"), FIRST[1:])
@with_pair
async def test_its_version_is_part_of_the_advice(pair: Pair, version: IkeVersion, exchange: int) -> None:
    pair.hq.write(configuration("hq", "192.0.2.1", "192.0.2.9", {"t": BACK}))
    await pair.hq.start()
    pair.hq.receive(path(), first_message(version, exchange))
    change = pair.hq.operator.why("t").explanation.change  # type: ignore[union-attr] # there is one
    assert change is not None
    assert change.endswith('and ike.version = "ikev1"')
