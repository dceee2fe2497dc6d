"""The gateway: where IKE, the lives of the tunnels and the datapath meet, and every effect is performed.

Three kinds of input drive it, each with one reading of the clock (`input`): a datagram, a command of the
operator or a notice of the datapath, and the tick of its one timer. After each, `_drain` performs what the
core asked for, one output after the other, and arms the timer at the earliest deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_never

from vpnd.crypto.entropy import Entropy
from vpnd.daemon.captures import Captures
from vpnd.daemon.events.counts import Counts
from vpnd.daemon.events.event_text import (
    attempt_failed,
    carrier_changed,
    child_renewed,
    health_changed,
    health_diagnosis,
    ike_renewed,
    impaired,
    loss_changed,
    mapping_changed,
    next_key_proved,
    peer_moved,
    peer_renews,
    probing_began,
    probing_ended,
    state_changed,
    unknown_peer,
)
from vpnd.daemon.events.journal import Journal
from vpnd.daemon.surroundings import Surroundings
from vpnd.daemon.traffic import Totals, Traffic
from vpnd.daemon.upkeep.path_sizes import PathSizes
from vpnd.daemon.upkeep.peer_liveness import PeerLiveness
from vpnd.daemon.upkeep.traffic_watch import TrafficWatch
from vpnd.daemon.watch import Watchers
from vpnd.datapath.interface import (
    Acquire,
    Engine,
    HardLimit,
    IkeUnreached,
    Notice,
    PathMtu,
    PeerMoved,
    PeerSends,
    SoftLimit,
    TunLost,
    UnknownSpi,
)
from vpnd.host.clock import Clock
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import (
    ChildDown,
    ChildExpected,
    ChildFailed,
    ChildLimited,
    ChildReplaced,
    ChildRetired,
    ChildUp,
    Decrypted,
    Established,
    Failed,
    IkeDown,
    IkeRekeyFailed,
    IkeReplaced,
    Keepalive,
    KeysChanged,
    LadderLine,
    NextKeyProved,
    Offered,
    OutboundReady,
    Output,
    PathMoved,
    PeerDead,
    PeerRenews,
    Story,
    Transmit,
    UnknownPeer,
)
from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import NAT_T_PORT, TunnelPolicy
from vpnd.model.selectors import Address
from vpnd.model.unreachable import Unreachable
from vpnd.tunnel import asking
from vpnd.tunnel.commands import (
    AttemptFailed,
    CloseTunnel,
    Command,
    Impaired,
    Initiate,
    MappingChanged,
    Resolve,
    StateChanged,
    TunnelState,
)
from vpnd.tunnel.failover import RouteMoved
from vpnd.tunnel.health import HealthChanged, HealthState, LossChanged, ProbeUnsent
from vpnd.tunnel.mappings import Fault, Mapping
from vpnd.tunnel.path_size import PathSized, SendProbe
from vpnd.tunnel.prober import Learned, Prober, ProberOutput, ProbingBegan
from vpnd.tunnel.route_selection import RouteSelection, RouteSelectionOutput, probe_mapping
from vpnd.tunnel.tunnels import Tunnels
from vpnd.wire.icmp import Echo

HOUSEKEEPING = 1.0
"""Ours: seconds between two looks at whose packets came, from which dead peer detection learns of life."""

LONGEST_SLEEP = 5.0
"""Ours: seconds; the loop's clock stands still while the machine is suspended, ours does not."""

AFTER_FAULT = 1.0
"""Ours: seconds before the timer fires again when its work failed, so that a bug does not spin."""


