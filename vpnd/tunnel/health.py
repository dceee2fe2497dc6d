"""The health check (specification: NQA): ICMP echo inside the tunnel, and a verdict with hysteresis.

    unknown --> healthy      at the first answer
    unknown, healthy --> unhealthy    after `failures` failed probes in a row
    unhealthy --> healthy    after `recoveries` answered probes in a row

A probe begins every `interval` from the moment that the tunnel is configured. It is one echo request, and up
to two more at a third and two thirds of `timeout` while there is no answer: it fails if none is answered
within `timeout` of its beginning, or if the tunnel has no SA to carry it. So lost packets alone do not make
a tunnel sick (at 20 % loss a probe fails once in 125), while a tunnel that carries nothing is found as fast
as with one packet: at most `failures` x `interval` + `timeout` after its last answer.

A tunnel that loses part of what it carries is no matter of the verdict, since a lossy tunnel is better than
none; but another tunnel that loses less carries the traffic then. So where there is another one, single echo
requests between the probes watch for loss, and where one is lost a closer look follows: many of them, until
it is clear whether the path loses too much (`loss.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from vpnd.crypto.entropy import Entropy
from vpnd.ike.deadlines import Deadlines
from vpnd.model.policy import HealthPolicy
from vpnd.model.selectors import Address
from vpnd.tunnel.history import History
from vpnd.tunnel.loss import LossTest
from vpnd.tunnel.path_size import SEQUENCES, PathSized, SendProbe, SizeCheck

ECHOES = 3
"""Ours: echo requests of one probe, the later ones only while the earlier ones are unanswered."""

WATCHES = 5
"""Ours: echo requests in each interval of a tunnel whose traffic another could take, the probe's among them.

With the probe's alone the first loss of 30 % would be seen after some three intervals, when traffic has to
have moved.
"""

LOOK_EVERY = 0.005
"""Ours: seconds between two echo requests of a closer look, about 250 kbit/s with ESP's overhead.

Some 460 of them tell 30 % loss from 20 %, and nothing needs less: so many a second are what makes it quick.
"""

PRESSING_EVERY = 0.002
"""Ours: seconds between two of them while the evidence speaks for too much loss; at 20 % it seldom does."""

LOSSY_EVERY = 0.05
"""Ours: seconds between two of them when the tunnel is known to lose too much: its return has time."""

LOOKS = 8
"""Ours: tunnels that are looked at closely at the same time; the others have their turn later."""

FIRST_WITHIN = 1.0
"""Ours: seconds over which the first probes of tunnels that start together are spread."""


class HealthState(Enum):
    """The verdict on one tunnel."""

    UNKNOWN = "unknown"
    """Nothing was answered yet, and too little is lost to say more."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class ProbeUnsent:
    """A probe was due and the tunnel has no SA for it: a traffic-triggered tunnel takes it for traffic."""

    tunnel: str


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """The verdict is another now; `in_a_row` probes with the same outcome led to it."""

    tunnel: str
    before: HealthState
    after: HealthState
    in_a_row: int


@dataclass(frozen=True, slots=True)
class LossChanged:
    """The tunnel loses too much from now on, or no longer; `loss` is the part that was lost recently."""

    tunnel: str
    lossy: bool
    loss: float


ProbeOutput = SendProbe | ProbeUnsent | HealthChanged | LossChanged | PathSized


@dataclass(slots=True)
class _Probe:
    """One probe: failed if unanswered at `deadline`, seconds; `echoes` requests were sent for it."""

    deadline: float
    echoes: int = 0
    answered: bool = False


@dataclass(slots=True)
class _Echo:
    """One echo request on its way, sent at `sent`, lost at `deadline`, seconds."""

    sent: float
    deadline: float
    probe: _Probe | None
    """None for one of a closer look."""


