"""The life of one tunnel: who begins, what follows a failure, and what an operator sees of it.

    configured --> WAITING (passive, or traffic-triggered until a packet comes)
               --> CONNECTING (active, or somebody asked) --> UP <--> UNHEALTHY
    any state  --> DOWN by the operator, until `up`
    UP         --> WAITING, disconnected by dead peer detection, until the peer, traffic or `up`

An attempt is one `Initiate`; it ends with the mapping's SAs, with a failure of that mapping, or with a
failure of the IKE SA, which fails every mapping that waits for it. Mappings are negotiated in their order,
one at a time. What is wanted is tried again for ever (`backoff.py`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from vpnd.crypto.entropy import Entropy
from vpnd.ike.deadlines import Deadlines
from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import DpdAction, Negotiation, TunnelPolicy
from vpnd.tunnel.backoff import ATTEMPT_LIMIT, PEER_FIRST, Backoff
from vpnd.tunnel.commands import (
    AttemptFailed,
    CloseTunnel,
    Command,
    Initiate,
    MappingChanged,
    MappingState,
    Resolve,
    StateChanged,
    TunnelState,
)
from vpnd.tunnel.mappings import KEPT_FAULTS, STABLE_AFTER, Fault, Mapping, told_of_offer
from vpnd.tunnel.states import mapping_state, tunnel_state


@dataclass(slots=True, eq=False)
class Tunnel:
    """One configured tunnel. Times are seconds on one monotonic clock; effects go to the shared outputs."""

    policy: TunnelPolicy
    _entropy: Entropy
    _outputs: deque[Command]
    _deadlines: Deadlines[str]
    mappings: tuple[Mapping, ...] = field(init=False)
    remote_is_name: bool = field(init=False)
    """Whether the peer is configured by its domain name, so that an attempt begins with a look-up."""
    state: TunnelState = TunnelState.WAITING
    closed: bool = False
    """Down by the operator."""
    disconnected: bool = False
    """The peer was found dead, and nothing here begins again by itself (DPD action `disconnect`)."""
    blocked: Diagnosis | None = None
    """What on this machine keeps the tunnel from working."""
    attempt: int | None = None
    """The mapping under negotiation."""
    error: Fault | None = None
    """The failure that stands; None when everything wanted is up."""
    faults: deque[tuple[Fault, int | None]] = field(default_factory=lambda: deque(maxlen=KEPT_FAULTS))
    """The last failures, newest last, each with its mapping if it concerned one."""
    refused: dict[Code, Fault] = field(default_factory=dict)
    """The last refusal under each code of those who had not proved to be the peer, newest last."""
    sick: bool = False
    """The health check failed."""
    peer_begins_again: bool = False
    """Whether the peer makes another one of each SA that is closed here."""
    last_heard: float = 0.0
    """When the last authenticated packet came, in seconds on the caller's clock."""
    tries: int = 0
    """Attempts that failed since `since`."""
    since: float | None = None
    _backoff: Backoff = field(default_factory=Backoff)
    _before_block: Fault | None = None
    _retry_at: float | None = None
    _attempt_ends: float | None = None
    _ikes: set[tuple[bytes, bytes]] = field(default_factory=set)
    _reconnecting: bool = False
    _resolved: bool = False
    _resolving: bool = False
    _up_since: float | None = None

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
    def standing(self) -> Fault | None:
        """Why the tunnel is not up, as far as is known: what is certain before what anyone can have said."""
        if self.error is not None or self.all_up or not self.refused:
            return self.error
        return next(reversed(self.refused.values()))

    @property
    def next_try(self) -> float | None:
        """When the next attempt begins, or None if none is due."""
        if self.closed or self.attempt is not None:
            return None
        due = [m.retry_at or 0.0 for m in self.mappings if m.wanted or self._has_no_address]
        return max(min(due), self._retry_at or 0.0) if due else None

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do."""
        if self._attempt_ends is not None:
            return self._attempt_ends
        return self.next_try if self._may_begin() else None

    # --------------------------------------------------------------------- what the operator wants

    def bind(self, policy: TunnelPolicy) -> None:
        """`policy` holds the addresses of this machine and of the peer, as far as they are known."""
        self.policy = policy

    def prepared(self, now: float, refused: Diagnosis | None) -> None:
        """What `add` listed as blocked has its interface and sockets, or this machine refused them."""
        self.blocked = None
        if refused is not None:
            self.block(now, refused)

    def reopen(self) -> None:
        """`down` holds no longer; what follows is up to `start`."""
        self.closed = False

    def start(self, now: float) -> None:
        """The configuration is loaded: an active tunnel begins, the others get ready."""
        if self.policy.negotiation is Negotiation.ACTIVE and not self.disconnected:
            self._want_all()
        self._proceed(now)
        self._settle()

    def reconfigure(self, now: float, policy: TunnelPolicy) -> None:
        """Another policy that leaves the SAs as they are: routes, priority, negotiation type."""
        if policy.negotiation is Negotiation.PASSIVE is not self.policy.negotiation:
            self._stop_trying()
        if policy.peer.dpd.action is DpdAction.RETRY:
            self.disconnected = False
        self.bind(policy)
        self.start(now)

    def up(self, now: float) -> None:
        """Negotiate now what is not up, whatever the negotiation type."""
        self.closed = self.disconnected = False
        self._fresh_start()
        self._want_all()
        self._proceed(now)
        self._settle()

    def down(self, now: float) -> None:
        """Close with DELETE, and stay down."""
        self.closed, self.disconnected = True, False
        self._stop_trying()
        self._outputs.append(CloseTunnel(self.name, Diagnosis.of(Code.DOWN_BY_OPERATOR)))
        self._settle()

    def reset(self, now: float) -> None:
        """Close with DELETE and negotiate everything anew."""
        self._stop_trying()
        self._outputs.append(CloseTunnel(self.name, Diagnosis.of(Code.DOWN_BY_OPERATOR)))
        self.closed = self.disconnected = False
        self._fresh_start()
        for mapping in self.mappings:
            mapping.wanted = not self.policy.peer.any_address
        self._retry_at = now + (PEER_FIRST if self.peer_begins_again else 0.0)
        self._settle()

    def block(self, now: float, diagnosis: Diagnosis) -> None:
        """This machine cannot carry the tunnel now: its interface or its routes cannot be made."""
        if self.blocked is None:
            self._before_block = self.error
        self.blocked = diagnosis
        self._record(now, diagnosis, None)
        self._end_attempt()
        self._settle(diagnosis)

    def unblock(self, now: float) -> None:
        """This machine can carry the tunnel again: the failure that stood before stands again."""
        if self.blocked is None:
            return
        self.blocked = None
        before, self._before_block = self._before_block, None
        if self.error is not None and (before is not None or not any(m.reason for m in self.mappings)):
            self.error = before
        self._proceed(now)
        self._settle()

    # ---------------------------------------------------------------- what the datapath reports

    def acquire(self, now: float, index: int) -> None:
        """A packet of this mapping waits for an SA."""
        if self.policy.negotiation is Negotiation.PASSIVE or self.closed or index >= len(self.mappings):
            return
        if self.disconnected and self.policy.negotiation is not Negotiation.TRAFFIC_TRIGGERED:
            return
        mapping = self.mappings[index]
        if mapping.owner is not None or mapping.wanted or mapping.connecting or mapping.pauses(now):
            return
        mapping.wanted = True
        self._proceed(now)
        self._settle()

    def note_activity(self, at: float) -> None:
        """The last authenticated packet came at `at`, in seconds on the caller's clock."""
        self.last_heard = at

    def note(self, now: float, diagnosis: Diagnosis) -> None:
        """Something is known of an attempt that goes on; it is no failure yet, but what there is to say."""
        if self.error is None:
            self.error = Fault(diagnosis, now)
            self.faults.append((self.error, None))

    def set_health(self, healthy: bool) -> None:
        """The health check's verdict on a tunnel that has its SAs."""
        self.sick = not healthy
        self._settle()

    def resolved(self, now: float, policy: TunnelPolicy, moved: bool = False) -> None:
        """`policy` holds the address of the peer's name. `moved`: what is under way begins anew with it."""
        self.bind(policy)
        self._resolving, self._resolved = False, True
        if moved and not self.disconnected:
            self._end_attempt()
            self._fresh_start()
        self._proceed(now)
        self._settle()

    def resolve_failed(self, now: float, diagnosis: Diagnosis) -> None:
        """The peer's name has no address at present."""
        self._resolving = False
        self._setup_failed(now, diagnosis)

    # -------------------------------------------------------------------------- what IKE reports

    def established(self, now: float, spi_i: bytes, spi_r: bytes) -> None:
        """An IKE SA is up."""
        self._ikes.add((spi_i, spi_r))
        self._proceed(now)

    def ike_replaced(self, old: tuple[bytes, bytes], new: tuple[bytes, bytes]) -> None:
        """An IKE SA, named by its SPIs, has a successor, which has its children."""
        self._ikes.discard(old)
        self._ikes.add(new)

    def ike_down(self, now: float, spi_i: bytes, spi_r: bytes, diagnosis: Diagnosis) -> None:
        """An IKE SA is gone; each of its SA pairs was reported before."""
        self._ikes.discard((spi_i, spi_r))
        if self._ikes:
            return
        self._resolved = False
        for mapping in self.mappings:
            if mapping.offered and not mapping.connecting:
                # What the peer wanted under the IKE SA that is gone it will offer again.
                mapping.offered, mapping.wanted = False, self._persists()
        if self.attempt is not None and diagnosis.code is not Code.DOWN_BY_OPERATOR:
            self.child_failed(now, self.attempt, diagnosis)
        self._settle(diagnosis)

    def child_up(self, now: float, child: ChildSa) -> None:
        """A new SA pair is installed."""
        mapping = self._mapping(child.mapping)
        if mapping is not None:
            self._came_up(now, mapping, mapping.installed(now, child))

    def child_replaced(self, now: float, old_spi_in: int, child: ChildSa) -> None:
        """A rekey's successor is installed."""
        mapping = self._mapping(child.mapping)
        if mapping is not None:
            self._came_up(now, mapping, mapping.replaced(now, old_spi_in, child))

    def outbound_ready(self, spi_in: int) -> None:
        """IKE has decided which SA pair sends: that one owns its mapping."""
        for mapping in self.mappings:
            mapping.use(spi_in)

    def path_moved(self, path: Path) -> tuple[int, ...]:
        """The peer is at another address or port: the inbound SPIs of the SA pairs that move with it."""
        pairs = [pair for mapping in self.mappings for pair in mapping.pairs()]
        for pair in pairs:
            pair.path = path
        return tuple(pair.spi_in for pair in pairs)

    def child_down(self, now: float, index: int, spi_in: int, diagnosis: Diagnosis) -> None:
        """An SA pair is gone."""
        mapping = self._mapping(index)
        if mapping is None:
            return
        before = mapping.owner
        mapping.removed(spi_in)
        if before is None or mapping.owner is not None:
            return
        self._lost(now, mapping, diagnosis)
        self._outputs.append(MappingChanged(self.name, index, mapping_state(self, mapping), diagnosis))
        self._settle(diagnosis)

    def child_failed(self, now: float, index: int, diagnosis: Diagnosis) -> None:
        """The negotiation of one mapping failed; the IKE SA lives."""
        mapping, begun = self._mapping(index), self.attempt == index
        if begun:
            self._end_attempt()
        if mapping is None or mapping.owner is not None:
            if mapping is not None and not begun:
                self.renewal_failed(now, index, diagnosis)
            self._proceed(now)
            return
        if mapping.offered:
            diagnosis = told_of_offer(diagnosis, self.policy.peer.children[index])
        self._record(now, diagnosis, index)
        delay = mapping.failed(now, diagnosis, self._entropy, self._persists())
        self._outputs.append(AttemptFailed(self.name, index, diagnosis, delay))
        self._proceed(now)
        self._settle(diagnosis)

    def offered(self, now: float, indexes: tuple[int, ...]) -> None:
        """The peer wants these mappings too, and has SAs for another only: begin them, also when passive."""
        for mapping in filter(None, map(self._mapping, indexes)):
            if mapping.owner is None:
                mapping.wanted = mapping.offered = True
        self._proceed(now)
        self._settle()

    def peer_renews(self) -> None:
        """The peer makes another one of each SA that is closed here."""
        self.peer_begins_again = True

    def renewal_failed(self, now: float, index: int | None, diagnosis: Diagnosis) -> None:
        """What works has no successor, and ends with its lifetime: a mapping's SAs, or the IKE SA (None)."""
        fault = Fault(diagnosis, now)
        self.faults.append((fault, index))
        if index is not None:
            self.mappings[index].unrenewed = fault
        self._outputs.append(AttemptFailed(self.name, index, diagnosis, None, renewal=True))

    def failed(self, now: float, diagnosis: Diagnosis, initiator: bool) -> None:
        """An IKE SA did not come about: our attempt ended, or we refused the peer's."""
        if initiator:
            self._setup_failed(now, diagnosis)
            return
        if any(m.owner for m in self.mappings):
            self.faults.append((Fault(diagnosis, now), None))
        else:
            self._record(now, diagnosis, None)
        self._outputs.append(AttemptFailed(self.name, None, diagnosis, None))

    def refused_unproven(self, now: float, diagnosis: Diagnosis) -> None:
        """The attempt of a peer that is not authenticated was refused.

        Anyone can have this said as often as he likes, so one of each code is kept, beside what is certain.
        """
        self.refused.pop(diagnosis.code, None)
        self.refused[diagnosis.code] = Fault(diagnosis, now)
        self._outputs.append(AttemptFailed(self.name, None, diagnosis, None, unproven=True))

    def peer_dead(self, now: float, diagnosis: Diagnosis) -> None:
        """The peer does not answer. What becomes of each SA pair is reported one by one.

        Disconnected, the tunnel stays so until the peer, traffic that triggers it, or the operator brings it
        back (specification: DPD timeout action).
        """
        self._record(now, diagnosis, None)
        if self._reconnects:
            self._reconnecting = True
            self._want_all()
            self._retry_at = None
        else:
            self._disconnect()
        if any(m.owner for m in self.mappings):
            self._outputs.append(CloseTunnel(self.name, diagnosis))
        self._proceed(now)
        self._settle(diagnosis)

    # -------------------------------------------------------------------------------- time passes

    def handle_timeout(self, now: float) -> None:
        """Begins what is due, and gives up an attempt without a result."""
        if self.attempt is not None and self._attempt_ends is not None and self._attempt_ends <= now:
            self._setup_failed(now, Diagnosis.of(Code.SILENT, detail="the attempt ended without a result"))
        self._proceed(now)
        self._settle()

    # ------------------------------------------------------------------------------------ inside

    def _mapping(self, index: int) -> Mapping | None:
        return self.mappings[index] if 0 <= index < len(self.mappings) else None

    def _persists(self) -> bool:
        """Whether what fails is tried again without anybody asking."""
        active = self.policy.negotiation is Negotiation.ACTIVE and not self.disconnected
        return active or self._reconnecting

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
        return not self.closed and self.blocked is None and self.attempt is None and not self._resolving

    def _want_all(self) -> None:
        if self.policy.peer.any_address and not self._ikes:
            return  # only the peer can begin
        for mapping in self.mappings:
            mapping.wanted |= mapping.owner is None

    def _fresh_start(self) -> None:
        self.error = self._retry_at = None
        self._backoff.reset()
        for mapping in self.mappings:
            mapping.begin_anew()

    def _stop_trying(self) -> None:
        self._reconnecting, self.error = False, None
        for mapping in self.mappings:
            mapping.wanted = mapping.connecting = False
        self._end_attempt()

    def _disconnect(self) -> None:
        """Nothing is wanted any more, and the next attempt does not wait for a pause."""
        self.disconnected, self._reconnecting, self._retry_at = True, False, None
        self._backoff.reset()
        for mapping in self.mappings:
            mapping.begin_anew()
            mapping.wanted = mapping.connecting = False
        self._end_attempt()

    def _resolve(self) -> None:
        self._resolving = True
        self._outputs.append(Resolve(self.name))

    def _proceed(self, now: float) -> None:
        """Begins the next attempt, if one is due and nothing stands in its way."""
        self._begin_next(now)
        self._arm()

    def _begin_next(self, now: float) -> None:
        if not self._may_begin() or (self._retry_at is not None and self._retry_at > now):
            return
        if self._has_no_address and not self._ikes:
            # Also for a tunnel that only answers: without its address the peer's messages are nobody's.
            self._resolve()
            return
        due = (m for m in self.mappings if m.wanted and (m.retry_at is None or m.retry_at <= now))
        mapping = next(due, None)
        if mapping is None:
            return
        if not self._ikes and self.remote_is_name and not self._resolved:
            self._resolve()
            return
        self.attempt = mapping.index
        self._attempt_ends = now + ATTEMPT_LIMIT
        mapping.connecting = True
        mapping.retry_at = None
        self._outputs.append(Initiate(self.name, mapping.index))

    def _end_attempt(self) -> None:
        if self.attempt is not None:
            self.mappings[self.attempt].connecting = False
        self.attempt = self._attempt_ends = None

    def _came_up(self, now: float, mapping: Mapping, first: bool) -> None:
        if mapping.owner is not None and self.attempt == mapping.index:
            self._end_attempt()
        mapping.connecting = False
        found = mapping.compare(now, self.policy.peer.children[mapping.index])
        self.faults.extend((fault, mapping.index) for fault in found)
        said: list[Diagnosis | None] = [fault.diagnosis for fault in found]
        for diagnosis in said or ([None] if first else []):
            self._outputs.append(MappingChanged(self.name, mapping.index, MappingState.UP, diagnosis))
        if self._up_since is None:
            self._up_since = now
        self._retry_at = None
        if self.disconnected:
            self.disconnected = False
            if self.policy.negotiation is Negotiation.ACTIVE:
                self._want_all()
        if not any(m.reason for m in self.mappings):
            self.error = None
            self.tries, self.since = 0, None
        if self.all_up:
            self._reconnecting = False
        self._proceed(now)
        self._settle()

    def _lost(self, now: float, mapping: Mapping, diagnosis: Diagnosis) -> None:
        """A mapping has no SAs any more: decides whether and when it is negotiated again."""
        mapping.lost(now)
        if self.closed or diagnosis.code is Code.DOWN_BY_OPERATOR:
            return
        self._record(now, diagnosis, mapping.index)
        if self._up_since is not None and now - self._up_since >= STABLE_AFTER:
            self._backoff.reset()
        dead = diagnosis.code is Code.PEER_DEAD
        if dead and self._reconnects:
            self._reconnecting = True
        if not self._persists():
            mapping.wanted = False
            return
        mapping.wanted = True
        mapping.reason = Fault(diagnosis, now)
        mapping.retry_at = now + mapping.backoff.next_delay(self._entropy)

    def _setup_failed(self, now: float, diagnosis: Diagnosis) -> None:
        """No IKE SA came about: every mapping that waits for it failed, and one timer brings them back."""
        failed_mapping = self.attempt
        self._end_attempt()
        self._resolved = False
        self._record(now, diagnosis, None)
        persists = self._persists()
        delay = self._backoff.next_delay(self._entropy)
        self._retry_at = now + delay
        for mapping in self.mappings:
            if mapping.owner is None and (mapping.wanted or mapping.index == failed_mapping):
                mapping.reason = Fault(diagnosis, now)
                mapping.wanted = persists
                mapping.retry_at = None
        self._outputs.append(AttemptFailed(self.name, None, diagnosis, delay if persists else None))
        self._proceed(now)
        self._settle(diagnosis)

    def _record(self, now: float, diagnosis: Diagnosis, index: int | None) -> None:
        self.error = Fault(diagnosis, now)
        self.faults.append((self.error, index))
        self.tries += 1
        if self.since is None:
            self.since = now

    def _settle(self, diagnosis: Diagnosis | None = None) -> None:
        """Says so if what an operator sees has changed."""
        state = tunnel_state(self)
        if not any(m.owner for m in self.mappings):
            self._up_since = None
        self._arm()
        if state is self.state:
            return
        before, self.state = self.state, state
        self._outputs.append(StateChanged(self.name, before, state, diagnosis))

    def _arm(self) -> None:
        """Moves the tunnel's deadline to where it is now."""
        self._deadlines.arm(self.name, self.next_timeout())
