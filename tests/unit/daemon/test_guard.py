"""`vpnd guard`: what one part of it is refused keeps no other part from being set."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.daemon.fakes import FakeHost
from tests.unit.tunnel.lives import policy
from vpnd.daemon import guarding
from vpnd.daemon.main import app
from vpnd.daemon.routing import ROUTES_TABLE, WORST_METRIC
from vpnd.host import nftables
from vpnd.host.host import HostFailed
from vpnd.host.nftables import Shield
from vpnd.host.routes import Route, Wanted
from vpnd.model.policy import Communication
from vpnd.model.selectors import Address, Network

TO = ip_network("10.2.0.0/16")
TUNNEL = replace(policy(), communication=Communication.DESTINATION_ROUTE, routes=(TO,))
BLACKHOLE = Route(TO, ROUTES_TABLE, None, WORST_METRIC)


class PoorBox(FakeHost):
    """A machine that refuses some of it."""

    def __init__(self, *refused: str) -> None:
        super().__init__(ip_address("192.0.2.1"))
        self.refused = refused

    async def present(self) -> Wanted:
        if "present" in self.refused:
            raise HostFailed("no present")
        return await super().present()

    async def shield(self, shield: Shield) -> bool:
        if "shield" in self.refused:
            raise HostFailed("no shield")
        return await super().shield(shield)

    async def networks_inside(
        self, own: frozenset[Address], peers: frozenset[Address], mark: int
    ) -> frozenset[Network]:
        if "inside" in self.refused:
            raise HostFailed("no inside")
        return await super().networks_inside(own, peers, mark)


def set_guard(host: PoorBox, monkeypatch: pytest.MonkeyPatch, remove: bool = False) -> list[str]:
    monkeypatch.setattr(guarding, "LinuxHost", lambda: host)
    failures = asyncio.run(guarding.set_guard(() if remove else (TUNNEL,), remove))
    assert host.closed
    return failures


@pytest.mark.parametrize("refused", [(), ("shield",), ("inside",), ("shield", "inside")])
def test_routes_and_rules_stand_without_a_filter(
    refused: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = PoorBox(*refused)
    failures = set_guard(host, monkeypatch)
    assert sorted(failures) == sorted(f"no {what}" for what in refused)
    assert BLACKHOLE in host.wanted.routes
    assert host.wanted.rules
    assert (host.shielded is None) is ("shield" in refused)


def test_the_filter_stands_without_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    host = PoorBox("present")
    assert set_guard(host, monkeypatch) == ["no present"]
    assert host.shielded is not None
    assert TO in host.shielded.routes


def test_what_cannot_be_taken_away_keeps_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    host = PoorBox("shield")
    set_guard(host, monkeypatch)
    assert set_guard(host, monkeypatch, remove=True) == ["no shield"]
    assert host.wanted == Wanted()


BROKEN = """
[gateway]
name = "hq"
address = "192.0.2.1"
[customer_gateways.other]
address = "192.0.2.2"
[tunnels.lost]
customer_gateway = "other"
pre_shared_key = "file:/nowhere/key"
routes = ["10.2.0.0/16"]
ike.encryption = "rot13"
[tunnels.unknown]
customer_gateway = "nobody"
pre_shared_key = "file:/nowhere/key"
communication = "spd-policy"
spd = [{ local = ["10.1.0.0/24"], remote = ["10.3.0.0/24"] }]
"""


@pytest.mark.parametrize("gateway", ["written", "auto", "missing"])
def test_what_can_be_read_of_a_configuration_with_errors_is_guarded(
    gateway: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, host = tmp_path / "vpnd.toml", PoorBox()
    text = BROKEN.replace('address = "192.0.2.1"', 'address = "auto"') if gateway == "auto" else BROKEN
    config.write_text(
        BROKEN.partition("[customer")[2].join(("[customer", "")) if gateway == "missing" else text
    )
    assert ('"auto"' in config.read_text()) is (gateway == "auto")
    monkeypatch.setattr(guarding, "LinuxHost", lambda: host)
    monkeypatch.setattr(nftables, "installed", lambda: False)
    done = CliRunner().invoke(app.for_typer(), ["guard", "--config", str(config), "--state", str(tmp_path)])
    assert done.exit_code == 2
    assert "E-PSK" in done.output
    assert done.output.endswith(
        "vpnd: the configuration has errors: guarded is what can be read, 2 tunnels\n"
    )
    assert BLACKHOLE in host.wanted.routes
    assert ip_network("10.3.0.0/24") in {rule.destination for rule in host.wanted.rules}
    assert host.shielded is not None
    assert TO in host.shielded.routes


def test_errors_do_not_make_the_filter_that_stands_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    host = PoorBox()
    monkeypatch.setattr(guarding, "LinuxHost", lambda: host)
    monkeypatch.setattr(nftables, "installed", lambda: True)
    assert asyncio.run(guarding.set_guard((TUNNEL,), remove=False, complete=False)) == []
    assert host.shielded is None
    assert BLACKHOLE in host.wanted.routes
