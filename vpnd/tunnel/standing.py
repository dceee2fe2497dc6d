"""What keeps a tunnel from carrying traffic, and what went wrong with it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.tunnel.mappings import KEPT_FAULTS, Fault


@dataclass(slots=True, eq=False)
class Standing:
    """Of one tunnel. Times are seconds on the caller's clock; only its own methods change it."""

    closed: bool = False
    """Down by the operator."""
    disconnected: bool = False
    """The peer was found dead, and nothing here begins again by itself (DPD action `disconnect`)."""
    blocked: Diagnosis | None = None
    """What on this machine keeps the tunnel from working."""
    unhealthy: bool = False
    """The health check failed."""
    error: Fault | None = None
    """The failure that stands; None when everything wanted is up."""
    faults: deque[tuple[Fault, int | None]] = field(default_factory=lambda: deque(maxlen=KEPT_FAULTS))
    """The last failures, newest last, each with its mapping if it concerned one."""
    refused: dict[Code, Fault] = field(default_factory=dict)
    """The last refusal under each code of those who had not proved to be the peer, newest last."""
    tries: int = 0
    """Attempts that failed since `since`."""
    since: float | None = None
    _before_block: Fault | None = None

    @property
    def is_down(self) -> bool:
        """Whether nothing comes up before someone acts on this machine."""
        return self.closed or self.blocked is not None

    def failure(self, all_up: bool) -> Fault | None:
        """Why the tunnel is not up, as far as is known: what is certain before what anyone can have said."""
        if self.error is not None or all_up or not self.refused:
            return self.error
        return next(reversed(self.refused.values()))

    # ----------------------------------------------------------------------- what keeps it down

    def open(self) -> None:
        """`down` holds no longer."""
        self.closed = False

    def close(self) -> None:
        """Down by the operator, whatever the peer was."""
        self.closed, self.disconnected = True, False

    def disconnect(self) -> None:
        """The peer is dead, and is not called again."""
        self.disconnected = True

    def reconnect(self) -> None:
        """The peer may be called again."""
        self.disconnected = False

    def prepared(self) -> None:
        """What the tunnel waited for on this machine is there."""
        self.blocked = None

    def block(self, now: float, diagnosis: Diagnosis) -> None:
        """This machine cannot carry the tunnel: the failure that stood before waits until it can."""
        if self.blocked is None:
            self._before_block = self.error
        self.blocked = diagnosis
        self.record(now, diagnosis, None)

    def unblock(self, reasons: bool) -> None:
        """This machine can carry it again. `reasons`: a mapping has one of its own for being down."""
        self.blocked = None
        before, self._before_block = self._before_block, None
        if self.error is not None and (before is not None or not reasons):
            self.error = before

    def set_health(self, healthy: bool) -> None:
        """The health check's verdict."""
        self.unhealthy = not healthy

    # -------------------------------------------------------------------------- what went wrong

    def record(self, now: float, diagnosis: Diagnosis, index: int | None) -> None:
        """An attempt failed, of this mapping or of all."""
        self.error = Fault(diagnosis, now)
        self.add(self.error, index)
        self.tries += 1
        if self.since is None:
            self.since = now

    def add(self, fault: Fault, index: int | None) -> None:
        """Something failed that leaves what stands as it is."""
        self.faults.append((fault, index))

    def note(self, now: float, diagnosis: Diagnosis) -> None:
        """Something is known of an attempt that goes on; it is no failure yet, but what there is to say."""
        if self.error is None:
            self.error = Fault(diagnosis, now)
            self.add(self.error, None)

    def refuse(self, now: float, diagnosis: Diagnosis) -> None:
        """The attempt of a peer that is not authenticated was refused.

        Anyone can have this said as often as he likes, so one of each code is kept, beside what is certain.
        """
        self.refused.pop(diagnosis.code, None)
        self.refused[diagnosis.code] = Fault(diagnosis, now)

    def forget_error(self) -> None:
        """What failed before stands no longer."""
        self.error = None

    def works(self) -> None:
        """Everything that was wanted is up."""
        self.error = None
        self.tries, self.since = 0, None
