"""A daemon on a machine that is made up: an engine that carries nothing, a host without a kernel, a wire."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import ParamSpec, TypeVar

from vpnd.crypto.entropy import SeededEntropy
from vpnd.daemon.beginning import begin
from vpnd.daemon.events.journal import Journal
from vpnd.daemon.events.recorder import Recorder
from vpnd.daemon.known_keys import KnownKeys
from vpnd.daemon.operator import Operator
from vpnd.daemon.service import Service
from vpnd.daemon.upkeep.addresses import OnDatagram, OnUnreachable
from vpnd.datapath.interface import Drop, Notice, PolicyRow, SaStats, Tap
from vpnd.host.forwarding import Passed
from vpnd.host.host import HostFailed
from vpnd.host.netlink import RouteTo
from vpnd.host.nftables import Shield
from vpnd.host.routes import Route, Wanted
from vpnd.host.systemd import Supervisor
from vpnd.model.child import ChildSa
from vpnd.model.child import Path as NetworkPath
from vpnd.model.policy import NAT_T_PORT
from vpnd.model.selectors import Address, Network

P = ParamSpec("P")
T = TypeVar("T")

KEY = "a key that nobody has to guess 1234"


class FakeClock:
    """Goes with the loop's time, from a round number on; the calendar begins in 2030.

    `asleep` is for how long the machine was suspended, `calendar` by how much the calendar is ahead of its
    start and the loop's time.
    """

    asleep = 0.0
    calendar = 0.0

    def now(self) -> float:
        return 1_000_000.0 + asyncio.get_running_loop().time() + self.asleep

    def wall(self) -> datetime:
        since = asyncio.get_running_loop().time() + self.calendar
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=since)


class FakeEngine:
    """Keeps what it is told and counts what tests say it carried."""

    name = "fake"
    segments = 9

    def __init__(self, machine: Machine, on_ike: OnDatagram, on_notice: Callable[[Notice], None]) -> None:
        self.on_ike = on_ike
        self.on_notice = on_notice
        self.tunnels: dict[str, int] = {}
        self.taps: dict[str, Tap | None] = {}
        self.policies: dict[str, tuple[PolicyRow, ...]] = {}
        self.path_mtu: dict[str, int] = {}
        self.limits: dict[str, tuple[int | None, int | None]] = {}
        self.kilobytes: dict[int, int] = {}
        self.installed: dict[int, ChildSa] = {}
        self.moved: list[tuple[int, NetworkPath]] = []
        self.sending: dict[tuple[str, int], int] = {}
        self.carried: dict[int, SaStats] = {}
        self.heard: dict[str, float] = {}
        self.sent: dict[str, float] = {}
        self.dropped: dict[Drop, int] = {}
        self.listening: set[Address] = set()
        self.interrupted: list[tuple[str, bool, tuple[Address, ...]]] = []
        self.packets: list[tuple[str, bytes]] = []
        self.fail_install = 0
        self._machine = machine

    def port(self, version: int) -> int:
        return 4500

    def listen(self, address: Address) -> None:
        self.listening.add(address)

    def tap(self, tunnel: str, tap: Tap | None) -> None:
        self.taps[tunnel] = tap

    def add_tunnel(self, tunnel: str, tun_fd: int, mtu: int) -> None:
        assert tunnel not in self.tunnels
        self.tunnels[tunnel] = tun_fd

    def remove_tunnel(self, tunnel: str) -> None:
        self.tunnels.pop(tunnel, None)
        self.installed = {s: c for s, c in self.installed.items() if c.tunnel != tunnel}

    def set_mtu(self, tunnel: str, path_mtu: int) -> None:
        self.path_mtu[tunnel] = path_mtu

    def set_limits(self, tunnel: str, mtu: int | None, mss: int | None) -> None:
        self.limits[tunnel] = (mtu, mss)

    def replace_policies(self, tunnel: str, rows: tuple[PolicyRow, ...]) -> None:
        self.policies[tunnel] = rows

    def install(self, child: ChildSa, outbound: bool = True) -> None:
        if self.fail_install:
            self.fail_install -= 1
            raise ZeroDivisionError("a bug in the engine")
        assert child.tunnel in self.tunnels
        self.installed[child.spi_in] = child
        if outbound:
            self.sending[child.tunnel, child.mapping] = child.spi_in

    def use_outbound(self, spi_in: int) -> None:
        child = self.installed[spi_in]
        self.sending[child.tunnel, child.mapping] = spi_in

    def limit(self, spi_in: int, kilobytes: int) -> None:
        self.kilobytes[spi_in] = kilobytes

    def remove(self, spi_in: int) -> None:
        self.installed.pop(spi_in, None)

    def move(self, spi_in: int, path: NetworkPath) -> None:
        self.moved.append((spi_in, path))
        self.installed[spi_in] = replace(self.installed[spi_in], path=path)

    def interrupt(self, tunnel: str, interrupted: bool, keep: tuple[Address, ...] = ()) -> None:
        self.interrupted.append((tunnel, interrupted, keep))

    def send_packet(self, tunnel: str, packet: bytes) -> None:
        assert tunnel in self.tunnels
        self.packets.append((tunnel, packet))

    def answer_probes(self, tunnel: str, local: Address, remote: Address) -> None:
        assert tunnel in self.tunnels

    def stats(self, spi_in: int) -> SaStats | None:
        if spi_in not in self.installed:
            return None
        return self.carried.get(spi_in, SaStats(0, 0, 0, 0, 0.0, 0.0))

    def take_heard(self) -> dict[str, float]:
        heard, self.heard = self.heard, {}
        return heard

    def take_sent(self) -> dict[str, float]:
        sent, self.sent = self.sent, {}
        return sent

    def drops(self, tunnel: str | None = None) -> dict[Drop, int]:
        if tunnel is not None and tunnel not in self.tunnels:
            raise KeyError(tunnel)
        return {**dict.fromkeys(Drop, 0), **self.dropped}

    def send_ike(self, path: NetworkPath, data: bytes) -> None:
        self._machine.transmit(path, data)

    def send_keepalive(self, path: NetworkPath) -> None:
        return

    def close(self) -> None:
        self.tunnels.clear()


class FakeHost:
    """Interfaces and routes as sets; `refuse` names interfaces that cannot be made."""

    def __init__(self, address: Address) -> None:
        self.addresses = {address}
        self.interfaces: dict[str, int] = {}
        self.wanted = Wanted()
        self.history: list[Wanted] = []
        self.refuse: set[str] = set()
        self.renames = True
        """Whether an interface that is up can be renamed: not before Linux 6.2."""
        self.closed = False
        self.down: set[str] = set()
        self.gate: asyncio.Semaphore | None = None
        """Where it is set, each interface takes one of its permits."""
        self.source: Address | None = address
        self.inside: frozenset[Network] = frozenset()
        self.shielded: Shield | None = None
        self.unfiltered = False
        self.passes = True
        """Whether the link to the peers is up and has a carrier."""
        self.flushed = False
        """Whether the filter was removed since."""
        self.heard: frozenset[Address] = frozenset()
        self.strict = False
        self.route_mtu: int | None = 1500
        """Bytes that the route to any peer carries; None: the kernel does not say."""
        self.no_way = False
        """Whether no route leads to any peer."""
        self.through: str | None = None
        """The interface by which peers are reached, if not by eth0."""
        self.routes_refused = 0
        """How many times from now on no route is made."""
        self.forwarding = True
        self.passed: Passed | HostFailed = Passed(0, 0, 0)
        """What a count of what comes out of a tunnel shows."""
        self._descriptor = 100

    async def open_interface(self, name: str, mtu: int, segments: int) -> int:
        if self.gate is not None:
            await self.gate.acquire()
        if name in self.refuse or name in self.interfaces:
            raise HostFailed(f"no interface {name} for you")
        self.interfaces[name] = mtu
        self._descriptor += 1
        return self._descriptor

    async def rename_interface(self, name: str, to: str) -> None:
        if not self.renames or to in self.interfaces:
            raise HostFailed(f"cannot rename {name} to {to}")
        self.interfaces[to] = self.interfaces.pop(name)
        routes = (
            replace(route, device=to) if route.device == name else route for route in self.wanted.routes
        )
        self.wanted = Wanted(frozenset(routes), self.wanted.rules)

    async def close_interface(self, name: str, descriptor: int) -> None:
        del self.interfaces[name]

    async def close_interfaces(self, descriptors: Sequence[int]) -> None:
        assert len(descriptors) == len(self.interfaces)
        self.interfaces.clear()

    async def set_links_up(self, names: frozenset[str]) -> frozenset[str]:
        assert names <= set(self.interfaces)
        raised = self.down & names
        self.down -= names
        return frozenset(raised)

    async def links(self) -> dict[int, tuple[str, bool]]:
        through = {9: (self.through, True)} if self.through is not None else {}
        return {2: ("eth0", self.passes), **through}

    async def replace(self, routes: tuple[Route, ...]) -> list[str]:
        keys = {route.key for route in routes}
        others = {route for route in self.wanted.routes if route.key not in keys}
        self.wanted = Wanted(frozenset({*others, *routes}), self.wanted.rules)
        return []

    async def set_mtu(self, name: str, mtu: int) -> None:
        self.interfaces[name] = mtu

    async def set_address(self, name: str, address: Address, present: bool) -> None:
        if name not in self.interfaces:
            raise HostFailed(f"there is no interface {name}")
        self.addresses.add(address) if present else self.addresses.discard(address)

    async def reconcile(self, wanted: Wanted, present: Wanted | None = None) -> list[str]:
        missing = {r.device for r in wanted.routes if r.device and r.device not in self.interfaces}
        assert not missing, f"routes to interfaces that there are not: {missing}"
        if self.routes_refused:
            self.routes_refused -= 1
            return ["add a route: No buffer space available (ENOBUFS)"]
        self.wanted = wanted
        self.history.append(wanted)
        return []

    async def shield(self, shield: Shield) -> bool:
        if self.unfiltered:
            raise HostFailed("no filters on this machine")
        self.shielded, flushed, self.flushed = shield, self.flushed, False
        return flushed

    async def present(self) -> Wanted:
        return self.wanted

    async def route_to(self, destination: Address, mark: int) -> RouteTo | None:
        if self.route_mtu is None:
            raise HostFailed("no answer about routes")
        if self.no_way:
            return None
        return RouteTo(self.source, 2 if self.through is None else 9, self.route_mtu)

    async def networks_inside(
        self, own: frozenset[Address], peers: frozenset[Address], mark: int
    ) -> frozenset[Network]:
        return self.inside

    async def allow_peer_sources(self, peers: frozenset[Address], mark: int) -> list[str]:
        self.heard |= peers
        return ["eth0"] if self.strict else []

    async def local_addresses(self) -> frozenset[Address]:
        return frozenset(self.addresses)

    async def interface_index(self, name: str) -> int | None:
        return 7 if name in self.interfaces else None

    async def forwards(self, name: str, version: int) -> bool:
        return self.forwarding

    async def count_forwarded(self, name: str, seconds: float) -> Passed:
        await asyncio.sleep(seconds)
        if isinstance(self.passed, HostFailed):
            raise self.passed
        return self.passed

    async def close(self) -> None:
        self.closed = True


class FakeWatch:
    """Tells what tests tell it to."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.on_change = on_change

    def start(self) -> None:
        return

    def close(self) -> None:
        return


