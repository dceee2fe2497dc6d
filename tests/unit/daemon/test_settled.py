"""The kernel is asked only where a change has to do with its routes, rules and filters; and then always."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.unit.daemon.fakes import KEY
from tests.unit.daemon.pairs import Pair, with_pair
from vpnd.daemon.routing import apart, carried, guard, probed, tables_of
from vpnd.host.nftables import Shield
from vpnd.host.routes import MAIN_TABLE, Route, Wanted

TABLE: dict[str, Any] = {
    "customer_gateway": {"address": "192.0.2.2"},
    "pre_shared_key": f"plain:{KEY}",
    "negotiation": "passive",
    "routes": ["10.2.0.0/16"],
}
SPD: dict[str, Any] = {
    **{key: value for key, value in TABLE.items() if key != "routes"},
    "communication": "spd-policy",
    "spd": [{"local": ["10.1.0.0/24"], "remote": ["10.2.0.0/24"]}],
}


async def begin(pair: Pair, table: dict[str, Any]) -> None:
    pair.configure({}, {})
    await pair.start()
    await pair.hq.operator.put_tunnel("t", table)


@with_pair
@pytest.mark.parametrize(
    "change",
    [
        {"dpd": {"timeout": 45}},
        {"description": "the office in the north"},
        {"ike": {"lifetime": 7200}},
        {"ipsec": {"encryption": "aes-256"}},
        {"mss": 1200},
    ],
    ids=str,
)
@pytest.mark.parametrize("table", [TABLE, SPD], ids=["routes", "spd"])
async def test_what_the_kernel_does_not_have_leaves_it_alone(
    pair: Pair, table: dict[str, Any], change: dict[str, Any]
) -> None:
    await begin(pair, table)
    asked, wanted = len(pair.hq.host.history), pair.hq.host.wanted
    assert (await pair.hq.operator.put_tunnel("t", {**table, **change})).change == "changed"
    assert (len(pair.hq.host.history), pair.hq.host.wanted) == (asked, wanted)


@with_pair
@pytest.mark.parametrize(
    ("table", "change"),
    [
        (TABLE, {"routes": ["10.3.0.0/16"]}),
        (TABLE, {"customer_gateway": {"address": "192.0.2.3"}}),
        (TABLE, {"interface": "vpn-other"}),
        (TABLE, {"ike": {"version": "ikev1"}}),
        (TABLE, {"health_check": {"enabled": True}}),
        (SPD, {"spd": [{"local": ["10.1.0.0/24"], "remote": ["10.4.0.0/24"]}]}),
        (SPD, {"spd": [{"local": ["10.1.0.0/24"], "remote": ["10.2.0.0/24"], "protocol": "tcp"}]}),
        (SPD, {"customer_gateway": {"address": "192.0.2.3"}}),
    ],
    ids=str,
)
async def test_what_the_kernel_has_is_as_if_the_daemon_had_begun_with_it(
    pair: Pair, table: dict[str, Any], change: dict[str, Any]
) -> None:
    await begin(pair, table)
    before, asked = pair.hq.host.wanted, len(pair.hq.host.history)
    await pair.hq.operator.put_tunnel("t", {**table, **change})
    after, shielded = pair.hq.host.wanted, pair.hq.host.shielded
    assert len(pair.hq.host.history) > asked
    assert (after != before) == (not {"customer_gateway", "ike"} & set(change))
    await pair.hq.service.interfaces.settle()
    assert (pair.hq.host.wanted, pair.hq.host.shielded) == (after, shielded)


def wanted(pair: Pair) -> Wanted:
    """What the kernel should have, found out of all tunnels at once."""
    service = pair.hq.service
    policies = service.policy.tunnels
    attached = [service.interfaces.get(policy.name) for policy in policies]
    bound = [one.policy for one in attached if one is not None]
    tables, separate = tables_of(policy.name for policy in policies), apart((*policies, *bound))
    found = guard(policies, tables, separate)
    for policy in bound:
        led = (
            route
            for route in carried(policy, tables, separate).routes
            if route.destination not in policy.routes
            or service.gateway.selection.carrier(route.destination) == policy.name
        )
        found |= Wanted(frozenset(led)) | probed(policy)
    return found


@with_pair
async def test_what_is_kept_of_each_tunnel_is_what_all_of_them_want(pair: Pair) -> None:
    await begin(pair, TABLE)
    operator = pair.hq.operator
    other = {**SPD, "ike": {"remote_id": "other.example"}, "health_check": {"enabled": False}}
    third = {**TABLE, "ike": {"remote_id": "third.example"}, "priority": 100}
    for name, table in (
        ("u", other),
        ("v", third),
        ("v", {**third, "routes": ["10.2.0.0/16", "192.0.2.0/24"]}),
        ("t", {**TABLE, "routes": ["10.5.0.0/16", "192.0.2.0/24"], "health_check": {"enabled": True}}),
        ("u", {**other, "spd": [{"local": ["10.1.0.0/24"], "remote": ["10.2.0.0/24", "10.3.0.0/24"]}]}),
        ("t", {**TABLE, "routes": ["10.5.0.0/16"], "interface": "vpn-other"}),
        ("u", {**other, "customer_gateway": {"address": "10.5.0.9"}}),  # in a route of another tunnel
    ):
        await operator.put_tunnel(name, table)
        await pair.hq.service.interfaces.led()
        assert pair.hq.host.wanted == wanted(pair), (name, table)
    for name in ("v", "u", "t"):
        await operator.delete_tunnel(name)
        assert pair.hq.host.wanted == wanted(pair), name
    assert pair.hq.host.wanted == Wanted()


@with_pair
async def test_another_carrier_of_a_route_is_in_the_kernel(pair: Pair) -> None:
    await begin(pair, TABLE)
    other = {**TABLE, "ike": {"remote_id": "other.example"}, "priority": 100}
    await pair.hq.operator.put_tunnel("u", other)
    await pair.hq.operator.put_tunnel("u", {**other, "priority": 1})
    await pair.hq.operator.put_tunnel("t", {**TABLE, "priority": 50})
    await pair.hq.service.interfaces.led()
    carrier = pair.hq.service.gateway.selection.carrier(ip_network("10.2.0.0/16"))
    devices = {
        route.device
        for route in pair.hq.host.wanted.routes
        if route.table == MAIN_TABLE and route.device is not None
    }
    assert (carrier, devices) == ("u", {"vpn-u"})


@with_pair
async def test_what_the_kernel_has_refused_is_asked_for_again_by_the_next_change(pair: Pair) -> None:
    await begin(pair, TABLE)
    pair.hq.host.routes_refused = 2
    await pair.hq.operator.put_tunnel("t", {**TABLE, "routes": ["10.2.0.0/16", "10.3.0.0/16"]})
    assert ip_network("10.3.0.0/16") not in {route.destination for route in pair.hq.host.wanted.routes}
    description = {"description": "as before, but for this"}
    await pair.hq.operator.put_tunnel("t", {**TABLE, "routes": ["10.2.0.0/16", "10.3.0.0/16"], **description})
    assert ip_network("10.3.0.0/16") in {route.destination for route in pair.hq.host.wanted.routes}


@with_pair
async def test_a_filter_that_another_program_has_removed_is_put_back_by_any_change(pair: Pair) -> None:
    await begin(pair, TABLE)
    pair.hq.host.flushed = True
    await pair.hq.operator.put_tunnel("t", {**TABLE, "description": "new"})
    assert not pair.hq.host.flushed
    assert "filter-restored" in [kind for _, kind in pair.hq.events()]


@with_pair
async def test_a_peer_in_its_own_routes_is_heard_from_where_it_is_now(pair: Pair) -> None:
    await begin(pair, {**TABLE, "routes": ["192.0.2.0/24"]})
    there = {"customer_gateway": {"address": "192.0.2.7"}}
    await pair.hq.operator.put_tunnel("t", {**TABLE, "routes": ["192.0.2.0/24"], **there})
    assert ip_address("192.0.2.7") in pair.hq.host.heard


async def asks(pair: Pair, description: str) -> bool:
    """Whether the kernel is asked by a change that has nothing to do with it."""
    before = len(pair.hq.host.history)
    await pair.hq.operator.put_tunnel("t", {**TABLE, "description": description})
    return len(pair.hq.host.history) > before


@with_pair
async def test_what_the_kernel_was_not_watched_for_is_asked_by_the_first_change(pair: Pair) -> None:
    rest = 'negotiation = "passive"\nroutes = ["10.2.0.0/16"]\n'
    pair.configure({"t": rest}, {})
    await pair.start()
    asked = [len(pair.hq.host.history)]
    for text in ("first", "second"):
        pair.configure({"t": f'{rest}description = "{text}"'}, {})
        await pair.hq.operator.reload()
        asked.append(len(pair.hq.host.history))
    assert asked[0] < asked[1] == asked[2]


@with_pair
async def test_what_was_told_and_could_not_be_repaired_is_asked_by_the_next_change(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(pair, TABLE)
    with monkeypatch.context() as patch:
        patch.setattr(pair.hq.host, "local_addresses", None)  # as a bug would
        pair.hq.watch.on_change()
        await asyncio.sleep(0.01)
    assert [await asks(pair, text) for text in ("first", "second")] == [True, False]


@with_pair
async def test_what_is_told_while_the_kernel_is_asked_is_asked_for_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(pair, TABLE)
    interfaces, shield = pair.hq.service.interfaces, pair.hq.host.shield

    async def shielding(wanted: Shield) -> bool:
        interfaces.doubt()
        return await shield(wanted)

    with monkeypatch.context() as patch:
        patch.setattr(pair.hq.host, "shield", shielding)
        await interfaces.settle()
    assert [await asks(pair, text) for text in ("first", "second")] == [True, False]


@with_pair
async def test_a_route_that_the_kernel_did_not_lead_is_asked_for_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(pair, TABLE)

    async def refusing(_: tuple[Route, ...]) -> list[str]:
        return ["add a route: No buffer space available (ENOBUFS)"]

    with monkeypatch.context() as patch:
        patch.setattr(pair.hq.host, "replace", refusing)
        pair.hq.service.interfaces.lead(ip_network("10.2.0.0/16"))
        await pair.hq.service.interfaces.led()
    assert [await asks(pair, text) for text in ("first", "second")] == [True, False]


@with_pair
async def test_a_check_that_was_made_strict_again_is_loosened_by_any_change(pair: Pair) -> None:
    table = {**TABLE, "routes": ["192.0.2.0/24"]}
    await begin(pair, table)
    pair.hq.host.heard = frozenset()
    await pair.hq.operator.put_tunnel("t", {**table, "description": "new"})
    assert ip_address("192.0.2.2") in pair.hq.host.heard
