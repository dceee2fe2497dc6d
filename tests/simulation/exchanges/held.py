"""A tunnel of which every message is held until a ladder lets it arrive.

    held = HeldPair(initiator="b")
    held.a.rekey_child()
    held.b.rekey_child()
    held.play('''
        a -> b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}
        a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}
        a x- b  CREATE_CHILD_SA 2 {N(REKEY_SA), SA, Ni, TSi, TSr}''')

A ladder is read in the order of arrival. Each line takes the oldest message in flight that is exactly this
one, and fails if there is none; `-x` and `x-` lose it. What no line names is still on its way.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Any

import pytest

from tests.simulation.invariants import leaks
from tests.simulation.pair import Pair
from tests.simulation.policies import Recipe
from tests.simulation.weather import Datagram
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.outputs import ChildDown, ChildFailed, Failed, LadderLine, Story
from vpnd.simulate.gateway import Gateway
from vpnd.simulate.ladder import plain

ROLES = ("a", "b")
"""Who began the IKE SA. In every ladder `a` acts first, so that both roles of it are played."""

LED = (32, 8)
"""The lengths of nonces and of IKE SPIs, which decide between two IKE SAs begun at once."""
LOW, HIGH = 0x00, 0xFF
LOWEST = ("Ni of a", "Ni of b", "Nr of b", "Nr of a")
"""Which of the four nonces of a collision is the lowest: the second and the last are of b's exchange."""
EVERY_ORDER = pytest.mark.parametrize("lowest", LOWEST)

ALL_DOWN = {"a": ["ChildDown", "IkeDown"], "b": ["ChildDown", "IkeDown"]}
"""The news when both sides have lost the IKE SA and what was on it."""

MOMENT = 0.001
"""Seconds between two arrivals: far less than any timer."""

LIFETIME = 3600
"""Of both kinds of SA, so that their successions may meet as well."""
QUIET = 30.0
"""Seconds in which a request without an answer is repeated, and one that was refused for now tried again."""
ROOM = 60.0
"""Seconds in which any succession that is under way comes to its end."""

RECIPE = Recipe(mappings=2, dpd=False, child_lifetime=LIFETIME, ike_lifetime=LIFETIME)
"""Without signs of life: what ends here does not end because a peer is taken for dead."""


def winner(lowest: str) -> str:
    """Whose successor stays after a collision: not that of the exchange with the lowest nonce (RFC 7296
    section 2.8.1).
    """
    return "b" if lowest in ("Ni of a", "Nr of b") else "a"


def unlike(field: str, a: Recipe, b: Recipe) -> dict[str, Any]:
    """The changes by which one field of the two policies is as these recipes have it."""
    return {
        "changes_a": {field: getattr(a.pair()[0], field)},
        "changes_b": {field: getattr(b.pair()[1], field)},
    }


class LedEntropy:
    """Seeded, but whatever is as long as a nonce or an IKE SPI begins with `lead`, unless that is None."""

    def __init__(self, seed: int) -> None:
        self._seeded = SeededEntropy(seed)
        self.lead: int | None = None

    def below(self, bound: int) -> int:
        """A number uniform in [0, `bound`)."""
        return self._seeded.below(bound)

    def bytes(self, length: int) -> builtins.bytes:
        """`length` bytes, led if they may be one of those."""
        drawn = self._seeded.bytes(length)
        if self.lead is None or length not in LED:
            return drawn
        return builtins.bytes((self.lead,)) + drawn[1:]


@dataclass(frozen=True, slots=True)
class Led:
    """Two sides of which `lowest` says whose nonce will be the lowest of a collision."""

    lowest: str
    a: LedEntropy
    b: LedEntropy

    @classmethod
    def of(cls, lowest: str, pair: Pair) -> Led:
        """Those of a pair that was made with `LedEntropy`."""
        one, two = pair.entropies
        assert isinstance(one, LedEntropy)
        assert isinstance(two, LedEntropy)
        return cls(lowest, one, two)

    def requests(self) -> None:
        """What is drawn from now on is for a request."""
        self._lead("Ni")

    def answers(self) -> None:
        """What is drawn from now on is for an answer."""
        self._lead("Nr")

    def _lead(self, nonce: str) -> None:
        self.a.lead = LOW if self.lowest == f"{nonce} of a" else HIGH
        self.b.lead = LOW if self.lowest == f"{nonce} of b" else HIGH


@dataclass(frozen=True, slots=True)
class Held:
    """A message on its way, with its rung of the ladder."""

    sender: str
    text: str
    datagram: Datagram


