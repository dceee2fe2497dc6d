"""The tunnels' interfaces and the routes that lead to them: made, followed, repaired, and taken away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace

from vpnd.config.problems import counted
from vpnd.daemon.events.journal import Journal
from vpnd.daemon.routing import apart, carried, guard, probed, shield, spared, tables_of
from vpnd.datapath.interface import Engine, PolicyRow
from vpnd.datapath.mtu import inner_mtu
from vpnd.host.host import Host, HostFailed
from vpnd.host.nftables import Shield
from vpnd.host.routes import ANYWHERE, MARK, Route, Rule, Wanted
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import Communication, Encapsulation, TunnelPolicy
from vpnd.model.proposals import Suite
from vpnd.model.selectors import Address, Network

DEFAULT_PATH_MTU = 1500
"""Bytes: Ethernet's, until the route to the peer says otherwise."""


ROUTE_KEPT = 1.0
"""Ours: seconds that a route's MTU is believed, so that many tunnels to one peer ask once."""

PATH_MTU_AGED = 600.0
"""Seconds after which a path that was found to be smaller may carry more again: the ten minutes of RFC 1191
section 6.3 and RFC 8201 section 4, and what Linux gives its own memory of it (route/mtu_expires)."""


@dataclass(slots=True)
class Attached:
    """A tunnel with its interface. MTUs are in bytes: of the interface, and of the path to the peer.

    `learned` is the loop's time when the network, or the route after it, last said what the path carries;
    None: it never has, and the path is what it was when the interface was made.
    """

    policy: TunnelPolicy
    descriptor: int
    mtu: int
    path_mtu: int
    learned: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the routes, rules and filters of the kernel follow from: policies of the tunnels that are
    configured and of those that have an interface, who carries each of their routes, and how often an
    interface was made."""

    configured: tuple[TunnelPolicy, ...]
    attached: tuple[TunnelPolicy, ...]
    carriers: tuple[str | None, ...]
    made: int

    def says_as_much_as(self, other: Standing) -> bool:
        """Whether the same follows from both."""
        return (
            (self.made, self.carriers) == (other.made, other.carriers)
            and _are_alike(self.configured, other.configured)
            and _are_alike(self.attached, other.attached)
        )


def _are_alike(before: tuple[TunnelPolicy, ...], after: tuple[TunnelPolicy, ...]) -> bool:
    pairs = zip(before, after, strict=False)
    return len(before) == len(after) and all(a is b or _guarded(a) == _guarded(b) for a, b in pairs)


def _guarded(policy: TunnelPolicy) -> tuple[object, ...]:
    """What of a policy is in the kernel's tables (`vpnd.daemon.routing`)."""
    peer = policy.peer
    ranges = [(c.local, c.remote, c.protocol, c.local_ports, c.remote_ports) for c in peer.children]
    where = (peer.local_address, peer.remote_address, peer.any_address)
    health = policy.health
    probed = (health.local, health.remote) if health is not None else None
    return policy.name, policy.interface, policy.communication, policy.routes, ranges, where, probed


_Part = tuple[tuple[object, ...], Wanted]

Equip = Callable[[TunnelPolicy], Awaitable[Diagnosis | None]]
"""Makes a tunnel's sockets and interface; returns what this machine refused."""


