"""One IKEv2 SA: what it knows, how it sends, and how it begins and ends.

Three kinds of input drive it: a message (`reception`), the time (`clock`), a command (here). Exchanges and
responders are objects and functions of their own files; they change the session through its methods, and
`enter` is the one place where the state moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from vpnd.crypto.entropy import chance
from vpnd.ike import natt
from vpnd.ike.contest import ANSWER_WITHIN, Contest
from vpnd.ike.natt import KEEPALIVE_INTERVAL
from vpnd.ike.outputs import (
    Established,
    Failed,
    IkeDown,
    IkeReplaced,
    PathMoved,
    PeerDead,
    Story,
)
from vpnd.ike.registry import InitKey, Registry
from vpnd.ike.retransmit import GIVE_UP_AFTER
from vpnd.ike.session import Phase, SaSnapshot, Unreachable
from vpnd.ike.v2 import clock, duplicates, reception
from vpnd.ike.v2.children import Children, ChildTimer, Fate
from vpnd.ike.v2.create_child import CreateChild
from vpnd.ike.v2.exchange import Exchange
from vpnd.ike.v2.ike_sa import IkeSa
from vpnd.ike.v2.informational import DeleteChildren, DeleteIke, Liveness
from vpnd.ike.v2.keys import IkeKeys
from vpnd.ike.v2.messages import Received
from vpnd.ike.v2.outbox import Outbox
from vpnd.ike.v2.rekey import RekeyChild, RekeyIke
from vpnd.ike.v2.state import State, Timer
from vpnd.model.child import Path
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import PeerPolicy
from vpnd.model.proposals import Suite
from vpnd.wire.header import Header
from vpnd.wire.iana import IkeVersion

UNDECIDED = 2 * GIVE_UP_AFTER
"""Seconds that the loser of two successors of one IKE SA is kept for its creator's DELETE."""


