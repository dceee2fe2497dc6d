"""What happened, in an operator's words: to the log, and to the ring that `vpnctl events` reads."""

from __future__ import annotations

from datetime import UTC, datetime

from vpnd.control.diagnoses import message
from vpnd.control.eventlog import EventLog
from vpnd.control.schema import Event, TraceLine
from vpnd.daemon.events.logs import LOG, Repeats
from vpnd.daemon.events.recorder import Recorder
from vpnd.host.clock import Clock
from vpnd.ike.outputs import LadderLine
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.text import cut

UNPROVEN = "unproven"
"""Stands for the text of a failure whose values anyone can choose: its repeats are known by this."""


class Journal:
    """Events of tunnels and of the gateway, and the last IKE messages of each tunnel."""

    def __init__(
        self, clock: Clock, events: EventLog | None = None, recorder: Recorder | None = None
    ) -> None:
        self.events = events or EventLog()
        self.recorder = recorder or Recorder()
        self._clock = clock
        self._repeats = Repeats()

    def event(
        self,
        tunnel: str | None,
        kind: str,
        text: str,
        code: str | None = None,
        unproven: bool = False,
        by: str | None = None,
        quiet: bool = False,
    ) -> None:
        """A state change: one event, one line. `unproven`: anyone can cause it. `by`: who asked for it.

        `quiet`: it needs no look, whatever its code.
        """
        text = cut(text)
        event = Event(at=self._clock.wall(), tunnel=tunnel, event=kind, text=text, code=code, by=by)
        self.events.publish(event, unproven)
        wrong = code is not None and code.startswith(("E-", "W-")) and not quiet
        level = LOG.warning if wrong else LOG.info
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
        self.recorder.add(self._clock.wall().timestamp(), line)
        LOG.debug(f"{'->' if line.outbound else '<-'} {line.text}", tunnel=line.tunnel, size=line.size)

    def ladder(self, tunnel: str) -> list[LadderLine]:
        """The last IKE messages of a tunnel as it is configured now, since the start, oldest first."""
        return self.recorder.present(tunnel)

    def traced(self, tunnel: str) -> list[TraceLine]:
        """The last IKE messages of a tunnel, those before the last start included, oldest first."""
        return [
            TraceLine(
                id=one.number,
                at=datetime.fromtimestamp(one.at, UTC),
                direction="out" if one.line.outbound else "in",
                text=one.line.text,
                size=one.line.size,
                detail=list(one.line.detail),
            )
            for one in self.recorder.recorded(tunnel)
        ]

    def forget(self, tunnel: str, made_again: bool = False) -> None:
        """The tunnel is removed; `made_again`: for one with another configuration, and its messages stay."""
        if not made_again:
            self.recorder.forget(tunnel)
        self._repeats.forget_tunnel(tunnel)
