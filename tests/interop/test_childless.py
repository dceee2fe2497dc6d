"""strongSwan that insists on an IKE SA without a CHILD_SA (RFC 6023): the mapping comes right after it."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Opposite
from tests.lab.plan import A, B, Plan
from tests.lab.topology import agreement
from tests.lab.traffic import ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan]


@pytest.mark.parametrize("negotiation", ["active", "passive"])
def test_the_tunnel_is_up_with_a_peer_that_insists_on_it(negotiation: str, opposite: Opposite) -> None:
    """As initiator we find that out: it refuses our first attempt, and another begins without at once."""
    plan = Plan(name=f"childless-{negotiation}", negotiation=negotiation, childless="force")
    ours, peer = opposite.ours, opposite.peer
    assert isinstance(ours, Vpnd)
    peer.add(plan.other())
    ours.add(plan)
    try:
        if negotiation == "passive":
            opposite.bring_up(plan, "responder")
        agreement(ours, peer, plan.name)
        assert ping(opposite.wire.a.host, A.inside, B.inside, count=1).received
        assert "E-SYNTAX" not in ours.told(plan.name)
    finally:
        ours.remove(plan.name)
        peer.remove(plan.name)
