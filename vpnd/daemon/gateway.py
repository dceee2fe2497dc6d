"""The gateway: where IKE, the lives of the tunnels and the datapath meet, and every effect is performed.

Three kinds of input drive it, each with one reading of the clock: a datagram, a command of the operator or
a notice of the datapath, and the tick of its one timer. After each, `_drain` performs what the core asked
for, one output after the other, and arms the timer at the earliest deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, assert_never

from vpnd.daemon.events.event_text import (
    attempt_failed,
    carrier_changed,
    child_renewed,
    health_changed,
    ike_renewed,
    loss_changed,
    mapping_changed,
    peer_moved,
    peer_renews,
    state_changed,
)
from vpnd.daemon.events.journal import Journal
from vpnd.daemon.surroundings import Surroundings
from vpnd.daemon.traffic import Totals, Traffic
from vpnd.daemon.upkeep.peer_liveness import PeerLiveness
from vpnd.daemon.watch import Watchers
from vpnd.datapath.interface import (
    Acquire,
    Engine,
    HardLimit,
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
    ChildReplaced,
    ChildRetired,
    ChildUp,
    Established,
    Failed,
    IkeDown,
    IkeRekeyFailed,
    IkeReplaced,
    Keepalive,
    LadderLine,
    Offered,
    OutboundReady,
    Output,
    PathMoved,
    PeerDead,
    PeerRenews,
    Story,
    Transmit,
)
from vpnd.ike.session import Unreachable
from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import NAT_T_PORT, TunnelPolicy
from vpnd.model.selectors import Address
from vpnd.tunnel.commands import (
    AttemptFailed,
    CloseTunnel,
    Command,
    Initiate,
    MappingChanged,
    Resolve,
    SendOn,
    StateChanged,
    TunnelState,
)
from vpnd.tunnel.failover import RouteMoved
from vpnd.tunnel.health import HealthChanged, HealthState, LossChanged, ProbeUnsent, SendProbe
from vpnd.tunnel.lifecycle import Tunnel
from vpnd.tunnel.mappings import Mapping
from vpnd.tunnel.route_selection import RouteSelection, RouteSelectionOutput, probe_mapping
from vpnd.tunnel.tunnels import Tunnels
from vpnd.wire.icmp import Echo

HOUSEKEEPING = 1.0
"""Ours: seconds between two looks at whose packets came, from which dead peer detection learns of life."""

LONGEST_SLEEP = 5.0
"""Ours: seconds; the loop's clock stands still while the machine is suspended, ours does not."""

AFTER_FAULT = 1.0
"""Ours: seconds before the timer fires again when its work failed, so that a bug does not spin."""

