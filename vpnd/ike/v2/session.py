"""One IKEv2 SA as Endpoint sees it: its inputs become causes of rows of the table; it sends what follows."""

from __future__ import annotations

from typing import Any

from vpnd.ike.commands import Moved
from vpnd.ike.engine import Engine
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.message import Received
from vpnd.ike.outputs import ChildSaInfo, IkeSaInfo
from vpnd.ike.registry import Registry
from vpnd.ike.retransmit import GIVE_UP_AFTER, Schedule
from vpnd.ike.session import Progress
from vpnd.ike.v2 import causes, dispatch, duplicates, ladder, life
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.exchanges.informational import settle_early_deletes
from vpnd.ike.v2.faults import InvalidSyntax
from vpnd.ike.v2.ike_sa import IkeSa
from vpnd.ike.v2.requests import Exchange, Outstanding, Reply
from vpnd.ike.v2.state import State, Timer
from vpnd.ike.v2.table import STEPS
from vpnd.model.child import Path
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import Flag, Header
from vpnd.wire.iana import Exchange2, IkeVersion
from vpnd.wire.ikev2 import Payload

SHORTEST_AUTH = 10.0
"""Seconds that IKE_AUTH gets at least, however long IKE_SA_INIT took of the attempt's time."""


class Session(Engine):
    """One IKE SA, or the attempt at one."""

    version = IkeVersion.V2
    steps = STEPS
    ends_half_open = True
    sa: IkeSa
    context: Context

    def __init__(self, registry: Registry, sa: IkeSa) -> None:
        super().__init__(registry, sa)
        self.context = Context(registry, sa, self)

    # --- facts

    @property
    def is_undecided(self) -> bool:
        return self.sa.state in (State.ANSWERED_INIT, State.HELD)

    def has_child(self, spi_in: int) -> bool:
        return self.context.children.find(spi_in) is not None

    def answered_since(self, since: float) -> bool:
        return self.sa.last_message > since

    def info(self) -> IkeSaInfo:
        return life.info(self.context)

    @property
    def vendor(self) -> str | None:
        return self.sa.peer.vendor

    def progress(self) -> Progress:
        sa, attempt = self.sa, self.sa.attempt
        silence = life.diagnosis_of_silence(self.context)
        return Progress(attempt.began_at, attempt.sent, attempt.received, sa.path, silence, sa.chosen)

    def child_sas(self) -> tuple[ChildSaInfo, ...]:
        return life.child_sas(self.context)

    def _held(self) -> tuple[tuple[int, ...], dict[str, float], float | None, dict[int, bytes]]:
        children, timers = tuple(child.spi_in for child in self.context.children), self.context.timers
        deadlines = {_name(key): at for key, at in timers.all().items() if key is not Timer.DPD}
        return children, deadlines, timers.deadline(Timer.DPD), {}

    # --- inputs

    def handle_message(self, now: float, path: Path, header: Header, data: bytes) -> None:
        self.sa.attempt.received += 1
        dispatch.check_header(self.sa, header)
        if header.exchange == Exchange2.IKE_SA_INIT:
            self._hear_init_response(now, path, header, data)
        elif header.has(Flag.RESPONSE):
            self._hear_response(now, path, header, data)
        else:
            self._hear_request(now, path, header, data)

    def note_activity(self, now: float) -> None:
        self.sa.last_heard = now

    def peer_sends(self, now: float, spi_in: int) -> None:
        """Nothing: each exchange has its answer, and the DELETE of the old child says when to send on."""

    # --- its first message

    def respond(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """Answer a peer's first message. Raises Drop, DecodeError or Fault, with nothing registered."""
        self.sa.attempt.received += 1
        self._run(now, dispatch.read_plain(self._registry, self.sa, path, header, data))

    def repeat_init(self, path: Path) -> None:
        """The first message again, the same to the byte. Raises Drop if it comes too late or too often."""
        if self.sa.state is not State.ANSWERED_INIT:
            raise Drop("repeated IKE_SA_INIT: too late or different")
        self._repeat_reply(path)

    # --- messages

    def _hear_init_response(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """An answer to IKE_SA_INIT: anyone may have sent it, so no fault in it ends the attempt."""
        if not header.has(Flag.RESPONSE) or self.sa.state is not State.SENT_INIT:
            raise Drop("IKE_SA_INIT: not now")
        outstanding = self.context.requests.matches(header.message_id)
        received = dispatch.read_plain(self._registry, self.sa, path, header, data)
        self._run(now, causes.Answered(outstanding.exchange, received))

    def _hear_response(self, now: float, path: Path, header: Header, data: bytes) -> None:
        window, timers = self.context.requests, self.context.timers
        outstanding = window.matches(header.message_id)
        if outstanding.exchange.kind != header.exchange:
            raise Drop("response of another exchange")
        opened = self.context.outbox.protection.open(header, data)
        self._heard_from(now, path, answer=True)
        if opened.inside is None:
            return
        timers.disarm(Timer.RETRANSMIT)
        timers.disarm(Timer.LISTEN)
        received = dispatch.read_opened(self._registry, self.sa, path, header, data, opened)
        try:
            self._run(now, causes.Answered(outstanding.exchange, received))
        finally:
            if window.outstanding is outstanding:
                window.settled()
        settle_early_deletes(self.context, now)
        self._pump(now)

    def _hear_request(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """A request of the peer: the next one, or a repeat of the last."""
        if self.sa.state is State.HELD:
            raise Drop("held until the present peer has answered")
        is_repeat = self.context.requests.is_repeat(header.message_id)
        opened = self.context.outbox.protection.open(header, data)
        if is_repeat:
            # A fragmented request is repeated in all its fragments; the first of them gets the answer.
            if opened.fragment in (None, 1):
                self._repeat_reply(path)
            return
        self._heard_from(now, path, answer=False)
        if opened.inside is not None:
            self._run(now, dispatch.read_opened(self._registry, self.sa, path, header, data, opened))

    def _heard_from(self, now: float, path: Path, answer: bool) -> None:
        """An authentic, new message came along `path`; `answer`: it answers a request of ours."""
        sa = self.sa
        sa.last_heard = sa.last_message = now
        asked = answer and path in (sa.path, sa.former)
        if path != sa.path:
            self.command(now, Moved(path))
        if asked and path == sa.path:
            sa.former = None
        duplicates.heard(self.context, now)

    def _reply(self, request: Received, payloads: tuple[Payload, ...]) -> None:
        exchange, message_id = request.header.exchange, request.header.message_id
        datagrams = self.context.outbox.protect(exchange, message_id, payloads, response=True)
        if exchange == Exchange2.IKE_SA_INIT:
            self.sa.attempt.init.response = datagrams[0]
        text = ladder.text_of(exchange, message_id, payloads, response=True)
        self.context.requests.answered(Reply(message_id, datagrams, text))
        self.context.outbox.transmit(request.path, datagrams, text, ladder.detail_of(payloads))

    def _repeat_reply(self, path: Path) -> None:
        reply = self.context.requests.repeat(self._registry.limits.repeats)
        self.context.outbox.transmit(path, reply.datagrams, f"{reply.text} again")

    def _pump(self, now: float) -> None:
        requests = self.context.requests
        while self.sa.state not in (State.GONE, State.REFUSED) and (exchange := requests.take_next()):
            self._send(now, exchange)

    def _send(self, now: float, exchange: Exchange) -> None:
        """Build, seal and send one request; one that has nothing to ask any more is dropped.

        IKE_SA_INIT that is sent again, for a cookie or another group, keeps its message ID and its deadline.
        """
        context, sa = self.context, self.sa
        payloads = exchange.request(context, now)
        if payloads is None:
            return
        window, is_init = context.requests, exchange.kind is Exchange2.IKE_SA_INIT
        message_id = 0 if is_init else window.next_id
        datagrams = context.outbox.protect(exchange.kind, message_id, payloads, response=False)
        if is_init:
            sa.attempt.init.request = datagrams[0]
        text = ladder.text_of(exchange.kind, message_id, payloads, response=False)
        patience = self._patience(now, exchange.kind)
        schedule = Schedule(now, self._registry.entropy, patience, exchange.longest_wait)
        window.sent(Outstanding(message_id, exchange, datagrams, schedule, text))
        context.timers.arm(Timer.RETRANSMIT, schedule.due)
        context.outbox.transmit(sa.path, datagrams, text, ladder.detail_of(payloads))

    def _patience(self, now: float, kind: Exchange2) -> float:
        attempt_ends = self.sa.attempt.began_at + GIVE_UP_AFTER
        match kind:
            case Exchange2.IKE_SA_INIT:
                return attempt_ends - now
            case Exchange2.IKE_AUTH:
                return max(SHORTEST_AUTH, attempt_ends - now)
            case _:
                dpd = self.sa.policy.dpd
                return max(GIVE_UP_AFTER, float(dpd.timeout)) if dpd.enabled else GIVE_UP_AFTER

    def _refusal(
        self, error: Fault | DecodeError, cause: object, request: Received | None
    ) -> causes.Refused | None:
        if request is None:  # pragma: no cover (only an action of a request raises)
            return None
        return causes.Refused(error if isinstance(error, Fault) else InvalidSyntax(detail=error))


def _name(key: Any) -> str:
    """What a deadline is for, and of which child."""
    return key.name if isinstance(key, Timer) else f"{key[0].name} {key[1]:08x}"
