"""The peer of one tunnel: its IPsec SAs, and what is wanted of it, whichever ISAKMP SA they are agreed under.

RFC 2409 section 5.5 ties IPsec SAs to the two peers, not to the ISAKMP SA of their quick mode: they go on
when another one succeeds it, and are negotiated and deleted under the one that is current.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from vpnd.crypto.entropy import Entropy
from vpnd.ike.retransmit import LONGEST_WAIT, Schedule
from vpnd.ike.v1.children import Children

S = TypeVar("S")

SURPLUS_KEPT = 3.0
"""Seconds that one pair of two still receives, once both sides send on the other."""
DELETED_FOR = 10.0
"""Seconds in which DELETE is repeated for a pair that is one too many; nothing acknowledges it."""


class Ikev1Peer(Generic[S]):
    """`current` is the ISAKMP SA that speaks for the tunnel, None before there is one; an attempt that is to
    be the first has a peer of its own until then.

    `wanted` are the mappings that wait for their quick mode, in order, each with the inbound SPI of the pair
    that is to be succeeded, or None where the mapping has none. Times are seconds on the caller's clock.
    """

    def __init__(self) -> None:
        self.current: S | None = None
        self.children = Children()
        self.wanted: dict[int, int | None] = {}
        self._surplus: dict[int, float] = {}
        self._deletes: dict[int, Schedule] = {}

    def clear(self) -> None:
        """The last ISAKMP SA is gone: nothing is to be done any more."""
        self.current = None
        self.wanted.clear()
        self._surplus.clear()
        self._deletes.clear()

    def retire(self, now: float, spi_in: int) -> None:
        """The pair with this inbound SPI is one too many: delete it once what is on its way has arrived."""
        self._surplus[spi_in] = now + SURPLUS_KEPT

    def surplus_due(self, now: float) -> Iterator[int]:
        """The pairs that are to be deleted now."""
        for spi_in in [one for one, due in self._surplus.items() if due <= now]:
            del self._surplus[spi_in]
            yield spi_in

    def repeat_delete(
        self, now: float, spi_in: int, entropy: Entropy, seconds: float, longest_wait: float = LONGEST_WAIT
    ) -> None:
        """DELETE was sent for the pair with this inbound SPI: it is repeated for so many seconds."""
        self._deletes[spi_in] = Schedule(now, entropy, seconds, longest_wait)

    def deletes_due(self, now: float) -> Iterator[int]:
        """The pairs whose DELETE is to be repeated now: nothing acknowledges it."""
        for spi_in, schedule in list(self._deletes.items()):
            if schedule.due > now:
                continue
            if schedule.exhausted(now):
                del self._deletes[spi_in]
                continue
            schedule.again(now)
            yield spi_in

    def deadlines(self) -> dict[str, float]:
        """When something happens to a pair, by what."""
        waits = {f"surplus {spi_in:08x}": due for spi_in, due in self._surplus.items()}
        waits |= {f"DELETE {spi_in:08x}": schedule.due for spi_in, schedule in self._deletes.items()}
        return waits | self.children.deadlines()

    def next_timeout(self) -> float | None:
        """The earliest deadline of a pair, of what is too many, and of what is repeated."""
        due = [schedule.due for schedule in self._deletes.values()]
        due += [*self._surplus.values(), *filter(None, [self.children.timers.next_timeout()])]
        return min(due, default=None)
