"""One ISAKMP SA: its phase 1, its quick modes, its end (RFC 2408, RFC 2409).

             initiator                                   responder
    SENT_SA ----Main2----> SENT_KE           ANSWERED_SA ----Main3----> ANSWERED_KE
    SENT_KE ----Main4----> SENT_AUTH         ANSWERED_KE ----Main5----> ESTABLISHED
    SENT_AUTH --Main6----> ESTABLISHED
    SENT_AGGRESSIVE --Aggressive2--> ESTABLISHED     ANSWERED_AGGRESSIVE --Aggressive3--> ESTABLISHED

A message that has no row in the table (`reception`) is counted and dropped; one that repeats the last is
answered with the last answer. The IPsec SAs, and all that is wanted, belong to the peer (`peer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vpnd.ike import natt
from vpnd.ike.contest import ANSWER_WITHIN, Contest
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.natt import NO_NAT, Nat
from vpnd.ike.outputs import ChildSaInfo, IkeDown, IkeSaInfo, Output, PathMoved, Story
from vpnd.ike.registry import NO_SPI, Registry
from vpnd.ike.session import Phase, SaSnapshot, Unreachable
from vpnd.ike.timers import Timers
from vpnd.ike.v1 import aggressive_mode, clock, informational, main_mode, proposals, succession
from vpnd.ike.v1.attempt import Attempt
from vpnd.ike.v1.carrier import Carrier
from vpnd.ike.v1.children import REKEY_AGAIN, Children, Limit, soft_deadline
from vpnd.ike.v1.keys import Phase1Keys
from vpnd.ike.v1.liveness import Liveness
from vpnd.ike.v1.peer import Ikev1Peer
from vpnd.ike.v1.phase1 import Negotiation
from vpnd.ike.v1.protect import IvChain
from vpnd.ike.v1.quick_mode import QuickMode
from vpnd.ike.v1.quicks import Quicks
from vpnd.ike.v1.received import Received, State, Timer
from vpnd.ike.v1.reception import Reception
from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import NegotiationMode, PeerPolicy
from vpnd.model.proposals import Suite
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange1, IkeVersion
from vpnd.wire.ikev1 import Notify, Payload

SIGNED = (State.ESTABLISHED, State.REPLACED, State.DELETED)
"""States in which both sides are authenticated."""

CROSSING = 60.0
"""Seconds in which two quick modes for one mapping can have been under way at once."""


class Session:
    """One ISAKMP SA, either role, with what `vpnd.ike.session.Session` asks for."""

    def __init__(
        self,
        now: float,
        registry: Registry,
        policy: PeerPolicy,
        path: Path,
        initiator: bool,
        peer_cookie: bytes = NO_SPI,
    ) -> None:
        self.registry = registry
        self.policy = policy
        self.tunnel = policy.name
        self.mode = policy.mode or NegotiationMode.MAIN
        self.path = path
        self.former: Path | None = None
        """Where the peer was before it moved, until it has answered from where it is."""
        self.configured_remote = policy.remote_address
        self.initiator = initiator
        self.local_spi = registry.new_ike_spi()
        self.cky_i, self.cky_r = (self.local_spi, peer_cookie) if initiator else (peer_cookie, self.local_spi)
        self.carrier = Carrier(registry, policy, self.cky_i, self.cky_r, proven=initiator)
        self.negotiation = Negotiation()
        self.nat = NO_NAT
        self.timers: Timers[Timer] = Timers()
        self.state = State.NEW
        self.attempt = Attempt(self, now)
        self.quicks = Quicks(self)
        self.liveness = Liveness(self)
        self.peer: Ikev1Peer[Session] = Ikev1Peer()
        """That of the tunnel, once authenticated."""
        self.renews = False
        """Whether it was begun to succeed an ISAKMP SA that works."""
        self.proof_iv: bytes | None = None
        """As responder: the IV before the peer's proof, until the peer shows that it has our answer."""
        self.accepted = False
        """Whether the peer has gone on after it was shown who we are."""
        self.established_at = 0.0
        self.last_message = 0.0
        """When the peer's last verified message came; ESP does not count."""
        self.contest = Contest(registry)
        self._held: tuple[bytes, Callable[[float], None]] | None = None
        """The peer's proof, and what is done about it when it is known whether the tunnel is its own."""
        self._reception = Reception(self)
        self._keys: Phase1Keys | None = None
        self._chain: IvChain | None = None

    # --- what it is

    @property
    def version(self) -> IkeVersion:
        """IKEv1."""
        return IkeVersion.V1

    @property
    def phase(self) -> Phase:
        """How far it is."""
        return self.state.phase

    @property
    def suite(self) -> Suite:
        """The chosen algorithms. Raises Drop before they are."""
        if self.negotiation.suite is None:
            raise Drop("no suite yet")
        return self.negotiation.suite

    @property
    def keys(self) -> Phase1Keys:
        """All keys. Raises Drop before they are agreed."""
        if self._keys is None:
            raise Drop("no keys yet")
        return self._keys

    @property
    def has_keys(self) -> bool:
        """Whether both public values are known."""
        return self._keys is not None

    @property
    def chain(self) -> IvChain:
        """The IV chain of phase 1. Raises Drop before there are keys."""
        if self._chain is None:
            raise Drop("no keys yet")
        return self._chain

    @property
    def may_begin(self) -> bool:
        """Whether quick modes can begin."""
        return self.state is State.ESTABLISHED

    @property
    def is_current(self) -> bool:
        """Whether it speaks for the tunnel: a predecessor, and an attempt at another one, do not."""
        return self.peer.current is self

    @property
    def current_sa(self) -> Session:
        """The ISAKMP SA that speaks for the tunnel; an attempt at the first one knows only itself."""
        return self.peer.current or self

    @property
    def children(self) -> Children:
        """The IPsec SAs of the tunnel."""
        return self.peer.children

    def siblings(self) -> list[Session]:
        """The other ISAKMP SAs of the tunnel, and the attempts at one, oldest first."""
        return [s for s in self.registry.sessions(self.tunnel) if isinstance(s, Session) and s is not self]

    @property
    def is_undecided(self) -> bool:
        """Never: from its first message on it has one tunnel's key, which a change may have taken away."""
        return False

    # --- what the handlers of phase 1 tell it

    def suite_is(self, suite: Suite, lifetime: int) -> None:
        """A transform has been chosen."""
        self.negotiation.suite = suite
        self.negotiation.lifetime = lifetime

    def keys_are(self, keys: Phase1Keys, chain: IvChain) -> None:
        """Both sides can compute the keys."""
        self._keys, self._chain = keys, chain
        self.carrier.fragments = self.negotiation.peer.fragments

    def policy_is(self, policy: PeerPolicy) -> None:
        """The peer's identity says which tunnel it is."""
        self.policy = policy
        self.tunnel = self.carrier.tunnel = policy.name

    def cookie_is(self, cky_r: bytes) -> None:
        """The responder has chosen its cookie; NO_SPI takes that back."""
        self.cky_r = self.carrier.cky_r = cky_r

    def proven(self) -> None:
        """The peer has proved that it has the key, and that the address is its own."""
        self.carrier.proven = True
        self.registry.half_open_ends(self)

    def float_if_nat(self) -> None:
        """From the next message on use port 4500 (RFC 3947 section 4)."""
        if self.nat.found:
            self.path = natt.floated(self.path)

    def proved_from(self, path: Path, nat: Nat) -> None:
        """The peer's proof came along `path`; `nat` is what was known before it."""
        path = natt.proved_from(nat, self.path, path)
        if path != self.path:
            self.path = path
            if self.state is State.ESTABLISHED:
                self.registry.emit(PathMoved(self.tunnel, path))

    def moved(self, now: float, path: Path) -> None:
        """An authenticated, new message or ESP came along `path`: the peer may be there now.

        An attacker may have sent a copy of a packet before the peer's own came, so a question finds out: it
        is repeated along both paths until it is answered, and the answer says which of them is the peer's.
        """
        if self.state not in SIGNED or not natt.follows(self.nat, self.path, path):
            return
        self.former, self.path = self.path, path
        if self.is_current:
            # What another has succeeded has no children, and does not speak for the other's.
            self.registry.emit(PathMoved(self.tunnel, path))
            self.probe(now)

    def send_phase1(
        self, now: float, exchange: Exchange1, payloads: Sequence[Payload], chain: IvChain | None = None
    ) -> None:
        """Send a phase-1 message; an initiator repeats it until it is answered."""
        self.attempt.send(now, exchange, payloads, chain)

    def established(self, now: float, initial_contact: bool) -> None:
        """Both sides are authenticated; older ISAKMP SAs of the tunnel hand their children over."""
        unconfirmed = self.initiator and self.mode is NegotiationMode.AGGRESSIVE
        self.attempt.succeeded(now, unconfirmed)
        self.established_at = now
        self.negotiation.shared = None
        self.timers.clear()
        lifetime = self.negotiation.lifetime
        self.timers.arm(Timer.EXPIRE, now + lifetime)
        entropy, margin = self.registry.entropy, self.policy.margin
        self.timers.arm(Timer.RENEW, soft_deadline(now, lifetime, margin, entropy, self.initiator))
        if self.nat.ours:
            self.timers.arm(Timer.KEEPALIVE, now + natt.KEEPALIVE_INTERVAL)
        succession.establish(self, now, initial_contact)
        self.quicks.next(now)
        if unconfirmed and self.state is State.ESTABLISHED and self.quicks.own() is None:
            # Nothing else would show whether the peer has our proof.
            self.liveness.ask(now)

    def limit_lifetime(self, now: float, seconds: int) -> None:
        """The responder will keep the ISAKMP SA no longer than `seconds`."""
        if seconds >= self.negotiation.lifetime:
            return
        self.negotiation.lifetime = seconds
        self.timers.arm(Timer.EXPIRE, max(now, self.established_at + seconds))
        if self.state is State.ESTABLISHED:
            entropy, margin = self.registry.entropy, self.policy.margin
            soft = soft_deadline(self.established_at, seconds, margin, entropy, self.initiator)
            self.timers.arm(Timer.RENEW, max(now, soft))

    def limit_child(self, now: float, spi: int, notify: Notify) -> None:
        """The responder will keep the pair with this SPI, which we have begun, no longer than it says."""
        for spi_in in self.children.named({spi}):
            child = self.children.by_spi[spi_in]
            seconds = proposals.limited(child.sa.lifetimes, [notify]).seconds
            if child.sa.initiator and not child.deleted and seconds < child.sa.lifetimes.seconds:
                margin, entropy = child.sa.lifetimes.margin, self.registry.entropy
                self.children.limit(
                    now, child, seconds, soft_deadline(child.made, seconds, margin, entropy, True)
                )
                self.registry.arm(self)

    def begin_again_from(self, chain: IvChain, nat: Nat) -> None:
        """The peer's proof came once more and differed: what lies behind it is as the peer has it."""
        self._chain = chain
        self.nat = nat

    def to(self, state: State, story: str) -> None:
        """The single setter of the state."""
        if state is not self.state:
            self.state = state
            self.registry.emit(Story(self.tunnel, f"IKEv1 {self.mode.value} mode: {story}"))
            self.registry.phase_changed(self)

    # --- quick modes and their children

    def new_message_id(self) -> int:
        """Random, not zero, never used under this ISAKMP SA (RFC 2408 section 3.1)."""
        while True:
            message_id = int.from_bytes(self.registry.entropy.bytes(4), "big")
            if message_id and not self.quicks.is_used(message_id):
                return message_id

    def phase2_chain(self, message_id: int) -> IvChain:
        """The IV chain of a new exchange, which begins from the last block of phase 1."""
        return IvChain(self.keys, self.keys.phase2_iv(self.chain.iv, message_id))

    def send_quick(self, quick: QuickMode, payloads: Sequence[Payload]) -> None:
        """Send a message of `quick`."""
        quick.schedule = None
        quick.last_sent = self.carrier.send(
            self.path, Exchange1.QUICK_MODE, payloads, quick.message_id, quick.chain
        )

    def install(self, now: float, child: ChildSa, pending: bool) -> None:
        """A new SA pair. `pending`: the peer, which began, has not confirmed it yet."""
        seconds, margin = child.lifetimes.seconds, child.lifetimes.margin
        soft = soft_deadline(now, seconds, margin, self.registry.entropy, child.initiator)
        self._emit(self.children.install(now, child, pending, soft))
        for spi_in in self.children.surplus(child.mapping):
            diagnosis = Diagnosis.of(Code.LIFETIME, detail="one of too many IPsec SAs")
            self.current_sa.close_child(now, spi_in, diagnosis)
        self.registry.arm(self.current_sa)

    def keep_only(self, now: float, child: ChildSa, replaces: int | None) -> None:
        """DELETE what both sides' quick modes have made beside `child` and the pair that it replaces."""
        for spi_in, other in self.children.by_spi.items():
            young = other.made >= now - CROSSING
            same = other.sa.mapping == child.mapping and spi_in not in (child.spi_in, replaces)
            if young and same:
                self.peer.retire(now, spi_in)
        self.registry.arm(self.current_sa)

    def outbound_ready(self, spi_in: int) -> None:
        """The peer has confirmed the pair with this inbound SPI."""
        self._emit(self.children.confirm(spi_in))

    def peer_sends(self, now: float, spi_in: int) -> None:
        """A packet came on the pair with this inbound SPI: the peer has it, also if its word was lost."""
        child = self.children.by_spi.get(spi_in)
        if child is None or not self.is_current:
            return
        if child.pending:
            self.outbound_ready(spi_in)
            for session in (self, *self.siblings()):
                session.quicks.confirmed(now, spi_in)
        else:
            self.send_on(spi_in)

    def send_on(self, spi_in: int) -> None:
        """The pair with this inbound SPI, which we have made, can be sent on."""
        self._emit(self.children.send_on(spi_in))

    def remove_child(self, spi_in: int, diagnosis: Diagnosis) -> None:
        """The pair is gone on both sides, or never came to be."""
        self._emit(self.children.remove(spi_in, diagnosis))
        self.registry.release_esp_spi(spi_in)

    def peer_deleted_children(self, now: float, spis: set[int]) -> None:
        """An authenticated DELETE for IPsec SAs of this tunnel, by either of their SPIs."""
        diagnosis = Diagnosis.of(Code.PEER_DELETED, peer=self.path.remote, detail="IPsec SA")
        for spi_in in self.children.named(spis):
            self.child_deleted(now, spi_in, diagnosis)
        self.registry.arm(self.current_sa)

    def child_deleted(self, now: float, spi_in: int, diagnosis: Diagnosis) -> None:
        """One side has deleted a pair: it receives what is on its way if another one has its mapping."""
        self._emit(self.children.deleted(now, spi_in, diagnosis))
        if spi_in not in self.children.by_spi:
            self.registry.release_esp_spi(spi_in)

    # --- messages

    def refuses_another(self, data: bytes) -> bool:
        """Whether it has refused a first message that was not `data`."""
        return self.state is State.REFUSED and not self._reception.is_repeat(data)

    def handle_message(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """One message whose cookie is ours. Raises DecodeError."""
        self.carrier.received += len(data)
        self.attempt.received += 1
        try:
            if self._held is not None:
                raise Drop("held until the present peer has answered")
            self._reception.take(now, path, header, data)
        except Drop as drop:
            self.registry.count(drop.reason)
        except Fault as fault:
            self._reception.refuse(now, data, fault)

    def cannot_read(self, diagnosis: Diagnosis) -> bool:
        """A message to this cookie could not be read: the reason of an attempt that ends without another."""
        if self.phase is Phase.CONNECTING and self.initiator and self.attempt.hint is None:
            self.attempt.hint = diagnosis
        return not self.initiator and not self.has_keys

    def handle_unreachable(self, now: float, path: Path, reason: Unreachable) -> None:
        """Words for the diagnosis if nothing answers, and nothing else (RFC 7296 section 2.4 says why)."""
        code = Code.PORT_CLOSED if reason is Unreachable.PORT else Code.UNREACHABLE
        self.attempt.unreachable = Diagnosis.of(code, peer=path.remote, detail=reason.value)

    def verified(self, now: float, alive: bool = True) -> None:
        """A message under this ISAKMP SA has been verified. `alive`: it says that the peer lives now."""
        self.proof_iv = None
        self.accepted = True
        self.last_message = now
        self.attempt.confirmed(now)
        if alive:
            self.current_sa.heard(now)
        if not self.is_current:
            self.registry.arm(self.current_sa)

    # --- a newcomer to a tunnel that another may have

    def hold(self, now: float, received: Received, decide: Callable[[float], None]) -> None:
        """The peer has proved itself, and is answered when the one that has the tunnel was asked."""
        self._held = received.data, decide
        self.timers.arm(Timer.HELD, now + ANSWER_WITHIN)
        self.registry.emit(
            Story(self.tunnel, "hold the peer's attempt: ask the present peer for a sign of life")
        )

    def decide_held(self, now: float) -> None:
        """The present peer has had its time: the newcomer is answered, refused, or held once more."""
        held, self._held = self._held, None
        if held is None:
            return
        data, decide = held
        try:
            decide(now)
        except Fault as fault:
            self._reception.refuse(now, data, fault)

    # --- liveness

    def answered_since(self, since: float) -> bool:
        """Whether the peer has said anything under this ISAKMP SA since.

        A peer that does not speak of its life (RFC 3706) cannot be asked, so that its ESP counts.
        """
        return (self.last_message if self.liveness.spoken else self.liveness.last_heard) > since

    def heard(self, now: float) -> None:
        """Authenticated traffic came from the peer."""
        if self.state is State.ESTABLISHED:
            self.liveness.heard(now)

    def probe(self, now: float) -> None:
        """Ask the peer for a sign of life now."""
        if self.state is State.ESTABLISHED:
            self.liveness.ask(now)

    def silent_since(self, now: float, since: float) -> None:
        """A quick mode of ours, begun at `since`, was never answered: is the peer there at all?

        It may only be that it does not answer what it refuses, so one that speaks of its life is asked.
        """
        if self.state is not State.ESTABLISHED:
            return
        if self.liveness.spoken and not self.attempt.unconfirmed:
            self.liveness.ask(now)
        elif self.liveness.last_heard <= since:
            clock.peer_is_dead(self, now)

    # --- commands

    def begin(self, now: float) -> None:
        """As initiator: send the first message."""
        if self.mode is NegotiationMode.AGGRESSIVE:
            aggressive_mode.begin(self, now)
            self.to(State.SENT_AGGRESSIVE, "sent our proposal, key and identity")
        else:
            main_mode.begin(self, now)
            self.to(State.SENT_SA, "sent our proposal")

    def want(self, now: float, mapping: int) -> None:
        """Bring the IPsec SAs of this mapping up; no-op when up."""
        if not self.children.up(mapping):
            self.quicks.want(now, mapping)

    def rekey(self, now: float) -> None:
        """Begin a new phase 1, which adopts the children (RFC 2409 has no other renewal)."""
        if self.state is not State.ESTABLISHED:
            return
        self.timers.arm(Timer.RENEW, now + REKEY_AGAIN)
        if self._is_renewing:
            return
        path = succession.path_of_successor(self)
        session = Session(now, self.registry, self.policy, path, initiator=True)
        session.renews = True
        self.registry.add(session)
        session.begin(now)
        self.registry.arm(session)

    @property
    def _is_renewing(self) -> bool:
        """Whether a phase 1 of ours is under way that will succeed this one."""
        return any(one.phase is Phase.CONNECTING and one.initiator for one in self.siblings())

    def rekey_child(self, now: float, spi_in: int) -> None:
        """Begin quick modes for one child until it has a successor; an unknown SPI is ignored."""
        if self.children.is_current(spi_in):
            self.children.timers.arm((Limit.SOFT, spi_in), now + REKEY_AGAIN)
            self.quicks.want(now, self.children.by_spi[spi_in].sa.mapping, spi_in)

    def close_child(self, now: float, spi_in: int, diagnosis: Diagnosis) -> None:
        """DELETE one child; an unknown SPI is ignored."""
        child = self.children.by_spi.get(spi_in)
        if child is not None:
            if not child.deleted:
                informational.send_delete_child(self, spi_in)
            self.remove_child(spi_in, diagnosis)

    def close(self, now: float, diagnosis: Diagnosis) -> None:
        """Tell the peer and end."""
        if self.state in SIGNED:
            children = self.children.by_spi if self.is_current else {}
            for spi_in, child in children.items():
                if not child.deleted:
                    informational.send_delete_child(self, spi_in)
            informational.send_delete_ike(self)
        self.end(now, diagnosis)

    def end(self, now: float, diagnosis: Diagnosis) -> None:
        """The ISAKMP SA is gone, its children with it; nothing is sent."""
        was_current = self.is_current
        self.quicks.end(now, diagnosis)
        for spi_in in list(self.children.by_spi) if was_current else ():
            self.remove_child(spi_in, diagnosis)
        self.timers.clear()
        self.registry.forget(self)
        self.to(State.GONE, "gone")
        if was_current:
            self.peer.clear()
            self.registry.emit(IkeDown(self.tunnel, self.cky_i, self.cky_r, diagnosis))
            succession.end_predecessors(self, now, diagnosis)

    def has_child(self, spi_in: int) -> bool:
        """Whether the child with this inbound SPI is one of ours."""
        return self.is_current and spi_in in self.children.by_spi

    def info(self) -> IkeSaInfo | None:
        """What status shows, once established."""
        return self.describe() if self.phase is Phase.ESTABLISHED else None

    def child_sas(self) -> tuple[ChildSaInfo, ...]:
        """When each child is rekeyed, and ends: asked of the ISAKMP SA that is current."""
        return self.children.info(self.quicks.is_renewing) if self.is_current else ()

    def snapshot(self) -> SaSnapshot:
        """What there is of it now."""
        deadlines = {timer.name: at for timer, at in self.timers.all().items() if timer is not Timer.LIVENESS}
        if (quick := self.quicks.next_timeout()) is not None:
            deadlines["quick modes"] = quick
        if self.is_current:
            deadlines |= self.peer.deadlines()
        return SaSnapshot(
            tunnel=self.tunnel,
            version=self.version,
            initiator=self.initiator,
            spi_i=self.cky_i,
            spi_r=self.cky_r,
            phase=self.phase,
            state=self.state.name,
            path=self.path,
            former=self.former,
            children=tuple(self.children.by_spi) if self.is_current else (),
            deadlines=deadlines,
            liveness=self.timers.deadline(Timer.LIVENESS),
            ivs=({} if self._chain is None else {0: self._chain.iv}) | self.quicks.ivs(),
        )

    def describe(self) -> IkeSaInfo:
        """What status shows. Raises Drop before a suite has been chosen."""
        return IkeSaInfo(
            tunnel=self.tunnel,
            version=self.version,
            mode=self.mode.value,
            initiator=self.initiator,
            spi_i=self.cky_i,
            spi_r=self.cky_r,
            suite=self.suite,
            path=self.path,
            nat=self.nat.found,
            vendor=self.negotiation.peer.vendor,
            established_at=self.established_at,
            rekey_at=None if self._is_renewing else self.timers.deadline(Timer.RENEW),
            expires_at=self.established_at + self.negotiation.lifetime,
            last_heard=self.liveness.last_heard,
        )

    def _emit(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            self.registry.emit(output)

    # --- time

    def next_timeout(self) -> float | None:
        """The earliest deadline."""
        due = [self.timers.next_timeout(), self.quicks.next_timeout()]
        if self.is_current:
            due.append(self.peer.next_timeout())
        return min((deadline for deadline in due if deadline is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Each timer that is due, those of the children, then the quick modes."""
        clock.handle_timeout(self, now)
