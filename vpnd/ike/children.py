"""The SA pairs of an IKE SA (IKEv1: of a peer) and what is ahead of each, which both versions have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from vpnd.ike.deadlines import Timers
from vpnd.ike.outputs import ChildDown, OutboundReady
from vpnd.ike.registry import Registry
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Diagnosis

ESP_SPI_LENGTH = 4
DELETED_KEPT = 5.0
"""Seconds that a pair which another one has succeeded still receives after its DELETE: that may overtake, or
cross, packets that the peer sent on it before."""


class ChildTimer(Enum):
    """What a deadline of an SA pair is for."""

    SEND = "the peer has it"
    REKEY = "a successor is due"
    LIFETIME = "its end"
    REMOVE = "what was on its way has arrived"
    DUPLICATE = "it is one too many"
    DELETE = "its DELETE is repeated"


@dataclass(slots=True, eq=False)
class Child:
    """One SA pair; `made`: when, in seconds on the caller's clock."""

    sa: ChildSa
    made: float

    @property
    def spi_in(self) -> int:
        """The SPI that we receive on."""
        return self.sa.spi_in


C = TypeVar("C", bound=Child)


class Children(Generic[C]):
    """The pairs, the oldest first, and their timers. Times are seconds on the caller's clock."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._children: dict[int, C] = {}
        self.timers: Timers[tuple[ChildTimer, int]] = Timers()

    def __iter__(self) -> Iterator[C]:
        return iter(tuple(self._children.values()))

    def __len__(self) -> int:
        return len(self._children)

    def find(self, spi_in: int | None) -> C | None:
        """The pair that receives on this SPI."""
        return None if spi_in is None else self._children.get(spi_in)

    def by_peer(self) -> dict[bytes, C]:
        """Every pair by the SPI that the peer receives on, as it travels; of two with one SPI the older."""
        found: dict[bytes, C] = {}
        for child in self._children.values():
            found.setdefault(child.sa.spi_out.to_bytes(ESP_SPI_LENGTH, "big"), child)
        return found

    def arm(self, timer: ChildTimer, child: C, deadline: float) -> None:
        self.timers.arm((timer, child.spi_in), deadline)

    def deadline(self, timer: ChildTimer, child: C) -> float | None:
        return self.timers.deadline((timer, child.spi_in))

    def disarm(self, child: C, *timers: ChildTimer) -> None:
        """Forget these deadlines of the pair, or all."""
        for timer in timers or ChildTimer:
            self.timers.disarm((timer, child.spi_in))

    def keep(self, child: C, soft_end: float) -> None:
        """The pair is there; its successor is due at `soft_end`, and its end when its lifetime is over."""
        self._children[child.spi_in] = child
        self.arm(ChildTimer.REKEY, child, soft_end)
        self.arm(ChildTimer.LIFETIME, child, child.made + child.sa.lifetimes.seconds)

    def send_on(self, child: C) -> None:
        """Its mapping sends on this pair from now on."""
        self._registry.emit(OutboundReady(child.sa.tunnel, child.spi_in))

    def _say_down(self, child: C, diagnosis: Diagnosis) -> None:
        self._registry.emit(ChildDown(child.sa.tunnel, child.sa.mapping, child.spi_in, diagnosis))

    def forget(self, child: C) -> None:
        """Drop the record of a pair that is gone."""
        if self._children.pop(child.spi_in, None) is not None:
            self._registry.release_esp_spi(child.spi_in)

    def deadlines(self) -> dict[str, float]:
        """When something happens to a pair, by what."""
        return {f"{timer.name} {spi_in:08x}": at for (timer, spi_in), at in self.timers.all().items()}
