"""A look at the routes to peers that do not answer: what is a fault, how many are asked for, whose turn."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.unit.daemon.fakes import configuration
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_stories import BACK, ROUTED
from vpnd.daemon.upkeep.ways import PEERS_IN_A_LOOK, Ways
from vpnd.host.netlink import RouteTo
from vpnd.model.selectors import Address

OTHER = 'routes = ["10.7.0.0/16"]\ncustomer_gateway = "far"\nike.remote_id = "far.example"'


def code(pair: Pair, name: str) -> str | None:
    error = pair.hq.operator.why(name).error
    return error.code if error is not None else None


@with_pair
async def test_a_peer_may_be_reached_through_another_tunnel_as_long_as_that_is_up(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    text = pair.hq.config.read_text() + '[customer_gateways.far]\naddress = "10.2.0.9"\n'
    pair.hq.write(f'{text}[tunnels.far]\npre_shared_key = "plain:another long enough key 1234"\n{OTHER}\n')
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    pair.hq.host.through = "vpn-t"
    await asyncio.sleep(60)
    assert code(pair, "far") == "E-SILENT"
    pair.wire.cut = True
    await pair.until(lambda: pair.state()[0] != "up", 200)
    await pair.until(lambda: code(pair, "far") == "E-ROUTE", 200)
    said = pair.hq.operator.why("far").explanation
    assert said is not None
    assert said.what.startswith(
        "the route to 10.2.0.9 leads into vpn-t, the interface of a tunnel that is not"
    )


@with_pair
async def test_of_many_silent_peers_each_has_its_turn(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Address] = []
    before = pair.hq.host.route_to

    async def route_to(destination: Address, mark: int) -> RouteTo | None:
        asked.append(destination)
        return await before(destination, mark)

    count = 2 * PEERS_IN_A_LOOK
    tunnels = "".join(
        f'[tunnels.t{n}]\ncustomer_gateway = {{ address = "198.51.100.{n}" }}\n'
        f'pre_shared_key = "plain:a long enough key {n:04}"\nroutes = ["10.{n}.0.0/16"]\n'
        for n in range(1, count + 1)
    )
    pair.hq.write(configuration("hq", "192.0.2.1", "192.0.2.2", {}) + tunnels)
    await pair.hq.start()
    await asyncio.sleep(2)
    monkeypatch.setattr(pair.hq.host, "route_to", route_to)
    pair.hq.host.no_way = True
    ways = Ways(pair.hq.service.gateway, pair.hq.host, pair.hq.journal)
    times: Counter[Address] = Counter()
    for _ in range(4):
        asked.clear()
        await ways.look()
        assert len(asked) == PEERS_IN_A_LOOK
        times.update(asked)
    assert set(times.values()) == {2}
    assert len(times) == count
    await pair.until(lambda: all(code(pair, f"t{n}") == "E-UNREACHABLE" for n in (1, count)))


@with_pair
async def test_a_kernel_that_does_not_answer_says_nothing_about_the_route(pair: Pair) -> None:
    pair.hq.host.route_mtu = None
    pair.wire.cut = True
    pair.configure({"t": ROUTED}, {"t": BACK})
    await pair.start()
    await asyncio.sleep(20)
    assert code(pair, "t") == "E-SILENT"
