"""One ISAKMP SA as Endpoint sees it: inputs become causes of rows of the table, which is run here."""

from __future__ import annotations

from vpnd.ike.commands import Commanded
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.outputs import ChildSaInfo, IkeSaInfo, Story
from vpnd.ike.registry import NO_SPI, Registry
from vpnd.ike.session import Phase, SaSnapshot, Unreachable
from vpnd.ike.v1 import causes, dispatch, reauthentication
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.exchanges import quick_mode
from vpnd.ike.v1.isakmp_sa import Attempt, IsakmpSa, Negotiation
from vpnd.ike.v1.messages import Received
from vpnd.ike.v1.state import State, Timer
from vpnd.ike.v1.table import EXPECTED, STEPS, key_of
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import NegotiationMode, PeerPolicy
from vpnd.wire.header import Header
from vpnd.wire.iana import IkeVersion


class Session(Commanded):
    """One ISAKMP SA, or the attempt at one. See `vpnd.ike.session.Session` for what Endpoint calls."""

    def __init__(
        self,
        now: float,
        registry: Registry,
        policy: PeerPolicy,
        path: Path,
        peer_cookie: bytes | None = None,
        renews: bool = False,
    ) -> None:
        """Without `peer_cookie` this side is the initiator."""
        cookie = registry.new_ike_spi()
        cookies = (cookie, NO_SPI) if peer_cookie is None else (peer_cookie, cookie)
        attempt = Attempt(now, policy.remote_address, renews)
        negotiation = Negotiation(policy.mode or NegotiationMode.MAIN)
        self.sa = IsakmpSa(policy, path, peer_cookie is None, *cookies, attempt, negotiation)
        super().__init__(registry, self.sa)
        self.context = Context(registry, self.sa, self)

    # --- facts

    @property
    def version(self) -> IkeVersion:
        return IkeVersion.V1

    @property
    def is_undecided(self) -> bool:
        """Never: from its first message on it has one tunnel's key, which a change may have taken away."""
        return False

    def has_child(self, spi_in: int) -> bool:
        return self.context.is_current and spi_in in self.context.peer.children.by_spi

    def answered_since(self, since: float) -> bool:
        """A peer that does not speak of its life (RFC 3706) cannot be asked, so that its ESP counts."""
        liveness = self.context.liveness
        return (self.sa.last_message if liveness.spoken else liveness.last_heard) > since

    def info(self) -> IkeSaInfo | None:
        return reauthentication.info(self.context) if self.phase is Phase.ESTABLISHED else None

    def child_sas(self) -> tuple[ChildSaInfo, ...]:
        """Asked of the ISAKMP SA that is current."""
        peer, own = self.context.peer, self.context.quick_modes.own()
        renewing = (*peer.wanted.values(), None if own is None else own.replaces)
        return peer.children.info(renewing) if self.context.is_current else ()

    def snapshot(self) -> SaSnapshot:
        sa, context, children = self.sa, self.context, self.context.peer.children
        timers = {timer.name: at for timer, at in context.timers.all().items() if isinstance(timer, Timer)}
        liveness = timers.pop(Timer.LIVENESS.name, None)
        if (quick := context.quick_modes.next_timeout()) is not None:
            timers["quick modes"] = quick
        chains = {0: sa.chain} if sa.has_keys else {}
        chains |= {one.message_id: one.chain for one in context.quick_modes.all()}
        return SaSnapshot(
            tunnel=sa.tunnel,
            version=IkeVersion.V1,
            initiator=sa.initiator,
            spi_i=sa.cky_i,
            spi_r=sa.cky_r,
            phase=sa.phase,
            state=sa.state.name,
            path=sa.path,
            former=sa.former,
            children=tuple(children.by_spi) if context.is_current else (),
            deadlines=timers | (children.deadlines() if context.is_current else {}),
            liveness=liveness,
            ivs={message_id: chain.iv for message_id, chain in chains.items()},
        )

    # --- inputs

    def handle_message(self, now: float, path: Path, header: Header, data: bytes) -> None:
        self.context.transport.received += len(data)
        self.sa.attempt.received += 1
        if self.sa.state is State.HELD:
            raise Drop("held until the present peer has answered")
        received = dispatch.take(self.context, now, path, header, data, EXPECTED[self.sa.state])
        if received is not None:
            self._run(now, received)

    def refuses_another(self, data: bytes) -> bool:
        """Whether it has refused a first message that was not `data`."""
        return self.sa.state is State.REFUSED and not self.context.phase1.is_repeat(data)

    def cannot_read(self, diagnosis: Diagnosis) -> bool:
        attempt = self.sa.attempt
        if self.phase is Phase.CONNECTING and self.initiator and attempt.hint is None:
            attempt.hint = diagnosis
        return not self.initiator and not self.sa.has_keys

    def handle_unreachable(self, now: float, path: Path, reason: Unreachable) -> None:
        code = Code.PORT_CLOSED if reason is Unreachable.PORT else Code.UNREACHABLE
        self.sa.attempt.unreachable = Diagnosis.of(code, peer=path.remote, detail=reason.value)

    def handle_timeout(self, now: float) -> None:
        """Its own timers, then those of the peer's pairs, then the quick modes."""
        context = self.context
        for timer in context.timers.expired(now):
            self.command(now, timer)
        for key in context.peer.children.timers.expired(now) if context.is_current else ():
            self.command(now, key)
        self.command(now, causes.QuickModesDue())

    def next_timeout(self) -> float | None:
        context = self.context
        due = [context.timers.next_timeout(), context.quick_modes.next_timeout()]
        if context.is_current:
            due.append(context.peer.children.timers.next_timeout())
        return min((deadline for deadline in due if deadline is not None), default=None)

    def note_activity(self, now: float) -> None:
        if self.phase is Phase.ESTABLISHED:
            self.context.liveness.note_activity(now)

    def peer_sends(self, now: float, spi_in: int) -> None:
        """The peer has the pair, also if its word was lost."""
        child = self.context.peer.children.by_spi.get(spi_in)
        if child is None or not self.context.is_current:
            return
        if not child.pending:
            self.context.peer.children.send_on(spi_in)
            return
        self.context.peer.children.confirm(spi_in)
        for one in (self.context, *self.context.siblings()):
            quick_mode.confirmed(one, now, spi_in)

    # --- commands

    def begin(self, now: float) -> None:
        """As initiator: send the first message."""
        self._registry.renewals.begins_here(now, self.tunnel)
        aggressive = self.sa.mode is NegotiationMode.AGGRESSIVE
        self.command(now, causes.BeginAggressive() if aggressive else causes.BeginMain())

    def close(self, now: float, diagnosis: Diagnosis) -> None:
        self.command(now, causes.Close(diagnosis))

    # --- what an action asks, through the context

    def begin_successor(self, now: float) -> None:
        """Begin another phase 1 with the peer."""
        path = self.sa.path_of_successor()
        session = Session(now, self._registry, self.sa.policy, path, renews=True)
        self._registry.add(session)
        session.begin(now)
        self._registry.arm(session)

    def prove_address(self) -> None:
        """The peer receives at its address. Raises Drop if that has too many attempts."""
        self._registry.address_proved(self, self.sa.path.remote)

    def proven(self) -> None:
        """The peer has proved that it has the key."""
        self._registry.half_open_ends(self)

    def rearm(self) -> None:
        """Note the next deadline."""
        self._registry.arm(self)

    # --- the table

    def command(self, now: float, cause: object) -> None:
        """Run a command or a timer; one without a row does nothing."""
        if (self.sa.state, key_of(cause)) in STEPS:
            self._run(now, cause)

    def _run(self, now: float, cause: object) -> None:
        """The row of `cause`, and those of what it comes to.

        Raises Drop for a message that has no row, and what an action raises that no row refuses.
        """
        received: Received | None = None
        following: object = cause
        while following is not None:
            cause, following = following, None
            if isinstance(cause, Received):
                received = cause
            elif isinstance(cause, causes.Proved):
                received = cause.received
            step = STEPS.get((self.sa.state, key_of(cause)))
            if step is None:
                raise Drop(f"no step: {key_of(cause).__name__} in {self.sa.state.name}")
            try:
                following = step.action(self.context, now, cause)
            except Fault as fault:
                if received is None or (self.sa.state, causes.Refused) not in STEPS:
                    raise
                following = causes.Refused(fault, received)
                continue
            if step.to is not None:
                self._transition(step.to, step.story)

    def _transition(self, to: State, story: str) -> None:
        """Move the state. What has no row in it is not waited for any more."""
        self.sa.state = to
        self._registry.emit(Story(self.sa.tunnel, f"IKEv1 {self.sa.mode.value} mode: {story}"))
        for timer in self.context.timers.all():
            if (to, timer) not in STEPS:
                self.context.timers.disarm(timer)
        self._registry.phase_changed(self)
        if to is State.GONE:
            self._registry.forget(self)