class FakePort:
    """UDP port 500 of a machine on the fake wire."""

    def __init__(self, machine: Machine, on_datagram: OnDatagram, on_unreachable: OnUnreachable) -> None:
        self.on_datagram = on_datagram
        self.on_unreachable = on_unreachable
        self._machine = machine

    async def start(self) -> None:
        if self._machine.ports_refused:
            self._machine.ports_refused -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self._machine.reading.add(self)

    def send(self, path: NetworkPath, data: bytes) -> None:
        self._machine.transmit(path, data)

    def close(self) -> None:
        self._machine.reading.discard(self)
        self._machine.ports_closed += 1


class Wire:
    """Delivers IKE messages between machines, in order, from the loop; `cut` loses them all.

    Each is `delay` seconds on its way.
    """

    def __init__(self) -> None:
        self.machines: dict[Address, Machine] = {}
        self.cut = False
        self.delay = 0.0
        self.carried = 0

    def carry(self, path: NetworkPath, data: bytes) -> None:
        receiver = self.machines.get(path.remote)
        if receiver is not None and not self.cut:
            self.carried += 1
            back = NetworkPath(path.remote, path.remote_port, path.local, path.local_port)
            loop = asyncio.get_running_loop()
            if self.delay:
                loop.call_later(self.delay, receiver.receive, back, data)
            else:
                loop.call_soon(receiver.receive, back, data)


