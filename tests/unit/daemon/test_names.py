"""A peer's address that becomes known while somebody else changes the tunnel."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED
from tests.unit.daemon.test_refused import seconds
from tests.unit.daemon.test_stories import VERSIONS
from vpnd.daemon.resolver import Resolver
from vpnd.datapath.interface import TunLost
from vpnd.model.selectors import Address, parse_address

NAMED = f'{ROUTED}\n[tunnels.t.ike]\nremote_id = "192.0.2.2"'
OTHERS = ("u8", "u9")


def configure(pair: Pair, hq: str) -> None:
    """`hq` knows its peer by name."""
    pair.configure({"t": hq}, {"t": BACK})
    pair.hq.write(pair.hq.config.read_text().replace('address = "192.0.2.2"', 'address = "branch.example"'))


async def begin(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """The tunnel waits for its peer's address, which comes with the event."""
    answer = asyncio.Event()

    async def look_up(_resolver: Resolver, _name: str, _version: int) -> tuple[Address, ...]:
        await answer.wait()
        return (pair.branch.address,)

    monkeypatch.setattr(Resolver, "addresses_of", look_up)
    configure(pair, NAMED)
    await pair.start()
    await seconds(pair, 1)
    return answer


def count_interfaces(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The interfaces that are asked for from now on, each of which waits at the gate."""
    pair.hq.box.gate = asyncio.Semaphore(0)
    asked: list[str] = []
    opened = pair.hq.box.open_interface

    async def open_interface(name: str, mtu: int) -> int:
        asked.append(name)
        return await opened(name, mtu)

    monkeypatch.setattr(pair.hq.box, "open_interface", open_interface)
    return asked


@with_pair
async def test_an_answer_does_not_make_an_interface_that_is_being_made(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await begin(pair, monkeypatch)
    asked = count_interfaces(pair, monkeypatch)
    pair.hq.engine.on_notice(TunLost("t"))
    await pair.until(lambda: len(asked) == 1)
    answer.set()
    await seconds(pair, 1)
    assert len(asked) == 1
    assert pair.hq.box.gate is not None
    pair.hq.box.gate.release()
    await pair.until(lambda: pair.state() == ("up", "up"), 120)
    assert len(asked) == 1


@with_pair
async def test_an_answer_does_not_undo_a_change_that_is_under_way(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await begin(pair, monkeypatch)
    asked = count_interfaces(pair, monkeypatch)
    pair.configure({"t": NAMED.replace("10.2.0.0", "10.9.0.0"), "u": 'routes = ["10.8.0.0/16"]'}, {"t": BACK})
    pair.hq.write(pair.hq.config.read_text().replace('address = "192.0.2.2"', 'address = "branch.example"'))
    change = asyncio.create_task(pair.hq.operator.reload())
    await pair.until(lambda: len(asked) == 1)
    answer.set()
    await seconds(pair, 1)
    assert pair.hq.box.gate is not None
    pair.hq.box.gate.release()
    await change
    await seconds(pair, 5)
    assert [str(route) for route in pair.hq.service.gateway.roster["t"].policy.routes] == ["10.9.0.0/16"]
    assert pair.hq.service.gateway.roster["t"].policy.peer.remote_address == pair.branch.address


@with_pair
async def test_an_answer_does_not_wait_for_a_change_of_other_tunnels(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await begin(pair, monkeypatch)
    asked = count_interfaces(pair, monkeypatch)
    pair.configure(
        {"t": NAMED, **{name: f'routes = ["10.{name[1:]}.0.0/16"]' for name in OTHERS}}, {"t": BACK}
    )
    pair.hq.write(pair.hq.config.read_text().replace('address = "192.0.2.2"', 'address = "branch.example"'))
    change = asyncio.create_task(pair.hq.operator.reload())
    await pair.until(lambda: len(asked) == 1)
    answer.set()
    await seconds(pair, 1)
    gate, pair.hq.box.gate = pair.hq.box.gate, asyncio.Semaphore(0)
    assert gate is not None
    gate.release()
    await pair.until(lambda: pair.state() == ("up", "up"), 10)
    assert len(asked) == 2
    assert not change.done()
    pair.hq.box.gate.release()
    await change


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_a_peer_that_moves_without_a_word_is_followed_through_a_nat(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """What is under way on port 4500 begins anew at the new address, long before the peer is found dead."""
    addresses = [pair.branch.address]

    async def look_up(_resolver: Resolver, _name: str, _version: int) -> tuple[Address, ...]:
        return tuple(addresses)

    monkeypatch.setattr(Resolver, "addresses_of", look_up)
    spoken = f'\nversion = "{version}"'
    udp = '[tunnels.t.ipsec]\nencapsulation = "udp"'
    identity = f'[tunnels.t.ike]\nlocal_id = "192.0.2.2"{spoken}'
    pair.configure({"t": f"{NAMED}{spoken}\n{udp}"}, {"t": f"{BACK}\n{identity}"})
    pair.hq.write(pair.hq.config.read_text().replace('address = "192.0.2.2"', 'address = "branch.example"'))
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    moved = parse_address("192.0.2.99")
    pair.wire.cut = True
    del pair.wire.machines[pair.branch.address]
    pair.wire.machines[moved] = pair.branch
    pair.branch.box.addresses = {moved}
    pair.branch.box.source = moved
    pair.branch.watch.on_change()
    await seconds(pair, 1)
    pair.wire.cut = False
    addresses[:] = [moved]

    def has_followed() -> bool:
        theirs = {child.spi_out for child in pair.branch.engine.installed.values()}
        return pair.state() == ("up", "up") and not theirs.isdisjoint(pair.hq.engine.installed)

    await pair.until(has_followed, 12)
