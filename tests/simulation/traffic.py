"""Packets through a tunnel, as far as IKE decides over them: sent on one SPI, received if it is installed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from vpnd.simulate.gateway import Gateway

from .world import World

INTERVAL = 0.02
"""Seconds between two packets of one direction."""


@dataclass(slots=True)
class Traffic:
    """A stream each way over one mapping. The network loses none of its packets: whatever is lost, IKE lost.

    `delay` holds the bounds of a packet's time on the way, in seconds.
    """

    world: World
    mapping: int = 0
    delay: tuple[float, float] = (0.01, 0.4)
    sent: int = 0
    received: int = 0
    lost: list[str] = field(default_factory=list)
    running: bool = True

    def start(self) -> None:
        """Both directions, from now on."""
        dice = random.Random(self.world.seed)
        one, two = self.world.gateways.values()
        self._send(one, two, dice)
        self._send(two, one, dice)

    def stop(self) -> None:
        """No more packets; what is on its way arrives."""
        self.running = False

    def _send(self, sender: Gateway, receiver: Gateway, dice: random.Random) -> None:
        if not self.running:
            return
        spi = sender.child(self.mapping).spi_out
        sent_at = self.world.now
        self.sent += 1
        self.world.after(dice.uniform(*self.delay), lambda: self._arrive(receiver, spi, sent_at))
        self.world.after(INTERVAL, lambda: self._send(sender, receiver, dice))

    def _arrive(self, receiver: Gateway, spi: int, sent_at: float) -> None:
        if spi in receiver.installed:
            self.received += 1
        else:
            took = self.world.now - sent_at
            self.lost.append(f"to {receiver.name} on {spi:08x} at {self.world.now:.3f} after {took:.3f} s")
