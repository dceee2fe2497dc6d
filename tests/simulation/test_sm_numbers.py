"""How long HMAC-SM3's ICV is: no registry says so, and both ends are configured for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import CURVE25519, Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, speaking
from vpnd.crypto.suites import integrity_of
from vpnd.model.numbers import SM3_ICV_LENGTHS, Numbers
from vpnd.model.proposals import Proposal
from vpnd.wire.iana import Protocol

PHASE1 = Proposal(Protocol.IKE, ("sm4",), ("sm3",), ("sm3",), (CURVE25519,))
SM = Recipe(encryption=("sm4",), integrity=("sm3",))
VERSIONS: list[dict[str, Any]] = [{}, speaking(MAIN), speaking(AGGRESSIVE)]


@pytest.mark.parametrize("changes", VERSIONS, ids=["ikev2", "main", "aggressive"])
@pytest.mark.parametrize("length", sorted(SM3_ICV_LENGTHS))
def test_both_ends_cut_the_icv_as_they_are_configured(length: int, changes: dict[str, Any]) -> None:
    changes = changes | {"proposals": (PHASE1,), "numbers": Numbers(sm3_icv_length=length)}
    pair = Pair(recipe=SM, changes_a=changes, changes_b=changes)
    pair.establish()
    for gateway in (pair.a, pair.b):
        assert integrity_of(gateway.child().suite).icv_length == length
    pair.a.rekey_child()
    pair.a.rekey_ike()
    pair.world.run_for(10)
    assert integrity_of(pair.a.child().suite).icv_length == length