class Session(IkeSa):
    """One IKE SA, or the attempt at one. See `vpnd.ike.session.Session` for what Endpoint calls."""

    def __init__(
        self,
        registry: Registry,
        policy: PeerPolicy,
        path: Path,
        initiator: bool,
        local_spi: bytes,
        peer_spi: bytes,
    ) -> None:
        super().__init__(registry, policy, path, initiator, local_spi, peer_spi)
        self.children = Children(registry, self.timers)
        self.outbox = Outbox(self)
        self.rekeying: RekeyIke | None = None
        """Our own request to rekey the IKE SA, while it has no answer."""
        self.early_deletes: list[bytes] = []
        self.beside = False
        """Whether it was begun beside another IKE SA: if it fails, that one is as it was."""
        self.begun_here = initiator
        """Whether this side began the tunnel; whoever rekeyed it since."""
        self.contest = Contest(registry)
        self.held: Received | None = None
        """The peer's IKE_AUTH, while it is not decided whether the tunnel is its own."""
        self._anew_at: float | None = None
        self._doubted: tuple[float, int] | None = None
        """When the first answer said no that anyone may have sent, and how much had been sent by then."""
        self._wanted: dict[int, None] = {}

    # --- what Endpoint and the exchanges ask

    @property
    def is_changing_children(self) -> bool:
        """Whether our own request to make, rekey or close a CHILD_SA has no answer yet."""
        outstanding = self.window.outstanding
        return outstanding is not None and isinstance(
            outstanding.exchange, CreateChild | RekeyChild | DeleteChildren
        )

    @property
    def is_rekeying(self) -> bool:
        """Whether our own request for a successor, of a CHILD_SA or of the IKE SA, has no answer yet."""
        outstanding = self.window.outstanding
        return outstanding is not None and isinstance(outstanding.exchange, RekeyChild | RekeyIke)

    def siblings(self) -> list[Session]:
        """The other established IKEv2 SAs of the tunnel, oldest first."""
        return [
            other
            for other in self.registry.sessions(self.tunnel)
            if isinstance(other, Session) and other is not self and other.phase is Phase.ESTABLISHED
        ]

    @property
    def wants_any(self) -> bool:
        """Whether a mapping waits for the IKE SA."""
        return bool(self._wanted)

    def has_child(self, spi_in: int) -> bool:
        return self.children.find(spi_in) is not None

    def snapshot(self) -> SaSnapshot:
        return SaSnapshot(
            tunnel=self.tunnel,
            version=IkeVersion.V2,
            initiator=self.initiator,
            spi_i=self.spi_i,
            spi_r=self.spi_r,
            phase=self.phase,
            state=self.state.name,
            path=self.path,
            former=self.former,
            children=tuple(child.spi_in for child in self.children),
            deadlines={_name(key): at for key, at in self.timers.all().items() if key is not Timer.DPD},
            liveness=self.timers.deadline(Timer.DPD),
            ivs={},
        )

    # --- inputs

    def handle_message(self, now: float, path: Path, header: Header, data: bytes) -> None:
        reception.handle_message(self, now, path, header, data)
        self.outbox.pump(now)

    def handle_timeout(self, now: float) -> None:
        clock.handle_timeout(self, now)
        self.outbox.pump(now)

    def next_timeout(self) -> float | None:
        return self.timers.next_timeout()

    def handle_unreachable(self, now: float, path: Path, reason: Unreachable) -> None:
        if self.initiator and self.phase is Phase.CONNECTING:
            self.unreachable = reason

    def heard(self, now: float) -> None:
        self.last_heard = now

    def peer_sends(self, now: float, spi_in: int) -> None:
        """Nothing: each exchange has its answer, and the DELETE of the old child says when to send on."""

    def moved(self, now: float, path: Path) -> None:
        if self.phase is Phase.ESTABLISHED and natt.follows(self.nat, self.path, path):
            self._follow(now, path)

    def heard_from(self, now: float, path: Path, answer: bool) -> None:
        """An authentic, new message came along `path`; `answer`: it answers a request of ours."""
        self.last_heard = self.last_message = now
        asked = answer and path in (self.path, self.former)
        self.moved(now, path)
        if asked and path == self.path:
            self.former = None

    # --- commands

    def start(self, now: float, exchange: Exchange) -> None:
        """Begin as initiator, with the first exchange."""
        self.began_at = now
        self.registry.add(self)
        self.outbox.send(now, exchange)
        self.enter(State.SENT_INIT, f"begin IKEv2 with {self.path.remote}")

    @property
    def wanted_children(self) -> tuple[int, ...]:
        """The mappings for which the peer was asked, or is to be, for their first CHILD_SA."""
        return tuple(one.mapping for one in self.outbox.pending() if isinstance(one, CreateChild))

    def want(self, now: float, mapping: int) -> None:
        if self.phase is Phase.CONNECTING:
            self._wanted[mapping] = None
        elif self.phase is Phase.ESTABLISHED and not self._has_mapping(mapping):
            self.outbox.enqueue(CreateChild(mapping))
            self.outbox.pump(now)

    def close(self, now: float, diagnosis: Diagnosis, receiving: tuple[int, ...] = ()) -> None:
        """`receiving`: inbound SPIs of children that another IKE SA of the tunnel still receives on."""
        match self.phase:
            case Phase.CONNECTING if self.initiator:
                self.fail(now, diagnosis, DeleteIke() if self.protection else None)
            case Phase.CONNECTING:
                self.finish()
            case Phase.ESTABLISHED:
                self._end(diagnosis)
                self._leave(now, DeleteIke(receiving), f"close the IKE SA: {diagnosis.code.value}")
            case Phase.CLOSING | Phase.GONE:
                return

    def close_child(self, now: float, spi_in: int, diagnosis: Diagnosis) -> None:
        child = self.children.find(spi_in)
        if child is not None and child.fate in (Fate.LIVE, Fate.REKEYED):
            self.children.deleting(child, diagnosis)
            self.outbox.enqueue(DeleteChildren((spi_in,)))
            self.outbox.pump(now)

    def rekey(self, now: float) -> None:
        if self.phase is Phase.ESTABLISHED and not self._asks(RekeyIke):
            self.timers.disarm(Timer.REKEY)
            self.outbox.enqueue(RekeyIke())
            self.outbox.pump(now)

    def rekey_child(self, now: float, spi_in: int) -> None:
        child = self.children.find(spi_in)
        if child is not None:
            # If it is refused it is tried again, and does not wait for the lifetime in seconds.
            child.soft_end = min(child.soft_end, now)
            self.renew_child(now, spi_in)

    def renew_child(self, now: float, spi_in: int) -> None:
        """Begin the succession of a CHILD_SA, unless it has one or cannot have any."""
        child = self.children.find(spi_in)
        begun = any(isinstance(e, RekeyChild) and e.old is child for e in self.outbox.pending())
        if child is not None and child.fate is Fate.LIVE and child.successor is None and not begun:
            self.outbox.enqueue(RekeyChild(child))
            self.outbox.pump(now)

    def probe(self, now: float) -> None:
        if self.phase is Phase.ESTABLISHED and self.outbox.is_idle:
            self.outbox.enqueue(Liveness())
            self.outbox.pump(now)

    # --- what exchanges and responders do to the session

    def enter(self, state: State, story: str) -> None:
        """The one setter of the state; it tells the story."""
        self.state = state
        self.story(story)
        self.registry.phase_changed(self)

    def story(self, text: str) -> None:
        """Say what happened, for the log."""
        self.registry.emit(Story(self.tunnel, text))

    def take_wanted(self) -> Iterator[int]:
        """The mappings that wait for the IKE SA, each removed as it is taken."""
        while self._wanted:
            mapping = next(iter(self._wanted))
            del self._wanted[mapping]
            yield mapping

    def establish(self, now: float) -> None:
        """Both sides are authenticated: the IKE SA is up, and what waited for it begins."""
        self.registry.half_open_ends(self)
        self.hint = None
        self.timers.clear()
        self._begin_life(now)
        info = self.info()
        if info is not None:
            self.registry.emit(Established(self.tunnel, info))
        duplicates.settle(self, now)
        if not self.initiator and not self.policy.dpd.enabled:
            self.timers.arm(Timer.DPD, now + self.registry.limits.unproven)
        for mapping in self.take_wanted():
            self.outbox.enqueue(CreateChild(mapping))

    def cannot_read(self, diagnosis: Diagnosis) -> bool:
        """A message to this SPI could not be read: the reason of an attempt that ends without another."""
        if self.phase is Phase.CONNECTING and self.initiator and self.hint is None:
            self.hint = diagnosis
        return not self.initiator and self.protection is None

    def remember(self, now: float, diagnosis: Diagnosis) -> None:
        """An answer that anyone may have sent says no: keep it for the diagnosis, and listen on.

        If a repetition gets the like, the peer means it, and the attempt ends soon.
        """
        self.hint = diagnosis
        if self._doubted is None:
            self._doubted = now, self.sent
        since, sent = self._doubted
        if self.sent > sent and self.timers.deadline(Timer.LISTEN) is None:
            self.timers.arm(Timer.LISTEN, max(now, since + self.registry.limits.error_listening))

    def fail(self, now: float, diagnosis: Diagnosis, notice: Exchange | None = None) -> None:
        """The attempt has ended without an IKE SA; `notice` tells a peer that may think otherwise."""
        if not self.beside or self.registry.established(self.tunnel) is None:
            self.registry.emit(Failed(self.tunnel, diagnosis, self.initiator))
        self.children.all_down(diagnosis)
        story = f"the attempt failed: {diagnosis.code.value}"
        if notice is not None and self.protection is not None:
            self._leave(now, notice, story)
        else:
            self._abandon_all()
            self._forget(story)

    def refuse(self, now: float, diagnosis: Diagnosis) -> None:
        """Responder: the peer's attempt is refused; the answer is kept for repeats."""
        self.registry.emit(Failed(self.tunnel, diagnosis, self.initiator, unproven=True))
        self.registry.half_open_ends(self)
        self.timers.clear()
        self.timers.arm(Timer.END, now + self.registry.limits.refused_lifetime)
        self.enter(State.REFUSED, f"refuse the peer's attempt: {diagnosis.code.value}")

    def deleted_by_peer(self, now: float, diagnosis: Diagnosis) -> None:
        """The peer has closed the IKE SA. It stays a while to answer repeats of the DELETE."""
        rival = None if self.rekeying is None else self.rekeying.rival
        if rival is not None and rival.session.state is State.SUCCESSOR:
            self.succeeded_by(now, rival.session)
        duplicates.closed_by_peer(self, now)
        self._end(diagnosis)
        self._abandon_all()
        self.window.settled()
        self.timers.clear()
        self.timers.arm(Timer.END, now + self.registry.limits.closing)
        if self.state is not State.CLOSING:
            self.enter(State.CLOSING, "the peer closed the IKE SA")

    def begin_anew(self, now: float, why: str) -> None:
        """This IKE SA or a child of it ends without a successor: have another IKE SA made beside it first.

        Only the side that began the tunnel does, so that the two do not cross and one that only answers
        goes on to do so; and not for an IKE SA that another stands beside already.
        """
        recently = self._anew_at is not None and now - self._anew_at < clock.ANEW_AGAIN
        redundant = self.timers.deadline(Timer.DUPLICATE) is not None
        if self.begun_here and self.phase is Phase.ESTABLISHED and not recently and not redundant:
            self._anew_at = now
            self.story(f"begin a new IKE SA beside this one: {why}")
            self.registry.anew.append(self.tunnel)

    def dead(self, now: float, diagnosis: Diagnosis) -> None:
        """The peer does not answer any more, at least not under this IKE SA."""
        if not duplicates.is_outlived(self):
            self.registry.emit(PeerDead(self.tunnel, diagnosis))
        duplicates.hand_over(self, now)
        self._end(diagnosis)
        self._abandon_all()
        self._forget("the peer is dead")

    def finish(self) -> None:
        """Nothing is left to say to the peer."""
        self._forget("the IKE SA is forgotten")

    def discard(self, now: float) -> None:
        """A successor that lost against the peer's: close it (RFC 7296 section 2.8.2)."""
        self._leave(now, DeleteIke(), "close the redundant successor of the IKE SA")
        self.outbox.pump(now)

    def make_successor(
        self, now: float, initiator: bool, local_spi: bytes, peer_spi: bytes, suite: Suite, keys: IkeKeys
    ) -> Session:
        """The IKE SA that may take over; message IDs begin anew (RFC 7296 section 2.18).

        One that neither takes over nor is deleted by its creator, who may never have learned of it, is
        forgotten once every request that could still decide has been given up.
        """
        successor = Session(self.registry, self.policy, self.path, initiator, local_spi, peer_spi)
        successor.nat, successor.esp_in_udp = self.nat, self.esp_in_udp
        successor.former = self.former
        successor.fragmentation, successor.vendor = self.fragmentation, self.vendor
        successor.last_heard, successor.begun_here = self.last_heard, self.begun_here
        successor.learn_keys(suite, keys)
        self.registry.add(successor)
        successor.timers.arm(Timer.END, now + UNDECIDED)
        successor.enter(State.SUCCESSOR, "agreed on a successor of the IKE SA")
        return successor

    def succeeded_by(self, now: float, successor: Session) -> None:
        """`successor` takes over children and tasks; this IKE SA waits for its DELETE."""
        successor.children.adopt(self.children)
        successor.inherit(now, self)
        self.rekeying = None
        self.established_at = None
        redundant_until = self.timers.deadline(Timer.DUPLICATE)
        if redundant_until is not None:
            successor.timers.arm(Timer.DUPLICATE, redundant_until)
        for timer in set(Timer) - {Timer.RETRANSMIT}:
            self.timers.disarm(timer)
        self.timers.arm(Timer.END, now + GIVE_UP_AFTER)
        if self.state is State.ESTABLISHED:
            self.enter(State.REKEYED, "a successor of the IKE SA has taken over")

    def inherit(self, now: float, old: Session) -> None:
        """Take over from `old`, whose children are ours already."""
        self.timers.disarm(Timer.END)
        self._begin_life(now)
        self.last_heard = max(self.last_heard, old.last_heard)
        for task in old.outbox.take_all():
            if not isinstance(task, RekeyIke):
                self.outbox.enqueue(task)
        self.enter(State.ESTABLISHED, "the IKE SA is rekeyed")
        info = self.info()
        if info is not None:
            self.registry.emit(IkeReplaced(self.tunnel, old.spi_i, old.spi_r, info))
        self.outbox.pump(now)

    def postpone_rekey(self, now: float, wait: float) -> None:
        """Try to rekey the IKE SA again after `wait` seconds."""
        if self.state is State.ESTABLISHED:
            self.timers.arm(Timer.REKEY, now + wait)

    def half_open(self, now: float, init_key: InitKey, proved: bool) -> None:
        """Responder: IKE_SA_INIT is answered; the peer has a while to prove who it is.

        `proved`: it has returned a cookie, so that its address is its own.
        """
        self.began_at = now
        self.registry.add(self, init_key)
        self.timers.arm(Timer.END, now + self.registry.limits.half_open_lifetime)
        self.registry.half_open_begins(now, self, init_key.remote, proved)

    def hold(self, now: float, received: Received) -> None:
        """The peer has proved itself, and is answered when the one that has the tunnel was asked."""
        self.held = received
        self.registry.half_open_ends(self)
        self.timers.arm(Timer.HELD, now + ANSWER_WITHIN)
        self.story(f"hold the peer's attempt: ask the present peer of {self.tunnel} for a sign of life")

    # --- inside

    def _begin_life(self, now: float) -> None:
        lifetime = float(self.policy.lifetime)
        self.established_at = now
        self.last_heard = now
        self.timers.arm(Timer.REKEY, now + self.policy.margin.soft(lifetime, chance(self.registry.entropy)))
        self.timers.arm(Timer.ANEW, now + lifetime - clock.anew_before(lifetime))
        self.timers.arm(Timer.LIFETIME, now + lifetime)
        if self.policy.dpd.enabled:
            self.timers.arm(Timer.DPD, clock.next_look(self, now))
        if self.nat.ours:
            self.timers.arm(Timer.KEEPALIVE, now + KEEPALIVE_INTERVAL)

    def _follow(self, now: float, path: Path) -> None:
        """The peer is at the other end of `path` now: IKE and ESP go there, and a question finds out.

        An attacker may have sent a copy of a packet before the peer's own came. Until the question is
        answered it is repeated along both paths, and the answer says which of them is the peer's.
        """
        self.former, self.path = self.path, path
        self.registry.emit(PathMoved(self.tunnel, path))
        self.probe(now)

    def _has_mapping(self, mapping: int) -> bool:
        asked = any(isinstance(e, CreateChild) and e.mapping == mapping for e in self.outbox.pending())
        return asked or self.children.live(mapping) is not None

    def _asks(self, kind: type[Exchange]) -> bool:
        return any(isinstance(exchange, kind) for exchange in self.outbox.pending())

    def _end(self, diagnosis: Diagnosis) -> None:
        """Everything on the IKE SA is gone for the rest of the gateway; said once."""
        self.children.all_down(diagnosis)
        if self.established_at is not None:
            self.established_at = None
            self.registry.emit(IkeDown(self.tunnel, self.spi_i, self.spi_r, diagnosis))

    def _leave(self, now: float, last: Exchange, story: str) -> None:
        """Only `last` is still to be said, once the window is free; then, or after a while, it is over."""
        self._abandon_all()
        self.timers.clear()
        self.timers.arm(Timer.END, now + self.registry.limits.closing)
        if self.window.outstanding is not None:
            self.timers.arm(Timer.RETRANSMIT, self.window.outstanding.schedule.due)
        self.outbox.enqueue(last)
        self.enter(State.CLOSING, story)
        self.outbox.pump(now)

    def _abandon_all(self) -> None:
        self.outbox.abandon_all()
        self.rekeying = None

    def _forget(self, story: str) -> None:
        self._abandon_all()
        self.timers.clear()
        self.window.settled()
        self.enter(State.GONE, story)
        self.registry.forget(self)


def _name(key: object) -> str:
    """What a deadline is for, and of which child."""
    if isinstance(key, Timer):
        return key.name
    timer, spi_in = cast("tuple[ChildTimer, int]", key)
    return f"{timer.name} {spi_in:08x}"
