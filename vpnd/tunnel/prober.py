"""Asks a peer that refuses, or keeps silent, by attempts of their own: to know instead of to guess.

    two failures of a kind --> probe, probe, ... --> LEARNED, or nothing
                               each ends with the first answer, or after ANSWER_WITHIN

Only while the tunnel has no SA, at most one round in ROUND_EVERY. A probe is an endpoint of its own with one
policy, so nothing here touches what is up; it never says INITIAL_CONTACT. One that asks for algorithms or
for the version ends before anything is proved, so that no SA comes about. In IKEv2 its offer cannot be taken,
and the peer keeps nothing; in IKEv1 an error in clear ends what the peer has begun. One that asks who the
peer is closes at once what it has made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from vpnd.crypto.entropy import Entropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import Established, Failed, LadderLine, Transmit
from vpnd.ike.registry import NO_SPI
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import Diagnose, PeerPolicy
from vpnd.model.proposals import Suite
from vpnd.tunnel.probes import Asked, Probe, found, of_main_mode, probes, taken
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import Flag, Header
from vpnd.wire.iana import Exchange1, IkeVersion

ROUND_EVERY = 600.0
"""Ours: seconds between two rounds for one tunnel."""
ALIKE = 2
"""Ours: failures of a kind before the peer is asked."""
ANSWER_WITHIN = 4.0
"""Ours: seconds for one answer: three tries."""
CLOSED_WITHIN = 4.0
"""Ours: seconds in which what a probe has made is closed, with the repeats of our DELETE."""
LATE_WITHIN = 30.0
"""Ours: seconds in which a proof that comes late is waited for, to close what it makes, without repeats."""
ROUNDS = 4
"""Ours: tunnels at the same time, each of another peer; the others have their turn at a later failure."""

SPI = slice(0, 8)


@dataclass(frozen=True, slots=True)
class ProbingBegan:
    """The peer of a tunnel is being asked, since attempts have failed with this code."""

    tunnel: str
    code: Code


@dataclass(frozen=True, slots=True)
class Learned:
    """A round is over. `diagnosis`: what it has shown; None: no more than was known."""

    tunnel: str
    code: Code
    diagnosis: Diagnosis | None


ProberOutput = Transmit | LadderLine | ProbingBegan | Learned


@dataclass(slots=True, eq=False)
class _Attempt:
    """One probe under way; after it is `over` it only closes what it has made."""

    probe: Probe
    endpoint: Endpoint
    ends: float
    over: bool = False
    proved: bool = False


@dataclass(slots=True)
class _Round:
    policy: PeerPolicy
    code: Code
    waiting: deque[Probe]


@dataclass(slots=True)
class _Seen:
    """The failures of a tunnel: the code of the last, and how many of them came in a row."""

    code: Code
    count: int = 1
    asked_at: float = field(default=float("-inf"))


class Prober:
    """The probes of every tunnel. Times are seconds on the caller's clock."""

    def __init__(self, entropy: Entropy) -> None:
        self.outputs: deque[ProberOutput] = deque()
        self._entropy = entropy
        self._seen: dict[str, _Seen] = {}
        self._rounds: dict[str, _Round] = {}
        self._attempts: list[_Attempt] = []
        self._by_spi: dict[bytes, _Attempt] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a peer is being asked."""
        return bool(self._rounds)

    # --- inputs

    def failed(
        self,
        now: float,
        policy: PeerPolicy,
        failure: Diagnosis,
        diagnose: Diagnose = Diagnose.AUTO,
        shares: bool = False,
    ) -> None:
        """An attempt of a tunnel that has no SA has failed: perhaps the peer is asked why.

        `shares`: an SA with the same peer has our identity too, so that none may be made beside it.
        """
        seen = self._seen.get(policy.name)
        if seen is None:
            seen = self._seen[policy.name] = _Seen(failure.code)
        elif seen.code is failure.code:
            seen.count += 1
        else:
            seen.code, seen.count = failure.code, 1
        asked_lately = now - seen.asked_at < ROUND_EVERY
        if seen.count < ALIKE or asked_lately or not self._has_place(policy):
            return
        can_begin = policy.remote_address is not None and policy.children
        wanted = probes(policy, failure, diagnose) if can_begin else ()
        if shares:
            wanted = tuple(one for one in wanted if not one.proves)
        if wanted:
            seen.asked_at = now
            self._rounds[policy.name] = _Round(policy, failure.code, deque(wanted))
            self.outputs.append(ProbingBegan(policy.name, failure.code))
            self._next(now, policy.name)

    def stop(self, now: float, tunnel: str) -> None:
        """The tunnel is up, changed, or taken down: nothing is to be asked any more."""
        if self._rounds.pop(tunnel, None) is not None:
            for attempt in self._of(tunnel):
                self._close(now, attempt)
        if (seen := self._seen.get(tunnel)) is not None:
            seen.count = 0

    def forget(self, now: float, tunnel: str) -> None:
        """The tunnel is removed."""
        self.stop(now, tunnel)
        self._seen.pop(tunnel, None)

    def hears(self, data: bytes) -> bool:
        """Whether a datagram is the answer to a probe; what begins something there is none."""
        return bool(self._by_spi) and data[SPI] in self._by_spi and not begins(data)

    def handle_datagram(self, now: float, path: Path, data: bytes) -> None:
        """An answer to a probe."""
        attempt = self._by_spi[data[SPI]]
        attempt.endpoint.handle_datagram(now, path, data)
        self._follow(now, attempt)

    def handle_timeout(self, now: float) -> None:
        """Time has come to `next_timeout()` or later."""
        for attempt in tuple(self._attempts):
            attempt.endpoint.handle_timeout(now)
            self._follow(now, attempt)
            if attempt.ends <= now:
                if attempt.over:
                    self._drop(attempt)
                else:
                    self._conclude(now, attempt, None)

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`; None: no need."""
        due = [attempt.ends for attempt in self._attempts]
        due += [at for one in self._attempts if (at := one.endpoint.next_timeout()) is not None]
        return min(due, default=None)

    # --- inside

    def _has_place(self, policy: PeerPolicy) -> bool:
        """Whether a round may begin: peers limit the half-open IKE SAs of an address."""
        others = self._rounds.values()
        is_asked = any(one.policy.remote_address == policy.remote_address for one in others)
        return len(self._rounds) < ROUNDS and not is_asked

    def _of(self, tunnel: str) -> Iterator[_Attempt]:
        return (one for one in tuple(self._attempts) if one.probe.policy.name == tunnel and not one.over)

    def _next(self, now: float, tunnel: str) -> None:
        """The next probe of a round, or its end."""
        of_tunnel = self._rounds[tunnel]
        if not of_tunnel.waiting:
            del self._rounds[tunnel]
            self.outputs.append(Learned(tunnel, of_tunnel.code, None))
            return
        probe = of_tunnel.waiting.popleft()
        attempt = _Attempt(probe, Endpoint(self._entropy), now + ANSWER_WITHIN)
        self._attempts.append(attempt)
        attempt.endpoint.set_peer(now, probe.policy)
        attempt.endpoint.initiate(now, tunnel, probe.policy.children[0].index)
        self._follow(now, attempt)

    def _follow(self, now: float, attempt: _Attempt) -> None:
        """What the probe's endpoint asks for: its messages are sent until the peer has chosen.

        Of one that is over, only what closes the SA that it has made.
        """
        probe, outputs, end, proved = attempt.probe, attempt.endpoint.outputs, None, False
        chosen = None if probe.proves else _chosen(attempt)
        while outputs:
            is_sent = chosen is None and (attempt.proved or not attempt.over)
            match outputs.popleft():
                case Transmit(data=data) as message if is_sent:
                    self._by_spi[data[SPI]] = attempt
                    self.outputs.append(message)
                case LadderLine() as line if is_sent or not line.outbound:
                    self.outputs.append(line)
                case Failed(initiator=True) as failed:
                    end = failed
                case Established(tunnel):
                    attempt.endpoint.close(now, tunnel, Diagnosis.of(Code.DOWN_BY_OPERATOR))
                    attempt.proved = proved = True
                    attempt.ends = now + CLOSED_WITHIN
                case _:
                    pass
        if attempt.over:
            return
        if chosen is not None:
            self._conclude(now, attempt, self._found(probe, chosen))
        elif proved:
            self._conclude(now, attempt, self._proved(probe))
        elif end is not None:
            self._conclude(now, attempt, self._refused(probe, end.diagnosis))

    @staticmethod
    def _proved(probe: Probe) -> Diagnosis | None:
        """What it means that both have proved who they are: nothing where it was asked in the same mode."""
        return of_main_mode(probe) if probe.asked is Asked.MODE else None

    def _refused(self, probe: Probe, why: Diagnosis) -> Diagnosis | None:
        """What it means that a probe was refused: of an offer of IKEv2, that the peer wants another group."""
        theirs = why.fact("theirs")
        if probe.proves and theirs is not None and why.code is Code.IDENTITY:
            return why if probe.asked is Asked.IDENTITY else self._proved(probe)
        if probe.asked is Asked.IDENTITY and why.code is Code.PSK and why.fact("notify") is not None:
            # Its own identity is not what it refuses: what is left is the key, and ours.
            return Diagnosis(why.code, (*why.facts, ("probed", "yes")))
        if probe.proves:
            return None
        if why.code is not Code.P1_DH or theirs is None:
            return None
        suite = taken(probe, int(theirs))
        return self._found(probe, suite) if suite is not None else None

    def _found(self, probe: Probe, chosen: Suite) -> Diagnosis:
        return found(probe, self._rounds[probe.policy.name].policy, chosen)

    def _conclude(self, now: float, attempt: _Attempt, diagnosis: Diagnosis | None) -> None:
        """A probe has its answer, or none in time."""
        tunnel = attempt.probe.policy.name
        self._close(now, attempt)
        if diagnosis is None:
            self._next(now, tunnel)
        else:
            code = self._rounds.pop(tunnel).code
            self.outputs.append(Learned(tunnel, code, diagnosis))

    def _close(self, now: float, attempt: _Attempt) -> None:
        """Nothing more is asked by it; what it has proved is closed, with its repeats."""
        attempt.over = True
        attempt.ends = now + (CLOSED_WITHIN if attempt.proved else LATE_WITHIN)
        if not attempt.probe.proves:
            attempt.endpoint.close(now, attempt.probe.policy.name, Diagnosis.of(Code.DOWN_BY_OPERATOR))
            self.outputs += (
                one for one in attempt.endpoint.outputs if isinstance(one, Transmit | LadderLine)
            )
            self._drop(attempt)
        else:
            self._follow(now, attempt)

    def _drop(self, attempt: _Attempt) -> None:
        self._attempts.remove(attempt)
        for spi in [spi for spi, one in self._by_spi.items() if one is attempt]:
            del self._by_spi[spi]


def begins(data: bytes) -> bool:
    """Whether a message is the first of an IKE SA, or comes from the end that has begun one."""
    try:
        header = Header.decode(data)
    except DecodeError:
        return False
    if header.major == IkeVersion.V2:
        return header.has(Flag.INITIATOR)
    return header.spi_r == NO_SPI and header.exchange != Exchange1.INFORMATIONAL


def _chosen(attempt: _Attempt) -> Suite | None:
    """What the peer has chosen: all that was asked is answered then."""
    progress = attempt.endpoint.progress(attempt.probe.policy.name)
    return progress.suite if progress is not None else None