class HeldPair(Pair):
    """Two gateways with one tunnel up between them, begun by `initiator`, and nothing arriving by itself.

    Both sides number their next request 2, so that a ladder is the same whichever side began the IKE SA.
    """

    def __init__(
        self,
        initiator: str = "a",
        recipe: Recipe | None = None,
        changes_a: dict[str, Any] | None = None,
        changes_b: dict[str, Any] | None = None,
        up: bool = True,
    ) -> None:
        recipe = recipe or RECIPE
        super().__init__(0, recipe=recipe, changes_a=changes_a, changes_b=changes_b, entropy=LedEntropy)
        self.flying: list[Held] = []
        self._seen = {"a": 0, "b": 0}
        if up:
            self.gateway(initiator).initiate()
            self.world.settle()
            for _ in range(2):
                self.gateway("b" if initiator == "a" else "a").probe()
                self.world.settle()
            self.assert_one_tunnel()
        self.news()
        self.world.interceptors.append(self._hold)

    def gateway(self, name: str) -> Gateway:
        """The gateway `a` or `b`."""
        return self.world.gateways[name]

    # ------------------------------------------------------------------------------- nonces

    def collide(self, lowest: str, command: str) -> None:
        """Both sides give the command; of the four nonces of the two exchanges `lowest` is the lowest."""
        led = Led.of(lowest, self)
        led.requests()
        getattr(self.a, command)()
        getattr(self.b, command)()
        led.answers()

    # ------------------------------------------------------------------------------- messages

    def _hold(self, datagram: Datagram) -> list[tuple[float, bytes]]:
        self.flying.append(Held(datagram.sender, " ".join(self.world.rungs[-1].text.split()), datagram))
        return []

    def play(self, ladder: str) -> None:
        """Let messages arrive, or lose them, in the order of these lines."""
        for line in plain(ladder):
            left, arrow, right, text = line.split(" ", 3)
            sender = left if arrow in ("->", "-x") else right
            held = next((h for h in self.flying if (h.sender, h.text) == (sender, text)), None)
            if held is None:
                self.world.fail(f"not in flight: {line}\nbut\n{self.in_flight()}")
            self.flying.remove(held)
            self.world.run_for(MOMENT)
            if "x" not in arrow:
                self.world.deliver(held.datagram)

    def in_flight(self) -> str:
        """What has not arrived yet, oldest first."""
        return "\n".join(f"  {held.sender}: {held.text}" for held in self.flying)

    # ------------------------------------------------------------------------------- what came of it

    def news(self) -> dict[str, list[str]]:
        """What each side has announced since the last call, by the names of the outputs."""
        told: dict[str, list[str]] = {}
        for name in ROLES:
            events = self.gateway(name).events
            new = events[self._seen[name] :]
            self._seen[name] = len(events)
            told[name] = [type(event).__name__ for event in new if not isinstance(event, LadderLine | Story)]
        return told

    def newest(self, name: str) -> int:
        """The inbound SPI that a side has installed last."""
        return list(self.gateway(name).installed)[-1]

    def lose_child(self, name: str) -> None:
        """A side has lost its SA pair and its peer has not: of its DELETE the peer gets an empty request."""
        self.gateway(name).close_child()
        delete = self.flying.pop().datagram
        self.world.deliver(self.insider(name).instead(delete, ()))
        self.world.deliver(self.flying.pop().datagram)
        self.news()

    def spis(self) -> tuple[set[int], set[int]]:
        """The inbound SPIs that either side has installed."""
        return set(self.a.installed), set(self.b.installed)

    def sender_of(self, mapping: int = 0) -> str:
        """Who began the exchange that made the SA pair on which both sides send; they must be one."""
        one, two = self.a.child(mapping), self.b.child(mapping)
        if (one.spi_in, one.spi_out) != (two.spi_out, two.spi_in):
            self.world.fail("the two sides send on SA pairs that are not the same")
        return "a" if one.initiator else "b"

    def assert_quiet(self) -> None:
        """Nothing is on its way."""
        if self.flying:
            self.world.fail(f"still in flight:\n{self.in_flight()}")

    def assert_stays_quiet(self) -> None:
        """Nothing is on its way, and nothing that was lost or refused is said again."""
        self.world.run_for(QUIET)
        self.assert_quiet()

    def assert_down_once(self) -> None:
        """Either side has announced one end of one SA pair."""
        for gateway in (self.a, self.b):
            if (ends := len(gateway.of(ChildDown))) != 1:
                self.world.fail(f"{gateway.name}: {ends} ends of an SA pair instead of one")

    def assert_ike_rekeyed(self, within: float) -> None:
        """From now on every message arrives, and the IKE SA has a successor within these seconds."""
        (old,) = self.a.ike_sas()
        self.world.clear_sky()
        self.world.run_for(within)
        if self.a.ike_sas()[0].spi_i == old.spi_i:
            self.world.fail("the IKE SA was not rekeyed after all")

    def settle(self, mappings: tuple[int, ...] = (0,), ike_sas: int = 1, quiet: bool = True) -> None:
        """The ladder is over: one SA pair for each of these mappings, now and two lifetimes later.

        Nothing of today is left then, and neither side holds anything that it does not use.
        """
        if quiet:
            self.assert_quiet()
        self.world.clear_sky()
        for held in self.flying:
            self.world.deliver(held.datagram)
        self.world.run_for(ROOM)
        self._assert_left(mappings, ike_sas)
        today = self.spis()
        self.world.run_for(2 * LIFETIME)
        self._come_to_rest()
        self._assert_left(mappings, ike_sas)
        for gateway, then in zip((self.a, self.b), today, strict=True):
            if then & set(gateway.installed):
                self.world.fail(f"{gateway.name} still holds an SA of two lifetimes ago")

    def _come_to_rest(self) -> None:
        """A succession may be under way: wait for its end."""
        for _ in range(20):
            if len(self.a.installed) <= len(self.a.policies[self.a.tunnel].children) and not leaks(self.a):
                return
            self.world.run_for(ROOM / 10)

    def _assert_left(self, mappings: tuple[int, ...], ike_sas: int) -> None:
        self.assert_agreement()
        for gateway in (self.a, self.b):
            held = tuple(sorted(child.mapping for child in gateway.children()))
            if held != mappings or len(gateway.ike_sas()) != ike_sas:
                self.world.fail(f"{gateway.name}: {len(gateway.ike_sas())} IKE SAs, SA pairs of {held}")
            if wrong := leaks(gateway):
                self.world.fail("; ".join(wrong))

    def failures(self) -> list[str]:
        """What either side has told as a failure."""
        told: list[ChildFailed | Failed] = []
        for gateway in (self.a, self.b):
            told += [*gateway.of(ChildFailed), *gateway.of(Failed)]
        return [failure.diagnosis.code.value for failure in told]
