"""The gateways that a module of tests shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.interop.batch import Batch
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Gateway, Plan
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import Wire, start, two_gateways


@dataclass
class Opposite:
    """The gateway under test at a, strongSwan at b."""

    wire: Wire
    ours: Gateway
    peer: StrongSwan

    def bring_up(self, plan: Plan, role: str) -> None:
        """Negotiate from our end if its role is the initiator's, else from the peer's, and wait."""
        done = (self.ours if role == "initiator" else self.peer).up(plan.name)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def opposite(request: pytest.FixtureRequest) -> Iterator[Opposite]:
    """Both daemons, running, without a tunnel."""
    with Lab() as lab:
        wire = two_gateways(lab)
        ours = start(request.config.getoption("--gateway"), wire.a.gateway, A.address)
        peer = start("strongswan", wire.b.gateway, B.address)
        assert isinstance(peer, StrongSwan)
        yield Opposite(wire, ours, peer)


@pytest.fixture(scope="module")
def batch(request: pytest.FixtureRequest) -> Iterator[Batch]:
    """Both daemons, running, with the addresses of a batch."""
    with Lab() as lab:
        yield Batch(lab, request.config.getoption("--gateway"))
