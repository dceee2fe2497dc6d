"""Every suite, group, identity and role against strongSwan: the SAs are as configured, and traffic arrives.

Each pair of values meets in `make test`; `make grid` runs every combination. They come up in batches, each
tunnel of a batch with a peer address of its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product

import pytest

from tests.interop.batch import ROLES, Batch, Tunnel, faults, negotiation, place
from tests.interop.conftest import Opposite
from tests.interop.pairwise import left_out, pairwise
from tests.lab.plan import A, B, Plan, Suite
from tests.lab.topology import agreement
from tests.lab.traffic import require_ping
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

SIZE = 4 << 20
"""Bytes of each transfer."""
ENCRYPTIONS = ("aes-128", "aes-256", "aes-128-gcm", "chacha20-poly1305")
INTEGRITIES = ("sha1", "sha256", "sha384", "sha512")
GROUPS = ("14", "19", "31")
IDENTITIES = ("ip", "fqdn")
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

    @property
    def suite(self) -> Suite:
        """For IKE and for ESP."""
        return Suite(self.encryption, self.integrity, int(self.group))

    def tunnel(self, number: int) -> Tunnel:
        """The tunnel in this place of a batch."""
        plan = Plan(ike=self.suite, esp=self.suite)
        return place(plan, number, role=self.role, names=self.identity == "fqdn")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cases" in metafunc.fixturenames:
        groups = {"every pair of values": [Case(*values) for values in pairwise(*AXES)]}
        if metafunc.config.getoption("--full-grid"):
            groups = {one: [Case(one, *values) for values in product(*AXES[1:])] for one in ENCRYPTIONS}
        metafunc.parametrize("cases", groups.values(), ids=groups)


def test_sas_are_as_configured_and_traffic_arrives(cases: list[Case], batch: Batch, row: TellRow) -> None:
    tunnels = {case: case.tunnel(number) for number, case in enumerate(cases)}
    batch.run(list(tunnels.values()), SIZE)
    for case, tunnel in tunnels.items():
        figures = {
            "up within s": f"{tunnel.seconds:.1f}",
            "ping ms": f"{tunnel.round_trip_ms:.2f}",
            "out Mbit/s": f"{tunnel.outward.megabits:.0f}" if tunnel.outward else "",
            "in Mbit/s": f"{tunnel.inward.megabits:.0f}" if tunnel.inward else "",
        }
        row("IKEv2 with strongSwan", **asdict(case), **figures, fault=tunnel.fault or "")
    assert not faults(tunnels)


@pytest.mark.parametrize("role", ROLES)
def test_a_tunnel_of_everything(role: str, opposite: Opposite) -> None:
    """A route leads into it, and its one mapping is of all addresses; of these there is one at a time."""
    plan = Plan(
        routed=True,
        local=replace(A, identity="hq.vpn.example"),
        remote=replace(B, identity="branch.vpn.example"),
        negotiation=negotiation(role),
    )
    ours, peer, wire = opposite.ours, opposite.peer, opposite.wire
    try:
        peer.add(plan.other())
        ours.add(plan)
        opposite.bring_up(plan, role)
        (here,) = agreement(ours, peer, plan.name)
        assert (here.local, here.remote) == ("0.0.0.0/0", "0.0.0.0/0")
        require_ping(wire.a.host, A.inside, B.inside)
        require_ping(wire.b.host, B.inside, A.inside, size=4000)
    finally:
        ours.remove(plan.name)
        peer.remove(plan.name)


def test_pairwise_leaves_no_pair_out() -> None:
    assert not left_out(pairwise(*AXES), *AXES)
