"""A peer's address that becomes known while another caller changes the tunnel."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise

import pytest

from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED
from tests.unit.daemon.test_refused import seconds
from tests.unit.daemon.test_stories import VERSIONS
from vpnd.daemon.upkeep.peer_names import KNOCK_NAMES, KNOCK_REST, LOOK_EVERY, PeerNames
from vpnd.datapath.interface import TunLost
from vpnd.host.resolver import LOOKUP_LIMIT, NotResolved, Resolver
from vpnd.model.child import Path as NetworkPath
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.selectors import Address, parse_address

NAMED = f'{ROUTED}\n[tunnels.t.ike]\nremote_id = "192.0.2.2"'
OTHERS = ("u8", "u9")


def configure(pair: Pair, hq: str) -> None:
    """`hq` knows its peer by name."""
    pair.configure({"t": hq}, {"t": BACK})
    pair.hq.write(pair.hq.config.read_text().replace('address = "192.0.2.2"', 'address = "branch.example"'))


def have_address(pair: Pair, ours: str) -> None:
    """`hq` has this address, or `auto`, in its configuration."""
    pair.hq.write(pair.hq.config.read_text().replace('address = "192.0.2.1"', f'address = "{ours}"'))


async def begin(pair: Pair, monkeypatch: pytest.MonkeyPatch, ours: str = "192.0.2.1") -> asyncio.Event:
    """The tunnel waits for its peer's address, which comes with the event."""
    answer = asyncio.Event()

    async def look_up(_resolver: Resolver, _name: str, _version: int) -> tuple[Address, ...]:
        await answer.wait()
        return (pair.branch.address,)

    monkeypatch.setattr(Resolver, "addresses_of", look_up)
    configure(pair, NAMED)
    have_address(pair, ours)
    await pair.start()
    await seconds(pair, 1)
    return answer


