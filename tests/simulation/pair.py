"""`Pair`: the world that most tests want, two gateways `a` and `b` with one tunnel between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.simulation.bounds import SETTLING
from vpnd.crypto.entropy import Entropy, SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.limits import Limits
from vpnd.model.policy import PeerPolicy
from vpnd.simulate.ladder import Ladder

from .insider import Insider, Overheard
from .invariants import assert_agreement, assert_nothing_left, assert_one_tunnel
from .policies import Recipe
from .weather import CALM, Weather
from .world import World


class Pair:
    """Two real endpoints, `a` at 192.0.2.1 and `b` at 192.0.2.2, configured for each other by `recipe`.

    `changes_a` and `changes_b` replace fields of one side's PeerPolicy, to make the two differ; `entropy`
    makes the randomness of a side from its seed; `policies` are taken instead of those of a recipe, with the
    addresses in them.
    """

    def __init__(
        self,
        seed: int = 0,
        weather: Weather = CALM,
        recipe: Recipe | None = None,
        changes_a: dict[str, Any] | None = None,
        changes_b: dict[str, Any] | None = None,
        limits_b: Limits | None = None,
        entropy: Callable[[int], Entropy] = SeededEntropy,
        policies: tuple[PeerPolicy, PeerPolicy] | None = None,
    ) -> None:
        self.world = World(seed, weather)
        self.recipe = recipe or Recipe()
        policy_a, policy_b = policies or self.recipe.pair()
        self.entropies = entropy(2 * seed + 1), entropy(2 * seed + 2)
        self.draws = Overheard(self.entropies[0]), Overheard(self.entropies[1])
        self.endpoint_a = Endpoint(self.draws[0])
        self.endpoint_b = Endpoint(self.draws[1], limits_b or Limits())
        self.a = self.world.add_gateway("a", policy_a.local_address, self.endpoint_a)
        self.b = self.world.add_gateway("b", policy_b.local_address, self.endpoint_b)
        self.a.set_peer("b", changed(policy_a, changes_a))
        self.b.set_peer("a", changed(policy_b, changes_b))

    def insider(self, name: str) -> Insider:
        """One who has the keys of a side, of the newest IKE SA."""
        gateway = self.world.gateways[name]
        draws = self.draws[0] if name == "a" else self.draws[1]
        return Insider(gateway, draws, self.world.sent, self.world.seed)

    def establish(self, mappings: int = 1) -> None:
        """Bring the first `mappings` mappings up from `a`, in calm weather, and begin a new ladder."""
        for mapping in range(mappings):
            self.a.initiate(mapping)
            self.world.settle()
            self.world.run_until(lambda: self.a.sends(mapping), within=SETTLING)  # noqa: B023 (used at once)
        assert_one_tunnel(self.world, self.a, self.b, mappings)
        self.world.clear_ladder()

    def ladder(self) -> Ladder:
        """What happens once everything in flight has arrived."""
        self.world.settle()
        return self.world.ladder()

    def assert_agreement(self) -> None:
        """Both sides hold the same SAs."""
        assert_agreement(self.world, self.a, self.b)

    def assert_one_tunnel(self, mappings: int = 1) -> None:
        """Both sides hold one IKE SA and one SA pair for each of the first `mappings` mappings."""
        assert_one_tunnel(self.world, self.a, self.b, mappings)

    def assert_nothing_left(self) -> None:
        """Neither side holds anything."""
        assert_nothing_left(self.world, self.a, self.b)


def changed(policy: PeerPolicy, changes: dict[str, Any] | None) -> PeerPolicy:
    """The policy with some fields replaced."""
    return replace(policy, **(changes or {}))
