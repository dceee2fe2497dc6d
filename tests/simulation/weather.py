"""What happens to datagrams between two gateways: loss, copies, delay, corruption, NAT."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pytest

from vpnd.model.selectors import Address
from vpnd.simulate.world import Datagram, Fate

__all__ = ["CALM", "STORM", "Datagram", "Fate", "Interceptor", "Nat", "Weather", "blocks", "flip_bit"]

Interceptor = Callable[[Datagram], Fate | None]
"""Decides over a datagram before the weather does; None leaves it to the weather."""


@dataclass(frozen=True, slots=True)
class Weather:
    """One direction of a link. Chances are 0 to 1, delays seconds.

    Each copy draws its own delay between the two bounds, so that a spread of delays reorders.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    delay: tuple[float, float] = (0.01, 0.01)

    def fate(self, dice: random.Random, data: bytes) -> Fate:
        """The copies of `data` that arrive; one draw decides on loss, so that a lost datagram has no copy."""
        if dice.random() < self.loss:
            return []
        copies = 2 if dice.random() < self.duplicate else 1
        return [(dice.uniform(*self.delay), self._carried(dice, data)) for _ in range(copies)]

    def _carried(self, dice: random.Random, data: bytes) -> bytes:
        if not data or dice.random() >= self.corrupt:
            return data
        return flip_bit(data, dice.randrange(8 * len(data)))


CALM = Weather()
"""Nothing is lost; each datagram takes 10 ms."""

STORM = Weather(loss=0.3, duplicate=0.2, delay=(0.01, 0.4))
"""30 % loss, 20 % duplicates, and delays that reorder what is sent within 0.4 s."""


def flip_bit(data: bytes, bit: int) -> bytes:
    """`data` with one bit changed; bit 0 is the lowest of the first byte."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class Nat:
    """A box that gives the gateways behind it one outside address, as RFC 4787 describes it.

    Mappings are endpoint-independent: one outside port for each inside address and port. With `filtering`,
    only an address and port that was sent to may answer (address- and port-dependent filtering).
    """

    FIRST_PORT = 20_000

    def __init__(self, inside: Iterable[Address], outside: Address, filtering: bool = True) -> None:
        self.inside = frozenset(inside)
        self.outside = outside
        self.filtering = filtering
        self._next_port = self.FIRST_PORT
        self._ports: dict[tuple[Address, int], int] = {}
        self._owners: dict[int, tuple[Address, int]] = {}
        self._spoken: set[tuple[int, Address, int]] = set()

    def outbound(self, datagram: Datagram) -> Datagram:
        """The datagram as it leaves the box."""
        if datagram.source not in self.inside or datagram.destination in self.inside:
            return datagram
        owner = (datagram.source, datagram.source_port)
        port = self._ports.get(owner)
        if port is None:
            port = self._ports[owner] = self._next_port
            self._owners[port] = owner
            self._next_port += 1
        self._spoken.add((port, datagram.destination, datagram.destination_port))
        return replace(datagram, source=self.outside, source_port=port)

    def inbound(self, datagram: Datagram) -> Datagram | None:
        """The datagram as it reaches the inside; None if no mapping lets it in."""
        if datagram.destination != self.outside:
            return datagram
        owner = self._owners.get(datagram.destination_port)
        spoken = (datagram.destination_port, datagram.source, datagram.source_port) in self._spoken
        if owner is None or (self.filtering and not spoken):
            return None
        return replace(datagram, destination=owner[0], destination_port=owner[1])

    def rebind(self) -> None:
        """Forget every mapping, as a reboot does; what is sent next gets a port never used before."""
        self._ports.clear()
        self._owners.clear()
        self._spoken.clear()


def blocks(count: int) -> list[object]:
    """The numbers of blocks of seeds: every run plays a quarter of them, `make faults` all."""
    return [
        pytest.param(number, marks=() if number * 4 < count else (pytest.mark.full_faults,), id=str(number))
        for number in range(count)
    ]