def count_interfaces(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The interfaces that are asked for from now on, each of which waits at the gate."""
    pair.hq.host.gate = asyncio.Semaphore(0)
    asked: list[str] = []
    opened = pair.hq.host.open_interface

    async def open_interface(name: str, mtu: int, segments: int) -> int:
        asked.append(name)
        return await opened(name, mtu, segments)

    monkeypatch.setattr(pair.hq.host, "open_interface", open_interface)
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
    assert pair.hq.host.gate is not None
    pair.hq.host.gate.release()
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
    assert pair.hq.host.gate is not None
    pair.hq.host.gate.release()
    await change
    await seconds(pair, 5)
    assert [str(route) for route in pair.hq.service.gateway.tunnels["t"].policy.routes] == ["10.9.0.0/16"]
    assert pair.hq.service.gateway.tunnels["t"].policy.peer.remote_address == pair.branch.address


@with_pair
async def test_an_answer_for_a_name_that_the_peer_has_no_more_is_not_used(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"branch.example": asyncio.Event(), "other.example": asyncio.Event()}

    async def look_up(_resolver: Resolver, name: str, _version: int) -> tuple[Address, ...]:
        await answers[name].wait()
        return (pair.branch.address,)

    monkeypatch.setattr(Resolver, "addresses_of", look_up)
    configure(pair, NAMED)
    await pair.start()
    await seconds(pair, 1)
    pair.hq.write(pair.hq.config.read_text().replace("branch.example", "other.example"))
    await pair.hq.operator.reload()
    answers["branch.example"].set()
    await seconds(pair, 1)
    assert pair.hq.operator.status().tunnels[0].peer.address == "other.example"
    answers["other.example"].set()
    await pair.until(lambda: pair.state() == ("up", "up"), 120)


@pytest.mark.parametrize("ours", ["192.0.2.1", "auto"])
@with_pair
async def test_an_answer_does_not_wait_for_a_change_of_other_tunnels(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, ours: str
) -> None:
    """Also where this machine's address, and the identity with it, is filled in."""
    answer = await begin(pair, monkeypatch, ours)
    asked = count_interfaces(pair, monkeypatch)
    pair.configure(
        {"t": NAMED, **{name: f'routes = ["10.{name[1:]}.0.0/16"]' for name in OTHERS}}, {"t": BACK}
    )
    pair.hq.write(pair.hq.config.read_text().replace('address = "192.0.2.2"', 'address = "branch.example"'))
    have_address(pair, ours)
    change = asyncio.create_task(pair.hq.operator.reload())
    await pair.until(lambda: len(asked) == 1)
    answer.set()
    await seconds(pair, 1)
    gate, pair.hq.host.gate = pair.hq.host.gate, asyncio.Semaphore(0)
    assert gate is not None
    gate.release()
    await pair.until(lambda: pair.state() == ("up", "up"), 10)
    assert len(asked) == 2
    assert not change.done()
    pair.hq.host.gate.release()
    await change


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_a_peer_that_moves_without_a_word_is_followed_through_a_nat(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """What is under way on port 4500 begins again at the new address, long before the peer is found dead."""
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
    pair.branch.host.addresses = {moved}
    pair.branch.host.source = moved
    pair.branch.watch.on_change()
    await seconds(pair, 1)
    pair.wire.cut = False
    addresses[:] = [moved]

    def has_followed() -> bool:
        theirs = {child.spi_out for child in pair.branch.engine.installed.values()}
        return pair.state() == ("up", "up") and not theirs.isdisjoint(pair.hq.engine.installed)

    await pair.until(has_followed, 12)


MANY = 20
NOWHERE = parse_address("192.0.2.77")
FIRST_MESSAGE = bytes.fromhex("0123456789abcdef" + "00" * 8 + "2120220800000000" + "0000001c")
"""The header of an IKE_SA_INIT request."""


def configure_many(pair: Pair, count: int, negotiation: str = "passive") -> None:
    tables = {
        f"t{n}": f'routes = ["10.{n + 2}.0.0/16"]\nnegotiation = "{negotiation}"\nike.remote_id = "@p{n}"'
        for n in range(count)
    }
    pair.configure(tables, {"t": BACK})
    text = pair.hq.config.read_text()
    for n in range(count):
        text = text.replace(
            f'[tunnels.t{n}]\ncustomer_gateway = "other"',
            f'[tunnels.t{n}]\ncustomer_gateway = {{ address = "p{n}.example" }}',
        )
    pair.hq.write(text)


class NameServer:
    """Counts what is asked for, with the time; answers at once, or as the test says."""

    def __init__(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[float, str]] = []
        self.silent: set[str] = set()
        self.addresses: dict[str, Address] = {}
        server = self

        async def look_up(_resolver: Resolver, name: str, _version: int) -> tuple[Address, ...]:
            server.asked.append((pair.hq.clock.now(), name))
            if name in server.silent:
                await asyncio.sleep(LOOKUP_LIMIT)
                raise NotResolved(Diagnosis.of(Code.RESOLVE, peer=name))
            return (server.addresses.get(name, NOWHERE),)

        monkeypatch.setattr(Resolver, "addresses_of", look_up)

    async def while_a_stranger_knocks(self, pair: Pair, seconds_: int) -> list[tuple[float, str]]:
        """What is asked for while an unknown address sends a datagram every tenth of a second."""
        self.asked.clear()
        path = NetworkPath(pair.hq.address, 500, parse_address("203.0.113.9"), 500)
        for _ in range(seconds_ * 10):
            pair.hq.receive(path, FIRST_MESSAGE)
            await seconds(pair, 0.1)
        return list(self.asked)


@with_pair
async def test_a_stranger_has_few_names_looked_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    server = NameServer(pair, monkeypatch)
    configure_many(pair, MANY)
    await pair.start()
    monkeypatch.setattr(PeerNames, "_is_silent", lambda *_: False)
    await seconds(pair, 5)
    asked = await server.while_a_stranger_knocks(pair, 30)
    assert 0 < len(asked) <= 31 * KNOCK_NAMES
    # Each gets its turn, and none before the others had theirs.
    assert {name for _, name in asked} == {f"p{n}.example" for n in range(MANY)}
    turns = [name for _, name in asked[:MANY]]
    assert len(set(turns)) == MANY


@with_pair
async def test_a_name_rests_between_two_look_ups_for_strangers(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = NameServer(pair, monkeypatch)
    configure_many(pair, 1)
    await pair.start()
    monkeypatch.setattr(PeerNames, "_is_silent", lambda *_: False)
    await seconds(pair, 5)
    times = [at for at, _ in await server.while_a_stranger_knocks(pair, 20)]
    assert times
    assert all(later - earlier >= KNOCK_REST for earlier, later in pairwise(times))


@with_pair
async def test_silent_peers_are_looked_up_as_often_whether_or_not_a_stranger_knocks(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = NameServer(pair, monkeypatch)
    configure_many(pair, MANY)
    await pair.start()
    await seconds(pair, 5)
    asked = await server.while_a_stranger_knocks(pair, 30)
    for n in range(MANY):
        times = [at for at, name in asked if name == f"p{n}.example"]
        assert all(later - earlier <= LOOK_EVERY + 1 for earlier, later in pairwise(times))
    assert len(asked) <= MANY * 7 + 31 * KNOCK_NAMES


@with_pair
async def test_a_name_without_an_answer_is_asked_for_once_and_holds_up_no_other(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = NameServer(pair, monkeypatch)
    configure_many(pair, 3)
    await pair.start()
    await seconds(pair, 5)
    server.silent.add("p0.example")
    asked = await server.while_a_stranger_knocks(pair, 40)
    stuck = [at for at, name in asked if name == "p0.example"]
    assert len(stuck) >= 2
    assert all(later - earlier >= LOOKUP_LIMIT for earlier, later in pairwise(stuck))
    times = [at for at, name in asked if name == "p1.example"]
    assert all(later - earlier <= LOOK_EVERY + 1 for earlier, later in pairwise(times))


@with_pair
async def test_tunnels_with_one_name_have_one_look_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    server = NameServer(pair, monkeypatch)
    configure_many(pair, 3)
    pair.hq.write(re.sub(r"p\d\.example", "same.example", pair.hq.config.read_text()))
    await pair.start()
    await seconds(pair, 5)
    server.addresses["same.example"] = parse_address("192.0.2.78")
    asked = await server.while_a_stranger_knocks(pair, 6)
    times = [at for at, _ in asked]
    assert all(later - earlier >= 1 for earlier, later in pairwise(times))
    remotes = {tunnel.policy.peer.remote_address for tunnel in pair.hq.service.gateway.tunnels}
    assert remotes == {parse_address("192.0.2.78")}