class HealthCheck:
    """The health check of one tunnel. Every method is told `now`, in seconds on one monotonic clock."""

    __slots__ = (
        "_echoes",
        "_failed",
        "_identifier",
        "_look_at",
        "_loss",
        "_next",
        "_outputs",
        "_passed",
        "_probes",
        "_sequence",
        "_watch_at",
        "contested",
        "history",
        "linked",
        "looking",
        "policy",
        "size",
        "state",
        "tunnel",
    )

    def __init__(
        self, now: float, tunnel: str, policy: HealthPolicy, entropy: Entropy, outputs: deque[ProbeOutput]
    ) -> None:
        self.tunnel = tunnel
        self.policy = policy
        self.state = HealthState.UNKNOWN
        self.linked = False
        """Whether the tunnel has an SA that carries the probe."""
        self.looking = False
        """Whether it may look closely: as many may at the same time as their keeper allows."""
        self.contested = False
        """Whether another tunnel could take the traffic of this one, so that partial loss is of interest."""
        self.history = History()
        self._outputs = outputs
        self._identifier = entropy.below(SEQUENCES)
        self._sequence = entropy.below(SEQUENCES)
        self.size = SizeCheck(tunnel, policy, self._identifier, outputs.append)
        """Whether large packets pass as well."""
        self._next = now + min(FIRST_WITHIN, policy.interval) * entropy.below(1000) / 1000
        self._probes: deque[_Probe] = deque()
        self._echoes: dict[int, _Echo] = {}
        self._failed = 0
        self._passed = 0
        self._loss = LossTest()
        self._look_at = now
        self._watch_at = self._next

    @property
    def lossy(self) -> bool:
        """Whether the tunnel loses too much."""
        return self._loss.lossy

    @property
    def doubtful(self) -> bool:
        """Whether a closer look would tell something."""
        return self.linked and self.contested and self._loss.doubtful

    @property
    def _watching(self) -> bool:
        """Whether single echo requests between the probes are due; in an outage they tell nothing new."""
        return self.linked and self.contested and not self._loss.silent

    def set_linked(self, now: float, linked: bool) -> None:
        """The SA that carries the probe came or went. When it comes, the next probe is due at once."""
        if linked and not self.linked:
            self._next = min(self._next, now)
        self.linked = linked
        self._follow(now)

    def set_contested(self, now: float, contested: bool) -> None:
        """Whether another tunnel could take the traffic of this one, from now on."""
        self.contested = contested
        self._watch_at = max(self._watch_at, now)

    def handle_reply(
        self, now: float, source: Address, destination: Address, identifier: int, sequence: int
    ) -> bool:
        """An echo reply came out of this tunnel. Returns whether it answers a request of ours in time."""
        if self.size.handle_reply(now, source, destination, identifier, sequence):
            return True
        mine = (self.policy.remote, self.policy.local, self._identifier)
        if (source, destination, identifier) != mine:
            return False
        echo = self._echoes.get(sequence)
        if echo is None or now > echo.deadline:
            return False
        del self._echoes[sequence]
        self._measure(now, now - echo.sent)
        if echo.probe is not None and now <= echo.probe.deadline:
            echo.probe.answered = True
        self._judge(now)
        self._follow(now)
        return True

    def handle_timeout(self, now: float) -> None:
        """Counts what is lost, judges what is decided, and sends what is due."""
        for sequence in [s for s, echo in self._echoes.items() if echo.deadline <= now]:
            look = self._echoes.pop(sequence).probe is None
            # Those of a look that fell into an outage would make it seem longer than it is.
            if not (look and self._loss.silent):
                self._measure(now, None)
        self._judge(now)
        if self.looking and self.doubtful and self._look_at <= now:
            # By its own schedule: a loop that wakes a moment late each time would look less often.
            self._look_at = max(self._look_at + self._look_every(), now)
            self._request(now, None)
        if self._watching and self._watch_at <= now < self._next:
            self._watch(now)
            self._request(now, None)
        for probe in self._probes:
            if self._repeat_at(probe) <= now:
                self._send(now, probe)
        if self._next <= now:
            self._begin(now)
        self._follow(now)
        self.size.handle_timeout(now)

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to do."""
        at = min(self._next, self._look_at) if self.looking and self.doubtful else self._next
        if self._watching:
            at = min(at, self._watch_at)
        if self._echoes:
            at = min(at, next(iter(self._echoes.values())).deadline)
        if self._probes:
            at = min(at, self._probes[0].deadline, *map(self._repeat_at, self._probes))
        return min(at, self.size.next_timeout())

    # ------------------------------------------------------------------------------------ inside

    def _follow(self, now: float) -> None:
        """Large packets are tried where small ones pass."""
        self.size.set_ready(now, self.linked and self.state is HealthState.HEALTHY and not self.lossy)

    def _begin(self, now: float) -> None:
        interval = self.policy.interval
        # Who slept through several intervals begins one probe, not all that were missed.
        self._next = self._next + interval if self._next + interval > now else now + interval
        self._watch(now)
        if self.linked:
            probe = _Probe(now + self.policy.timeout)
            self._probes.append(probe)
            self._send(now, probe)
            return
        self._outputs.append(ProbeUnsent(self.tunnel))
        self.history.count(now, None)
        self._probes.append(_Probe(now, ECHOES))
        self._judge(now)

    def _watch(self, now: float) -> None:
        self._watch_at = now + self.policy.interval / WATCHES

    def _look_every(self) -> float:
        if self._loss.lossy:
            return LOSSY_EVERY
        return PRESSING_EVERY if self._loss.pressing else LOOK_EVERY

    def _send(self, now: float, probe: _Probe) -> None:
        probe.echoes += 1
        if self.linked:
            self._request(now, probe)

    def _request(self, now: float, probe: _Probe | None) -> None:
        self._sequence = (self._sequence + 1) % SEQUENCES
        policy = self.policy
        self._echoes[self._sequence] = _Echo(now, now + policy.timeout, probe)
        self._outputs.append(
            SendProbe(self.tunnel, policy.local, policy.remote, self._identifier, self._sequence)
        )

    def _measure(self, now: float, rtt: float | None) -> None:
        self.history.count(now, rtt)
        before = self._loss.lossy
        self._loss.count(rtt is None)
        # A look begins with the loss that gives reason to it, and watching goes on with the end of an outage.
        self._look_at = max(self._look_at, now)
        self._watch_at = max(self._watch_at, now)
        if self._loss.lossy is not before:
            recent = self.history.recent()
            self._outputs.append(LossChanged(self.tunnel, self._loss.lossy, recent.lost / recent.sent))

    def _repeat_at(self, probe: _Probe) -> float:
        if probe.answered or probe.echoes >= ECHOES:
            return float("inf")
        return probe.deadline - self.policy.timeout * (ECHOES - probe.echoes) / ECHOES

    def _judge(self, now: float) -> None:
        """Takes the probes in the order in which they began, so that "in a row" means what it says."""
        probes = self._probes
        while probes and (probes[0].answered or probes[0].deadline <= now):
            self._count(probes.popleft().answered)

    def _count(self, answered: bool) -> None:
        self._failed = 0 if answered else self._failed + 1
        self._passed = self._passed + 1 if answered else 0
        needed = self.policy.recoveries if self.state is HealthState.UNHEALTHY else 1
        if self._failed >= self.policy.failures:
            self._change(HealthState.UNHEALTHY, self._failed)
        elif self._passed >= needed:
            self._change(HealthState.HEALTHY, self._passed)

    def _change(self, state: HealthState, in_a_row: int) -> None:
        if state is not self.state:
            before, self.state = self.state, state
            self._outputs.append(HealthChanged(self.tunnel, before, state, in_a_row))


class HealthChecks:
    """The health checks of all tunnels of a gateway. A thousand cost one heap entry each."""

    def __init__(self, entropy: Entropy) -> None:
        self.outputs: deque[ProbeOutput] = deque()
        self._entropy = entropy
        self._checks: dict[str, HealthCheck] = {}
        self._contested: frozenset[str] = frozenset()
        self._looking: set[str] = set()
        self._deadlines: Deadlines[str] = Deadlines()

    def get(self, tunnel: str) -> HealthCheck | None:
        """The health check of a tunnel, or None while it is off."""
        return self._checks.get(tunnel)

    def set_policy(self, now: float, tunnel: str, policy: HealthPolicy | None) -> None:
        """The tunnel is configured so from now on; the same policy leaves its check as it is."""
        known = self._checks.get(tunnel)
        if policy is None:
            self.remove(tunnel)
        elif known is None or known.policy != policy:
            self.remove(tunnel)
            check = HealthCheck(now, tunnel, policy, self._entropy, self.outputs)
            check.set_contested(now, tunnel in self._contested)
            self._checks[tunnel] = check
            self._deadlines.arm(tunnel, check.next_timeout())

    def set_contested(self, now: float, tunnels: frozenset[str]) -> None:
        """These are the tunnels whose traffic another one could take, from now on."""
        changed = tunnels ^ self._contested
        self._contested = tunnels
        for name in changed:
            if (check := self._checks.get(name)) is not None:
                with self._settling(check):
                    check.set_contested(now, name in tunnels)

    def remove(self, tunnel: str) -> None:
        """The tunnel is removed, or its check is off; what it asked for and was not done yet is forgotten."""
        if self._checks.pop(tunnel, None) is None:
            return
        self._deadlines.disarm(tunnel)
        self._looking.discard(tunnel)
        kept = [output for output in self.outputs if output.tunnel != tunnel]
        self.outputs.clear()
        self.outputs.extend(kept)

    def set_linked(self, now: float, tunnel: str, linked: bool) -> None:
        """As `HealthCheck.set_linked`."""
        if (check := self._checks.get(tunnel)) is not None:
            with self._settling(check):
                check.set_linked(now, linked)

    def set_limit(self, now: float, tunnel: str, limit: int) -> None:
        """The tunnel's interface takes packets of up to `limit` bytes from now on."""
        if (check := self._checks.get(tunnel)) is not None:
            with self._settling(check):
                check.size.set_limit(now, limit)

    def handle_reply(
        self, now: float, tunnel: str, source: Address, destination: Address, identifier: int, sequence: int
    ) -> None:
        """As `HealthCheck.handle_reply`; what answers nothing of ours changes nothing."""
        if (check := self._checks.get(tunnel)) is not None:
            with self._settling(check):
                check.handle_reply(now, source, destination, identifier, sequence)

    def handle_timeout(self, now: float) -> None:
        """Wakes the checks that have something to do; after a bug in one the others are due still."""

        def serve(tunnel: str) -> None:
            check = self._checks[tunnel]  # it has a deadline as long as it is here
            with self._settling(check):
                check.handle_timeout(now)

        self._deadlines.serve(now, serve)

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do, in seconds on the caller's clock."""
        return self._deadlines.next_timeout()

    @contextmanager
    def _settling(self, check: HealthCheck) -> Iterator[None]:
        """An input of a check; afterwards its share of looks and its deadline follow."""
        try:
            yield
        finally:
            self._share_looks(check)
            self._deadlines.arm(check.tunnel, check.next_timeout())

    def _share_looks(self, check: HealthCheck) -> None:
        if not check.doubtful:
            self._looking.discard(check.tunnel)
        elif len(self._looking) < LOOKS:
            self._looking.add(check.tunnel)
        check.looking = check.tunnel in self._looking
