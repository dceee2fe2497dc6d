"""`gateway.address = "auto"`: the default route's address, at the start, when it changes and when it goes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.unit.daemon.fakes import Machine
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_refused import seconds
from tests.unit.daemon.test_stories import BACK, HERE, ROUTED, THERE, VERSIONS, kinds, text
from tests.unit.tunnel.lives import policy
from vpnd.daemon.upkeep import repairs
from vpnd.daemon.upkeep.addresses import Addresses
from vpnd.host.netlink import RouteTo
from vpnd.host.resolver import Resolver
from vpnd.host.routes import ANYWHERE
from vpnd.model.identity import Identity
from vpnd.model.selectors import UNSPECIFIED, Address
from vpnd.translate.peer_config import peer_config
from vpnd.translate.side import NotPossible

ELSEWHERE = "192.0.2.77"
NAMED = '\n[tunnels.t.ike]\nlocal_id = "hq.example"\nversion = "{version}"'
KNOWN = '\n[tunnels.t.ike]\nremote_id = "hq.example"\nversion = "{version}"'


def configure(pair: Pair, hq: str = "", branch: str = "") -> None:
    """`hq` has the default route's address."""
    pair.configure({"t": ROUTED + hq}, {"t": BACK + branch})
    pair.hq.write(pair.hq.config.read_text().replace(f'address = "{HERE}"', 'address = "auto"'))


def of_any_address(pair: Pair) -> None:
    """`branch` accepts its peer from anywhere, by its identity."""
    pair.branch.write(pair.branch.config.read_text().replace(f'address = "{HERE}"', 'address = "any"'))


async def up(pair: Pair) -> None:
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    await asyncio.sleep(10)
    pair.hq.journal.events.clear()


def move(machine: Machine, address: str | None, default: str | None) -> None:
    """The machine has this address from now on, and a default route that leads from `default`."""
    machine.host.addresses = {ip_address(address)} if address is not None else set()
    machine.host.source = ip_address(default) if default is not None else None
    if address is not None:
        machine.wire.machines[ip_address(address)] = machine
    machine.watch.on_change()


@with_pair
async def test_the_address_and_the_identity_are_the_default_routes(pair: Pair) -> None:
    configure(pair)
    await up(pair)
    detail = pair.hq.operator.tunnel("t")
    assert (detail.local_address, detail.address_followed, detail.local_id) == (HERE, True, HERE)
    assert detail.configuration["ike"]["local_id"] == HERE
    assert pair.hq.operator.status().gateway.address == HERE
    assert "is not an address of this machine" not in pair.hq.texts()
    assert f"remote_addrs = {HERE}, %any\n" in peer_config(detail.model_dump(mode="json"), "strongswan").text


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_another_address_is_followed_and_the_peer_knows_us_by_our_name(
    pair: Pair, version: str
) -> None:
    configure(pair, NAMED.format(version=version), KNOWN.format(version=version))
    of_any_address(pair)
    await up(pair)
    move(pair.hq, ELSEWHERE, ELSEWHERE)
    await pair.until(lambda: kinds(pair.hq)[-1:] == ["tunnel-up"], 200)
    assert kinds(pair.hq)[:2] == ["address-changed", "tunnel-lost"]
    assert text(pair.hq, "address-changed") == f"{HERE} is gone from this machine: using {ELSEWHERE}"
    await pair.until(lambda: pair.branch.operator.status().tunnels[0].peer.address == ELSEWHERE, 200)
    detail = pair.hq.operator.tunnel("t")
    assert (detail.local_address, detail.local_id) == (ELSEWHERE, "hq.example")
    assert pair.hq.operator.status().gateway.address == ELSEWHERE


@with_pair
async def test_the_default_identity_follows(pair: Pair) -> None:
    configure(pair)
    await up(pair)
    move(pair.hq, ELSEWHERE, ELSEWHERE)
    await seconds(pair, 5)
    detail = pair.hq.operator.tunnel("t")
    assert (detail.local_address, detail.local_id) == (ELSEWHERE, ELSEWHERE)
    assert detail.configuration["ike"]["local_id"] == ELSEWHERE
    assert f"id-1 = {ELSEWHERE}" in peer_config(detail.model_dump(mode="json"), "strongswan").text


@with_pair
async def test_an_identity_that_is_written_does_not_follow(pair: Pair) -> None:
    configure(pair, f'\nike.local_id = "{HERE}"')
    await up(pair)
    move(pair.hq, ELSEWHERE, ELSEWHERE)
    await seconds(pair, 5)
    detail = pair.hq.operator.tunnel("t")
    assert (detail.local_address, detail.local_id) == (ELSEWHERE, HERE)


