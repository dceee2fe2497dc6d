"""strongSwan cuts up its first IKEv1 message as well (`fragmentation = force`)."""

from __future__ import annotations

import pytest

from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

SMALL = "fragment_size = 200"
"""Bytes of an IP datagram: no message of main or aggressive mode fits."""


@pytest.mark.parametrize("mode", ["main", "aggressive"])
def test_a_first_message_in_fragments_brings_the_tunnel_up(mode: str) -> None:
    with Lab() as lab:
        wire = two_gateways(lab)
        ours, peer = Vpnd(wire.a.gateway, A.address), StrongSwan(wire.b.gateway, SMALL)
        plan = Plan("t1", version="ikev1", mode=mode, fragmentation="force")
        ours.add(plan)
        peer.add(plan.other())
        done = peer.up("t1")
        assert "splitting IKE message" in peer.log(), peer.log()
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        wait_until(lambda: bool(ours.agreed("t1")), "the tunnel to be up")
        require_ping(wire.a.host, A.inside, B.inside)
