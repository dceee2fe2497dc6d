"""The simulated world: gateways, a network with weather, one virtual clock. Deterministic for each seed.

    world = World(seed=7)
    a = world.add_gateway("a", ADDRESS_A, Endpoint(SeededEntropy(1)))
    ...
    a.initiate()
    world.run_until(lambda: a.installed, within=60)

Time passes only between events. Events are ordered by time, then by the order in which they came to be, so
one seed is one history. Every failure carries the seed, the ladder and the log of the network.
"""

from __future__ import annotations

import random

from vpnd.ike.outputs import LadderLine
from vpnd.model.child import Path
from vpnd.model.selectors import Address
from vpnd.simulate import world
from vpnd.simulate.gateway import Gateway
from vpnd.simulate.world import EPOCH, Arrival, Datagram, Event, Fate, Note

from .histories import History
from .weather import CALM, Interceptor, Nat, Weather

__all__ = ["EPOCH", "Arrival", "Event", "Note", "World"]


class World(world.World):
    """The product's world with weather, NATs and an attacker."""

    def __init__(self, seed: int = 0, weather: Weather = CALM) -> None:
        super().__init__()
        self.seed = seed
        self.dice = random.Random(seed)
        self.weather: dict[str, Weather] = {}
        self.default_weather = weather
        self.nats: list[Nat] = []
        self.interceptors: list[Interceptor] = []
        World.latest = self

    latest: World | None = None
    record: History | None = None
    """Where the ladders of every world are noted, while a test is recorded."""

    # ------------------------------------------------------------------------------- the weather

    def drop(self, sender: str, *numbers: int) -> None:
        """Lose exactly these datagrams of a gateway, counted from 1."""
        self.interceptors.append(lambda d: [] if d.sender == sender and d.number in numbers else None)

    def silence(self, sender: str) -> None:
        """From now on nothing of this gateway arrives."""
        self.interceptors.append(lambda d: [] if d.sender == sender else None)

    def clear_sky(self) -> None:
        """No more scripted losses, and calm in every direction."""
        self.interceptors.clear()
        self.weather.clear()
        self.default_weather = CALM

    def inject(
        self, receiver: str, data: bytes, source: Address, source_port: int = 500, port: int = 500
    ) -> None:
        """An attacker's datagram reaches a gateway at once, with any source address."""
        gateway = self.gateways[receiver]
        self.log.append(f"{self.now - EPOCH:9.3f}  [{source}]:{source_port} -> {receiver} injected")
        gateway.receive(Path(gateway.address, port, source, source_port), data)

    def deliver(self, datagram: Datagram) -> None:
        """A datagram that an interceptor has held back arrives now."""
        for nat in self.nats:
            datagram = nat.outbound(datagram)
        self._arrive(datagram)

    def _copies(self, datagram: Datagram) -> Fate:
        fate = next((f for i in self.interceptors if (f := i(datagram)) is not None), None)
        if fate is not None:
            return fate
        return self.weather.get(datagram.sender, self.default_weather).fate(self.dice, datagram.data)

    def _outbound(self, datagram: Datagram) -> Datagram:
        for nat in self.nats:
            datagram = nat.outbound(datagram)
        return datagram

    def _inbound(self, datagram: Datagram) -> Datagram | None:
        for nat in self.nats:
            inside = nat.inbound(datagram)
            if inside is None:
                return None
            datagram = inside
        return datagram

    # ------------------------------------------------------------------------------- telling

    def _drawn(self, gateway: Gateway, line: LadderLine) -> None:
        if World.record is not None:
            World.record.note(f"{self.now:.6f} {gateway.name}", line)
        super()._drawn(gateway, line)

    def history(self) -> str:
        return f"seed {self.seed}, {super().history()}"
