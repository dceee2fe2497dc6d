"""The life of one tunnel: who begins, what follows a failure, and what an operator sees of it.

    configured --> WAITING (passive, or traffic-triggered until a packet comes)
               --> CONNECTING (active, or asked for) --> UP <--> UNHEALTHY
    any state  --> DOWN by the operator, until `up`
    UP         --> WAITING, disconnected by dead peer detection, until the peer, traffic or `up`

An attempt is one `Initiate`; it ends with the mapping's SAs, with a failure of that mapping, or with a
failure of the IKE SA, which fails every mapping that waits for it. Mappings are negotiated in their order,
one at a time. What is wanted is tried again without end (`backoff.py`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from vpnd.crypto.entropy import Entropy
from vpnd.ike.deadlines import Deadlines
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildReplaced,
    ChildUp,
    Established,
    Failed,
    IkeDown,
    IkeRekeyFailed,
    IkeReplaced,
    Offered,
    OutboundReady,
    Output,
    PathMoved,
    PeerDead,
    PeerRenews,
)
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ChildPolicy, DpdAction, Negotiation, TunnelPolicy
from vpnd.tunnel.attempt import Attempt
from vpnd.tunnel.backoff import PEER_FIRST
from vpnd.tunnel.commands import (
    AttemptFailed,
    CloseTunnel,
    Command,
    Impaired,
    Initiate,
    MappingChanged,
    MappingState,
    Resolve,
    StateChanged,
    TunnelState,
)
from vpnd.tunnel.flaps import Flaps
from vpnd.tunnel.mappings import (
    ENDED_HERE,
    STABLE_AFTER,
    Fault,
    Mapping,
    SaPair,
    as_before,
    numbered,
    reason_of_offer,
    without_rule,
)
from vpnd.tunnel.standing import Standing


@dataclass(slots=True, eq=False)
class Tunnel:
    """One configured tunnel. Times are seconds on one monotonic clock; effects go to the shared outputs."""

    policy: TunnelPolicy
    _entropy: Entropy
    _outputs: deque[Command]
    _deadlines: Deadlines[str]
    standing: Standing = field(default_factory=Standing)
    state: TunnelState = TunnelState.WAITING
    attempt: Attempt = field(default_factory=Attempt)
    mappings: tuple[Mapping, ...] = field(init=False)
    remote_is_name: bool = field(init=False)
    """Whether the peer is configured by its domain name, so that an attempt begins with a look-up."""
    last_heard: float = 0.0
    """When the last authenticated packet came, in seconds on the caller's clock."""
    _peer_begins_again: bool = False
    """Whether the peer makes another one of each SA that is closed here."""
    _ikes: set[tuple[bytes, bytes]] = field(default_factory=set)
    _up_since: float | None = None
    _flaps: Flaps = field(default_factory=Flaps)

    def __post_init__(self) -> None:
        self.mappings = tuple(Mapping(child.index) for child in self.policy.peer.children)
        peer = self.policy.peer
        self.remote_is_name = peer.remote_address is None and not peer.any_address

    # ------------------------------------------------------------------------------ queries

    @property
    def name(self) -> str:
        """The tunnel's name."""
        return self.policy.name

    @property
    def all_up(self) -> bool:
        """Whether every mapping has its SAs."""
        return all(mapping.owner is not None for mapping in self.mappings)

    @property
    def failure(self) -> Fault | None:
        """Why the tunnel is not up, as far as is known."""
        return self.standing.failure(self.all_up)

    @property
    def next_try(self) -> float | None:
        """When the next attempt begins, or None if none is due."""
        if self.standing.closed or self.attempt.mapping is not None:
            return None
        due = [m.retry_at or 0.0 for m in self.mappings if m.wanted or self._has_no_address]
        return max(min(due), self.attempt.retry_at or 0.0) if due else None

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do."""
        if self.attempt.ends is not None:
            return self.attempt.ends
        return self.next_try if self._may_begin() else None

    # --------------------------------------------------------------------- what the operator wants

    def bind(self, policy: TunnelPolicy) -> None:
        """`policy` holds the addresses of this machine and of the peer, as far as they are known."""
        self.policy = policy

    def start(self, now: float) -> None:
        """The configuration is loaded: an active tunnel begins, the others get ready."""
        if self.policy.negotiation is Negotiation.ACTIVE and not self.standing.disconnected:
            self._want_all()
        self._proceed(now)
        self._settle(now)

    def reconfigure(self, now: float, policy: TunnelPolicy) -> None:
        """Another policy. Mappings that stay keep their number and what they have; the others come and go.

        What becomes of their SAs is the caller's affair: those of a mapping that goes are nobody's here.
        What failed before does not count; where there is no SA, an attempt that was under way is over.
        """
        if policy.peer != self.policy.peer:
            if any(m.owner for m in self.mappings):
                self._try_others_again()
            else:
                self._end_attempt()
                self._start_over()
        if policy.enabled and not self.policy.enabled:
            self.standing.open()
        if self.attempt.mapping is not None and policy.peer.child(self.attempt.mapping) is None:
            self._end_attempt()
        if policy.negotiation is Negotiation.PASSIVE is not self.policy.negotiation:
            self._stop_trying()
        if policy.peer.dpd.action is DpdAction.RETRY:
            self.standing.reconnect()
        self.bind(policy)
        known = {mapping.index: mapping for mapping in self.mappings}
        self.mappings = tuple(known.get(c.index) or Mapping(c.index) for c in policy.peer.children)
        if not policy.enabled:
            self.down(now)
        elif not self.standing.closed:
            self.start(now)

    def up(self, now: float) -> None:
        """Negotiate now what is not up, whatever the negotiation type."""
        self._open()
        self._start_over()
        self._want_all()
        self._proceed(now)
        self._settle(now)

    def down(self, now: float) -> None:
        """Close with DELETE, and stay down."""
        self.standing.close()
        self._stop_trying()
        self._outputs.append(CloseTunnel(self.name, Diagnosis.of(Code.DOWN_BY_OPERATOR)))
        self._settle(now)

    def reset(self, now: float) -> None:
        """Close with DELETE and negotiate everything again."""
        self._stop_trying()
        self._outputs.append(CloseTunnel(self.name, Diagnosis.of(Code.DOWN_BY_OPERATOR)))
        self._open()
        self._start_over()
        for mapping in self.mappings:
            mapping.set_wanted(not self.policy.peer.any_address)
        self.attempt.wait_until(now + (PEER_FIRST if self._peer_begins_again else 0.0))
        self._settle(now)

    def block(self, now: float, diagnosis: Diagnosis) -> None:
        """This machine cannot carry the tunnel now: its interface or its routes cannot be made."""
        self.standing.block(now, diagnosis)
        self._end_attempt()
        self._settle(now, diagnosis)

    def unblock(self, now: float) -> None:
        """This machine can carry the tunnel again: the failure that stood before stands again."""
        if self.standing.blocked is None:
            return
        self.standing.unblock(any(m.reason for m in self.mappings))
        self._proceed(now)
        self._settle(now)

    # ---------------------------------------------------------------- what the datapath reports

    def acquire(self, now: float, index: int) -> None:
        """A packet of this mapping waits for an SA."""
        negotiation, standing = self.policy.negotiation, self.standing
        mapping = self._mapping(index)
        if negotiation is Negotiation.PASSIVE or standing.closed or mapping is None:
            return
        if standing.disconnected and negotiation is not Negotiation.TRAFFIC_TRIGGERED:
            return
        if mapping.owner is not None or mapping.wanted or mapping.connecting or mapping.pauses(now):
            return
        mapping.set_wanted(True)
        self._proceed(now)
        self._settle(now)

    def note_activity(self, at: float) -> None:
        """The last authenticated packet came at `at`, in seconds on the caller's clock."""
        self.last_heard = at

    def set_health(self, now: float, diagnosis: Diagnosis | None) -> None:
        """The health check's verdict on a tunnel that has its SAs; None: it does not fail."""
        self.standing.set_health(None if diagnosis is None else Fault(diagnosis, now))
        self._settle(now)

    # ------------------------------------------------------------------- what name servers answer

    def resolved(self, now: float, policy: TunnelPolicy, moved: bool = False) -> None:
        """`policy` holds the address of the peer's name. `moved`: what is under way begins again with it."""
        self.bind(policy)
        self.attempt.answered(found=True)
        if moved and not self.standing.disconnected:
            self._end_attempt()
            self._start_over()
        self._proceed(now)
        self._settle(now)

    def resolve_failed(self, now: float, diagnosis: Diagnosis) -> None:
        """The peer's name has no address at present."""
        self.attempt.answered(found=False)
        self._setup_failed(now, diagnosis)

    # -------------------------------------------------------------------------- what IKE reports

    def handle_ike(self, now: float, output: Output) -> None:
        """What IKE says of this tunnel; messages and stories are none of its business."""
        match output:
            case Established(_, ike):
                self._ikes.add((ike.spi_i, ike.spi_r))
                self._proceed(now)
            case IkeReplaced(_, spi_i, spi_r, ike):
                self._ikes.discard((spi_i, spi_r))
                self._ikes.add((ike.spi_i, ike.spi_r))
                self._renewed(now)
            case IkeDown(_, spi_i, spi_r, diagnosis):
                self._ike_down(now, spi_i, spi_r, diagnosis)
            case ChildUp(child) if mapping := self._mapping(child.mapping):
                self._came_up(now, mapping, mapping.installed(now, child))
            case ChildReplaced(old, child) if mapping := self._mapping(child.mapping):
                self._came_up(now, mapping, mapping.replaced(now, old, child))
                self._renewed(now)
            case OutboundReady(_, spi_in):
                for mapping in self.mappings:
                    mapping.use(spi_in)
            case ChildDown(_, index, spi_in, diagnosis) if mapping := self._mapping(index):
                self._child_down(now, mapping, spi_in, diagnosis)
            case ChildFailed(_, index, diagnosis):
                self._child_failed(now, index, diagnosis)
            case PathMoved(_, path):
                for pair in (pair for mapping in self.mappings for pair in mapping.pairs()):
                    pair.move(path)
            case PeerRenews():
                self._peer_begins_again = True
            case Offered(_, indexes):
                self._offered(now, indexes)
            case IkeRekeyFailed(_, diagnosis):
                self._renewal_failed(now, None, diagnosis)
            case PeerDead(_, diagnosis):
                self._peer_dead(now, diagnosis)
            case Failed():
                self._failed(now, output)
            case _:
                pass

    def _ike_down(self, now: float, spi_i: bytes, spi_r: bytes, diagnosis: Diagnosis) -> None:
        """An IKE SA is gone; each of its SA pairs was reported before."""
        self._ikes.discard((spi_i, spi_r))
        if self._ikes:
            return
        self.attempt.forget_address()
        for mapping in self.mappings:
            mapping.forget_offer(self._persists())
        if self.attempt.mapping is not None and diagnosis.code is not Code.DOWN_BY_OPERATOR:
            self._child_failed(now, self.attempt.mapping, diagnosis)
        self._settle(now, diagnosis)

    def _child_down(self, now: float, mapping: Mapping, spi_in: int, diagnosis: Diagnosis) -> None:
        before = mapping.owner
        mapping.removed(spi_in)
        if before is None or mapping.owner is not None:
            return
        self._lost(now, mapping, before, diagnosis)
        state = mapping.state(self.standing.closed)
        self._outputs.append(MappingChanged(self.name, mapping.index, state, diagnosis))
        self._settle(now, diagnosis)

    def _child_failed(self, now: float, index: int, diagnosis: Diagnosis) -> None:
        """The negotiation of one mapping failed; the IKE SA lives."""
        mapping, begun = self._mapping(index), self.attempt.mapping == index
        if begun:
            self._end_attempt()
        if mapping is None or mapping.owner is not None:
            if mapping is not None and not begun:
                self._renewal_failed(now, index, diagnosis)
            self._proceed(now)
            return
        if mapping.offered:
            diagnosis = reason_of_offer(diagnosis, self._policy_of(mapping))
        diagnosis = as_before(mapping, diagnosis)
        self.standing.record(now, diagnosis, index)
        delay = mapping.failed(now, diagnosis, self._entropy, self._persists())
        self._outputs.append(AttemptFailed(self.name, index, diagnosis, delay))
        self._proceed(now)
        self._settle(now, diagnosis)

    def _offered(self, now: float, indexes: tuple[int, ...]) -> None:
        """The peer wants these mappings too, and has SAs for another only: begin them, also when passive."""
        for mapping in filter(None, map(self._mapping, indexes)):
            mapping.offer()
        self._proceed(now)
        self._settle(now)

    def _renewal_failed(self, now: float, index: int | None, diagnosis: Diagnosis) -> None:
        """What works has no successor, and ends with its lifetime: a mapping's SAs, or the IKE SA (None)."""
        fault = Fault(diagnosis, now)
        self.standing.add(fault, index)
        self._flaps.renewal_failed(diagnosis)
        if index is not None and (mapping := self._mapping(index)) is not None:
            mapping.renewal_failed(fault)
        self._outputs.append(AttemptFailed(self.name, index, diagnosis, None, renewal=True))

    def _failed(self, now: float, failed: Failed) -> None:
        """An IKE SA did not come about: our attempt ended, or we refused the peer's."""
        diagnosis = failed.diagnosis
        if failed.initiator and (diagnosis.code in ENDED_HERE or not failed.unproven):
            if diagnosis.code not in ENDED_HERE:
                self._setup_failed(now, diagnosis)
            return
        if failed.unproven:
            self.standing.refuse(now, diagnosis)
        elif any(m.owner for m in self.mappings):
            self.standing.add(Fault(diagnosis, now), None)
        else:
            self.standing.record(now, diagnosis, None)
        self._outputs.append(AttemptFailed(self.name, None, diagnosis, None, unproven=failed.unproven))

    def _peer_dead(self, now: float, diagnosis: Diagnosis) -> None:
        """The peer does not answer. What becomes of each SA pair is reported one by one.

        Disconnected, the tunnel stays so until the peer, traffic that triggers it, or the operator brings it
        back (specification: DPD timeout action).
        """
        self.standing.record(now, diagnosis, None)
        if self._reconnects:
            self.attempt.reconnect()
            self._want_all()
            self.attempt.retry_now()
        else:
            self._disconnect()
        if any(m.owner for m in self.mappings):
            self._outputs.append(CloseTunnel(self.name, diagnosis))
        self._proceed(now)
        self._settle(now, diagnosis)

    # -------------------------------------------------------------------------------- time passes

    def handle_timeout(self, now: float) -> None:
        """Begins what is due, and gives up an attempt without a result."""
        if self.attempt.is_over(now):
            self._setup_failed(now, Diagnosis.of(Code.SILENT, detail="the attempt ended without a result"))
        self._proceed(now)
        self._settle(now)

    # ------------------------------------------------------------------------------------ inside

    def _mapping(self, index: int) -> Mapping | None:
        return numbered(self.mappings, index)

    def _policy_of(self, mapping: Mapping) -> ChildPolicy:
        """Every mapping has one: they change together."""
        return next(child for child in self.policy.peer.children if child.index == mapping.index)

    def _persists(self) -> bool:
        """Whether what fails is tried again although no one asks for it."""
        active = self.policy.negotiation is Negotiation.ACTIVE and not self.standing.disconnected
        return active or self.attempt.reconnecting

    @property
    def _reconnects(self) -> bool:
        """Whether a peer that was found dead is called; one of any address calls itself."""
        peer = self.policy.peer
        return peer.dpd.action is DpdAction.RETRY and not peer.any_address

    @property
    def _has_no_address(self) -> bool:
        """Whether the peer's name has no address yet."""
        return self.remote_is_name and self.policy.peer.remote_address is None

    def _may_begin(self) -> bool:
        return not self.standing.is_down and self.attempt.is_idle

    def _open(self) -> None:
        self.standing.open()
        self.standing.reconnect()

    def _want_all(self) -> None:
        if self.policy.peer.any_address and not self._ikes:
            return  # only the peer can begin
        for mapping in self.mappings:
            mapping.set_wanted(mapping.wanted or mapping.owner is None)

    def _start_over(self) -> None:
        """What failed before does not count."""
        self.standing.forget_error()
        self._steady()
        self.attempt.start_over()
        for mapping in self.mappings:
            mapping.start_over()

    def _try_others_again(self) -> None:
        """What failed of mappings that are down does not count, and they are wanted at once."""
        self.standing.forget_error()
        for mapping in self.mappings:
            if mapping.owner is None:
                mapping.start_over()

    def _stop_trying(self) -> None:
        self.attempt.connected()
        self.standing.forget_error()
        for mapping in self.mappings:
            mapping.give_up()
        self._end_attempt()

    def _disconnect(self) -> None:
        """Nothing is wanted any more, and the next attempt does not wait for a pause."""
        self.standing.disconnect()
        self.attempt.connected()
        self.attempt.start_over()
        for mapping in self.mappings:
            mapping.start_over()
            mapping.give_up()
        self._end_attempt()

    def _resolve(self) -> None:
        self.attempt.resolve()
        self._outputs.append(Resolve(self.name))

    def _proceed(self, now: float) -> None:
        """Begins the next attempt, if one is due and nothing stands in its way."""
        self._begin_next(now)
        self._arm()

    def _begin_next(self, now: float) -> None:
        if not self._may_begin() or self.attempt.pauses(now):
            return
        if self._has_no_address and not self._ikes:
            # Also for a tunnel that only answers: without its address the peer's messages are nobody's.
            self._resolve()
            return
        due = (m for m in self.mappings if m.wanted and not m.pauses(now))
        mapping = next(due, None)
        if mapping is None:
            return
        if not self._ikes and self.remote_is_name and not self.attempt.resolved:
            self._resolve()
            return
        self.attempt.begin(now, mapping.index)
        mapping.begin()
        self._outputs.append(Initiate(self.name, mapping.index))

    def _end_attempt(self) -> None:
        index = self.attempt.mapping
        mapping = self._mapping(index) if index is not None else None
        if mapping is not None:
            mapping.end()
        self.attempt.end()

    def _came_up(self, now: float, mapping: Mapping, first: bool) -> None:
        if mapping.owner is not None and self.attempt.mapping == mapping.index:
            self._end_attempt()
        mapping.end()
        found = mapping.compare(now, self._policy_of(mapping))
        for fault in found:
            self.standing.add(fault, mapping.index)
        said: list[Diagnosis | None] = [fault.diagnosis for fault in found]
        for diagnosis in said or ([None] if first else []):
            self._outputs.append(MappingChanged(self.name, mapping.index, MappingState.UP, diagnosis))
        if self._up_since is None:
            self._up_since = now
        self.attempt.retry_now()
        if self.standing.disconnected:
            self.standing.reconnect()
            if self.policy.negotiation is Negotiation.ACTIVE:
                self._want_all()
        if not any(m.reason for m in self.mappings):
            self.standing.works()
        if self.all_up:
            self.attempt.connected()
        self._proceed(now)
        self._settle(now)

    def _lost(self, now: float, mapping: Mapping, pair: SaPair, diagnosis: Diagnosis) -> None:
        """A mapping has no SAs any more: decides whether and when it is negotiated again."""
        up_since = mapping.up_since
        mapping.lost(now)
        if self.standing.closed or diagnosis.code is Code.DOWN_BY_OPERATOR:
            return
        flaps = self._flaps.lost(now, up_since, now - pair.since, pair.child.lifetimes, diagnosis)
        if flaps is not None:
            self._impair(now, Code.FLAPPING, flaps)
        self.standing.record(now, diagnosis, mapping.index)
        if self._up_since is not None and now - self._up_since >= STABLE_AFTER:
            self.attempt.backoff.reset()
        if diagnosis.code is Code.PEER_DEAD and self._reconnects:
            self.attempt.reconnect()
        mapping.try_again(now, diagnosis, self._entropy, self._persists())

    def _impair(self, now: float, code: Code, diagnosis: Diagnosis | None) -> None:
        """What is wrong with the tunnel though it is up; said if it is news."""
        if self.standing.others.put(now, code, diagnosis):
            if diagnosis is not None:
                self.standing.add(Fault(diagnosis, now), None)
            self._outputs.append(Impaired(self.name, code, diagnosis))

    def _renewed(self, now: float) -> None:
        """What is up has a successor: a tunnel that went down at this point is steady again."""
        since = min((m.up_since for m in self.mappings if m.up_since is not None), default=None)
        if self._flaps.renewed(now, since):
            self._impair(now, Code.FLAPPING, None)

    def _steady(self) -> None:
        """What was lost before does not count."""
        self._flaps.forget()
        self.standing.others.put(0.0, Code.FLAPPING, None)

    def _setup_failed(self, now: float, diagnosis: Diagnosis) -> None:
        """No IKE SA came about: every mapping that waits for it failed, and one timer brings them back."""
        failed_mapping = self.attempt.mapping
        self._end_attempt()
        self.standing.record(now, diagnosis, None)
        persists = self._persists()
        delay = self.attempt.fail(now, self._entropy)
        for mapping in self.mappings:
            if mapping.owner is None and (mapping.wanted or mapping.index == failed_mapping):
                mapping.setup_failed(Fault(diagnosis, now), persists)
        self._outputs.append(AttemptFailed(self.name, None, diagnosis, delay if persists else None))
        self._proceed(now)
        self._settle(now, diagnosis)

    def _settle(self, now: float, diagnosis: Diagnosis | None = None) -> None:
        """Says so if what an operator sees has changed."""
        state = self._state()
        if any(m.owner for m in self.mappings):
            self._impair(now, Code.MAPPINGS_DOWN, without_rule(self.mappings, self.policy.peer.children))
        else:
            self._up_since = None
            self.standing.forget_flow()
            self.standing.others.down()
        self._arm()
        if state is self.state:
            return
        before, self.state = self.state, state
        self._outputs.append(StateChanged(self.name, before, state, diagnosis))

    def _state(self) -> TunnelState:
        """What an operator sees of the whole tunnel: up with its first mapping."""
        if self.standing.is_down:
            return TunnelState.DOWN
        if any(m.owner for m in self.mappings):
            return TunnelState.UNHEALTHY if self.standing.unhealthy else TunnelState.UP
        if self.attempt.mapping is not None or any(m.wanted for m in self.mappings):
            return TunnelState.CONNECTING
        return TunnelState.WAITING

    def _arm(self) -> None:
        """Moves the tunnel's deadline to where it is now."""
        self._deadlines.arm(self.name, self.next_timeout())


def impaired(tunnel: Tunnel) -> Fault | None:
    """What is wrong with a tunnel that is up; one that is down has a failure."""
    return tunnel.standing.impaired if any(mapping.owner for mapping in tunnel.mappings) else None