class Interfaces:
    """Which tunnels have an interface, and what the kernel's tables should say of them."""

    def __init__(
        self,
        host: Host,
        engine: Engine,
        journal: Journal,
        carrier: Callable[[Network], str | None],
        on_missing: Callable[[dict[str, Diagnosis]], None],
    ) -> None:
        self._host = host
        self._engine = engine
        self._journal = journal
        self._carrier = carrier
        self._on_missing = on_missing
        """Hears of the tunnels whose routes the kernel has not, after each try to make them."""
        self._attached: dict[str, Attached] = {}
        self._owners: dict[str, str] = {}
        self._configured: tuple[TunnelPolicy, ...] = ()
        self._tables: dict[str, int] = {}
        self._path_mtus: dict[Address, tuple[int | None, float]] = {}
        self._ways: dict[int, bool] = {}
        """The links by which peers are reached, by index: whether packets passed at the last look."""
        self._wanted: Wanted | None = None
        self._inside: frozenset[Network] = frozenset()
        self._here: frozenset[Network] = frozenset()
        """The networks on our inner side, also where no tunnel has routes."""
        self._separate: frozenset[Network] = frozenset()
        self._unshielded = False
        self._refused: frozenset[str] = frozenset()
        """What the kernel refused of routes and rules when it was last asked for."""
        self._made = 0
        """Counts the interfaces that were made, renamed or taken away: the kernel's routes go with them."""
        self._settled: Standing | None = None
        """What the kernel's routes and rules follow from, as it was when they were settled; None: they are
        not, or not all of them, or others may have changed them since."""
        self._doubts = 0
        """Counts what was a reason to ask the kernel again."""
        self._shield: Shield | None = None
        self._parts: dict[object, _Part] = {}
        """What each tunnel has in what is wanted, with what it follows from."""
        self._settling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> Attached | None:
        """The interface of a tunnel, or None while it has none."""
        return self._attached.get(name)

    def is_elsewhere(self, network: Network) -> bool:
        """Whether nothing of a network is on an interface of the inner side; False where none is known."""
        alike = [one for one in self._here if one.version == network.version and one.prefixlen]
        return bool(alike) and not any(one.overlaps(network) for one in alike)

    def owner(self, interface: str) -> str | None:
        """The tunnel of an interface, or None for an interface that is no tunnel's."""
        return self._owners.get(interface)

    async def configure(self, tunnels: Iterable[TunnelPolicy]) -> None:
        """The tunnels that are configured from now on: what guards their traffic comes before all else."""
        self._configured = tuple(tunnels)
        standing = self._standing()
        if self._settled is not None and self._settled.says_as_much_as(standing):
            # When the kernel tells of what others change, it is asked again (`doubt`).
            self._settled = standing
            await self._keep_shield(self._shield or shield(self._configured))
            if self._separate:
                # The kernel does not tell of sysctl.
                await self._hear_peers()
            return
        self._tables = tables_of(policy.name for policy in self._configured)
        await self.settle()

    def doubt(self) -> None:
        """The kernel may have other routes and rules than were settled: the next change asks it again."""
        self._doubts += 1
        self._settled = None

    def _standing(self) -> Standing:
        attached = tuple(one.policy for one in self._attached.values())
        carriers = tuple(self._carrier(route) for policy in attached for route in policy.routes)
        return Standing(self._configured, attached, carriers, self._made)

    async def attach(self, policy: TunnelPolicy) -> None:
        """Make the interface of a tunnel and let the engine carry its packets. Raises HostFailed."""
        path_mtu = await self.path_mtu(policy)
        mtu = _mtu_of(policy, path_mtu)
        descriptor = await self._host.open_interface(policy.interface, mtu, self._engine.segments)
        self._attached[policy.name] = Attached(policy, descriptor, mtu, path_mtu)
        self._made += 1
        self._owners[policy.interface] = policy.name
        try:
            await self._set_going(policy, descriptor, mtu, path_mtu)
        except Exception as error:  # whatever it is: half of an interface would pass for a whole one
            await self.detach(policy.name)
            if isinstance(error, OSError):
                raise HostFailed(str(error)) from error
            raise

    async def _set_going(self, policy: TunnelPolicy, descriptor: int, mtu: int, path_mtu: int) -> None:
        self._engine.add_tunnel(policy.name, descriptor, mtu)
        self._engine.set_mtu(policy.name, path_mtu)
        self._engine.set_limits(policy.name, policy.mtu, policy.mss)
        self._engine.replace_policies(policy.name, _rows(policy))
        if policy.health is not None:
            await self._host.set_address(policy.interface, policy.health.local, True)
            self._engine.answer_probes(policy.name, policy.health.local, policy.health.remote)

    async def detach(self, name: str) -> None:
        """Take the interface of a tunnel away; what guards its traffic stays."""
        attached = self._attached.pop(name, None)
        if attached is None:
            return
        self._made += 1
        self._owners.pop(attached.policy.interface, None)
        self._engine.remove_tunnel(name)
        await self._host.close_interface(attached.policy.interface, attached.descriptor)

    async def rename(self, policy: TunnelPolicy) -> bool:
        """Give the interface of a tunnel the name that it is to have; whether the kernel has done so."""
        attached = self._attached[policy.name]
        before, after = attached.policy.interface, policy.interface
        if before == after:
            return True
        async with self._settling:
            try:
                await self._host.rename_interface(before, after)
            except HostFailed as failure:
                self._journal.detail(policy.name, str(failure))
                return False
            self._made += 1
            attached.policy = replace(attached.policy, interface=after)
            self._owners[after] = self._owners.pop(before)
        return True

    async def change(self, policy: TunnelPolicy, child: ChildSa | None = None) -> None:
        """A tunnel keeps its interface and has another policy; `child` is an SA of it."""
        attached = self._attached.get(policy.name)
        if attached is None:
            return
        before, attached.policy = attached.policy, policy
        self._engine.set_limits(policy.name, policy.mtu, policy.mss)
        if child is not None:
            self.follow(child)
        else:
            self._change_mtu(attached, _mtu_of(policy, attached.path_mtu))
        self._engine.replace_policies(policy.name, _rows(policy))
        if policy.health != before.health:
            self._engine.interrupt(policy.name, False)
            await self._change_health(before, policy)

    async def _change_health(self, before: TunnelPolicy, after: TunnelPolicy) -> None:
        """The interface has the address of the new health check, and that of the old one no more."""
        old, new = before.health, after.health
        try:
            if old is not None and (new is None or new.local != old.local):
                await self._host.set_address(after.interface, old.local, False)
            if new is not None and (old is None or new.local != old.local):
                await self._host.set_address(after.interface, new.local, True)
        except HostFailed as failure:
            self._journal.warn(after.name, str(failure))
        if new is not None:
            self._engine.answer_probes(after.name, new.local, new.remote)

    async def path_mtu(self, policy: TunnelPolicy) -> int:
        """What the route to the peer carries, in bytes."""
        remote = policy.peer.remote_address
        said = await self.route_mtu(remote) if remote is not None else None
        return said if said is not None else DEFAULT_PATH_MTU

    async def route_mtu(self, remote: Address) -> int | None:
        """What the route to an address carries, in bytes; None where the kernel does not say."""
        now = asyncio.get_running_loop().time()
        known = self._path_mtus.get(remote)
        if known is not None and now - known[1] < ROUTE_KEPT:
            return known[0]
        try:
            route = await self._host.route_to(remote, MARK)
        except HostFailed:
            return None
        mtu = route.mtu if route is not None else None
        self._path_mtus[remote] = (mtu, now)
        if route is not None and route.link:
            self._ways.setdefault(route.link, True)
        return mtu

    def follow(self, child: ChildSa) -> None:
        """An SA pair was installed: its interface takes packets as long as its algorithms let them be."""
        attached = self._attached.get(child.tunnel)
        if attached is not None:
            mtu = inner_mtu(attached.path_mtu, child.suite, child.udp, child.path.remote.version)
            self._change_mtu(attached, attached.policy.mtu or mtu)

    def path_changed(self, name: str, path_mtu: int, child: ChildSa | None) -> None:
        """The network says what the path to the peer carries, in bytes."""
        attached = self._attached.get(name)
        if attached is None or attached.path_mtu == path_mtu:
            return
        attached.path_mtu = path_mtu
        attached.learned = asyncio.get_running_loop().time()
        self._engine.set_mtu(name, path_mtu)
        if child is not None:
            self.follow(child)

    def take_aged(self) -> list[str]:
        """The tunnels whose path may carry more than was learned; each is due again ten minutes later."""
        now = asyncio.get_running_loop().time()
        due = {
            name: attached
            for name, attached in self._attached.items()
            if attached.learned is not None and now - attached.learned >= PATH_MTU_AGED
        }
        for attached in due.values():
            attached.learned = now
        return list(due)

    def interrupt(self, name: str, interrupted: bool) -> None:
        """Stop a tunnel's business traffic both ways, or let it go on; health checks pass in any case."""
        attached = self._attached.get(name)
        health = attached.policy.health if attached is not None else None
        if health is not None:
            self._engine.interrupt(name, interrupted, (health.local, health.remote))

    def lead(self, route: Network) -> None:
        """Another tunnel carries a route: point the kernel's to it, in one step."""
        self._later(self._lead(route))

    async def led(self) -> None:
        """Wait until the routes that were to be led are."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def settle(self, raised: frozenset[str] | None = None) -> None:
        """Make the kernel's routes and rules what they should be now.

        `raised` makes it a repair, which logs what another program has removed: the interfaces that were just
        set up again, with which the kernel had taken routes away.
        """
        async with self._settling:
            self.doubt()
            doubts = self._doubts
            looked = await self._look_inside()
            standing = self._standing()
            await self._reconcile(self._all_wanted(), raised)
            whole = looked and not self._refused
        await self.keep_shield()
        if self._separate:
            await self._hear_peers()
        if whole and not self._unshielded and doubts == self._doubts:
            self._settled = standing

    async def settle_refused(self) -> None:
        """Try again what the kernel refused, if it did."""
        if self._refused:
            await self.settle()

    async def _hear_peers(self) -> None:
        """Peers that are in the routes of a tunnel are heard nevertheless."""
        policies = (*self._configured, *(attached.policy for attached in self._attached.values()))
        peers = frozenset(p.peer.remote_address for p in policies if p.peer.remote_address is not None)
        anywhere = {p.peer.local_address for p in policies if p.peer.any_address}
        peers |= {address for address in anywhere if not address.is_unspecified}
        peers |= {ANYWHERE[address.version] for address in anywhere}
        with contextlib.suppress(HostFailed):
            for name in await self._host.allow_peer_sources(peers, MARK):
                why = "peers are in the routes of a tunnel, and the strict check would not let them in"
                self._journal.warn(None, f"rp_filter of {name} is 2 (loose) from now on: {why}")

    async def keep_shield(self) -> None:
        """What tunnels protect arrives by them only, whatever another program does to the filters."""
        await self._keep_shield(shield(self._configured))

    async def _keep_shield(self, wanted: Shield) -> None:
        self._shield = wanted
        try:
            flushed = await self._host.shield(wanted)
        except HostFailed as failure:
            if not self._unshielded:
                self._journal.warn(None, f"packets that arrive in clear are not filtered: {failure}")
            self._unshielded = True
        else:
            self._unshielded = False
            if flushed:
                what = "the nftables table inet vpnd, which keeps packets in clear out"
                self._journal.repaired(None, "filter-restored", f"another program removed {what}: put back")

    async def repair(self) -> None:
        """Put back what another program has removed or set down, and log it."""
        names = frozenset(attached.policy.interface for attached in self._attached.values())
        raised: frozenset[str] = frozenset()
        try:
            raised = await self._host.set_links_up(names)
            for name in sorted(raised):
                text = f"the interface {name} was set down: it is up again"
                self._journal.repaired(self._owners.get(name), "interface-raised", text)
            present = await self._host.local_addresses()
            for attached in tuple(self._attached.values()):
                await self._restore_address(attached.policy, present, raised)
            self._look_at_ways(await self._host.links())
        except HostFailed as failure:
            self._journal.warn(None, str(failure))
        await self.settle(raised)

    async def abandon(self) -> None:
        """The daemon ends: interfaces and routes go, what guards the traffic stays."""
        attached, self._attached = self._attached, {}
        for name in attached:
            self._engine.remove_tunnel(name)
        await self._host.close_interfaces([tunnel.descriptor for tunnel in attached.values()])
        if self._wanted is not None:
            # Before that nothing is ours to take away: what stands is the guard that was there before us.
            await self.settle()

    # ----------------------------------------------------------------------------------- inside

    def _look_at_ways(self, links: dict[int, tuple[str, bool]]) -> None:
        """Tell of links that went down or came up: why peers are silent, and why they are heard again."""
        for index, passed in self._ways.items():
            name, passes = links.get(index, ("", passed))
            if passes is not passed:
                kind, now = ("link-up", "up again") if passes else ("link-down", "down")
                text = f"the interface {name}, by which peers are reached, is {now}"
                self._journal.event(None, kind, text)
        self._ways = {index: links[index][1] for index in self._ways if index in links}

    async def _restore_address(
        self, policy: TunnelPolicy, present: frozenset[Address], raised: frozenset[str]
    ) -> None:
        """Give an interface the address of its health check again, where another program has removed it."""
        if policy.health is None or policy.health.local in present or policy.name not in self._attached:
            return
        try:
            await self._host.set_address(policy.interface, policy.health.local, True)
        except HostFailed as failure:
            self._journal.warn(policy.name, str(failure))
            return
        if policy.interface not in raised:
            what = f"the address {policy.health.local} of {policy.interface}"
            text = f"another program removed {what}: put back"
            self._journal.repaired(policy.name, "address-restored", text)

    async def _look_inside(self) -> bool:
        """Which networks are on our inner side; what was known stays if the kernel does not say."""
        said = True
        try:
            self._here = await inside(self._host, self._configured)
        except HostFailed as failure:
            self._journal.warn(None, str(failure))
            said = False
        routed = any(policy.routes for policy in self._configured)
        self._inside = self._here if routed else frozenset()
        return said

    async def _lead(self, route: Network) -> None:
        """One route is replaced without a look at all the others, which takes long where there are many."""
        async with self._settling:
            attached = self._attached.get(self._carrier(route) or "")
            if self._wanted is None or attached is None:
                await self._reconcile(self._all_wanted())
                return
            leading = {r for r in self._carried(attached.policy).routes if r.destination == route}
            keys = {r.key for r in leading}
            others = (r for r in self._wanted.routes if r.key not in keys)
            self._wanted = Wanted(frozenset({*leading, *others}), self._wanted.rules)
            try:
                failures = await self._host.replace(tuple(leading))
            except HostFailed as failure:
                failures = [str(failure)]
            self._tell_refused(failures, self._refused)
            await self._tell_missing(failures)

    def _all_wanted(self) -> Wanted:
        # A peer that is known by name has its address with the interface of its tunnel.
        bound = [attached.policy for attached in self._attached.values()]
        self._separate = apart((*self._configured, *bound))
        before, self._parts = self._parts, {}
        parts = [spared(self._configured, self._inside)]
        parts += [self._part(policy, before, carries=False) for policy in self._configured]
        parts += [self._part(policy, before, carries=True) for policy in bound]
        # Sets know the hashes of what is in them: of many tunnels that is most of the work.
        routes = frozenset[Route]().union(*(part.routes for part in parts))
        return Wanted(routes, frozenset[Rule]().union(*(part.rules for part in parts)))

    def _part(self, policy: TunnelPolicy, before: Mapping[object, _Part], carries: bool) -> Wanted:
        """What of one tunnel is wanted, the same object as long as it follows from the same: the guard, or
        what leads to its interface."""
        separate = self._separate.intersection(policy.routes) if self._separate else frozenset()
        carriers = tuple(map(self._carrier, policy.routes)) if carries else ()
        of = (policy, self._tables.get(policy.name), separate, carriers)
        known = before.get((policy.name, carries))
        if known is None or known[0] != of:
            wanted = (
                self._carried(policy) | probed(policy)
                if carries
                else guard([policy], self._tables, self._separate)
            )
            known = of, wanted
        self._parts[policy.name, carries] = known
        return known[1]

    def _carried(self, policy: TunnelPolicy) -> Wanted:
        wanted = carried(policy, self._tables, self._separate)
        if policy.communication is Communication.SPD_POLICY:
            return wanted
        ours = (route for route in wanted.routes if self._carrier(route.destination) == policy.name)
        return Wanted(frozenset(ours))

    async def _reconcile(self, wanted: Wanted, raised: frozenset[str] | None = None) -> None:
        before, self._wanted = self._wanted, wanted
        # What the kernel refused was never there.
        told = raised is not None and before is not None and not self._refused
        try:
            present = await self._host.present()
            failures = await self._host.reconcile(wanted, present)
        except HostFailed as failure:
            failures = [str(failure)]
        else:
            if told and not failures:
                self._tell_restored((before or wanted) & wanted, present, raised or frozenset())
        self._tell_refused(failures)
        await self._tell_missing(failures)

    def _tell_restored(self, ours: Wanted, present: Wanted, raised: frozenset[str]) -> None:
        """Another program has removed what was ours and is wanted still."""
        routes = [route for route in ours.routes - present.routes if route.device not in raised]
        rules = ours.rules - present.rules
        counts = [(len(routes), "route"), (len(rules), "rule")]
        what = " and ".join(counted(n, noun) for n, noun in counts if n)
        if what:
            first = min((*routes, *rules), key=lambda one: (isinstance(one, Rule), str(one)))
            more = ", ..." if len(routes) + len(rules) > 1 else ""
            text = f"another program removed {what} of vpnd: put back ({first}{more})"
            self._journal.repaired(None, "routes-restored", text)

    def _tell_refused(self, failures: list[str], before: frozenset[str] = frozenset()) -> None:
        """Say what the kernel refused, but not what it had refused already; `before` is refused as well."""
        if failures:
            self.doubt()
        for text in [text for text in failures if text not in self._refused][:10]:
            self._journal.warn(None, f"the kernel refused to {text}")
        self._refused = before.union(failures)

    async def _tell_missing(self, failures: list[str]) -> None:
        """Whose routes are not there, after the kernel has refused some."""
        missing: dict[str, Diagnosis] = {}
        if failures:
            try:
                present = await self._host.present()
            except HostFailed:
                return  # As it is: the next try tells.
            wanted = self._wanted.routes if self._wanted is not None else frozenset()
            for route in sorted(wanted - present.routes, key=str):
                owner = self._owners.get(route.device or "")
                if owner is not None and owner not in missing:
                    said = next((text for text in failures if str(route) in text), failures[0])
                    detail = f"{route.destination}: {said.rpartition(': ')[2]}"
                    missing[owner] = Diagnosis.of(Code.LOCAL_ROUTE, cause="refused", detail=detail)
        self._on_missing(missing)

    def _change_mtu(self, attached: Attached, mtu: int) -> None:
        if mtu == attached.mtu:
            return
        attached.mtu = mtu
        self._later(self._set_mtu(attached.policy, mtu))

    async def _set_mtu(self, policy: TunnelPolicy, mtu: int) -> None:
        try:
            await self._host.set_mtu(policy.interface, mtu)
        except HostFailed as failure:
            self._journal.warn(policy.name, f"the MTU of {policy.interface} stays as it is: {failure}")

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def inside(host: Host, tunnels: Iterable[TunnelPolicy]) -> frozenset[Network]:
    """The networks on the inner side of a gateway with these tunnels. Raises HostFailed."""
    peers = [policy.peer for policy in tunnels]
    own = frozenset(peer.local_address for peer in peers)
    remote = frozenset(peer.remote_address for peer in peers if peer.remote_address is not None)
    return await host.networks_inside(own, remote, MARK)


def _rows(policy: TunnelPolicy) -> tuple[PolicyRow, ...]:
    return tuple(
        PolicyRow(child.index, (child.ts_local,), (child.ts_remote,)) for child in policy.peer.children
    )


def _mtu_of(policy: TunnelPolicy, path_mtu: int) -> int:
    """What an interface takes before anything is negotiated: what is configured, or fits in any case."""
    return policy.mtu or min(inner_mtu(path_mtu, *likely) for likely in _likely(policy))


def _likely(policy: TunnelPolicy) -> list[tuple[Suite, bool, int]]:
    """Every suite that may be negotiated, with the encapsulation that takes most room."""
    udp = True if policy.peer.encapsulation is Encapsulation.UDP else policy.peer.remote_address is None
    version = (policy.peer.remote_address or policy.peer.local_address).version
    return [
        (Suite(encryption, None, integrity, None), udp, version)
        for child in policy.peer.children[:1]
        for proposal in child.proposals
        for encryption in proposal.encryption
        for integrity in proposal.integrity or (None,)
    ]
