"""What happened, in an operator's words: to the log, and to the ring that `vpnctl events` reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from vpnd.control.diagnoses import message
from vpnd.control.eventlog import EventLog
from vpnd.control.schema import Event, TraceLine
from vpnd.daemon.events.logs import LOG, Repeats
from vpnd.host.clock import Clock, at_wall
from vpnd.ike.outputs import LadderLine
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.text import cut

KEPT_MESSAGES = 64
KEPT_SIGNS = 8
"""Ours: IKE messages that `vpnctl trace` shows of each tunnel, and of those the ones that only ask whether
the peer lives: they come every few seconds, and would push out all that was ever negotiated."""
KEPT_OF_STRANGERS = 32
"""Ours: likewise, of attempts of a peer that has not proved itself: anyone can send first messages."""
UNPROVEN = "unproven"
"""Stands for the text of a failure whose values anyone can choose: its repeats are known by this."""


@dataclass(slots=True)
class _Trace:
    """The messages of one tunnel, each with its time, in the order of `number`; lists, as they are short."""

    messages: list[_Said] = field(default_factory=list)
    signs: list[_Said] = field(default_factory=list)
    strangers: list[_Said] = field(default_factory=list)

    def add(self, number: int, at: float, line: LadderLine) -> None:
        """Keep one message; the oldest of its kind goes when there are too many."""
        kept, most = self.messages, KEPT_MESSAGES
        if line.stranger:
            kept, most = self.strangers, KEPT_OF_STRANGERS
        elif line.is_sign_of_life:
            kept, most = self.signs, KEPT_SIGNS
        if len(kept) == most:
            del kept[0]
        # Without the tunnel's name and what a value takes besides: a gateway has thousands of them.
        kept.append((number, at, line.outbound, line.text, line.size, line.detail))


_Said = tuple[int, float, bool, str, int, tuple[str, ...]]


class Journal:
    """Events of tunnels and of the gateway, and the last IKE messages of each tunnel."""

    def __init__(self, clock: Clock, events: EventLog | None = None) -> None:
        self.events = events or EventLog()
        self._clock = clock
        self._repeats = Repeats()
        self._traces: dict[str, _Trace] = {}
        self._traced = 0

    def event(
        self,
        tunnel: str | None,
        kind: str,
        text: str,
        code: str | None = None,
        unproven: bool = False,
        by: str | None = None,
    ) -> None:
        """A state change: one event, one line. `unproven`: anyone can cause it. `by`: who asked for it."""
        text = cut(text)
        event = Event(at=self._clock.wall(), tunnel=tunnel, event=kind, text=text, code=code, by=by)
        self.events.publish(event, unproven)
        level = LOG.warning if code is not None and code.startswith(("E-", "W-")) else LOG.info
        fields = {"tunnel": tunnel} if tunnel is not None else {}
        level(text, **fields, kind=kind, **({"code": code} if code else {}))

    def failure(
        self,
        tunnel: str | None,
        kind: str,
        diagnosis: Diagnosis,
        what_next: str = "",
        unproven: bool = False,
    ) -> None:
        """A failure; the same one of the same tunnel is said once, then once a minute with a count.

        `unproven`: who failed has not proved to be the peer and has chosen the values in the text, so all
        failures of one code are the same.
        """
        code = diagnosis.code.value
        self._seldom(tunnel, kind, message(diagnosis), what_next, code, unproven)

    def repaired(self, tunnel: str | None, kind: str, text: str) -> None:
        """Something that was removed was put back; logged as a failure is, since it may go on without end."""
        self._seldom(tunnel, kind, text)

    def guessed(self, peer: str) -> None:
        """Someone at this address has tried a token that is not valid; said once a minute."""
        text = f"a token that is not valid came from {peer}"
        self._seldom(None, "token-refused", text, code="W-TOKEN", unproven=True)

    def recovered(self, tunnel: str) -> None:
        """The tunnel works: its next failure is news again, but for those that anyone can make."""
        self._repeats.forget_tunnel(tunnel, but=UNPROVEN)

    def detail(self, tunnel: str | None, text: str, **facts: object) -> None:
        """Something for who looks closely: the log at level debug only."""
        fields = {"tunnel": tunnel} if tunnel is not None else {}
        LOG.debug(text, **fields, **facts)

    def warn(self, tunnel: str | None, text: str, **facts: object) -> None:
        """Something that an operator should know and that is no state change; once a minute."""
        held = self._repeats.admit(self._clock.now(), (tunnel, text))
        if held is not None:
            fields = {"tunnel": tunnel} if tunnel is not None else {}
            LOG.warning(text, **fields, **facts, **({"repeated": held} if held else {}))

    def fault(self, tunnel: str | None, what: str, error: Exception) -> None:
        """A bug of ours that was caught: with its stack, without values."""
        fields = {"tunnel": tunnel} if tunnel is not None else {}
        LOG.error(what, **fields, kind="internal-error", exc_info=error)

    def _seldom(
        self,
        tunnel: str | None,
        kind: str,
        text: str,
        what_next: str = "",
        code: str | None = None,
        unproven: bool = False,
    ) -> None:
        same = (tunnel, kind, UNPROVEN, code) if unproven else (tunnel, kind, text)
        held = self._repeats.admit(self._clock.now(), same)
        if held is None:
            return
        again = "once more" if held == 1 else f"{held} more times"
        times = f" ({again} meanwhile)" if held else ""
        self.event(tunnel, kind, f"{text}{what_next}{times}", code, unproven)

    def trace(self, line: LadderLine) -> None:
        """Keep one IKE message for `vpnctl trace`."""
        kept = self._traces.get(line.tunnel)
        if kept is None:
            kept = self._traces[line.tunnel] = _Trace()
        self._traced += 1
        kept.add(self._traced, self._clock.now(), line)
        LOG.debug(f"{'->' if line.outbound else '<-'} {line.text}", tunnel=line.tunnel, size=line.size)

    def ladder(self, tunnel: str) -> list[tuple[float, LadderLine]]:
        """The last IKE messages of a tunnel, oldest first, with their times on our clock."""
        kept = self._traces.get(tunnel, _Trace())
        ordered = sorted(kept.messages + kept.signs + kept.strangers)
        return [
            (at, LadderLine(tunnel, outbound, text, size, detail))
            for _, at, outbound, text, size, detail in ordered
        ]

    def traced(self, tunnel: str) -> list[TraceLine]:
        """As `ladder`, in the shape that the API has."""
        now = self._clock.now()
        return [
            TraceLine(
                at=at_wall(self._clock, now, at),
                direction="out" if line.outbound else "in",
                text=line.text,
                size=line.size,
                detail=list(line.detail),
            )
            for at, line in self.ladder(tunnel)
        ]

    def forget(self, tunnel: str) -> None:
        """The tunnel is removed."""
        self._traces.pop(tunnel, None)
        self._repeats.forget_tunnel(tunnel)