async def at_once(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """In place of a thread: while one computes, the loop's time would jump."""
    return call(*args, **kwargs)


class Machine:
    """One vpnd on the wire, with its files in a directory."""

    def __init__(self, wire: Wire, directory: Path, address: str, seed: int) -> None:
        self.address = ip_address(address)
        self.directory = directory
        self.config = directory / "vpnd.toml"
        self.state = directory / "state"
        self.wire = wire
        wire.machines[self.address] = self
        directory.mkdir(parents=True, exist_ok=True)
        self.ports_refused = 0
        """How many times from now on port 500 cannot be read."""
        self.ports_closed = 0
        self.reading: set[FakePort] = set()
        self.host = FakeHost(self.address)
        self.clock = FakeClock()
        self.journal = Journal(
            self.clock, recorder=Recorder(self.state, int(1000 * self.clock.wall().timestamp()))
        )
        supervisor = Supervisor(None)
        self.service = Service(
            clock=self.clock,
            entropy=SeededEntropy(seed),
            host=self.host,
            make_engine=self._make_engine,
            make_watch=self._make_watch,
            open_port=lambda local, on_datagram, on_unreachable: FakePort(self, on_datagram, on_unreachable),
            journal=self.journal,
            supervisor=supervisor,
            in_thread=at_once,
        )
        self.operator = Operator(self.service, self.config, self.state, supervisor)
        self.known_keys = KnownKeys(self.state, self.service)
        self._keeping: asyncio.Task[None] | None = None

    def _make_watch(self, on_change: Callable[[], None]) -> FakeWatch:
        self.watch = FakeWatch(on_change)
        return self.watch

    def _make_engine(self, on_ike: OnDatagram, on_notice: Callable[[Notice], None]) -> FakeEngine:
        self.engine = FakeEngine(self, on_ike, on_notice)
        return self.engine

    def write(self, text: str) -> None:
        """The configuration file, private, since it holds keys."""
        self.config.write_text(text)
        self.config.chmod(0o600)

    async def start(self) -> None:
        """Start as `vpnd run` does."""
        beginning = begin(self.config, self.state, self.clock)
        assert beginning.loaded.ok, beginning.loaded.problems
        self.known_keys.restore(beginning.loaded.configuration.tunnels)
        self._keeping = asyncio.create_task(self.known_keys.keep())
        starting = asyncio.create_task(self.service.start(beginning.loaded))
        await self.operator.commits.begin(beginning)
        await starting
        self.operator.commits.watch()

    async def stop(self) -> None:
        """End as `vpnd run` does."""
        if self._keeping is not None:
            self._keeping.cancel()
        await self.operator.commits.close()
        await self.service.stop()
        if self._keeping is not None:
            await asyncio.gather(self._keeping, return_exceptions=True)

    def transmit(self, path: NetworkPath, data: bytes) -> None:
        """Send on the wire."""
        self.wire.carry(path, data)

    def receive(self, path: NetworkPath, data: bytes) -> None:
        """A message arrives."""
        if path.local_port == NAT_T_PORT:
            self.engine.on_ike(path, data)
        elif self.reading:
            next(iter(self.reading)).on_datagram(path, data)

    def events(self) -> list[tuple[str | None, str]]:
        """What the operator was told: tunnel and kind."""
        return [(event.tunnel, event.event) for event in self.journal.events.recent()]

    def texts(self) -> str:
        """Every event's text."""
        return "\n".join(event.text for event in self.journal.events.recent())


def configuration(name: str, address: str, peer: str, tunnels: Mapping[str, str]) -> str:
    """A file with a gateway, its peer and tunnels: each is the rest of its table."""
    text = f'[gateway]\nname = "{name}"\naddress = "{address}"\n'
    text += f'[customer_gateways.other]\naddress = "{peer}"\n'
    for tunnel, rest in tunnels.items():
        text += f'[tunnels.{tunnel}]\ncustomer_gateway = "other"\npre_shared_key = "plain:{KEY}"\n{rest}\n'
    return text
