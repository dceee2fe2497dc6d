"""The daemon's life: starts the gateway as it is configured, changes it at a reload, and ends it in order."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, ParamSpec, Protocol, TypeVar

from vpnd.config.classes import TunnelDifference, compare
from vpnd.config.compile import compile_gateway
from vpnd.config.configuration import Source
from vpnd.config.load import Loaded
from vpnd.crypto.entropy import Entropy
from vpnd.daemon.changes import Change, Changes, Progress
from vpnd.daemon.events.journal import Journal
from vpnd.daemon.events.recorder import keep
from vpnd.daemon.gateway import Gateway
from vpnd.daemon.intake import Intake
from vpnd.daemon.loop_lag import LoopLag
from vpnd.daemon.reconfiguring import Reconfiguring
from vpnd.daemon.upkeep.addresses import Addresses, OnDatagram, OpenPort
from vpnd.daemon.upkeep.clock_jumps import ClockJumpMonitor
from vpnd.daemon.upkeep.forwarding import Forwarding
from vpnd.daemon.upkeep.interfaces import Interfaces
from vpnd.daemon.upkeep.key_ends import KeyEnds
from vpnd.daemon.upkeep.peer_names import PeerNames
from vpnd.daemon.upkeep.probes import ReplyListener, request
from vpnd.daemon.upkeep.repairs import Repairs
from vpnd.daemon.upkeep.ways import Ways
from vpnd.datapath.interface import Engine, Notice
from vpnd.datapath.mtu import path_mtu_of
from vpnd.host.clock import Clock
from vpnd.host.host import Host, HostFailed, NameTaken
from vpnd.host.port_owner import port_owner
from vpnd.host.systemd import Supervisor
from vpnd.ike.endpoint import Endpoint
from vpnd.model.child import ChildSa
from vpnd.model.child import Path as NetworkPath
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import IKE_PORT, NAT_T_PORT, GatewayPolicy, TunnelPolicy
from vpnd.tunnel.commands import TunnelState
from vpnd.tunnel.failover import RouteMoved
from vpnd.tunnel.path_size import SendProbe
from vpnd.tunnel.route_selection import RouteSelection
from vpnd.tunnel.tunnels import Tunnels
from vpnd.wire.icmp import Echo

FAREWELL = 2.0
"""Ours: seconds that the peers have for their answers to our DELETE when the daemon ends."""

OWNER_KEPT = 4.0
"""Ours: seconds that a look at every process is good for; a port is tried again after five."""

FAREWELL_LOOK = 0.02
"""Ours: seconds between two looks whether they have answered."""


class Watch(Protocol):
    """Tells when links, addresses, routes or rules have changed."""

    def start(self) -> None:
        """Begin. Raises OSError."""

    def close(self) -> None:
        """Stop."""


P = ParamSpec("P")
T = TypeVar("T")

MakeWatch = Callable[[Callable[[], None]], Watch]
MakeEngine = Callable[[OnDatagram, Callable[[Notice], None]], Engine]


class InThread(Protocol):
    """Calls a function where it does not hold up the loop, as `asyncio.to_thread` does."""

    def __call__(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """The function's result, to be awaited."""


