"""One ISAKMP SA: its phase 1, its quick modes, its end (RFC 2408, RFC 2409).

             initiator                                   responder
    SENT_SA ----Main2----> SENT_KE           ANSWERED_SA ----Main3----> ANSWERED_KE
    SENT_KE ----Main4----> SENT_AUTH         ANSWERED_KE ----Main5----> ESTABLISHED
    SENT_AUTH --Main6----> ESTABLISHED
    SENT_AGGRESSIVE --Aggressive2--> ESTABLISHED     ANSWERED_AGGRESSIVE --Aggressive3--> ESTABLISHED

A message that has no row in the table is counted and dropped; one that repeats the last is answered with the
last answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vpnd.ike import natt
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.natt import NO_NAT
from vpnd.ike.outputs import (
    Established,
    Failed,
    IkeDown,
    IkeReplaced,
    IkeSaInfo,
    Keepalive,
    Output,
    PathMoved,
    PeerDead,
    Story,
)
from vpnd.ike.registry import NO_SPI, Registry
from vpnd.ike.retransmit import Schedule
from vpnd.ike.session import Phase, Unreachable
from vpnd.ike.timers import Timers
from vpnd.ike.v1 import aggressive_mode, informational, main_mode
from vpnd.ike.v1.carrier import Carrier
from vpnd.ike.v1.children import Children, soft_deadline
from vpnd.ike.v1.keys import Phase1Keys
from vpnd.ike.v1.liveness import Liveness
from vpnd.ike.v1.phase1 import Negotiation
from vpnd.ike.v1.protect import IvChain
from vpnd.ike.v1.quick_mode import QuickMode
from vpnd.ike.v1.quicks import Quicks
from vpnd.ike.v1.received import State, Timer
from vpnd.ike.v1.reception import Reception
from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import NegotiationMode, PeerPolicy
from vpnd.model.proposals import Suite
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange1, IkeVersion
from vpnd.wire.ikev1 import Payload

Key = Timer | tuple[str, int]


class Session:
    """One ISAKMP SA, either role, with what `vpnd.ike.session.Session` asks for."""

    def __init__(
        self, registry: Registry, policy: PeerPolicy, path: Path, initiator: bool, peer_cookie: bytes = NO_SPI
    ) -> None:
        self.registry = registry
        self.policy = policy
        self.tunnel = policy.name
        self.path = path
        self.initiator = initiator
        self.local_spi = registry.new_ike_spi()
        self.cky_i, self.cky_r = (self.local_spi, peer_cookie) if initiator else (peer_cookie, self.local_spi)
        self.carrier = Carrier(registry, policy.name, self.cky_i, self.cky_r, proven=initiator)
        self.negotiation = Negotiation()
        self.nat = NO_NAT
        self.children = Children()
        self.timers: Timers[Key] = Timers()
        self.state = State.NEW
        self.quicks = Quicks(self)
        self._liveness = Liveness(self)
        self._reception = Reception(self)
        self._keys: Phase1Keys | None = None
        self._chain: IvChain | None = None
        self._schedule: Schedule | None = None
        self._last_sent: tuple[bytes, ...] = ()
        self._unconfirmed: tuple[bytes, ...] = ()
        self._hint: Diagnosis | None = None
        self._established_at = 0.0

    # --- what the table's handlers use

    @property
    def version(self) -> IkeVersion:
        """IKEv1."""
        return IkeVersion.V1

    @property
    def phase(self) -> Phase:
        """How far it is."""
        return self.state.phase

    @property
    def mode(self) -> NegotiationMode:
        """Main or aggressive."""
        return self.policy.mode or NegotiationMode.MAIN

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

    def rivals(self) -> list[PeerPolicy]:
        """The tunnels that this attempt can turn out to be: same addresses, mode and key, ours first."""
        others = self.registry.candidates(self.version, self.path)
        same = [one for one in others if one.mode == self.policy.mode and one.psk == self.policy.psk]
        return [self.policy, *(one for one in same if one.name != self.policy.name)]

    def proven(self) -> None:
        """The peer has proved that it has the key, and that the address is its own."""
        self.carrier.proven = True
        self.registry.half_open_ends(self)

    def float_if_nat(self) -> None:
        """From the next message on use port 4500 (RFC 3947 section 4)."""
        if self.nat.found:
            self.path = natt.floated(self.path)

    def follow(self, path: Path) -> None:
        """An authenticated message came along `path`: a NAT may have moved the peer."""
        if path != self.path:
            self.path = path
            if self.state is State.ESTABLISHED:
                self.registry.emit(PathMoved(self.tunnel, path))

    def first_contact(self) -> bool:
        """Whether to say INITIAL_CONTACT: there is no SA of this tunnel, nor another tunnel like it."""
        ours = (self.policy.local_id, self.policy.remote_id)
        twins = [
            one
            for one in self.registry.policies.values()
            if (one.local_id, one.remote_id) == ours and one.name != self.tunnel
        ]
        return not twins and self.registry.established(self.tunnel) is None

    def send_phase1(
        self, now: float, exchange: Exchange1, payloads: Sequence[Payload], chain: IvChain | None = None
    ) -> None:
        """Send a phase-1 message; an initiator repeats it until it is answered."""
        self._last_sent = self.carrier.send(self.path, exchange, payloads, chain=chain)
        if self.initiator:
            deadline = self._schedule.deadline if self._schedule else None
            self._schedule = Schedule(now, self.registry.entropy)
            if deadline is not None:
                self._schedule.deadline = max(deadline, now + 1)
            self.timers.arm(Timer.RETRANSMIT, self._schedule.due)

    def established(self, now: float, initial_contact: bool) -> None:
        """Both sides are authenticated; older ISAKMP SAs of the tunnel hand their children over."""
        if self.initiator and self.mode is NegotiationMode.AGGRESSIVE:
            # Nothing acknowledges the last message: it goes along with the first quick mode's repeats.
            self._unconfirmed = self._last_sent
        self._established_at = now
        self._schedule = None
        self.timers.clear()
        lifetime = self.negotiation.lifetime
        self.timers.arm(Timer.EXPIRE, now + lifetime)
        self.timers.arm(Timer.RENEW, soft_deadline(now, lifetime, self.registry.entropy, self.initiator))
        if self.nat.ours:
            self.timers.arm(Timer.KEEPALIVE, now + natt.KEEPALIVE_INTERVAL)
        older = [s for s in self.registry.sessions(self.tunnel) if isinstance(s, Session) and s is not self]
        self.to(State.ESTABLISHED, "established with a pre-shared key")
        self._liveness.begin(now)
        info = self._info()
        predecessor = next((s for s in reversed(older) if s.state is State.ESTABLISHED), None)
        if initial_contact:
            for session in older:
                session.end(now, Diagnosis.of(Code.PEER_DELETED, detail="the peer has started anew"))
            predecessor = None
        if predecessor is None:
            self.registry.emit(Established(self.tunnel, info))
        else:
            self._succeed(predecessor, info)
        self.quicks.next(now)

    def _succeed(self, predecessor: Session, info: IkeSaInfo) -> None:
        self.children, predecessor.children = predecessor.children, Children()
        self.quicks.wanted = predecessor.quicks.wanted | self.quicks.wanted
        for key in [("soft", spi) for spi in self.children.by_spi] + [
            ("hard", spi) for spi in self.children.by_spi
        ]:
            deadline = predecessor.timers.deadline(key)
            predecessor.timers.disarm(key)
            if deadline is not None:
                self.timers.arm(key, deadline)
        predecessor.timers.disarm(Timer.RENEW)
        predecessor.timers.disarm(Timer.LIVENESS)
        predecessor.to(State.REPLACED, "a successor has taken over")
        self.registry.arm(predecessor)
        self.registry.emit(IkeReplaced(self.tunnel, predecessor.cky_i, predecessor.cky_r, info))

    def to(self, state: State, story: str) -> None:
        """The single setter of the state."""
        if state is not self.state:
            self.state = state
            self.registry.emit(Story(self.tunnel, f"IKEv1 {self.mode.value} mode: {story}"))
            self.registry.phase_changed(self)

    def hint(self, now: float, notify: str) -> None:
        """An error in clear: keep listening a little for a real answer, then give up with this reason."""
        if self.initiator and self.phase is Phase.CONNECTING:
            self.note(now, self._refused(notify))

    def note(self, now: float, diagnosis: Diagnosis) -> None:
        """Remember what may be wrong; the attempt ends soon unless a real answer comes."""
        self._hint = diagnosis
        if self.timers.deadline(Timer.ERROR) is None:
            self.timers.arm(Timer.ERROR, now + self.registry.limits.error_listening)

    def _refused(self, notify: str) -> Diagnosis:
        facts = {"notify": notify, "peer": self.path.remote, "exchange": f"{self.mode.value} mode"}
        if self.has_keys or notify in ("AUTHENTICATION_FAILED", "INVALID_HASH_INFORMATION"):
            return Diagnosis.of(Code.PSK, ours=self.policy.psk.fingerprint(), **facts)
        if notify == "INVALID_ID_INFORMATION":
            return Diagnosis.of(Code.IDENTITY, ours=self.policy.local_id.describe(), **facts)
        if notify == "NO_PROPOSAL_CHOSEN":
            ours = "; ".join(
                f"{'/'.join(p.encryption)} {'/'.join(p.integrity)} DH {'/'.join(map(str, p.dh))}"
                for p in self.policy.proposals
            )
            return Diagnosis.of(Code.P1_PROPOSAL, ours=ours, **facts)
        return Diagnosis.of(Code.PEER_REFUSED, **facts)

    # --- quick modes

    def new_message_id(self) -> int:
        """Random, not zero, never used under this ISAKMP SA (RFC 2408 section 3.1)."""
        while True:
            message_id = int.from_bytes(self.registry.entropy.bytes(4), "big")
            if message_id and not self.quicks.is_used(message_id):
                return message_id

    def phase2_chain(self, message_id: int) -> IvChain:
        """The IV chain of a new exchange, which begins from the last block of phase 1."""
        return IvChain(self.keys, self.keys.phase2_iv(self.chain.iv, message_id))

    def add_quick(self, quick: QuickMode) -> None:
        """A quick mode has begun."""
        self.quicks.add(quick)

    def send_quick(self, now: float, quick: QuickMode, payloads: Sequence[Payload], schedule: bool) -> None:
        """Send a message of `quick`; with `schedule`, again until it is answered."""
        quick.last_sent = self.carrier.send(
            self.path, Exchange1.QUICK_MODE, payloads, quick.message_id, quick.chain
        )
        quick.schedule = None
        if schedule:
            self.quicks.begin_schedule(now, quick)

    def quick_done(self, now: float, quick: QuickMode) -> None:
        """Both sides have the SAs of `quick`."""
        self.quicks.done(now, quick)

    def own_quick(self) -> QuickMode | None:
        """The quick mode that we began and that is not finished."""
        return self.quicks.own()

    def fail_quick(self, now: float, quick: QuickMode, diagnosis: Diagnosis) -> None:
        """`quick` ends without SAs."""
        self.quicks.fail(now, quick, diagnosis)

    def install(self, now: float, child: ChildSa, outbound: bool) -> None:
        """A new SA pair. As responder (`outbound` False) the peer has not confirmed it yet."""
        old = self.children.current.get(child.mapping)
        if old is not None:
            self.timers.disarm(("soft", old))
        self._emit(self.children.install(now, child, pending=not outbound))
        seconds = child.lifetimes.seconds
        self.timers.arm(("hard", child.spi_in), now + seconds)
        soft = soft_deadline(now, seconds, self.registry.entropy, child.initiator)
        self.timers.arm(("soft", child.spi_in), soft)

    def outbound_ready(self, now: float, spi_in: int) -> None:
        """The peer has confirmed the pair with this inbound SPI."""
        self._emit(self.children.confirm(spi_in))

    def remove_child(self, spi_in: int, diagnosis: Diagnosis) -> None:
        """The pair is gone on both sides."""
        self.timers.disarm(("soft", spi_in))
        self.timers.disarm(("hard", spi_in))
        outputs = self.children.remove(spi_in, diagnosis)
        self._emit(outputs)
        self.registry.release_esp_spi(spi_in)

    def peer_deleted_child(self, now: float, spi: int) -> None:
        """An authenticated DELETE for an IPsec SA of this tunnel, by either of its SPIs."""
        for session in [self, *self._siblings()]:
            spi_in = session.children.by_either_spi(spi)
            if spi_in is not None:
                session.remove_child(
                    spi_in, Diagnosis.of(Code.PEER_DELETED, peer=self.path.remote, detail="IPsec SA")
                )
                self.registry.arm(session)

    def initial_contact(self, now: float) -> None:
        """The peer has no SA but this one."""
        for session in self._siblings():
            session.end(now, Diagnosis.of(Code.PEER_DELETED, detail="the peer has started anew"))

    def _siblings(self) -> list[Session]:
        return [s for s in self.registry.sessions(self.tunnel) if isinstance(s, Session) and s is not self]

    # --- messages

    def handle_message(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """One message whose cookie is ours."""
        self.carrier.received += len(data)
        try:
            self._reception.take(now, path, header, data)
        except Drop as drop:
            self.registry.count(drop.reason)
        except Fault as fault:
            self._reception.refuse(now, fault)

    def repeat_last(self) -> None:
        """Send the last phase-1 message once more."""
        self.carrier.repeat(self.path, self._last_sent)

    def repeat_unconfirmed(self) -> None:
        """The last message of aggressive mode goes along until the peer shows that it has it."""
        if self._unconfirmed:
            self.carrier.repeat(self.path, self._unconfirmed)

    def refuse(self, now: float, notify: int | None, diagnosis: Diagnosis) -> None:
        """As responder: tell the peer once, keep the answer for repeats, and let go."""
        if notify is not None:
            self._last_sent = informational.send_plain(self, notify)
        self.registry.emit(Failed(self.tunnel, diagnosis, initiator=False))
        self.timers.clear()
        self.timers.arm(Timer.FORGET, now + self.registry.limits.refused_lifetime)
        self.registry.half_open_ends(self)
        self.to(State.REFUSED, "refused the peer's attempt")

    def handle_unreachable(self, now: float, path: Path, reason: Unreachable) -> None:
        """A hint for the diagnosis if nothing answers."""
        code = Code.PORT_CLOSED if reason is Unreachable.PORT else Code.UNREACHABLE
        self.note(now, Diagnosis.of(code, peer=path.remote, detail=reason.value))

    def report(self, diagnosis: Diagnosis) -> None:
        """A peer's quick mode was refused: the operator hears why."""
        self.registry.emit(Failed(self.tunnel, diagnosis, initiator=False))

    @property
    def refused(self) -> bool:
        """Whether the peer's attempt was refused with an answer."""
        return self.state is State.REFUSED

    # --- liveness

    def heard(self, now: float) -> None:
        """Authenticated traffic came from the peer."""
        self._unconfirmed = ()
        if self.state is State.ESTABLISHED:
            self._liveness.heard(now)

    def acknowledged(self, now: float, sequence: int) -> None:
        """R-U-THERE-ACK."""
        self._liveness.acknowledged(now, sequence)

    def probe(self, now: float) -> None:
        """Ask the peer for a sign of life now."""
        if self.state is State.ESTABLISHED:
            self._liveness.ask(now)

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
        begin_session(now, self.registry, self.policy, None)

    def rekey_child(self, now: float, spi_in: int) -> None:
        """Begin a quick mode for the mapping of one child; an unknown SPI is ignored."""
        child = self.children.by_spi.get(spi_in)
        if child is not None and self.children.current.get(child.sa.mapping) == spi_in:
            self.quicks.want(now, child.sa.mapping)

    def close_child(self, now: float, spi_in: int, diagnosis: Diagnosis) -> None:
        """DELETE one child; an unknown SPI is ignored."""
        if spi_in in self.children.by_spi:
            if self._keys is not None:
                informational.send_delete_child(self, spi_in)
            self.remove_child(spi_in, diagnosis)

    def close(self, now: float, diagnosis: Diagnosis) -> None:
        """Tell the peer and end."""
        if self.state in (State.ESTABLISHED, State.REPLACED):
            for spi_in in list(self.children.by_spi):
                informational.send_delete_child(self, spi_in)
            informational.send_delete_ike(self)
        self.end(now, diagnosis)

    def end(self, now: float, diagnosis: Diagnosis) -> None:
        """The ISAKMP SA is gone, its children with it; nothing is sent."""
        was = self.state
        for spi_in in list(self.children.by_spi):
            self.remove_child(spi_in, diagnosis)
        self.timers.clear()
        self.registry.forget(self)
        self.to(State.GONE, "gone")
        if was is State.ESTABLISHED:
            self.registry.emit(IkeDown(self.tunnel, self.cky_i, self.cky_r, diagnosis))

    def has_child(self, spi_in: int) -> bool:
        """Whether the child with this inbound SPI is one of ours."""
        return spi_in in self.children.by_spi

    def info(self) -> IkeSaInfo | None:
        """What status shows, once established."""
        return self._info() if self.phase is Phase.ESTABLISHED else None

    def _info(self) -> IkeSaInfo:
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
            established_at=self._established_at,
            rekey_at=self.timers.deadline(Timer.RENEW),
            expires_at=self._established_at + self.negotiation.lifetime,
            last_heard=self._liveness.last_heard,
        )

    def _emit(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            self.registry.emit(output)

    # --- time

    def next_timeout(self) -> float | None:
        """The earliest deadline."""
        due = [one for one in (self.timers.next_timeout(), self.quicks.next_timeout()) if one is not None]
        return min(due, default=None)

    def handle_timeout(self, now: float) -> None:
        """Each timer that is due, then the quick modes."""
        for key in list(self.timers.expired(now)):
            if self.state is State.GONE:
                return
            if isinstance(key, tuple):
                self._child_timer(now, *key)
            else:
                self._on_timer[key](self, now)
        if self.state is not State.GONE and not self.quicks.handle_timeout(now):
            self._dead(now)

    def _child_timer(self, now: float, limit: str, spi_in: int) -> None:
        if limit == "soft":
            self.rekey_child(now, spi_in)
        else:
            self.close_child(now, spi_in, Diagnosis.of(Code.LIFETIME, detail="IPsec SA"))

    def _retransmit(self, now: float) -> None:
        if self._schedule is None:
            return
        if self._schedule.exhausted(now):
            self._give_up(now)
            return
        self._schedule.again(now)
        self.repeat_last()
        self.timers.arm(Timer.RETRANSMIT, self._schedule.due)

    def _give_up(self, now: float) -> None:
        """The attempt ends; the reason is the best that is known."""
        sent = self._schedule.sent if self._schedule else 0
        silent = Diagnosis.of(
            Code.SILENT, peer=self.path.remote, sent=sent, received=0, exchange=self.mode.value
        )
        diagnosis = self._hint or main_mode.unanswered(self) or silent
        self.end(now, diagnosis)
        self.registry.emit(Failed(self.tunnel, diagnosis, initiator=True))

    def _half_open(self, now: float) -> None:
        self.registry.count("half-open attempt expired")
        self.end(now, Diagnosis.of(Code.SILENT, peer=self.path.remote))

    def _forget(self, now: float) -> None:
        self.end(now, Diagnosis.of(Code.PEER_REFUSED))

    def _expire(self, now: float) -> None:
        self.close(now, Diagnosis.of(Code.LIFETIME, detail="ISAKMP SA"))

    def _ask(self, now: float) -> None:
        if not self._liveness.handle_timeout(now):
            self._dead(now)

    def _dead(self, now: float) -> None:
        diagnosis = Diagnosis.of(Code.PEER_DEAD, peer=self.path.remote)
        self.registry.emit(PeerDead(self.tunnel, diagnosis))
        self.end(now, diagnosis)

    def _keepalive(self, now: float) -> None:
        self.registry.emit(Keepalive(self.tunnel, self.path))
        self.timers.arm(Timer.KEEPALIVE, now + natt.KEEPALIVE_INTERVAL)

    _on_timer: dict[Timer, Callable[[Session, float], None]] = {  # noqa: RUF012 (a table, never changed)
        Timer.RETRANSMIT: _retransmit,
        Timer.ERROR: _give_up,
        Timer.HALF_OPEN: _half_open,
        Timer.FORGET: _forget,
        Timer.RENEW: rekey,
        Timer.EXPIRE: _expire,
        Timer.LIVENESS: _ask,
        Timer.KEEPALIVE: _keepalive,
    }


def begin_session(now: float, registry: Registry, policy: PeerPolicy, mapping: int | None) -> None:
    """A new attempt as initiator, for one mapping or (None) only to renew the ISAKMP SA."""
    if policy.remote_address is None:
        return
    session = Session(registry, policy, natt.initial_path(policy.local_address, policy.remote_address), True)
    registry.add(session)
    if mapping is not None:
        session.want(now, mapping)
    session.begin(now)
    registry.arm(session)
