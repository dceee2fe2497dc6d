"""The peer of one tunnel: its IPsec SAs, and what is wanted of it, whichever ISAKMP SA they are agreed under.

RFC 2409 section 5.5 ties IPsec SAs to the two peers, not to the ISAKMP SA of their quick mode: they go on
when another one succeeds it, and are negotiated and deleted under the one that is current.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from vpnd.crypto.entropy import Entropy
from vpnd.ike.registry import Registry
from vpnd.ike.retransmit import LONGEST_WAIT, Schedule
from vpnd.ike.v1.children import Children, Limit

S = TypeVar("S")

DELETED_FOR = 10.0
"""Seconds in which DELETE is repeated for a pair that is one too many; nothing acknowledges it."""


class Ikev1Peer(Generic[S]):
    """`current` is the ISAKMP SA that speaks for the tunnel, None before there is one; an attempt that is to
    be the first has a peer of its own until then.

    `wanted` are the mappings that wait for their quick mode, in order, each with the inbound SPI of the pair
    that is to be succeeded, or None where the mapping has none. Times are seconds on the caller's clock.
    """

    def __init__(self, registry: Registry) -> None:
        self.current: S | None = None
        self.children = Children(registry)
        self.wanted: dict[int, int | None] = {}
        self._deletes: dict[int, Schedule] = {}

    def clear(self) -> None:
        """The last ISAKMP SA is gone: nothing is to be done any more."""
        self.current = None
        self.wanted.clear()
        self._deletes.clear()
        self.children.timers.clear()

    def deleted(
        self,
        now: float,
        spi_in: int,
        entropy: Entropy,
        seconds: float = DELETED_FOR,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        """DELETE was sent for the pair with this inbound SPI: it is repeated for so many seconds."""
        schedule = self._deletes[spi_in] = Schedule(now, entropy, seconds, longest_wait)
        self.children.timers.arm((Limit.DELETE, spi_in), schedule.due)

    def repeats_delete(self, now: float, spi_in: int) -> bool:
        """Whether it is to be sent once more: nothing acknowledges it."""
        schedule = self._deletes[spi_in]
        if schedule.exhausted(now):
            del self._deletes[spi_in]
            return False
        schedule.again(now)
        self.children.timers.arm((Limit.DELETE, spi_in), schedule.due)
        return True