class Service:
    """Everything that runs, and what was configured."""

    def __init__(
        self,
        clock: Clock,
        entropy: Entropy,
        host: Host,
        make_engine: MakeEngine,
        make_watch: MakeWatch,
        open_port: OpenPort,
        journal: Journal,
        supervisor: Supervisor,
        in_thread: InThread = asyncio.to_thread,
    ) -> None:
        self.journal = journal
        self.in_thread = in_thread
        """What computes for long is done there, so that the loop goes on."""
        self.started = clock.now()
        self.policy = GatewayPolicy("", _NOWHERE, ())
        """What is configured, as it was compiled: addresses of this machine are not filled in."""
        self.loaded: Loaded | None = None
        self.progress = Progress(running=True)
        self.applied = asyncio.Event()
        """Set by each change of the configuration, once it is done."""
        self.pending: set[str] = set()
        """Tunnels that are listed, and not prepared yet."""
        self._watch = make_watch(self._changed_outside)
        self._engine = make_engine(self._on_datagram, self._on_notice)
        selection = RouteSelection(entropy)
        self.gateway = Gateway(
            clock, Endpoint(entropy), Tunnels(entropy), selection, self._engine, self, journal, entropy
        )
        self.interfaces = Interfaces(
            host, self._engine, journal, selection.carrier, self.gateway.on_missing_routes
        )
        self._replies = ReplyListener(asyncio.get_running_loop(), self._on_reply)
        gateway = self.gateway
        self._intake = Intake(self._may_wait, gateway.on_datagram, self._count_dropped)
        self._addresses = Addresses(
            host,
            self._engine,
            journal,
            lambda local: open_port(local, self._on_datagram, gateway.on_unreachable),
        )
        self._changes = Changes()
        parts = (gateway, self._addresses, self.interfaces, journal, self._changes, self._equip)
        self._names = PeerNames(*parts, lambda: self.policy)
        self._repairs = Repairs(*parts, lambda: self.policy)
        self._clock_jumps = ClockJumpMonitor(clock, journal)
        self._reconfiguring = Reconfiguring(gateway, self._addresses, self.interfaces)
        self.key_ends = KeyEnds(clock, journal, lambda: self.policy, self._apply_again)
        self._forwarding = Forwarding(gateway, host)
        self._ways = Ways(gateway, host, journal)
        self.loop_lag = LoopLag()
        self._host = host
        self._supervisor = supervisor
        self._tasks: set[asyncio.Task[Any]] = set()
        self._port_owner: tuple[str | None, float] | None = None
        """Who had a port of ours at the last look, and when that was."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The files of what is in force."""
        return self.loaded.sources if self.loaded is not None else ()

    # ------------------------------------------------------------------------------- the life

    async def start(self, loaded: Loaded) -> None:
        """Begin as configured. What this machine refuses to one tunnel is that tunnel's error."""
        await self._apply(loaded, compile_gateway(loaded))
        self._spawn(self.key_ends.watch())
        self._spawn(self._repairs.go_on())
        self._spawn(self._names.follow())
        self._spawn(self._clock_jumps.watch())
        self._spawn(self._ways.watch())
        self._spawn(self.loop_lag.watch())
        self._spawn(keep(self.journal.recorder, self.in_thread, self._not_recorded))
        self._watch.start()
        # The watch says nothing of what others have changed before.
        self.interfaces.doubt()

    async def change(self, loaded: Loaded) -> Change:
        """Go over to another configuration; returns when every tunnel is as it is configured.

        Tunnels that are the same keep their SAs and sequence numbers; what a change of the others costs, its
        class says (`vpnd.config.classes`). Raises ConfigurationInvalid for one
        with errors, having changed nothing. Once begun it is done to its end, whether or not the caller
        still waits.
        """
        return await self._apply(loaded, await self.in_thread(compile_gateway, loaded))

    async def _apply_again(self) -> None:
        """What is configured says something else by now."""
        if self.loaded is not None:
            await self.change(self.loaded)

    async def _apply(self, loaded: Loaded, after: GatewayPolicy) -> Change:
        at_present = after.at(self.gateway.clock.wall())
        work = asyncio.get_running_loop().create_task(self._go_over(loaded, at_present))
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)
        return await asyncio.shield(work)

    async def _go_over(self, loaded: Loaded, after: GatewayPolicy) -> Change:
        async with self._changes.of_many():
            before = {policy.name: policy for policy in self.policy.tunnels}
            after = _numbered(before, after)
            wanted = {policy.name: policy for policy in after.tunnels}
            change, in_force = Change.between(before, wanted), (self.policy, self.loaded)
            differences = _differences(self.loaded, loaded, before, wanted, change.changed)
            self.policy, self.loaded = after, loaded
            self.progress = Progress(True, 0, change.steps)
            try:
                # First what guards the traffic of new tunnels, last what guarded that of old ones.
                try:
                    await self._announce_all(
                        change, [*after.tunnels, *map(before.__getitem__, change.removed)]
                    )
                except Exception:
                    await self._take_back(change, *in_force)
                    raise
                for name in change.removed:
                    await self._in_turn(name, self._remove(name))
                for name in change.changed:
                    await self._in_turn(name, self._change(wanted[name], differences[name]))
                for name in change.added:
                    await self._in_turn(name, self._prepare(wanted[name]))
                await self._in_turn(None, self._guard(after.tunnels))
            finally:
                self.progress = replace(self.progress, running=False)
            self.applied.set()
            return change

    async def _announce_all(self, change: Change, guarded: Sequence[TunnelPolicy]) -> None:
        """The new tunnels are listed, and the traffic of all is guarded; nothing else has changed yet."""
        added = {policy.name: policy for policy in guarded}
        for name in change.added:
            self._announce(added[name])
        self.gateway.tunnels.reorder(tuple(added))
        async with self._changes.step():
            await self._addresses.refresh()
            await self._guard(guarded)

    async def _take_back(self, change: Change, policy: GatewayPolicy, loaded: Loaded | None) -> None:
        """A bug has ended a change before it touched a tunnel: what was in force still is."""
        self.policy, self.loaded = policy, loaded
        for name in change.added:
            if name in self.gateway.tunnels:
                self.gateway.tunnels.remove(name)
            self.pending.discard(name)
            self.gateway.watchers.wake(name)
        self.gateway.tunnels.reorder(tuple(tunnel.name for tunnel in policy.tunnels))
        await self._in_turn(None, self._guard(policy.tunnels))

    async def _in_turn(self, name: str | None, work: Coroutine[None, None, None]) -> None:
        """One tunnel's part of a change, or one of all (None).

        A bug in it costs that tunnel, and leaves no other half done.
        """
        try:
            async with self._changes.step():
                await work
        except Exception as error:  # whatever it is: what was begun is done to its end
            what = "the configuration" if name is None else "this tunnel"
            self.journal.fault(name, f"internal error while {what} was changed", error)
        finally:
            work.close()  # At the daemon's end its turn may never have come.
        if name is not None:
            self.pending.discard(name)
            self.progress = replace(self.progress, done=self.progress.done + 1)

    async def stop(self) -> None:
        """Say DELETE to every peer, wait for their answers for a moment, and take everything down."""
        self._watch.close()
        for task in tuple(self._tasks):
            task.cancel()
        # A change that is asked for from now on would make what is not taken down any more.
        await self._changes.close()
        gateway = self.gateway
        for tunnel in tuple(gateway.tunnels):
            try:
                gateway.tunnels.remove(tunnel.name)
                with gateway.turn() as now:
                    gateway.endpoint.remove_peer(now, tunnel.name)
            except Exception as error:  # whatever it is: the others say farewell, and nothing stays behind
                self.journal.fault(tunnel.name, "internal error while saying DELETE", error)
        loop = asyncio.get_running_loop()
        # The endpoint is told and never tells when it has fallen silent, so this looks.
        deadline = loop.time() + FAREWELL
        while gateway.endpoint.next_timeout() is not None and loop.time() < deadline:  # noqa: ASYNC110 (see above)
            await asyncio.sleep(FAREWELL_LOOK)
        gateway.captures.close()
        gateway.close()
        self._intake.close()
        self._replies.close()
        await self.interfaces.abandon()
        self._record_the_rest()
        self._engine.close()
        self._addresses.close()
        await self._host.close()

    # -------------------------------------------------------- what the gateway asks (Surroundings)

    def send_ike(self, path: NetworkPath, data: bytes) -> None:
        """Send from UDP port 500; an address that we do not have any more is a lost datagram."""
        self._addresses.send(path, data)

    def resolve(self, tunnel: TunnelPolicy) -> None:
        """Look the peer's name up; the tunnel hears the answer."""
        self._spawn(self._names.resolve(tunnel))

    def state_changed(self, tunnel: str) -> None:
        """The service manager shows how many are up."""
        self._supervisor.status(self.summary())

    async def host_facts(self) -> list[str]:
        """The links, addresses, routes and rules of this machine that concern us, one a line."""
        links = [
            f"link {index} {name} {'up' if up else 'down'}"
            for index, (name, up) in sorted((await self._host.links()).items())
        ]
        addresses = [f"address {address}" for address in sorted(map(str, await self._host.local_addresses()))]
        found = await self._host.present()
        return [*links, *addresses, *sorted(map(str, found.routes)), *sorted(map(str, found.rules))]

    def summary(self) -> str:
        """One line: how many tunnels are up, and how many this machine itself keeps down."""
        tunnels = tuple(self.gateway.tunnels)
        up = sum(tunnel.state is TunnelState.UP for tunnel in tunnels)
        blocked = [tunnel.name for tunnel in tunnels if tunnel.standing.blocked is not None]
        refused = f"; this machine cannot carry {len(blocked)}: vpnctl why {blocked[0]}" if blocked else ""
        return f"{up} of {len(tunnels)} tunnels up{refused}"

    def child_changed(self, child: ChildSa) -> None:
        """The MTU may have to follow."""
        self.interfaces.follow(child)
        tunnel = self.gateway.tunnels.get(child.tunnel)
        if tunnel is not None and tunnel.policy.peer.any_address:
            self._spawn(self._learn_way(child))

    async def _learn_way(self, child: ChildSa) -> None:
        """Where a peer of any address is, and so what the path to it carries, is known with its SAs."""
        mtu = await self.interfaces.route_mtu(child.path.remote)
        if mtu is not None:
            self.interfaces.path_changed(child.tunnel, mtu, child)

    def interface_lost(self, tunnel: str) -> None:
        """Another program has deleted the interface: make it again."""
        self._spawn(self._repairs.restore(tunnel))

    def path_changed(self, tunnel: str, mtu: int) -> None:
        """The path to a peer carries datagrams of `mtu` bytes."""
        found = self.gateway.tunnels.get(tunnel)
        owners = [m.owner.child for m in found.mappings if m.owner is not None] if found is not None else []
        self.interfaces.path_changed(tunnel, mtu, owners[0] if owners else None)

    def path_limited(self, tunnel: str, inner: int) -> int | None:
        """What gets through is less than the network says."""
        found = self.gateway.tunnels.get(tunnel)
        owner = next((m.owner.child for m in found.mappings if m.owner is not None), None) if found else None
        if owner is None or self.interfaces.get(tunnel) is None:
            return None
        mtu = path_mtu_of(inner, owner.suite, owner.udp, owner.path.remote.version)
        self.interfaces.path_changed(tunnel, mtu, owner)
        return mtu

    def inner_mtu(self, tunnel: str) -> int | None:
        """How many bytes the tunnel's interface takes."""
        attached = self.interfaces.get(tunnel)
        return attached.mtu if attached is not None else None

    def send_probe(self, probe: SendProbe) -> None:
        """Send an echo request into the tunnel; without an interface nothing answers it."""
        if self.interfaces.get(probe.tunnel) is None:
            return
        try:
            self._replies.listen(probe.source.version)
        except OSError as error:
            self.journal.warn(probe.tunnel, f"the answers to health probes cannot be heard: {error.strerror}")
        self._engine.send_packet(probe.tunnel, request(probe))

    def carry(self, change: RouteMoved) -> None:
        """Lead a route to another tunnel; the first choice is made where the routes are."""
        if change.before is not None:
            self.interfaces.lead(change.route)

    def look_at_forwarding(self, tunnel: str) -> None:
        """See whether this machine forwards what comes out of a tunnel."""
        self._spawn(self._forwarding.look(tunnel))

    def interrupt(self, tunnel: str, interrupted: bool) -> None:
        """Stop a tunnel's business traffic, or let it go on."""
        self.interfaces.interrupt(tunnel, interrupted)

    # --------------------------------------------------------------------------- one tunnel

    async def _guard(self, tunnels: Sequence[TunnelPolicy]) -> None:
        """These tunnels share routes with each other, and their traffic goes nowhere else."""
        with self.gateway.turn() as now:
            self.gateway.selection.configure(now, tunnels)
        await self.interfaces.configure(tunnels)

    def _announce(self, policy: TunnelPolicy, closed: bool = False) -> None:
        """A tunnel comes: it is listed from now on, and down until it is prepared.

        `closed`: it was taken down by the operator as it was before, and stays down.
        """
        unprepared = Diagnosis.of(Code.LOCAL_INTERFACE, ours=policy.interface, detail="it is not made yet")
        tunnel = self.gateway.tunnels.add(policy, unprepared)
        self.journal.recorder.admit(policy.name)
        if closed or not policy.enabled:
            tunnel.standing.close()
        self.pending.add(policy.name)

    async def _prepare(self, policy: TunnelPolicy) -> None:
        """What was announced gets its interface, its IKE policy, its life."""
        name, gateway = policy.name, self.gateway
        bound = await self._addresses.bind(policy)
        tunnel = gateway.tunnels[name]
        tunnel.bind(bound)
        refused = await self._equip(bound)
        self.pending.discard(name)
        if refused is not None:
            tunnel.block(gateway.clock.now(), refused)
            self.journal.failure(name, "tunnel-blocked", refused)
        else:
            tunnel.standing.prepared()
            gateway.admit(bound)
        with gateway.turn() as now:
            gateway.selection.add(now, name, policy.health)
        with gateway.input("its start", name) as now:
            tunnel.start(now)
        gateway.watchers.wake(name)

    async def _remove(self, name: str, successor: TunnelPolicy | None = None) -> None:
        """A tunnel goes: DELETE to the peer, then its interface. A successor is listed at once."""
        gateway = self.gateway
        closed = gateway.tunnels[name].standing.closed
        gateway.tunnels.remove(name)
        with gateway.turn() as now:
            gateway.endpoint.remove_peer(now, name)
        gateway.forget(name)
        if successor is not None:
            self._announce(successor, closed)
            gateway.tunnels.reorder(tuple(policy.name for policy in self.policy.tunnels))
        await self.interfaces.detach(name)
        if successor is None:
            gateway.endpoint.forget_keys(name)
            gateway.keys_changed.set()
            self.journal.event(name, "tunnel-removed", "removed")
        else:
            text = "its configuration changed: closed, and negotiated again"
            self.journal.event(name, "tunnel-changed", text)
        self.journal.forget(name, made_again=successor is not None)

    async def _change(self, after: TunnelPolicy, difference: TunnelDifference) -> None:
        """A tunnel is another: in place as its class says, or made again where nothing else can be."""
        is_remade = difference.is_remade or self.interfaces.get(after.name) is None
        if is_remade or not await self.interfaces.rename(after):
            await self._remove(after.name, after)
            await self._prepare(after)
        else:
            await self._reconfiguring.change(after)
            if difference.keys:  # else only the time is another: a key has ended
                self.journal.event(after.name, "tunnel-changed", difference.summary)

    async def _equip(self, policy: TunnelPolicy) -> Diagnosis | None:
        """Sockets and interface; returns what this machine refused."""
        if policy.peer.local_address.is_unspecified:
            return Diagnosis.of(Code.LOCAL_ADDRESS)
        try:
            await self._addresses.listen(policy.peer.local_address)
        except OSError as error:
            local = policy.peer.local_address
            detail = f"cannot receive on {local}: {error.strerror or error}"
            name = errno.errorcode.get(error.errno or 0)
            owner = await self._owner_of_ports() if error.errno == errno.EADDRINUSE else None
            return Diagnosis.of(Code.LOCAL_SOCKET, ours=local, errno=name, detail=detail, owner=owner)
        if self.interfaces.get(policy.name) is None:
            try:
                await self.interfaces.attach(policy)
            except HostFailed as failure:
                cause = "taken" if isinstance(failure, NameTaken) else None
                name = policy.interface
                return Diagnosis.of(Code.LOCAL_INTERFACE, ours=name, detail=failure, cause=cause)
            except Exception as error:  # whatever it is: it costs this tunnel, and is tried again
                self.journal.fault(policy.name, "internal error while its interface was made", error)
                return Diagnosis.of(Code.INTERNAL)
        return None

    async def _owner_of_ports(self) -> str | None:
        """The other program that has UDP 500 or 4500, if it can be seen: looked for once for many tunnels."""
        now = asyncio.get_running_loop().time()
        if self._port_owner is None or now - self._port_owner[1] >= OWNER_KEPT:
            owner = await self.in_thread(port_owner, IKE_PORT) or await self.in_thread(port_owner, NAT_T_PORT)
            self._port_owner = owner, now
        return self._port_owner[0]

    # ----------------------------------------------------------------------------------- inside

    def _on_datagram(self, path: NetworkPath, data: bytes) -> None:
        # The engine is made before what needs it.
        if not self.gateway.endpoint.drop_unread(self.gateway.clock.now(), path, data):
            self._intake.take(path, data)

    def _may_wait(self, path: NetworkPath, data: bytes) -> bool:
        return self.gateway.endpoint.may_wait(self.gateway.clock.now(), path, data)

    def _count_dropped(self) -> None:
        self.gateway.endpoint.counters["first message: too many waited"] += 1

    def _on_notice(self, notice: Notice) -> None:
        self.gateway.on_notice(notice)

    def _on_reply(self, interface: str, echo: Echo) -> None:
        tunnel = self.interfaces.owner(interface)
        if tunnel is not None:
            self.gateway.on_reply(tunnel, echo)

    def _changed_outside(self) -> None:
        self.interfaces.doubt()
        if self._repairs.is_due():
            self._spawn(self._repairs.repair())

    def _record_the_rest(self) -> None:
        try:
            self.journal.recorder.write(self.journal.recorder.take(everything=True))
        except OSError as error:
            self._not_recorded(error)

    def _not_recorded(self, error: OSError) -> None:
        self.journal.warn(None, f"IKE messages cannot be kept over a restart: {error.strerror or error}")

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.journal.fault(None, "a task of the daemon ended with an internal error", error)


def _numbered(before: Mapping[str, TunnelPolicy], after: GatewayPolicy) -> GatewayPolicy:
    """What is to come, where the mappings that stay keep their numbers."""

    def numbered(tunnel: TunnelPolicy) -> TunnelPolicy:
        known = before.get(tunnel.name)
        if known is not None and known.peer is tunnel.peer:
            return tunnel
        peer = tunnel.peer.numbered_as(known.peer) if known is not None else tunnel.peer
        return tunnel if peer is tunnel.peer else replace(tunnel, peer=peer)

    return replace(after, tunnels=tuple(map(numbered, after.tunnels)))


def _differences(
    old: Loaded | None,
    new: Loaded,
    before: Mapping[str, TunnelPolicy],
    after: Mapping[str, TunnelPolicy],
    names: Iterable[str],
) -> dict[str, TunnelDifference]:
    """What becomes of each of these tunnels, which both have."""
    return {name: compare(old, new, before[name], after[name]) for name in names} if old else {}


_NOWHERE = IPv4Address(0)
