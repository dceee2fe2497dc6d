"""What keeps a tunnel from carrying traffic, and what went wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.tunnel.mappings import KEPT_FAULTS, Fault

OTHERS = (Code.LOCAL_ROUTE, Code.MAPPINGS_DOWN, Code.FLAPPING, Code.MTU)
"""What may be wrong with a tunnel that is up, the most pressing first."""


class Impairments:
    """What is wrong with a tunnel that is up, under each code of `OTHERS` once."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[Code, Fault] = {}

    def get(self, code: Code) -> Fault | None:
        """What is wrong under this code."""
        return self._found.get(code)

    def first(self) -> Fault | None:
        """The most pressing."""
        return next((self._found[code] for code in OTHERS if code in self._found), None)

    def put(self, now: float, code: Code, diagnosis: Diagnosis | None) -> bool:
        """What is wrong under this code; None: it no longer is. Whether that is news."""
        before = self._found.get(code)
        if diagnosis is None:
            return self._found.pop(code, None) is not None
        if before is not None and before.diagnosis == diagnosis:
            return False
        self._found[code] = Fault(diagnosis, now if before is None else before.at)
        return True

    def down(self) -> None:
        """Nothing is up any more: what mappings and paths have shown is over, that it came to this is not."""
        self._found.pop(Code.MAPPINGS_DOWN, None)
        self._found.pop(Code.MTU, None)


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
    flow: Fault | None = None
    """Why traffic does not pass although there are SAs, as the counters show."""
    health: Fault | None = None
    """That the health check fails, and since when."""
    others: Impairments = field(default_factory=Impairments)
    """What else is wrong with a tunnel that is up."""
    error: Fault | None = None
    """The failure that stands; None when everything wanted is up."""
    faults: list[tuple[Fault, int | None]] = field(default_factory=list)
    """The last failures, newest last, each with its mapping if it concerned one."""
    refused: dict[Code, Fault] = field(default_factory=dict)
    """The last refusal under each code of those who had not proved to be the peer, newest last."""
    refusal: Fault | None = None
    """The last of these since the tunnel was up, or was configured as it is."""
    learned: tuple[Code, Diagnosis, Diagnosis] | None = None
    """What the peer, asked after failures with this code, has shown to be their reason; the last of them."""
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
        return self.error if self.error is not None or all_up else self.refusal

    @property
    def impaired(self) -> Fault | None:
        """Why a tunnel that is up is of no use."""
        return self.health or self.flow or self.others.first()

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

    def set_health(self, fault: Fault | None) -> None:
        """The health check's verdict: how it fails; None: it does not."""
        self.unhealthy = fault is not None
        self.health = fault
        if fault is not None:
            self.add(fault, None)

    def impede(self, now: float, diagnosis: Diagnosis) -> None:
        """Packets do not pass although there are SAs."""
        before = self.flow
        if before is None or before.diagnosis.code is not diagnosis.code:
            self.flow = Fault(diagnosis, now)
            self.add(self.flow, None)
        elif before.diagnosis != diagnosis:
            self.flow = Fault(diagnosis, before.at)

    def forget_flow(self) -> None:
        """Packets pass, or none are sent any more."""
        self.flow = None

    # -------------------------------------------------------------------------- what went wrong

    def record(self, now: float, diagnosis: Diagnosis, index: int | None) -> None:
        """An attempt failed, of this mapping or of all."""
        if self.learned is not None and self.learned[0] is diagnosis.code:
            self.learned = (*self.learned[:2], diagnosis)
            diagnosis = self.learned[1]
        self.error = Fault(diagnosis, now)
        self.add(self.error, index)
        self.tries += 1
        if self.since is None:
            self.since = now

    def add(self, fault: Fault, index: int | None) -> None:
        """Something failed that leaves what stands as it is."""
        self.faults.append((fault, index))
        del self.faults[:-KEPT_FAULTS]

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
        self.refused[diagnosis.code] = self.refusal = Fault(diagnosis, now)

    def learn(self, now: float, code: Code, diagnosis: Diagnosis | None) -> None:
        """The peer was asked why attempts fail with this code. None: it shows nothing, or no longer."""
        known, self.learned = self.learned, None
        if self.error is None:
            return
        failure = self.error.diagnosis
        if known is not None and failure == known[1]:
            failure = known[2]
        if failure.code is not code:
            return
        if diagnosis is not None:
            self.learned = code, diagnosis, failure
            self.error = Fault(diagnosis, now)
            self.add(self.error, None)
        else:
            self.error = Fault(failure, self.error.at)

    def forget_error(self) -> None:
        """What failed before stands no longer."""
        self.error = self.learned = self.refusal = None

    def works(self) -> None:
        """Everything that was wanted is up."""
        self.forget_error()
        self.tries, self.since = 0, None
