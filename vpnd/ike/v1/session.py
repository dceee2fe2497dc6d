"""One ISAKMP SA as Endpoint sees it: its inputs become causes of rows of the table."""

from __future__ import annotations

from vpnd.ike import message
from vpnd.ike.engine import Engine
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.outputs import ChildSaInfo, IkeSaInfo
from vpnd.ike.registry import Registry
from vpnd.ike.session import Phase, Progress
from vpnd.ike.v1 import causes, dispatch, life, reauthentication
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.exchanges import quick_mode
from vpnd.ike.v1.isakmp_sa import IsakmpSa
from vpnd.ike.v1.messages import Received
from vpnd.ike.v1.state import State, Timer
from vpnd.ike.v1.table import STEPS
from vpnd.model.child import Path
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import Header
from vpnd.wire.iana import IkeVersion


class Session(Engine):
    """One ISAKMP SA, or the attempt at one."""

    version = IkeVersion.V1
    steps = STEPS
    ends_half_open = False
    """The proof of the key does (`Context.proven`)."""
    sa: IsakmpSa
    context: Context

    def __init__(self, registry: Registry, sa: IsakmpSa) -> None:
        super().__init__(registry, sa)
        self.context = Context(registry, sa, self)

    # --- facts

    @property
    def is_undecided(self) -> bool:
        """Never: from its first message on it has one tunnel's key, which a change may have taken away."""
        return False

    @property
    def vendor(self) -> str | None:
        return self.sa.negotiation.peer.vendor

    def has_child(self, spi_in: int) -> bool:
        return self.context.is_current and spi_in in self.context.peer.children.by_spi

    def answered_since(self, since: float) -> bool:
        """A peer that does not speak of its life (RFC 3706) cannot be asked, so that its ESP counts."""
        liveness = self.context.liveness
        return (self.sa.last_message if liveness.spoken else liveness.last_heard) > since

    def info(self) -> IkeSaInfo:
        return reauthentication.info(self.context)

    def progress(self) -> Progress:
        sa, context = self.sa, self.context
        counted = context.phase1.sent, sa.attempt.received
        return Progress(sa.attempt.began, *counted, sa.path, life.diagnosis_of_silence(context), sa.chosen)

    def child_sas(self) -> tuple[ChildSaInfo, ...]:
        """Asked of the ISAKMP SA that is current."""
        peer, own = self.context.peer, self.context.quick_modes.own()
        renewing = (*peer.wanted.values(), None if own is None else own.replaces)
        return peer.children.info(renewing) if self.context.is_current else ()

    def _held(self) -> tuple[tuple[int, ...], dict[str, float], float | None, dict[int, bytes]]:
        sa, context, children = self.sa, self.context, self.context.peer.children
        timers = {timer.name: at for timer, at in context.timers.all().items() if isinstance(timer, Timer)}
        liveness = timers.pop(Timer.LIVENESS.name, None)
        if (quick := context.quick_modes.next_timeout()) is not None:
            timers["quick modes"] = quick
        chains = {0: sa.chain} if sa.has_keys else {}
        chains |= {one.message_id: one.chain for one in context.quick_modes.all()}
        spis, deadlines = (tuple(children.by_spi), children.deadlines()) if context.is_current else ((), {})
        return spis, timers | deadlines, liveness, {number: chain.iv for number, chain in chains.items()}

    # --- inputs

    def handle_message(self, now: float, path: Path, header: Header, data: bytes) -> None:
        self.context.transport.received += len(data)
        self.sa.attempt.received += 1
        if self.sa.state is State.HELD:
            raise Drop("held until the present peer has answered")
        received = dispatch.take(self.context, now, path, header, data)
        if received is not None:
            self._run(now, received)

    def refuses_another(self, data: bytes) -> bool:
        """Whether it has refused a first message that was not `data`."""
        return self.sa.state is State.REFUSED and not self.context.phase1.is_repeat(data)

    def handle_timeout(self, now: float) -> None:
        """Its own timers, then those of the peer's pairs, then the quick modes."""
        super().handle_timeout(now)
        for key in self.context.peer.children.timers.expired(now) if self.context.is_current else ():
            self.command(now, key)
        self.command(now, causes.QuickModesDue())

    def next_timeout(self) -> float | None:
        context = self.context
        due = [context.timers.next_timeout(), context.quick_modes.next_timeout()]
        if context.is_current:
            due.append(context.peer.children.timers.next_timeout())
        return min([deadline for deadline in due if deadline is not None], default=None)

    def note_activity(self, now: float) -> None:
        if self.sa.phase is Phase.ESTABLISHED:
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

    def _refusal(
        self, error: Fault | DecodeError, cause: object, request: message.Received | None
    ) -> causes.Refused | None:
        received = cause.received if isinstance(cause, causes.Proved) else request
        if not isinstance(received, Received):  # pragma: no cover (only an action of a message raises)
            return None
        if not isinstance(error, Fault):  # pragma: no cover (`dispatch` has decoded all else)
            return None
        return causes.Refused(error, received)
