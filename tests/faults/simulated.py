"""Two gateways in the simulated world, of either version, and packets between them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.simulation.invariants import disagreements
from tests.simulation.living import Living
from tests.simulation.pair import Pair
from tests.simulation.policies import ADDRESS_A, ADDRESS_B, Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, speaking
from tests.simulation.weather import CALM, Datagram, Weather
from tests.simulation.world import EPOCH, World
from vpnd.crypto.dh import KeyPair
from vpnd.crypto.entropy import Entropy, SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.model.policy import Negotiation, NegotiationMode
from vpnd.simulate.gateway import Gateway

SEEDS = range(20)

PACKET_INTERVAL = 0.02
"""Seconds between two packets of one direction."""
PACKET_DELAY = (0.005, 0.05)
"""Seconds that a packet takes, at least and at most."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Which version is spoken, and in which mode for IKEv1."""

    name: str
    mode: NegotiationMode | None

    def pair(
        self,
        seed: int = 0,
        weather: Weather = CALM,
        recipe: Recipe | None = None,
        entropy: Callable[[int], Entropy] = SeededEntropy,
    ) -> Pair:
        """Two gateways that do what they are told."""
        changes = self._changes()
        return Pair(seed, weather, recipe, changes_a=changes, changes_b=changes, entropy=entropy)

    def lives(self, seed: int, recipe: Recipe, weather: Weather = CALM) -> tuple[World, Living, Living]:
        """Two gateways whose tunnel lives as its configuration says; `b` only answers."""
        world = World(seed, weather)
        sides = [
            world.add(Living, name, address, Endpoint(SeededEntropy(2 * seed + place)))
            for place, (name, address) in enumerate((("a", ADDRESS_A), ("b", ADDRESS_B)))
        ]
        one, two = (replace(policy, **(self._changes() or {})) for policy in recipe.pair())
        sides[1].live("a", two, Negotiation.PASSIVE, SeededEntropy(seed + 100))
        sides[0].live("b", one, Negotiation.ACTIVE, SeededEntropy(seed + 200))
        return world, sides[0], sides[1]

    def _changes(self) -> dict[str, Any] | None:
        return None if self.mode is None else speaking(self.mode)

    def __str__(self) -> str:
        return f"simulated-{self.name}"


V2 = Kind("ikev2", None)
V1_MAIN = Kind("ikev1-main", MAIN)
V1_AGGRESSIVE = Kind("ikev1-aggressive", AGGRESSIVE)
KINDS = (V2, V1_MAIN, V1_AGGRESSIVE)


def send_alike(a: Gateway, b: Gateway, mapping: int = 0) -> bool:
    """Whether both sides send on the two halves of one SA pair."""
    if not (a.sends(mapping) and b.sends(mapping)):
        return False
    one, two = a.child(mapping), b.child(mapping)
    return (one.spi_in, one.spi_out) == (two.spi_out, two.spi_in)


def one_tunnel(a: Gateway, b: Gateway) -> bool:
    """Whether both sides agree on everything, on one IKE SA, and on one SA pair to send on."""
    return send_alike(a, b) and not disagreements(a, b) and len(a.ike_sas()) == 1


def lose(world: World, sender: str, number: int, times: int = 1) -> None:
    """Lose what `sender` sends as its `number`th datagram from now on, and the next ones up to `times`."""
    sent = sum(datagram.sender == sender for datagram in world.sent)
    world.drop(sender, *(sent + number + further for further in range(times)))


def sent_by(world: World, sender: str) -> list[Datagram]:
    """Everything that a side has sent."""
    return [datagram for datagram in world.sent if datagram.sender == sender]


@dataclass(slots=True)
class Stream:
    """Packets both ways every `interval` seconds, of which the network loses none.

    Without an SA pair they stay where they are: `kept`. `lost` were sent to an SPI that the receiver did not
    have. `gap` is the longest time in seconds in which nothing arrived in a direction.
    """

    world: World
    interval: float = PACKET_INTERVAL
    sent: int = 0
    received: int = 0
    kept: int = 0
    gap: float = 0.0
    lost: list[str] = field(default_factory=list)
    running: bool = True
    _last: dict[str, float] = field(default_factory=dict)

    def start(self) -> None:
        """Both directions, from now on."""
        dice = random.Random(self.world.seed)
        one, two = self.world.gateways.values()
        self._last = {one.name: self.world.now, two.name: self.world.now}
        self._send(one, two, dice)
        self._send(two, one, dice)

    def stop(self) -> None:
        """No more packets; what is on its way arrives."""
        self.running = False
        self.world.run_for(2 * PACKET_DELAY[1])

    def _send(self, sender: Gateway, receiver: Gateway, dice: random.Random) -> None:
        if not self.running:
            return
        if sender.sends():
            spi = sender.child().spi_out
            self.sent += 1
            self.world.after(dice.uniform(*PACKET_DELAY), lambda: self._arrive(receiver, spi))
        else:
            self.kept += 1
        self.world.after(self.interval, lambda: self._send(sender, receiver, dice))

    def _arrive(self, receiver: Gateway, spi: int) -> None:
        now = self.world.now
        if spi not in receiver.installed:
            self.lost.append(f"to {receiver.name} on {spi:08x} at {now - EPOCH:.3f}")
            return
        self.received += 1
        self.gap = max(self.gap, now - self._last[receiver.name])
        self._last[receiver.name] = now
        if isinstance(receiver, Living):
            receiver.hear()


class Counted:
    """How many key pairs were made and shared values computed, while it is in `counting`."""

    def __init__(self) -> None:
        self.number = 0


def counting(monkeypatch_setattr: Callable[[object, str, object], None]) -> Counted:
    """Count the work of Diffie-Hellman from now on."""
    counted = Counted()
    generate, shared = KeyPair.generate, KeyPair.shared

    def generating(group: int, entropy: Entropy) -> KeyPair:
        counted.number += 1
        return generate(group, entropy)

    def sharing(self: KeyPair, public: bytes) -> object:
        counted.number += 1
        return shared(self, public)

    monkeypatch_setattr(KeyPair, "generate", staticmethod(generating))
    monkeypatch_setattr(KeyPair, "shared", sharing)
    return counted
