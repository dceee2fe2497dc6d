"""Whether large packets pass a tunnel as small ones do: echo requests of both sizes, always one of each.

    READY --one pair answered--> fits, for CHECK_EVERY
          --TRIES times the small one alone--> look for the largest that passes --> PathSized

What the network says of its path comes by ICMP. Where that is filtered, and with it the fragments of what is
too large, large packets vanish without a word: connections begin, and stand still.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vpnd.model.policy import HealthPolicy
from vpnd.model.selectors import Address

CHECK_EVERY = 600.0
"""Ours: seconds until a path that carries what it should is tried again."""

PAUSE = 0.5
"""Ours: seconds between two tries."""

TRIES = 6
"""Ours: pairs of which the small one alone was answered. At 20 % loss each way that happens to one in 400."""

LOOKS = 3
"""Ours: the same for each size of the search."""

LEAST = 576
"""Bytes. Every IPv4 host takes this (RFC 791); a peer that answers no such packet limits its answers."""

LARGEST = 1500
"""Bytes of the largest echo request: what the sockets for the answers take."""

FINE = 4
"""Bytes: padding of ESP makes packets that differ by less the same."""

SEQUENCES = 1 << 16


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Send this echo request into this tunnel, whichever tunnel carries the traffic.

    `size` is that of the IP packet in bytes; None: that of a usual ping.
    """

    tunnel: str
    source: Address
    destination: Address
    identifier: int
    sequence: int
    size: int | None = None


@dataclass(frozen=True, slots=True)
class PathSized:
    """Of inner packets up to `limit` bytes, which the interface takes, those up to `passes` get through."""

    tunnel: str
    limit: int
    passes: int


@dataclass(slots=True)
class _Pair:
    """A small and a large echo request under way."""

    deadline: float
    small: int
    large: int
    answered: set[int]


class SizeCheck:
    """Of one tunnel that has a health check. Times are seconds on the caller's clock."""

    __slots__ = (
        "_failed",
        "_high",
        "_identifier",
        "_limit",
        "_low",
        "_next",
        "_pair",
        "_policy",
        "_ready",
        "_sequence",
        "_size",
        "_tell",
        "_tunnel",
        "sent",
    )

    def __init__(
        self,
        tunnel: str,
        policy: HealthPolicy,
        identifier: int,
        tell: Callable[[SendProbe | PathSized], None],
    ) -> None:
        self._tunnel, self._policy, self._tell = tunnel, policy, tell
        self._identifier = (identifier + 1) % SEQUENCES
        self._sequence = 0
        self.sent = 0
        """Echo requests since the start."""
        self._limit: int | None = None
        self._ready = False
        self._next = 0.0
        self._begin()

    def _begin(self) -> None:
        self._pair: _Pair | None = None
        self._failed = 0
        self._size = min(self._limit or 0, LARGEST)
        self._low: int | None = None
        self._high = self._size

    def set_limit(self, now: float, limit: int) -> None:
        """The tunnel's interface takes packets of up to `limit` bytes from now on."""
        if limit != self._limit:
            self._limit, self._next = limit, now
            self._begin()

    def set_ready(self, now: float, ready: bool) -> None:
        """Whether small packets are answered, so that it tells something when large ones are not."""
        if ready and not self._ready:
            self._next = now
        if ready is not self._ready:
            self._begin()
        self._ready = ready

    def next_timeout(self) -> float:
        """When `handle_timeout` has something to do."""
        if not self._ready or self._high <= LEAST:
            return float("inf")
        return self._next if self._pair is None else self._pair.deadline

    def handle_timeout(self, now: float) -> None:
        """Judges the pair whose time is over, and sends the next one."""
        if self.next_timeout() > now:
            return
        if self._pair is not None:
            self._judge(now, self._pair)
            return
        small, large = self._send(None), self._send(self._size)
        self._pair = _Pair(now + self._policy.timeout, small, large, set())

    def handle_reply(
        self, now: float, source: Address, destination: Address, identifier: int, sequence: int
    ) -> bool:
        """An echo reply came out of this tunnel. Returns whether it answers a request of these in time."""
        mine = (self._policy.remote, self._policy.local, self._identifier)
        pair = self._pair
        if (source, destination, identifier) != mine or pair is None or now > pair.deadline:
            return False
        if sequence not in (pair.small, pair.large):
            return False
        pair.answered.add(sequence)
        if len(pair.answered) == 2:
            self._judge(now, pair)
        return True

    # ------------------------------------------------------------------------------------ inside

    def _send(self, size: int | None) -> int:
        self._sequence = (self._sequence + 1) % SEQUENCES
        self.sent += 1
        policy = self._policy
        self._tell(
            SendProbe(self._tunnel, policy.local, policy.remote, self._identifier, self._sequence, size)
        )
        return self._sequence

    def _judge(self, now: float, pair: _Pair) -> None:
        self._pair, self._next = None, now + PAUSE
        if pair.large in pair.answered:
            self._failed = 0
            self._passed(now)
        elif pair.small in pair.answered:
            self._failed += 1
            looking = self._low is not None or self._size != self._high
            if self._failed >= (LOOKS if looking else TRIES):
                self._failed = 0
                self._lost(now)

    def _passed(self, now: float) -> None:
        """This size gets through."""
        if self._size == self._high:
            self._end(now, self._size)
        else:
            self._low = self._size
            self._go_on(now)

    def _lost(self, now: float) -> None:
        """This size does not get through."""
        if self._size == LEAST:
            # Who answers no larger ping at all shows nothing of the path.
            self._end(now, None)
        elif self._size == self._high and self._low is None:
            self._size = LEAST
        else:
            self._high = self._size
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        low = self._low or LEAST
        if self._high - low <= FINE:
            self._end(now, low)
        else:
            self._size = (low + self._high) // 2
            self._next = now

    def _end(self, now: float, passes: int | None) -> None:
        limit = min(self._limit or 0, LARGEST)
        self._begin()
        self._next = now + CHECK_EVERY
        if passes is not None:
            self._tell(PathSized(self._tunnel, limit, passes))