@with_pair
async def test_another_default_route_is_followed_while_the_old_address_stays(pair: Pair) -> None:
    configure(pair)
    await up(pair)
    move(pair.hq, ELSEWHERE, ELSEWHERE)
    pair.hq.host.addresses.add(ip_address(HERE))
    await seconds(pair, 5)
    assert kinds(pair.hq)[:2] == ["address-changed", "tunnel-lost"]
    reason = f"{HERE} is not the default route's any more"
    assert text(pair.hq, "address-changed") == f"{reason}: using {ELSEWHERE}"
    assert text(pair.hq, "tunnel-lost") == "the tunnel's outer address is not the default route's any more"
    assert pair.hq.operator.tunnel("t").local_address == ELSEWHERE


@with_pair
async def test_a_written_address_stays_where_the_default_route_goes(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    await up(pair)
    move(pair.hq, ELSEWHERE, ELSEWHERE)
    pair.hq.host.addresses.add(ip_address(HERE))
    await seconds(pair, 5)
    assert kinds(pair.hq) == []
    assert pair.hq.operator.tunnel("t").local_address == HERE


@with_pair
async def test_without_a_default_route_the_tunnel_waits_and_says_so(pair: Pair) -> None:
    configure(pair)
    await pair.branch.start()
    pair.hq.host.source = None
    await pair.hq.start()
    await seconds(pair, 30)
    (tunnel,) = pair.hq.operator.status().tunnels
    assert (tunnel.state, tunnel.last_error and tunnel.last_error.code) == ("down", "E-ADDRESS")
    assert "no default route" in str(tunnel.last_error)
    assert pair.hq.wire.carried == 0
    assert kinds(pair.hq).count("tunnel-blocked") == 1
    assert pair.hq.operator.status().gateway.address == "auto"
    detail = pair.hq.operator.tunnel("t")
    assert (detail.local_address, detail.local_id) == ("auto", "auto")
    with pytest.raises(NotPossible, match=r"set ike\.local_id"):
        peer_config(detail.model_dump(mode="json"), "strongswan")
    pair.hq.host.source = ip_address(HERE)
    pair.hq.watch.on_change()
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert text(pair.hq, "address-changed") == f"this machine had no default route: using {HERE}"
    (tunnel,) = pair.hq.operator.status().tunnels
    assert tunnel.last_error is None


@with_pair
async def test_a_default_route_that_is_gone_for_a_moment_changes_nothing(pair: Pair) -> None:
    configure(pair)
    await up(pair)
    before = dict(pair.hq.engine.installed)
    move(pair.hq, HERE, None)
    await seconds(pair, 3)
    move(pair.hq, HERE, HERE)
    await seconds(pair, 3)
    assert kinds(pair.hq) == []
    assert pair.hq.engine.installed == before


@with_pair
async def test_an_address_that_comes_back_finds_its_sas(pair: Pair) -> None:
    configure(pair)
    await up(pair)
    before = dict(pair.hq.engine.installed)
    move(pair.hq, None, None)
    await seconds(pair, 3)
    (tunnel,) = pair.hq.operator.status().tunnels
    assert tunnel.last_error is not None
    assert tunnel.last_error.code == "E-ADDRESS"
    assert kinds(pair.hq).count("tunnel-blocked") == 1
    move(pair.hq, HERE, HERE)
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert text(pair.hq, "address-restored") == f"{HERE} is back on this machine"
    assert pair.hq.engine.installed == before


@with_pair
async def test_another_address_after_none_is_negotiated_from(pair: Pair) -> None:
    configure(pair, NAMED.format(version="ikev2"), KNOWN.format(version="ikev2"))
    of_any_address(pair)
    await up(pair)
    before = set(pair.hq.engine.installed)
    move(pair.hq, None, None)
    await seconds(pair, 3)
    move(pair.hq, ELSEWHERE, ELSEWHERE)
    await pair.until(lambda: pair.state() == ("up", "up"), 200)
    await pair.until(lambda: pair.branch.operator.status().tunnels[0].peer.address == ELSEWHERE, 200)
    assert not before & set(pair.hq.engine.installed)
    assert text(pair.hq, "address-changed") == f"{HERE} is gone from this machine: using {ELSEWHERE}"


@with_pair
async def test_a_reload_leaves_a_tunnel_that_followed_alone(pair: Pair) -> None:
    configure(pair)
    await up(pair)
    before = dict(pair.hq.engine.installed)
    pair.hq.write(pair.hq.config.read_text() + "priority = 7\n")
    assert (await pair.hq.operator.reload()).changed == ["t"]
    assert pair.hq.engine.installed == before
    assert pair.hq.operator.tunnel("t").local_id == HERE


@with_pair
async def test_a_peer_that_is_a_name_is_looked_up_when_there_is_an_address(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def look_up(_resolver: Resolver, _name: str, version: int) -> tuple[Address, ...]:
        asked.append(version)
        return (pair.branch.address,)

    monkeypatch.setattr(Resolver, "addresses_of", look_up)
    configure(pair, f'{NAMED.format(version="ikev2")}\nremote_id = "{THERE}"', KNOWN.format(version="ikev2"))
    of_any_address(pair)
    pair.hq.write(pair.hq.config.read_text().replace(f'address = "{THERE}"', 'address = "branch.example"'))
    pair.hq.host.source = None
    await pair.start()
    await seconds(pair, 10)
    assert asked == []
    pair.hq.host.source = pair.hq.address
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert set(asked) == {4}
    move(pair.hq, ELSEWHERE, ELSEWHERE)
    await pair.until(lambda: pair.branch.operator.status().tunnels[0].peer.address == ELSEWHERE, 200)


@with_pair
async def test_a_hub_has_an_address_that_changes(pair: Pair) -> None:
    """Its peers begin: at the new address as soon as they know it."""
    hub = '\n[tunnels.t.ike]\nlocal_id = "hub.example"\nremote_id = "192.0.2.1"'
    pair.configure({"t": f'{ROUTED}\n[tunnels.t.ike]\nremote_id = "hub.example"'}, {"t": BACK + hub})
    text = pair.branch.config.read_text().replace(f'address = "{THERE}"', 'address = "auto"')
    pair.branch.write(text.replace(f'address = "{HERE}"', 'address = "any"'))
    await up(pair)
    assert UNSPECIFIED[4] not in pair.branch.host.heard
    assert {ANYWHERE[4], ip_address(THERE)} <= pair.branch.host.heard
    move(pair.branch, ELSEWHERE, ELSEWHERE)
    spoke = pair.hq.config.read_text()
    pair.hq.write(spoke.replace(f'address = "{THERE}"', f'address = "{ELSEWHERE}"'))
    await pair.hq.operator.reload()
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert pair.branch.operator.tunnel("t").local_address == ELSEWHERE


@pytest.mark.parametrize(("version", "known"), [(4, HERE), (6, "2001:db8::7")])
@with_pair
async def test_each_family_has_its_default_route(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, version: int, known: str
) -> None:
    async def route_to(destination: Address, _mark: int) -> RouteTo:
        assert destination == ANYWHERE[destination.version]
        return RouteTo(ip_address("2001:db8::7" if destination.version == 6 else HERE), 2, 1500)

    monkeypatch.setattr(pair.hq.host, "route_to", route_to)
    unknown = UNSPECIFIED[version]
    peer = replace(policy().peer, local_address=unknown, local_id=Identity.of_address(unknown))
    addresses = Addresses(
        pair.hq.host, pair.hq.engine, pair.hq.journal, lambda local: pytest.fail(str(local))
    )
    bound = await addresses.bind(replace(policy(), peer=peer))
    assert str(bound.peer.local_address) == str(bound.peer.local_id) == known


@with_pair
async def test_the_identity_of_a_written_address_stays_where_another_is_used(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    pair.hq.host.addresses = {ip_address(ELSEWHERE)}
    pair.hq.host.source = ip_address(ELSEWHERE)
    await pair.hq.start()
    detail = pair.hq.operator.tunnel("t")
    assert (detail.local_address, detail.local_id) == (ELSEWHERE, HERE)


@with_pair
async def test_a_tunnel_that_comes_without_a_default_route_has_the_address_in_use(pair: Pair) -> None:
    configure(pair)
    await up(pair)
    move(pair.hq, HERE, None)
    more = pair.hq.config.read_text().replace("tunnels.t]", "tunnels.u]").partition("[tunnels")
    text = pair.hq.config.read_text() + "".join(more[1:]).replace("10.2.0.0", "10.3.0.0")
    pair.hq.write(text)
    assert (await pair.hq.operator.reload()).added == ["u"]
    assert pair.hq.operator.tunnel("u").local_address == HERE


@with_pair
async def test_a_default_route_is_used_when_it_comes_not_at_the_next_look(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "REPAIR_EVERY", 1e6)
    configure(pair)
    pair.hq.host.source = None
    await pair.start()
    await seconds(pair, 10)
    pair.hq.host.source = ip_address(HERE)
    pair.hq.watch.on_change()
    await pair.until(lambda: pair.state() == ("up", "up"))