T = TypeVar("T")


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
    ) -> None:
        self.clock = clock
        self.endpoint = endpoint
        self.tunnels = tunnels
        self.selection = selection
        self.engine = engine
        self.journal = journal
        self.watchers = Watchers()
        self.faults = 0
        """Bugs of ours that were caught."""
        self._surroundings = surroundings
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._kept_house = clock.now()
        self._draining = False
        self._liveness = PeerLiveness(endpoint, tunnels, engine, journal)
        self._closed = False
        self._totals = Totals()

    # ----------------------------------------------------------------------------- three inputs

    def on_datagram(self, path: Path, data: bytes) -> None:
        """An IKE message, from port 500 or, with its marker removed, from port 4500."""
        now = self.clock.now()
        self._guarded(None, "an IKE message", lambda: self.endpoint.handle_datagram(now, path, data))
        self._drain(now)

    def on_unreachable(self, path: Path, reason: Unreachable) -> None:
        """An ICMP error came back for a message along `path`."""
        now = self.clock.now()
        self._guarded(None, "an ICMP error", lambda: self.endpoint.handle_unreachable(now, path, reason))
        self._drain(now)

    def on_notice(self, notice: Notice) -> None:
        """The datapath wants something decided."""
        now = self.clock.now()
        self._guarded(getattr(notice, "tunnel", None), "a notice", lambda: self._hear_notice(now, notice))
        self._drain(now)

    def on_reply(self, tunnel: str, echo: Echo) -> None:
        """An echo reply came out of a tunnel."""
        now = self.clock.now()
        facts = (tunnel, echo.source, echo.destination, echo.identifier, echo.sequence)
        self._guarded(tunnel, "an echo reply", lambda: self.selection.handle_reply(now, *facts))
        self._drain(now)

    def command(self, name: str, message: Callable[[float, Tunnel], None]) -> None:
        """The operator, or an answer that was waited for, concerns one tunnel."""
        now = self.clock.now()
        self._guarded(name, "a command", lambda: self.tunnels.tell(name, lambda t: message(now, t)))
        self._drain(now)

    def call(self, do: Callable[[float], T]) -> T:
        """A command that concerns the endpoint or several tunnels; raises what `do` raises."""
        now = self.clock.now()
        try:
            return do(now)
        finally:
            self._drain(now)

    def on_tick(self) -> None:
        """Time has passed."""
        self._timer = self._timer_at = None
        now = self.clock.now()
        self._guarded(None, "what the engine heard", lambda: self._listen(now))
        in_order = self._guarded(None, "the timers of IKE", lambda: self.endpoint.handle_timeout(now))
        in_order &= self._guarded(None, "the timers of the tunnels", lambda: self.tunnels.handle_timeout(now))
        in_order &= self._guarded(None, "the health checks", lambda: self.selection.handle_timeout(now))
        self._drain(now, 0.0 if in_order else AFTER_FAULT)

    def admit(self, policy: TunnelPolicy) -> None:
        """Negotiate with a tunnel's peer from now on, unless the operator has taken the tunnel down."""
        tunnel = self.tunnels.get(policy.name)
        if tunnel is not None and not tunnel.closed:
            self.call(lambda now: self.endpoint.set_peer(now, policy.peer))

    def traffic(self, tunnel: str, mapping: Mapping) -> Traffic:
        """What a mapping has carried, over all its SA pairs since the start."""
        live = [self.engine.stats(pair.spi_in) for pair in mapping.pairs()]
        return self._totals.with_live(tunnel, mapping.index, live)

    def forget(self, tunnel: str) -> None:
        """The tunnel is removed: its counters go too."""
        self._totals.forget(tunnel)
        self._liveness.forget(tunnel)
        self.call(lambda now: self.selection.remove(now, tunnel))
        self.watchers.wake(tunnel)

    def close(self) -> None:
        """No input is expected any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    # ------------------------------------------------------------------------------- one output

    def apply(self, now: float, output: Output | Command | RouteSelectionOutput) -> None:
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
                self.tunnels.handle_ike(now, output)
            case ChildReplaced(_, child, outbound, expected):
                self._install(child, outbound, expected)
                self._surroundings.child_changed(child)
                self.tunnels.handle_ike(now, output)
                self._tell_rekeyed(child)
            case OutboundReady(_, spi_in):
                self.engine.use_outbound(spi_in)
                self.tunnels.handle_ike(now, output)
            case SendOn(_, spi_in):
                self.engine.use_outbound(spi_in)
            case ChildDown(tunnel, mapping, spi_in, _):
                self._totals.count(tunnel, mapping, self.engine.stats(spi_in))
                self.engine.remove(spi_in)
                self.tunnels.handle_ike(now, output)
            case PathMoved(tunnel, path):
                self._move(tunnel, path)
            case Established(tunnel):
                self.tunnels.handle_ike(now, output)
                self.watchers.wake(tunnel)
            case IkeReplaced(tunnel, ike=ike):
                self.tunnels.handle_ike(now, output)
                ike_renewed(self.journal, tunnel, ike.initiator)
                self.watchers.wake(tunnel)
            case ChildRetired() | IkeDown() | ChildFailed() | Offered():
                self.tunnels.handle_ike(now, output)
            case IkeRekeyFailed() | Failed() | PeerDead():
                self.tunnels.handle_ike(now, output)
            case PeerRenews(tunnel):
                self.tunnels.handle_ike(now, output)
                peer_renews(self.journal, tunnel)
            case LadderLine():
                self.journal.trace(output)
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
            case SendProbe():
                self._surroundings.send_probe(output)
            case ProbeUnsent(tunnel):
                self._take_for_traffic(now, tunnel)
            case HealthChanged(tunnel, _, after):
                health_changed(self.journal, output)
                self.tunnels.tell(tunnel, lambda t: t.set_health(after is not HealthState.UNHEALTHY))
                if after is HealthState.UNHEALTHY:
                    # Where the peer is dead, and not only the path for ESP, this finds it sooner.
                    self.endpoint.probe(now, tunnel)
                self.watchers.wake(tunnel)
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
            while waiting := ike or life or self.selection.outputs:
                output = waiting.popleft()
                self._guarded(_tunnel_of(output), "an effect", lambda o=output: self.apply(now, o))  # type: ignore[misc]
        finally:
            self._draining = False
        self._arm(now, pause)

    def _arm(self, now: float, pause: float) -> None:
        """One timer, at the earliest deadline; after a bug in one it fires for the sake of the others."""
        if self._closed:
            return
        deadlines = [now + LONGEST_SLEEP]
        if not self._guarded(None, "the deadlines", lambda: deadlines.extend(self._deadlines())):
            deadlines.append(now + AFTER_FAULT)
        at = max(min(deadlines), now + pause)
        if self._timer is not None:
            if self._timer_at is not None and self._timer_at <= at:
                # It fires early at worst, finds nothing due, and is armed again then.
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - now), self.on_tick)

    def _deadlines(self) -> list[float]:
        """When each part wants the timer."""
        core = (self.endpoint, self.tunnels, self.selection)
        deadlines = [deadline for part in core if (deadline := part.next_timeout()) is not None]
        if len(self.tunnels):
            deadlines.append(self._next_listening())
        return deadlines

    def _listen(self, now: float) -> None:
        """Look at whose packets came, if it is time to."""
        if now >= self._next_listening():
            self._kept_house = now
            self._liveness.evaluate(now)

    def _next_listening(self) -> float:
        """When to look at what came and what left."""
        sooner = self._liveness.next_timeout()
        usual = self._kept_house + HOUSEKEEPING
        return usual if sooner is None else min(usual, sooner)

    def _guarded(self, tunnel: str | None, what: str, call: Callable[[], object]) -> bool:
        """Call; a bug costs the tunnel that it concerns, never the daemon. Returns whether all is well."""
        try:
            call()
        except Exception as error:  # whatever it is: the other tunnels go on
            self.faults += 1
            self.journal.fault(
                tunnel, f"internal error while handling {what}; this tunnel starts anew", error
            )
            if tunnel is not None:
                self._start_anew(tunnel)
            return False
        return True

    def _start_anew(self, tunnel: str) -> None:
        """After a bug: clear the tunnel's SAs and let its life go on from there."""
        now = self.clock.now()
        diagnosis = Diagnosis.of(Code.INTERNAL)
        try:
            self.endpoint.close(now, tunnel, diagnosis)
            self.tunnels.tell(tunnel, lambda t: t.failed(now, diagnosis, True))
        except Exception as error:  # the remedy must not be worse than the bug
            self.journal.fault(tunnel, "the tunnel could not be started anew", error)

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
        if tunnel is not None and tunnel.closed:
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
                    self._surroundings.state_changed(tunnel.name)
                case MappingChanged():
                    mapping_changed(self.journal, tunnel, change)
                    self.selection.tunnel_changed(now, tunnel)
                case AttemptFailed():
                    attempt_failed(self.journal, tunnel, change)
                case _:
                    assert_never(change)
        self.watchers.wake(change.tunnel)

    def _tell_rekeyed(self, child: ChildSa) -> None:
        tunnel = self.tunnels.get(child.tunnel)
        if tunnel is not None:
            child_renewed(self.journal, tunnel, child)
        self.watchers.wake(child.tunnel)

    def _take_for_traffic(self, now: float, name: str) -> None:
        """A probe that finds no SA is a packet that waits for one: it brings up what traffic may bring up."""
        tunnel = self.tunnels.get(name)
        if tunnel is None or tunnel.disconnected:
            # A probe of ours is not the traffic that brings back what dead peer detection has disconnected.
            return
        index = probe_mapping(tunnel.policy)
        if index is not None:
            self.tunnels.tell(name, lambda t: t.acquire(now, index))

    def _hear_notice(self, now: float, notice: Notice) -> None:
        match notice:
            case Acquire(tunnel, mapping):
                self.tunnels.tell(tunnel, lambda t: t.acquire(now, mapping))
            case SoftLimit(tunnel, spi_in):
                self.endpoint.rekey_child(now, tunnel, spi_in)
            case HardLimit(tunnel, spi_in):
                self.endpoint.close_child(now, tunnel, spi_in)
            case UnknownSpi(_, source):
                self._ask_whether_alive(now, source)
            case PeerSends(tunnel, spi_in):
                self.endpoint.peer_sends(now, tunnel, spi_in)
            case PeerMoved(tunnel, _, path):
                self.endpoint.moved(now, tunnel, path)
            case TunLost(tunnel):
                self._surroundings.interface_lost(tunnel)
            case PathMtu(remote, mtu):
                for name in self._tunnels_to(remote):
                    self._surroundings.path_changed(name, mtu)
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

    def _move(self, name: str, path: Path) -> None:
        tunnel = self.tunnels.get(name)
        if tunnel is not None:
            peer_moved(self.journal, tunnel, path)
            for spi_in in tunnel.path_moved(path):
                self.engine.move(spi_in, path)


def _tunnel_of(output: Output | Command | RouteSelectionOutput) -> str | None:
    match output:
        case ChildExpected(child) | ChildUp(child) | ChildReplaced(_, child):
            return child.tunnel
        case _:
            return output.tunnel
