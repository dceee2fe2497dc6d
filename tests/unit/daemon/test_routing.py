"""Which routes and rules follow from which tunnels."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.unit.tunnel.lives import policy
from vpnd.daemon.routing import (
    FIRST_TABLE,
    INSIDE_METRIC,
    ROUTES_TABLE,
    SEPARATE_TABLE,
    TABLES,
    TUNNEL_METRIC,
    WORST_METRIC,
    carried,
    guard,
    spared,
    tables_of,
)
from vpnd.host.routes import MAIN_TABLE, MARK
from vpnd.model.policy import Communication

SPD = policy(mappings=2)
ROUTED = replace(
    policy(),
    communication=Communication.DESTINATION_ROUTE,
    routes=(ip_network("10.2.0.0/16"), ip_network("fd02::/64")),
)
DEFAULT = replace(ROUTED, routes=(ip_network("0.0.0.0/0"),))


def test_routes_of_the_tunnel_stand_in_both_tables_with_a_hole_below() -> None:
    tables = tables_of(["branch"])
    holes, ways = guard([ROUTED], tables), carried(ROUTED, tables)
    networks = ("10.2.0.0/16", "fd02::/64")
    assert {(str(r.destination), r.table, r.device, r.metric) for r in holes.routes} == {
        (network, table, None, WORST_METRIC) for network in networks for table in (MAIN_TABLE, ROUTES_TABLE)
    }
    assert {(str(r.destination), r.table, r.device, r.metric) for r in ways.routes} == {
        (network, table, "vpn-branch", TUNNEL_METRIC)
        for network in networks
        for table in (MAIN_TABLE, ROUTES_TABLE)
    }


def test_the_mappings_of_rules_have_a_hole_below_their_interface() -> None:
    tables = tables_of(["branch"])
    holes, ways = guard([SPD], tables), carried(SPD, tables)
    table, everything = tables["branch"], ip_network("0.0.0.0/0")
    assert {(r.destination, r.table, r.device, r.metric) for r in holes.routes} == {
        (everything, table, None, WORST_METRIC)
    }
    assert {(r.destination, r.table, r.device, r.metric) for r in ways.routes} == {
        (everything, table, "vpn-branch", TUNNEL_METRIC)
    }


def test_the_hole_is_the_last_route_of_all() -> None:
    """The metric is 32 bits long: no route that any program makes is taken after it."""
    assert INSIDE_METRIC < TUNNEL_METRIC < WORST_METRIC == 2**32 - 1


def test_the_table_of_the_routes_comes_before_the_main_table_s_common_interfaces() -> None:
    tables = tables_of(["branch"])
    assert carried(ROUTED, tables).rules == frozenset()
    for version in (4, 6):
        rules = [rule for rule in guard([ROUTED], tables).rules if rule.version == version]
        by_tunnels, ours = sorted(rules, key=lambda rule: rule.priority)
        assert (by_tunnels.table, by_tunnels.suppress_group, by_tunnels.unless_mark) == (MAIN_TABLE, 0, None)
        assert (ours.table, ours.unless_mark) == (ROUTES_TABLE, MARK)
        assert ours.priority < 32766
    only_ipv4 = replace(ROUTED, routes=ROUTED.routes[:1])
    assert {rule.version for rule in guard([only_ipv4], tables).rules} == {4}


@pytest.mark.parametrize(
    ("inside", "excepted"),
    [
        (["10.2.9.0/24"], ["10.2.9.0/24"]),
        (["10.2.0.0/16"], ["10.2.0.0/16"]),
        (["10.3.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "fd03::/64", "::/0"], []),
        (["fd02::8000:0:0:0/65", "2001:db8::/64"], ["fd02::8000:0:0:0/65"]),
    ],
)
def test_networks_inside_are_excepted_where_they_lie_in_a_route(
    inside: list[str], excepted: list[str]
) -> None:
    routes = spared([ROUTED, SPD], map(ip_network, inside)).routes
    assert {str(route.destination) for route in routes} == {str(ip_network(text)) for text in excepted}
    assert all(r.thrown and r.table == ROUTES_TABLE and r.metric < TUNNEL_METRIC for r in routes)


def test_neighbours_are_found_beside_a_tunnel_of_everything() -> None:
    everything = replace(ROUTED, routes=(ip_network("::/0"),))
    (route,) = spared([everything], ()).routes
    assert str(route) == f"route fe80::/10 throw table {ROUTES_TABLE} metric 1"


def test_each_mapping_is_a_rule_and_only_its_traffic_meets_the_table() -> None:
    tables = tables_of(["branch"])
    holes, ways = guard([SPD], tables), carried(SPD, tables)
    assert {(str(r.source), str(r.destination), r.table) for r in holes.rules} == {
        ("10.1.0.0/24", "10.2.0.0/24", tables["branch"]),
        ("10.1.1.0/24", "10.2.1.0/24", tables["branch"]),
    }
    (hole,), (way,) = holes.routes, ways.routes
    assert (str(hole.destination), hole.device) == ("0.0.0.0/0", None)
    assert (str(way.destination), way.device) == ("0.0.0.0/0", "vpn-branch")
    assert hole.table == way.table == tables["branch"]


def test_a_default_route_spares_what_vpnd_sends_and_what_its_table_has_thrown() -> None:
    tables = tables_of(["branch"])
    holes = guard([DEFAULT], tables)
    assert {route.table for route in holes.routes} == {SEPARATE_TABLE, ROUTES_TABLE}
    *_, specific, rest = sorted(holes.rules, key=lambda rule: rule.priority)
    assert (specific.table, specific.suppress_default) == (MAIN_TABLE, True)
    assert (rest.table, rest.unless_mark) == (SEPARATE_TABLE, MARK)


def test_table_numbers_agree_between_runs_and_never_meet() -> None:
    names = [f"tunnel-{number}" for number in range(2000)]
    tables = tables_of(names)
    assert tables == tables_of(reversed(names))
    assert len(set(tables.values())) == len(names)
    assert all(FIRST_TABLE <= table < FIRST_TABLE + TABLES for table in tables.values())
    assert tables_of(["tunnel-7"])["tunnel-7"] == tables["tunnel-7"]
