"""What this machine refuses, or another program removes again and again: the error of that tunnel alone."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from tests.unit.daemon.fakes import FakePort
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED, up
from vpnd.control.operations import NegotiationFailed
from vpnd.daemon.upkeep.interfaces import Interfaces
from vpnd.datapath.interface import TunLost
from vpnd.host.host import HostFailed
from vpnd.model.policy import IKE_PORT, NAT_T_PORT, TunnelPolicy
from vpnd.model.selectors import Address, parse_address

PASSIVE = ROUTED + '\nnegotiation = "passive"'
ACTIVE_BACK = 'routes = ["10.1.0.0/16"]'
NAMED = '\ninterface = "broken"'
CHECK = '[tunnels.t.health_check]\nenabled = true\nlocal = "169.254.128.1"\nremote = "169.254.128.2"'


async def seconds(pair: Pair, count: float) -> None:
    """Let this much time pass."""
    end = pair.hq.clock.now() + count
    await pair.until(lambda: pair.hq.clock.now() >= end, count + 1)


def error(pair: Pair) -> str | None:
    """The code of the failure that stands."""
    (tunnel,) = (t for t in pair.hq.operator.status().tunnels if t.name == "t")
    return tunnel.last_error.code if tunnel.last_error is not None else None


@with_pair
async def test_a_tunnel_without_an_interface_is_refused_to_the_peer_without_a_fault(pair: Pair) -> None:
    pair.configure({"t": PASSIVE + NAMED}, {"t": ACTIVE_BACK})
    pair.hq.host.refuse.add("broken")
    await pair.start()
    await seconds(pair, 30)
    assert pair.hq.service.gateway.faults == 0
    assert error(pair) == "E-INTERFACE"
    assert pair.hq.service.summary() == "0 of 1 tunnels up; this machine cannot carry 1: vpnctl why t"
    pair.hq.host.refuse.clear()
    await pair.until(lambda: pair.state() == ("up", "up"), 120)


@with_pair
async def test_up_of_a_tunnel_without_an_interface_does_not_let_the_peer_in(pair: Pair) -> None:
    pair.configure({"t": PASSIVE + NAMED}, {"t": ACTIVE_BACK})
    pair.hq.host.refuse.add("broken")
    await pair.start()
    for action in (pair.hq.operator.up, pair.hq.operator.reset):
        with pytest.raises(NegotiationFailed, match="no interface"):
            await action("t", 5)
        assert error(pair) == "E-INTERFACE"
    await seconds(pair, 30)
    assert pair.hq.service.gateway.faults == 0


@with_pair
async def test_a_lost_interface_lets_the_peer_in_when_it_is_back(pair: Pair) -> None:
    await up(pair, PASSIVE + NAMED, ACTIVE_BACK)
    pair.hq.host.refuse.add("broken")
    pair.hq.engine.on_notice(TunLost("t"))
    await seconds(pair, 30)
    assert pair.hq.service.gateway.faults == 0
    assert pair.state()[0] == "down"
    pair.hq.host.refuse.clear()
    await pair.until(lambda: pair.state() == ("up", "up"), 120)


@with_pair
async def test_a_tunnel_that_is_taken_down_without_an_interface_stays_down_with_one(pair: Pair) -> None:
    pair.configure({"t": PASSIVE + NAMED}, {"t": ACTIVE_BACK})
    pair.hq.host.refuse.add("broken")
    await pair.start()
    await pair.hq.operator.down("t")
    pair.hq.host.refuse.clear()
    await seconds(pair, 60)
    assert "broken" in pair.hq.host.interfaces
    assert pair.state()[0] == "down"
    assert not pair.hq.engine.installed


@with_pair
async def test_a_tunnel_that_is_down_stays_down_when_our_address_changes(pair: Pair) -> None:
    await up(pair, PASSIVE, ACTIVE_BACK)
    await pair.hq.operator.down("t")
    moved = parse_address("192.0.2.77")
    pair.hq.host.addresses = {moved}
    pair.hq.host.source = moved
    pair.wire.machines[moved] = pair.hq
    pair.hq.watch.on_change()
    await seconds(pair, 1)
    pair.hq.host.addresses = {pair.hq.address}
    pair.hq.host.source = pair.hq.address
    pair.hq.watch.on_change()
    await seconds(pair, 60)
    assert pair.state()[0] == "down"
    assert not pair.hq.engine.installed


@with_pair
async def test_an_interface_without_the_address_of_its_health_check_is_made_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.configure({"t": f"{ROUTED}\n{CHECK}"}, {"t": BACK})
    host = pair.hq.host
    good = host.set_address

    async def refused(name: str, address: Address, present: bool) -> None:
        raise HostFailed("no address for you")

    monkeypatch.setattr(host, "set_address", refused)
    await pair.start()
    await seconds(pair, 12)
    assert error(pair) == "E-INTERFACE"
    assert host.interfaces == {}
    assert pair.hq.engine.tunnels == {}
    monkeypatch.setattr(host, "set_address", good)
    await pair.until(lambda: bool(pair.hq.engine.installed))
    assert parse_address("169.254.128.1") in host.addresses


@with_pair
async def test_an_interface_that_is_deleted_again_and_again_is_made_less_often(pair: Pair) -> None:
    await up(pair, ROUTED + NAMED)
    host, made = pair.hq.host, 0
    first = pair.hq.clock.now()
    times = []
    while pair.hq.clock.now() < first + 300:
        await pair.until(lambda: "broken" in host.interfaces and "t" in pair.hq.engine.tunnels)
        times.append(pair.hq.clock.now() - first)
        made += 1
        pair.hq.engine.on_notice(TunLost("t"))
        await seconds(pair, 0.1)
    assert times[3] < 2, "a few times it is made at once"
    assert made <= 5 + 300 / 4
    assert "again and again" in pair.hq.texts()
    await pair.until(lambda: pair.state() == ("up", "up"))


@with_pair
async def test_a_bug_in_a_repair_does_not_end_the_repairs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await up(pair)
    good = Interfaces.keep_shield

    async def bug(_: Interfaces) -> None:
        raise ZeroDivisionError("a bug in a repair")

    monkeypatch.setattr(Interfaces, "keep_shield", bug)
    await seconds(pair, 12)
    monkeypatch.setattr(Interfaces, "keep_shield", good)
    pair.hq.host.shielded = None
    await pair.until(lambda: pair.hq.host.shielded is not None)


@with_pair
async def test_routes_that_the_kernel_refused_are_tried_again(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    pair.hq.host.routes_refused = 3
    await pair.start()
    await seconds(pair, 60)
    assert any(route.device is not None for route in pair.hq.host.wanted.routes)
    assert pair.hq.texts().count("the kernel refused") <= 1


@with_pair
async def test_a_bug_in_one_tunnel_of_a_reload_costs_no_other(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await up(pair)
    good = Interfaces.attach

    async def bug(self: Interfaces, policy: TunnelPolicy) -> None:
        if policy.name == "a":
            raise ZeroDivisionError("a bug in one tunnel")
        await good(self, policy)

    monkeypatch.setattr(Interfaces, "attach", bug)
    more = {name: f'routes = ["10.{9 + at}.0.0/16"]' for at, name in enumerate(("a", "b"))}
    pair.configure({"t": ROUTED, **more}, {"t": BACK})
    await pair.hq.operator.reload()
    assert {"t", "b"} <= set(pair.hq.engine.tunnels)
    assert not pair.hq.service.pending
    monkeypatch.setattr(Interfaces, "attach", good)
    await pair.until(lambda: "a" in pair.hq.engine.tunnels)


@with_pair
async def test_a_port_that_cannot_be_read_is_opened_again(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    pair.hq.ports_refused = 2
    await pair.start()
    await seconds(pair, 1)
    assert error(pair) == "E-SOCKET"
    assert "Too many open files" in pair.hq.texts()
    await pair.until(lambda: pair.state() == ("up", "up"), 60)
    assert len(pair.hq.reading) == 1
    assert pair.hq.ports_closed == 2


@with_pair
async def test_who_has_the_port_is_looked_for_once_for_all_tunnels(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    async def taken(port: FakePort) -> None:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def owner(port: int) -> str | None:
        looked.append(port)
        return "charon (pid 13)" if port == NAT_T_PORT else None

    monkeypatch.setattr(FakePort, "start", taken)
    monkeypatch.setattr("vpnd.daemon.service.port_owner", owner)
    pair.configure({name: f'routes = ["10.{at}.0.0/16"]' for at, name in enumerate("tuv")}, {})
    await pair.hq.start()
    assert looked == [IKE_PORT, NAT_T_PORT]
    for tunnel in pair.hq.service.gateway.tunnels:
        assert tunnel.standing.blocked is not None
        assert tunnel.standing.blocked.fact("owner") == "charon (pid 13)"
    await seconds(pair, 5.5)
    assert looked == [IKE_PORT, NAT_T_PORT] * 2


@with_pair
async def test_another_reason_of_a_refusal_is_told(pair: Pair) -> None:
    """Another program deletes the interface, and takes its name before we can."""
    await up(pair, ROUTED + NAMED)
    pair.hq.host.refuse.add("broken")
    pair.hq.engine.on_notice(TunLost("t"))
    await seconds(pair, 30)
    told = [e.text for e in pair.hq.journal.events.recent() if e.event == "tunnel-blocked"]
    assert told == ["the tunnel has no interface broken on this machine: no interface broken for you"]
    why = pair.hq.operator.why("t").error
    assert why is not None
    assert why.message == told[0]


@with_pair
async def test_a_repair_that_waited_for_a_reload_takes_what_that_has_made_of_the_tunnel(pair: Pair) -> None:
    other = 'routes = ["10.9.0.0/16"]'
    pair.configure({"a": other, "t": PASSIVE + NAMED}, {"t": ACTIVE_BACK})
    host = pair.hq.host
    host.refuse |= {"broken", "another"}
    await pair.start()
    more, renamed = "\n[tunnels.a.ike]\nlifetime = 7200", PASSIVE + '\ninterface = "another"'
    pair.configure({"a": other + more, "t": renamed}, {"t": ACTIVE_BACK})
    gate = host.gate = asyncio.Semaphore(0)
    work = asyncio.create_task(pair.hq.operator.reload())
    # The reload is at the first tunnel when the next try for the other is due.
    await seconds(pair, 7)
    for _ in range(2):
        gate.release()
    await work
    host.refuse.clear()
    host.gate = None
    gate.release()
    await pair.until(lambda: error(pair) is None and len(host.interfaces) == 2)
    assert "another" in host.interfaces
    assert pair.hq.service.gateway.tunnels["t"].policy.interface == "another"
