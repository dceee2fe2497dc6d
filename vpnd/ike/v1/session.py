"""One ISAKMP SA as Endpoint sees it: its inputs become causes of rows of the table."""

from __future__ import annotations

from dataclasses import replace

from vpnd.ike import message
from vpnd.ike.engine import Engine
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.outputs import ChildSaInfo, IkeSaInfo
from vpnd.ike.registry import Registry
from vpnd.ike.session import Phase, SaSnapshot
from vpnd.ike.v1 import causes, dispatch, reauthentication
from vpnd.ike.v1.children import Children
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
    liveness = Timer.LIVENESS
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
    def children(self) -> Children:
        return self.context.peer.children if self.context.is_current else Children(self._registry)

    def answered_since(self, since: float) -> bool:
        """A peer that does not speak of its life (RFC 3706) cannot be asked, so that its ESP counts."""
        liveness = self.context.liveness
        return (self.sa.last_message if liveness.spoken else liveness.last_heard) > since

    def info(self) -> IkeSaInfo:
        return reauthentication.info(self.context)

    def child_sas(self) -> tuple[ChildSaInfo, ...]:
        """Asked of the ISAKMP SA that is current."""
        own = self.context.quick_modes.own()
        return self.children.info((*self.context.peer.wanted.values(), None if own is None else own.replaces))

    def snapshot(self) -> SaSnapshot:
        sa, quick_modes, found = self.sa, self.context.quick_modes, super().snapshot()
        due = quick_modes.next_timeout()
        deadlines = {**found.deadlines} if due is None else {**found.deadlines, "quick modes": due}
        chains = {0: sa.chain} if sa.has_keys else {}
        chains |= {one.message_id: one.chain for one in quick_modes.all()}
        ivs = {number: chain.iv for number, chain in chains.items()}
        return replace(found, deadlines=deadlines, ivs=ivs)

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
        """Besides, the quick modes."""
        super().handle_timeout(now)
        self.command(now, causes.QuickModesDue())

    def next_timeout(self) -> float | None:
        due = (super().next_timeout(), self.context.quick_modes.next_timeout())
        return min((deadline for deadline in due if deadline is not None), default=None)

    def note_activity(self, now: float) -> None:
        if self.sa.phase is Phase.ESTABLISHED:
            self.context.liveness.note_activity(now)

    def peer_sends(self, now: float, spi_in: int) -> None:
        """The peer has the pair, also if its word was lost."""
        child = self.children.find(spi_in)
        if child is None:
            return
        self.children.confirm(child)
        for one in (self.context, *self.context.siblings()):
            quick_mode.confirmed(one, now, spi_in)

    def _refusal(
        self, error: Fault | DecodeError, cause: object, request: message.Received | None
    ) -> causes.Refused | None:
        received = cause.received if isinstance(cause, causes.Proved) else request
        if isinstance(received, Received) and isinstance(error, Fault):
            return causes.Refused(error, received)
        return None  # pragma: no cover (only an action of a message raises, and only a Fault)