class Gateway:
    """One VPN gateway. Everything happens in one thread, on one event loop."""

    def __init__(
        self,
        clock: Clock,
        endpoint: Endpoint,
        tunnels: Tunnels,
        selection: RouteSelection,
        engine: Engine,
        surroundings: Surroundings,
        journal: Journal,
        entropy: Entropy,
    ) -> None:
        self.clock = clock
        self.endpoint = endpoint
        self.tunnels = tunnels
        self.selection = selection
        self.engine = engine
        self.journal = journal
        self.captures = Captures(clock, engine, endpoint)
        self.watchers = Watchers()
        self.counts = Counts()
        self.faults = 0
        """Bugs of ours that were caught."""
        self.keys_changed = asyncio.Event()
        """Set when `Endpoint.known_keys` is other than before."""
        self._surroundings = surroundings
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._kept_house = clock.now()
        self._draining = False
        self._liveness = PeerLiveness(endpoint, tunnels, engine, journal)
        self._flows = TrafficWatch(
            endpoint, tunnels, engine, journal, self.traffic, self._probes, surroundings.look_at_forwarding
        )
        self._sizes = PathSizes(tunnels, selection, journal, surroundings)
        self._closed = False
        self._totals = Totals()
        self.prober = Prober(entropy)

    # ---------------------------------------------------------------------------------- inputs

    @contextmanager
    def input(self, what: str, tunnel: str | None = None) -> Iterator[float]:
        """One input: `with gateway.input("a command", name) as now: gateway.tunnels[name].up(now)`.

        Reads the clock once, in seconds; afterwards performs what the core asked for and arms the timer. A
        bug in it is logged and costs `tunnel` its SAs, never the daemon.
        """
        with self.turn() as now, self._guard(what, tunnel):
            yield now

    @contextmanager
    def turn(self) -> Iterator[float]:
        """As `input`, for a caller that handles its errors: what the block raises is raised."""
        now = self.clock.now()
        try:
            yield now
        finally:
            self._drain(now)

    def on_datagram(self, path: Path, data: bytes) -> None:
        """An IKE message, from port 500 or, with its marker removed, from port 4500."""
        with self.input("an IKE message") as now:
            if self.prober.hears(data):
                self.prober.handle_datagram(now, path, data)
            else:
                self.endpoint.handle_datagram(now, path, data)

    def on_unreachable(self, path: Path, reason: Unreachable) -> None:
        """An ICMP error came back for a message along `path`."""
        with self.input("an ICMP error") as now:
            self.endpoint.handle_unreachable(now, path, reason)

    def on_way(self, path: Path, reason: Unreachable | None, interface: str | None) -> None:
        """Whether this machine has a way to the peer of `path`; see `Endpoint.set_way`."""
        with self.input("a look at the routes"):
            self.endpoint.set_way(path, reason, interface)

    def on_missing_routes(self, missing: dict[str, Diagnosis]) -> None:
        """The kernel has not taken routes of these tunnels; those of every other one are there."""
        now = self.clock.now()
        for tunnel in self.tunnels:
            found = missing.get(tunnel.name)
            if tunnel.standing.others.put(now, Code.LOCAL_ROUTE, found):
                if found is not None:
                    tunnel.standing.add(Fault(found, now), None)
                impaired(self.journal, Impaired(tunnel.name, Code.LOCAL_ROUTE, found))
                self.watchers.wake(tunnel.name)

    def on_notice(self, notice: Notice) -> None:
        """The datapath wants something decided."""
        with self.input("a notice", getattr(notice, "tunnel", None)) as now:
            self._handle_notice(now, notice)

    def on_reply(self, tunnel: str, echo: Echo) -> None:
        """An echo reply came out of a tunnel."""
        with self.input("an echo reply", tunnel) as now:
            self.selection.handle_reply(
                now, tunnel, echo.source, echo.destination, echo.identifier, echo.sequence
            )

    def on_tick(self) -> None:
        """Time has passed."""
        self._timer = self._timer_at = None
        now, faults = self.clock.now(), self.faults
        with self._guard("what the engine received"):
            self._look_at_traffic(now)
        with self._guard("the timers of IKE"):
            self.endpoint.handle_timeout(now)
        with self._guard("the timers of the tunnels"):
            self.tunnels.handle_timeout(now)
        with self._guard("the health checks"):
            self.selection.handle_timeout(now)
        with self._guard("the probes of peers"):
            self.prober.handle_timeout(now)
        self._drain(now, 0.0 if self.faults == faults else AFTER_FAULT)

    def admit(self, policy: TunnelPolicy) -> None:
        """Negotiate with a tunnel's peer from now on, unless the operator has taken the tunnel down."""
        tunnel = self.tunnels.get(policy.name)
        if tunnel is not None and not tunnel.standing.closed:
            with self.turn() as now:
                self.endpoint.set_peer(now, policy.peer)

    def on_forwarding(self, tunnel: str, cause: str | None, detail: str | None) -> None:
        """What this machine does with what comes out of a tunnel; see `TrafficWatch.forwarding`."""
        with self.input("what this machine forwards", tunnel) as now:
            self._flows.forwarding(now, tunnel, cause, detail)

    def follow_size(self, now: float, tunnel: str) -> None:
        """The tunnel's interface may take packets of another length."""
        self._sizes.follow(now, tunnel)

    def _probes(self, tunnel: str) -> int:
        """How many echo requests of the health check were sent."""
        check = self.selection.check(tunnel)
        return check.history.sent + check.size.sent if check is not None else 0

    def traffic(self, tunnel: str, mapping: Mapping) -> Traffic:
        """What a mapping has carried, over all its SA pairs since the start."""
        live = [self.engine.stats(pair.spi_in) for pair in mapping.pairs()]
        return self._totals.with_live(tunnel, mapping.index, live)

    def forget(self, tunnel: str) -> None:
        """The tunnel is removed: its counters go too."""
        self._totals.forget(tunnel)
        self.counts.forget(tunnel)
        self._liveness.forget(tunnel)
        self._flows.forget(tunnel)
        with self.turn() as now:
            self.selection.remove(now, tunnel)
            self.prober.forget(now, tunnel)
        self.watchers.wake(tunnel)

    def forget_mapping(self, tunnel: str, mapping: int) -> None:
        """A mapping of the tunnel is removed: its counters go too."""
        self._totals.forget_mapping(tunnel, mapping)

    def close(self) -> None:
        """No input is expected any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    # ------------------------------------------------------------------------------- one output

    def apply(self, now: float, output: Output | Command | RouteSelectionOutput | ProberOutput) -> None:
        """Perform one effect. The only place from which the core touches the world."""
        match output:
            case Transmit(_, path, data):
                self._transmit(path, data)
            case Keepalive(_, path):
                self.engine.send_keepalive(path)
            case ChildExpected(child):
                self.engine.install(child, False)
            case ChildUp(child, outbound, expected):
                self._install(child, outbound, expected)
                self._surroundings.child_changed(child)
                self.follow_size(now, child.tunnel)
                self.tunnels.handle_ike(now, output)
            case ChildReplaced(_, child, outbound, expected):
                self._install(child, outbound, expected)
                self._surroundings.child_changed(child)
                self.follow_size(now, child.tunnel)
                self.tunnels.handle_ike(now, output)
                self._tell_rekeyed(child)
            case OutboundReady(_, spi_in):
                self.engine.use_outbound(spi_in)
                self.tunnels.handle_ike(now, output)
            case ChildLimited(_, spi_in, kilobytes):
                self.engine.limit(spi_in, kilobytes)
            case ChildDown(tunnel, mapping, spi_in, _):
                self._totals.count(tunnel, mapping, self.engine.stats(spi_in))
                self.engine.remove(spi_in)
                self.tunnels.handle_ike(now, output)
            case PathMoved():
                self._move(now, output)
            case Established(tunnel):
                self.tunnels.handle_ike(now, output)
                self.watchers.wake(tunnel)
            case IkeReplaced(tunnel, ike=ike):
                self.tunnels.handle_ike(now, output)
                ike_renewed(self.journal, tunnel, ike.initiator)
                self.watchers.wake(tunnel)
            case ChildRetired():
                pass  # it goes on receiving; OutboundReady has said what sends instead
            case IkeDown() | ChildFailed() | Offered():
                self.tunnels.handle_ike(now, output)
            case IkeRekeyFailed() | Failed() | PeerDead():
                self.tunnels.handle_ike(now, output)
            case PeerRenews(tunnel):
                self.tunnels.handle_ike(now, output)
                peer_renews(self.journal, tunnel)
            case KeysChanged():
                self.keys_changed.set()
            case NextKeyProved(tunnel):
                next_key_proved(self.journal, self.tunnels[tunnel])
                self.watchers.wake(tunnel)
            case UnknownPeer():
                self._tell_unknown(output)
            case LadderLine():
                self.journal.trace(output)
            case Decrypted():
                self.captures.ike(output)
            case Story(tunnel, text):
                self.journal.detail(tunnel, text)
            case Initiate(tunnel, mapping):
                self.endpoint.initiate(now, tunnel, mapping)
            case CloseTunnel(tunnel, diagnosis):
                self._close_tunnel(now, tunnel, diagnosis)
            case Resolve(tunnel):
                self._surroundings.resolve(self.tunnels[tunnel].policy)
            case StateChanged() | MappingChanged() | AttemptFailed():
                self._tell(now, output)
            case Impaired(tunnel):
                impaired(self.journal, output)
                self.watchers.wake(tunnel)
            case ProbingBegan():
                probing_began(self.journal, output)
            case Learned(tunnel, code, diagnosis):
                probing_ended(self.journal, output)
                if (asked := self.tunnels.get(tunnel)) is not None:
                    asked.standing.learn(now, code, diagnosis)
                self.watchers.wake(tunnel)
            case SendProbe():
                self._surroundings.send_probe(output)
            case ProbeUnsent(tunnel):
                self._take_for_traffic(now, tunnel)
            case HealthChanged(tunnel, _, after):
                health_changed(self.journal, output)
                if (checked := self.tunnels.get(tunnel)) is not None:
                    checked.set_health(now, health_diagnosis(checked, output))
                if after is HealthState.UNHEALTHY:
                    # Where the peer is dead, and not only the path for ESP, this finds it sooner.
                    self.endpoint.probe(now, tunnel)
                self.watchers.wake(tunnel)
            case PathSized():
                self._sizes.sized(now, output)
            case LossChanged(tunnel):
                loss_changed(self.journal, output)
                self.selection.tunnel_changed(now, self.tunnels[tunnel])
            case RouteMoved(_, tunnel):
                carrier_changed(self.journal, output)
                self._surroundings.carry(output)
                self.watchers.wake(tunnel)
            case _:
                assert_never(output)

    # ----------------------------------------------------------------------------------- inside

    def _drain(self, now: float, pause: float = 0.0) -> None:
        """Perform all that waits, the endpoint's first, then arm the timer.

        An effect may call back (an engine that reports while it installs): the outer drain goes on then.
        """
        if self._draining:
            return
        self._draining = True
        try:
            ike, life = self.endpoint.outputs, self.tunnels.outputs
            while waiting := ike or life or self.selection.outputs or self.prober.outputs:
                output = waiting.popleft()
                with self._guard("an effect", output.tunnel):
                    self.counts.count(output)
                    self.apply(now, output)
        finally:
            self._draining = False
        self._arm(now, pause)

    def _arm(self, now: float, pause: float) -> None:
        """One timer, at the earliest deadline; after a bug in one it fires for the sake of the others."""
        if self._closed:
            return
        at = now + AFTER_FAULT
        with self._guard("the deadlines"):
            at = min((now + LONGEST_SLEEP, *self._deadlines()))
        at = max(at, now + pause)
        if self._timer is not None:
            if self._timer_at is not None and self._timer_at <= at:
                # It fires early at worst, finds nothing due, and is armed again then.
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - now), self.on_tick)

    def _deadlines(self) -> Iterator[float]:
        """When each part wants the timer."""
        for part in (self.endpoint, self.tunnels, self.selection, self.prober):
            if (deadline := part.next_timeout()) is not None:
                yield deadline
        if len(self.tunnels):
            yield self._next_look()

    def _look_at_traffic(self, now: float) -> None:
        """Look at whose packets came, if it is time to."""
        if now >= self._next_look():
            self._kept_house = now
            self._flows.evaluate(now, self._liveness.evaluate(now))

    def _next_look(self) -> float:
        """When to look at what came and what left."""
        sooner = self._liveness.next_timeout()
        usual = self._kept_house + HOUSEKEEPING
        return usual if sooner is None else min(usual, sooner)

    @contextmanager
    def _guard(self, what: str, tunnel: str | None = None) -> Iterator[None]:
        """A bug in the block is logged, counted, and costs the tunnel that it concerns."""
        try:
            yield
        except Exception as error:  # whatever it is: the other tunnels go on
            self.faults += 1
            text = f"internal error while handling {what}; this tunnel is negotiated again"
            self.journal.fault(tunnel, text, error)
            if tunnel is not None:
                self._restart(tunnel)

    def _restart(self, name: str) -> None:
        """After a bug: clear the tunnel's SAs and let its life go on from there."""
        now = self.clock.now()
        diagnosis = Diagnosis.of(Code.INTERNAL)
        try:
            self.endpoint.close(now, name, diagnosis)
            if (tunnel := self.tunnels.get(name)) is not None:
                tunnel.handle_ike(now, Failed(name, diagnosis, initiator=True))
        except Exception as error:  # the remedy must not be worse than the bug
            self.journal.fault(name, "the tunnel could not be restarted", error)

    def _install(self, child: ChildSa, outbound: bool, expected: bool) -> None:
        if not expected:
            self.engine.install(child, outbound)
        elif outbound:
            self.engine.use_outbound(child.spi_in)

    def _transmit(self, path: Path, data: bytes) -> None:
        if path.local_port == NAT_T_PORT:
            self.engine.send_ike(path, data)
        else:
            self._surroundings.send_ike(path, data)

    def _close_tunnel(self, now: float, name: str, diagnosis: Diagnosis) -> None:
        tunnel = self.tunnels.get(name)
        if tunnel is not None and tunnel.standing.closed:
            # Down by the operator: the peer must not bring it up again either.
            self.endpoint.remove_peer(now, name)
        else:
            self.endpoint.close(now, name, diagnosis)

    def _tell(self, now: float, change: StateChanged | MappingChanged | AttemptFailed) -> None:
        """Say what changed to the log, to those who wait for it, and to what depends on it."""
        tunnel = self.tunnels.get(change.tunnel)
        if tunnel is not None:
            match change:
                case StateChanged(_, before, after):
                    state_changed(self.journal, tunnel, change)
                    if TunnelState.UNHEALTHY in (before, after):
                        self._surroundings.interrupt(tunnel.name, after is TunnelState.UNHEALTHY)
                    self.selection.tunnel_changed(now, tunnel)
                    if after in (TunnelState.UP, TunnelState.DOWN):
                        self.prober.stop(now, tunnel.name)
                    self._surroundings.state_changed(tunnel.name)
                case MappingChanged():
                    mapping_changed(self.journal, tunnel, change)
                    self.selection.tunnel_changed(now, tunnel)
                case AttemptFailed():
                    attempt_failed(self.journal, tunnel, change)
                    asking.attempt_failed(self.prober, now, change, self.tunnels, self.endpoint.ike_sas)
                case _:
                    assert_never(change)
        self.watchers.wake(change.tunnel)

    def unknown_peers(self) -> list[UnknownPeer]:
        """Who begins IKE and is no tunnel's peer, the last one first."""
        present = self.endpoint.unknown_peers(self.clock.now())
        peers = self._peers() if present else frozenset()
        return [one for one in present if one.address not in peers]

    def _peers(self) -> frozenset[Address | None]:
        """Also those of tunnels that are down, or are not prepared yet: these are not answered, and known."""
        return frozenset(tunnel.policy.peer.remote_address for tunnel in self.tunnels)

    def _tell_unknown(self, peer: UnknownPeer) -> None:
        """A machine begins IKE that is no tunnel's peer: it matters where a tunnel lacks its own."""
        if peer.address not in self._peers():
            lacking = any(not tunnel.all_up and not tunnel.standing.closed for tunnel in self.tunnels)
            unknown_peer(self.journal, peer, lacking)

    def _tell_rekeyed(self, child: ChildSa) -> None:
        tunnel = self.tunnels.get(child.tunnel)
        if tunnel is not None:
            child_renewed(self.journal, tunnel, child)
        self.watchers.wake(child.tunnel)

    def _take_for_traffic(self, now: float, name: str) -> None:
        """A probe that finds no SA is a packet that waits for one: it brings up what traffic may bring up."""
        tunnel = self.tunnels.get(name)
        if tunnel is None or tunnel.standing.disconnected:
            # A probe of ours is not the traffic that brings back what dead peer detection has disconnected.
            return
        index = probe_mapping(tunnel.policy)
        if index is not None:
            tunnel.acquire(now, index)

    def _handle_notice(self, now: float, notice: Notice) -> None:
        match notice:
            case Acquire(name, mapping):
                if (tunnel := self.tunnels.get(name)) is not None:
                    tunnel.acquire(now, mapping)
            case SoftLimit(name, spi_in):
                self.endpoint.rekey_child(now, name, spi_in)
            case HardLimit(name, spi_in):
                self.endpoint.close_child(now, name, spi_in)
            case UnknownSpi(_, source):
                self._ask_whether_alive(now, source)
            case PeerSends(name, spi_in):
                self.endpoint.peer_sends(now, name, spi_in)
            case PeerMoved(name, _, path):
                self.endpoint.moved(now, name, path)
            case IkeUnreached(path, reason):
                self.endpoint.handle_unreachable(now, path, reason)
            case TunLost(name):
                self._surroundings.interface_lost(name)
            case PathMtu(remote, mtu):
                for name in self._tunnels_to(remote):
                    self._sizes.told(now, name, mtu)
            case _:
                assert_never(notice)

    def _ask_whether_alive(self, now: float, source: Address) -> None:
        """ESP with an unknown SPI came from an address that tunnels have as their peer's."""
        for name in self._tunnels_to(source):
            self._liveness.unknown_spi(now, name)

    def _tunnels_to(self, remote: Address) -> list[str]:
        return [
            tunnel.name
            for tunnel in self.tunnels
            if tunnel.policy.peer.remote_address == remote
            or any(m.owner and m.owner.path and m.owner.path.remote == remote for m in tunnel.mappings)
        ]

    def _move(self, now: float, moved: PathMoved) -> None:
        tunnel = self.tunnels.get(moved.tunnel)
        if tunnel is not None:
            peer_moved(self.journal, tunnel, moved.path)
            self.tunnels.handle_ike(now, moved)
            for pair in (pair for mapping in tunnel.mappings for pair in mapping.pairs()):
                self.engine.move(pair.spi_in, moved.path)
