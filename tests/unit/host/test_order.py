"""In which order routes and rules go: no packet finds a gap. Needs no root: nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

import pytest

from vpnd.host import rtnetlink
from vpnd.host.netlink import Netlink
from vpnd.host.routes import MAIN_TABLE, Route, Wanted

NETWORKS = tuple(ip_network(f"10.{number}.0.0/16") for number in range(1, 9))


def test_what_leads_into_a_tunnel_comes_last_and_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blackhole stands as long as there is a route by an interface that it guards."""
    done: list[Route] = []

    def note(routes: Iterable[Route]) -> list[tuple[Route, int]]:
        done.extend(routes)
        return []

    monkeypatch.setattr(rtnetlink, "write", note)
    monkeypatch.setattr(rtnetlink, "delete", note)
    holes = {Route(network, MAIN_TABLE, None, 9) for network in NETWORKS}
    ways = {Route(network, MAIN_TABLE, "t0", 1) for network in NETWORKS}
    wanted = Wanted(frozenset(holes | ways))
    netlink = Netlink()
    assert netlink.reconcile(wanted, Wanted()) == []
    assert (set(done[:8]), set(done[8:])) == (holes, ways)
    done.clear()
    assert netlink.reconcile(Wanted(), wanted) == []
    assert (set(done[:8]), set(done[8:])) == (ways, holes)
