"""A tunnel whose peer has any address: what the daemon shows of it, and what it does not try."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.unit.daemon.fakes import KEY
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED
from tests.unit.daemon.test_refused import seconds
from tests.unit.tunnel.lives import policy
from vpnd.control.operations import InvalidConfiguration, NegotiationFailed
from vpnd.daemon.routing import SEPARATE_TABLE, apart, guard, tables_of
from vpnd.host.routes import ANYWHERE
from vpnd.model.policy import Communication
from vpnd.model.selectors import parse_address

HUB = f'{BACK}\n[tunnels.t.ike]\nremote_id = "192.0.2.1"'


def configure(pair: Pair, branch: str = HUB) -> None:
    """`branch` is the hub, and `hq` its peer."""
    pair.configure({"t": ROUTED}, {"t": branch})
    pair.branch.write(pair.branch.config.read_text().replace('address = "192.0.2.1"', 'address = "any"'))


@with_pair
async def test_the_peer_is_shown_while_it_is_there(pair: Pair) -> None:
    configure(pair)
    await pair.branch.start()
    await seconds(pair, 5)
    (tunnel,) = pair.branch.operator.status().tunnels
    assert (tunnel.state, tunnel.peer.address, tunnel.last_error) == ("waiting", None, None)
    await pair.hq.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    (tunnel,) = pair.branch.operator.status().tunnels
    assert tunnel.peer.address == "192.0.2.1"
    await pair.hq.operator.down("t")
    await pair.until(lambda: pair.state() == ("down", "waiting"))
    (tunnel,) = pair.branch.operator.status().tunnels
    assert tunnel.peer.address is None


@with_pair
async def test_up_says_that_only_the_peer_can_begin(pair: Pair) -> None:
    configure(pair)
    await pair.branch.start()
    with pytest.raises(NegotiationFailed) as failure:
        await pair.branch.operator.up("t", 10)
    assert failure.value.code == "E-ANY"
    assert "only it can begin" in str(failure.value)
    assert pair.branch.service.gateway.tunnels["t"].state.value == "waiting"
    await pair.hq.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert (await pair.branch.operator.up("t", 10)).state == "up"


@with_pair
async def test_after_down_it_is_up_that_lets_the_peer_in_again(pair: Pair) -> None:
    configure(pair)
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    await pair.branch.operator.down("t")
    await seconds(pair, 90)
    assert pair.state()[1] == "down"
    with pytest.raises(NegotiationFailed):
        await pair.branch.operator.up("t", 10)
    await pair.until(lambda: pair.state() == ("up", "up"), 120)


@with_pair
async def test_reset_closes_and_waits_for_the_peer(pair: Pair) -> None:
    configure(pair)
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert (await pair.branch.operator.reset("t", 10)).state == "waiting"
    await pair.until(lambda: pair.state() == ("up", "up"), 120)


@with_pair
async def test_a_dead_peer_is_waited_for_and_not_called(pair: Pair) -> None:
    configure(pair)
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    pair.wire.cut = True
    gateway = pair.branch.service.gateway
    await pair.until(lambda: gateway.tunnels["t"].state.value != "up", 120)
    await seconds(pair, 200)
    assert gateway.tunnels["t"].state.value == "waiting"
    assert gateway.tunnels["t"].attempt.mapping is None
    pair.wire.cut = False
    await pair.until(lambda: pair.state() == ("up", "up"), 120)


@with_pair
async def test_the_path_to_the_peer_is_learned_with_its_sas(pair: Pair) -> None:
    configure(pair)
    pair.branch.host.route_mtu = 1400
    await pair.branch.start()
    assert pair.branch.engine.path_mtu["t"] == 1500
    await pair.hq.start()
    await pair.until(lambda: pair.branch.engine.path_mtu["t"] == 1400)


@with_pair
async def test_peers_of_any_address_pass_the_reverse_path_check(pair: Pair) -> None:
    """Where a peer may come from is not known: by the default route, or by the gateway's own link."""
    configure(pair)
    await pair.branch.start()
    assert {pair.branch.address, ANYWHERE[4]} <= pair.branch.host.heard


@with_pair
async def test_an_address_that_is_not_this_machines_is_replaced_by_the_default_routes(pair: Pair) -> None:
    configure(pair)
    pair.branch.host.addresses = {parse_address("10.9.9.9")}
    pair.branch.host.source = parse_address("10.9.9.9")
    await pair.branch.start()
    bound = pair.branch.service.gateway.tunnels["t"].policy.peer
    assert (str(bound.local_address), bound.remote_address) == ("10.9.9.9", None)


def test_every_route_may_hold_a_peer_of_any_address() -> None:
    routed = replace(
        policy(),
        communication=Communication.DESTINATION_ROUTE,
        routes=(ip_network("10.2.0.0/16"), ip_network("fd02::/64")),
    )
    anyone = replace(routed, peer=replace(routed.peer, remote_address=None, any_address=True))
    assert apart([routed]) == frozenset()
    assert apart([anyone]) == frozenset({ip_network("10.2.0.0/16")})
    tables = {r.table for r in guard([anyone], tables_of(["branch"])).routes if r.destination.version == 4}
    assert SEPARATE_TABLE in tables


@with_pair
async def test_the_api_makes_such_a_tunnel_and_refuses_what_is_no_identity(pair: Pair) -> None:
    configure(pair)
    await pair.branch.start()
    table = {
        "customer_gateway": {"address": "any"},
        "negotiation": "passive",
        "pre_shared_key": f"plain:{KEY}",
        "routes": ["10.9.0.0/16"],
    }
    for ike, code in (({}, "E-ANY"), ({"remote_id": "%any"}, "E-ID"), ({"remote_id": "keyid:x"}, "E-ID")):
        with pytest.raises(InvalidConfiguration) as failure:
            await pair.branch.operator.put_tunnel("u", {**table, "ike": ike})
        assert [one.code for one in failure.value.problems if one.code.startswith("E-")] == [code]
    made = await pair.branch.operator.put_tunnel("u", {**table, "ike": {"remote_id": "@203.0.113.1"}})
    assert made.change == "created"
    assert pair.branch.operator.tunnel("u").remote_id == "@203.0.113.1"
    assert pair.branch.service.gateway.tunnels["u"].state.value == "waiting"
