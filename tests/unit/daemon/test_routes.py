"""Which routes and rules follow from which tunnels."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from tests.unit.tunnel.lives import policy
from vpnd.daemon.routes import (
    DEFAULT_TABLE,
    FIRST_TABLE,
    MAIN_TABLE,
    MARK,
    TABLES,
    TUNNEL_METRIC,
    WORST_METRIC,
    carried,
    guard,
    tables_of,
)
from vpnd.model.policy import Communication

SPD = policy(mappings=2)
ROUTED = replace(
    policy(),
    communication=Communication.DESTINATION_ROUTE,
    routes=(ip_network("10.2.0.0/16"), ip_network("fd02::/64")),
)
DEFAULT = replace(ROUTED, routes=(ip_network("0.0.0.0/0"),))


def test_routes_of_the_tunnel_stand_in_the_main_table_with_a_hole_below() -> None:
    tables = tables_of(["branch"])
    holes, ways = guard([ROUTED], tables), carried(ROUTED, tables)
    assert holes.rules == ways.rules == frozenset()
    assert {(str(r.destination), r.table, r.device, r.metric) for r in holes.routes} == {
        ("10.2.0.0/16", MAIN_TABLE, None, WORST_METRIC),
        ("fd02::/64", MAIN_TABLE, None, WORST_METRIC),
    }
    assert {(str(r.destination), r.table, r.device, r.metric) for r in ways.routes} == {
        ("10.2.0.0/16", MAIN_TABLE, "vpn-branch", TUNNEL_METRIC),
        ("fd02::/64", MAIN_TABLE, "vpn-branch", TUNNEL_METRIC),
    }


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


def test_a_default_route_spares_what_vpnd_sends_and_what_is_more_specific() -> None:
    tables = tables_of(["branch"])
    holes = guard([DEFAULT], tables)
    assert {route.table for route in holes.routes} == {DEFAULT_TABLE}
    specific, rest = sorted(holes.rules, key=lambda rule: rule.priority)
    assert (specific.table, specific.suppress_default) == (MAIN_TABLE, True)
    assert (rest.table, rest.unless_mark) == (DEFAULT_TABLE, MARK)


def test_table_numbers_agree_between_runs_and_never_meet() -> None:
    names = [f"tunnel-{number}" for number in range(2000)]
    tables = tables_of(names)
    assert tables == tables_of(reversed(names))
    assert len(set(tables.values())) == len(names)
    assert all(FIRST_TABLE <= table < FIRST_TABLE + TABLES for table in tables.values())
    assert tables_of(["tunnel-7"])["tunnel-7"] == tables["tunnel-7"]
