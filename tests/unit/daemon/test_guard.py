"""`vpnd guard`: what one part of it is refused keeps no other part from being set."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.unit.daemon.fakes import FakeBox
from tests.unit.tunnel.lives import policy
from vpnd.daemon import guarding
from vpnd.daemon.box import BoxFailed
from vpnd.daemon.nftables import Shield
from vpnd.daemon.routes import ROUTES_TABLE, WORST_METRIC, Route, Wanted
from vpnd.model.policy import Communication
from vpnd.model.selectors import Address, Network

TO = ip_network("10.2.0.0/16")
TUNNEL = replace(policy(), communication=Communication.DESTINATION_ROUTE, routes=(TO,))
BLACKHOLE = Route(TO, ROUTES_TABLE, None, WORST_METRIC)


class PoorBox(FakeBox):
    """A machine that refuses some of it."""

    def __init__(self, *refused: str) -> None:
        super().__init__(ip_address("192.0.2.1"))
        self.refused = refused

    async def present(self) -> Wanted:
        if "present" in self.refused:
            raise BoxFailed("no present")
        return await super().present()

    async def shield(self, shield: Shield) -> bool:
        if "shield" in self.refused:
            raise BoxFailed("no shield")
        return await super().shield(shield)

    async def networks_inside(
        self, own: frozenset[Address], peers: frozenset[Address], mark: int
    ) -> frozenset[Network]:
        if "inside" in self.refused:
            raise BoxFailed("no inside")
        return await super().networks_inside(own, peers, mark)


def set_guard(box: PoorBox, monkeypatch: pytest.MonkeyPatch, remove: bool = False) -> list[str]:
    monkeypatch.setattr(guarding, "LinuxBox", lambda: box)
    failures = asyncio.run(guarding.set_guard(() if remove else (TUNNEL,), remove))
    assert box.closed
    return failures


@pytest.mark.parametrize("refused", [(), ("shield",), ("inside",), ("shield", "inside")])
def test_routes_and_rules_stand_without_a_filter(
    refused: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = PoorBox(*refused)
    failures = set_guard(box, monkeypatch)
    assert sorted(failures) == sorted(f"no {what}" for what in refused)
    assert BLACKHOLE in box.wanted.routes
    assert box.wanted.rules
    assert (box.shielded is None) is ("shield" in refused)


def test_the_filter_stands_without_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    box = PoorBox("present")
    assert set_guard(box, monkeypatch) == ["no present"]
    assert box.shielded is not None
    assert TO in box.shielded.routes


def test_what_cannot_be_taken_away_keeps_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    box = PoorBox("shield")
    set_guard(box, monkeypatch)
    assert set_guard(box, monkeypatch, remove=True) == ["no shield"]
    assert box.wanted == Wanted()
