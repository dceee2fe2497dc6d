"""Every suite, group, identity and role against strongSwan: the SAs are as configured, and traffic arrives.

Each pair of values meets in `make test`; `make grid` runs every combination.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import pytest

from tests.interop.conftest import ROWS, Opposite
from tests.interop.pairwise import pairwise
from tests.lab.plan import A, B, Plan, Suite
from tests.lab.process import wait_until
from tests.lab.traffic import require_ping, transfer

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

ENCRYPTIONS = ("aes-128", "aes-256", "aes-128-gcm", "chacha20-poly1305")
INTEGRITIES = ("sha1", "sha256", "sha384", "sha512")
GROUPS = ("14", "19", "31")
IDENTITIES = ("ip", "fqdn")
ROLES = ("initiator", "responder")
AXES = (ENCRYPTIONS, INTEGRITIES, GROUPS, IDENTITIES, ROLES)


@dataclass(frozen=True)
class Case:
    """One row of the grid."""

    encryption: str
    integrity: str
    group: str
    identity: str
    role: str

    def __str__(self) -> str:
        return "-".join((self.encryption, self.integrity, f"dh{self.group}", self.identity, self.role))

    def plan(self) -> Plan:
        """The tunnel as our end sees it; the tunnels with names for identities route everything."""
        suite = Suite(self.encryption, self.integrity, int(self.group))
        plan = Plan(ike=suite, esp=suite, negotiation="active" if self.role == "initiator" else "passive")
        if self.identity == "fqdn":
            plan = plan.change(
                routed=True,
                local=replace(A, identity="hq.vpn.example"),
                remote=replace(B, identity="branch.vpn.example"),
            )
        return plan


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full-grid")
        cases = [Case(*row) for row in (product(*AXES) if full else pairwise(*AXES))]
        metafunc.parametrize("case", cases, ids=str)


@pytest.fixture
def established(case: Case, opposite: Opposite) -> Iterator[tuple[Plan, float]]:
    """The tunnel of this case, brought up from the side that the role says, with the seconds it took."""
    plan = case.plan()
    ours, peer = opposite.ours, opposite.peer
    peer.add(plan.other())
    ours.add(plan)
    began = time.monotonic()
    try:
        done = ours.up(plan.name) if case.role == "initiator" else peer.up(plan.name)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{peer.log()[-4000:]}"
        wait_until(lambda: bool(ours.agreed(plan.name)), "the tunnel to be up at our end")
        yield plan, time.monotonic() - began
    finally:
        ours.remove(plan.name)
        peer.remove(plan.name)


def test_sas_are_as_configured_and_traffic_arrives(
    case: Case, established: tuple[Plan, float], opposite: Opposite, pytestconfig: pytest.Config
) -> None:
    plan, seconds = established
    wire = opposite.wire
    (ours,), (theirs,) = opposite.ours.agreed(plan.name), opposite.peer.agreed(plan.name)

    assert ours == theirs.mirrored()
    assert (ours.version, ours.ike, ours.udp) == ("ikev2", plan.ike, True)
    assert (ours.esp_encryption, ours.esp_integrity) == (plan.esp.encryption, plan.esp_integrity)
    everything = ("0.0.0.0/0", "0.0.0.0/0")
    assert (ours.local, ours.remote) == (everything if plan.routed else (*A.networks, *B.networks))

    there = require_ping(wire.a.host, A.inside, B.inside)
    require_ping(wire.b.host, B.inside, A.inside)
    require_ping(wire.a.host, A.inside, B.inside, size=4000)
    require_ping(wire.b.host, B.inside, A.inside, size=4000)
    outward = transfer(wire.a.host, A.inside, wire.b.host, B.inside)
    inward = transfer(wire.b.host, B.inside, wire.a.host, A.inside)

    pytestconfig.stash[ROWS].append(
        (
            *(case.encryption, case.integrity, case.group, case.identity, case.role),
            f"{seconds * 1000:.0f}",
            f"{there.median_ms:.2f}",
            f"{outward.megabits:.0f}",
            f"{inward.megabits:.0f}",
        )
    )


def test_pairwise_leaves_no_pair_out() -> None:
    chosen = [frozenset(enumerate(row)) for row in pairwise(*AXES)]
    for row in product(*AXES):
        for first in enumerate(row):
            for second in enumerate(row):
                assert any({first, second} <= meeting for meeting in chosen)
