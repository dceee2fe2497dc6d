"""Which tunnels a peer along a path may mean."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from tests.simulation.footprint import footprint
from tests.simulation.policies import ADDRESS_A, ADDRESS_B, ADDRESS_C, STRANGER, Recipe
from vpnd.ike.policies import Policies
from vpnd.model.child import Path
from vpnd.model.policy import PeerPolicy
from vpnd.model.selectors import Address
from vpnd.wire.iana import IkeVersion


def policy(name: str, anyone: bool = True, recipe: Recipe | None = None, **changes: Any) -> PeerPolicy:
    made = (recipe or Recipe()).policy(name, ADDRESS_B, ADDRESS_A, 2, 1)
    made = replace(made, remote_address=None, any_address=True) if anyone else made
    return replace(made, **changes)


def registry(*policies: PeerPolicy) -> Policies:
    made = Policies()
    for one in policies:
        made.set_policy(one)
    return made


def names(policies: tuple[PeerPolicy, ...]) -> list[str]:
    return [one.name for one in policies]


def path(remote: Address, local: Address = ADDRESS_B) -> Path:
    return Path(local, 500, remote, 500)


def test_the_tunnels_with_the_peers_address_come_before_those_of_any() -> None:
    made = registry(policy("any"), policy("own", anyone=False))
    assert names(made.candidates(IkeVersion.V2, path(ADDRESS_A))) == ["own", "any"]
    assert names(made.candidates(IkeVersion.V2, path(STRANGER))) == ["any"]
    assert names(made.candidates(None, path(STRANGER))) == ["any"]
    assert (made.knows(path(ADDRESS_A)), made.knows(path(STRANGER))) == (True, False)


def test_versions_and_local_addresses_are_apart() -> None:
    made = registry(policy("two"), policy("one", version=IkeVersion.V1), policy("c", local_address=ADDRESS_C))
    assert names(made.candidates(IkeVersion.V1, path(STRANGER))) == ["one"]
    assert names(made.candidates(IkeVersion.V2, path(STRANGER))) == ["two"]
    assert names(made.candidates(IkeVersion.V2, path(STRANGER, ADDRESS_C))) == ["c"]
    assert made.candidates(IkeVersion.V2, path(STRANGER, STRANGER)) == ()


def test_a_change_is_seen_at_once() -> None:
    made = registry(policy("first"))
    assert names(made.candidates(IkeVersion.V2, path(STRANGER))) == ["first"]
    made.set_policy(policy("second"))
    assert names(made.candidates(IkeVersion.V2, path(STRANGER))) == ["first", "second"]
    made.remove_policy("first")
    assert names(made.candidates(IkeVersion.V2, path(STRANGER))) == ["second"]


def test_before_the_identity_is_known_one_of_each_kind_is_looked_at() -> None:
    alike = [policy(f"alike-{number}") for number in range(100)]
    made = registry(*alike, policy("other", recipe=Recipe(encryption=("aes-256",))))
    assert names(made.distinct(IkeVersion.V2, path(STRANGER))) == ["alike-0", "other"]


def test_strangers_leave_no_memory_of_their_addresses() -> None:
    made = registry(policy("any"))

    def meet(numbers: range) -> tuple[int, int]:
        for number in numbers:
            made.candidates(IkeVersion.V2, path(ip_address(number)))
            made.distinct(IkeVersion.V2, path(ip_address(number)))
        return footprint(made)

    first = meet(range(1))
    assert meet(range(1, 1000)) == first
