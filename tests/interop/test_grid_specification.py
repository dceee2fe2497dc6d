"""The algorithms of the specification against strongSwan: both modes of IKEv1, IKEv2, PFS, both roles.

Each pair of values meets in `make test`; `make grid` runs every combination.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import product

import pytest

from tests.interop.conftest import ROWS_SPECIFICATION, Opposite
from tests.interop.pairwise import pairwise
from tests.lab.plan import A, B, Gateway, Plan, Suite
from tests.lab.process import wait_until
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

MODES = ("main", "aggressive", "ikev2")
ENCRYPTIONS = ("aes-128", "aes-192", "aes-256", "3des", "des")
INTEGRITIES = ("md5", "sha1", "sha256", "sha384", "sha512")
GROUPS = ("1", "2", "5", "14", "24")
PFS = ("off", "1", "2", "5", "14", "24")
ROLES = ("initiator", "responder")
AXES = (MODES, ENCRYPTIONS, INTEGRITIES, GROUPS, PFS, ROLES)


@dataclass(frozen=True)
class Case:
    """One row of the grid; the children have the next cipher and hash, so that one row tries two of each."""

    mode: str
    encryption: str
    integrity: str
    group: str
    pfs: str
    role: str

    def __str__(self) -> str:
        words = (self.mode, self.encryption, self.integrity, f"dh{self.group}", f"pfs-{self.pfs}", self.role)
        return "-".join(words)

    @property
    def version(self) -> str:
        """The version of IKE that the mode belongs to."""
        return "ikev2" if self.mode == "ikev2" else "ikev1"

    def plan(self) -> Plan:
        """The tunnel as our end sees it."""
        return Plan(
            version=self.version,
            mode="main" if self.version == "ikev2" else self.mode,
            ike=Suite(self.encryption, self.integrity, int(self.group)),
            esp=Suite(following(ENCRYPTIONS, self.encryption), following(INTEGRITIES, self.integrity)),
            pfs=0 if self.pfs == "off" else int(self.pfs),
            negotiation="active" if self.role == "initiator" else "passive",
        )


def following(words: tuple[str, ...], word: str) -> str:
    """The word after this one, in a ring."""
    return words[(words.index(word) + 1) % len(words)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full-grid")
        cases = [Case(*row) for row in (product(*AXES) if full else pairwise(*AXES))]
        metafunc.parametrize("case", cases, ids=str)


def bring_up(opposite: Opposite, plan: Plan, role: str) -> float:
    """The tunnel, from the side that the role says; the seconds it took."""
    ours, peer = opposite.ours, opposite.peer
    peer.add(plan.other())
    ours.add(plan)
    began = time.monotonic()
    done = ours.up(plan.name) if role == "initiator" else peer.up(plan.name)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{peer.log()[-4000:]}"
    mappings = len(plan.local.networks) * len(plan.remote.networks)
    wait_until(lambda: len(ours.agreed(plan.name)) == mappings, "every mapping to be up at our end")
    return time.monotonic() - began


def proven(ours: Vpnd, peer: Gateway, plan: Plan) -> bool:
    """Whether one SA pair made with PFS is left, the same at both ends."""
    here, there = ours.agreed(plan.name), peer.agreed(plan.name)
    if len(here) != 1 or len(there) != 1 or here[0] != there[0].mirrored():
        return False
    return all(mapping["pfs"] == plan.pfs for mapping in ours.tunnel(plan.name)["mappings"])


def test_sas_are_as_configured_and_traffic_arrives(
    case: Case, opposite: Opposite, pytestconfig: pytest.Config
) -> None:
    plan = case.plan()
    wire = opposite.wire
    try:
        seconds = bring_up(opposite, plan, case.role)
        gateway = opposite.ours
        if case.version == "ikev2" and plan.pfs and isinstance(gateway, Vpnd):
            # IKEv2 has no key exchange for its first CHILD_SA; vpnd replaces it at once to prove PFS.
            wait_until(lambda: proven(gateway, opposite.peer, plan), "the successor with PFS")
        (ours,), (theirs,) = opposite.ours.agreed(plan.name), opposite.peer.agreed(plan.name)
        assert ours == theirs.mirrored()
        assert (ours.version, ours.ike) == (case.version, plan.ike)
        assert (ours.esp_encryption, ours.esp_integrity) == (plan.esp.encryption, plan.esp_integrity)
        assert (ours.local, ours.remote) == (*A.networks, *B.networks)
        there = require_ping(wire.a.host, A.inside, B.inside)
        require_ping(wire.b.host, B.inside, A.inside)
        require_ping(wire.a.host, A.inside, B.inside, size=4000)
        require_ping(wire.b.host, B.inside, A.inside, size=4000)
    finally:
        opposite.ours.remove(plan.name)
        opposite.peer.remove(plan.name)
    words = (case.mode, case.encryption, case.integrity, case.group, case.pfs, case.role)
    figures = (f"{seconds * 1000:.0f}", f"{there.average_ms:.2f}")
    pytestconfig.stash[ROWS_SPECIFICATION].append((*words, *figures))


@pytest.mark.parametrize("role", ROLES)
def test_ten_mappings_come_up_one_after_the_other(role: str, opposite: Opposite) -> None:
    """Ten networks behind our gateway, each with an address that answers."""
    wire = opposite.wire
    addresses = [f"10.11.{number}.1" for number in range(10)]
    here = replace(A, networks=tuple(f"10.11.{number}.0/24" for number in range(10)))
    negotiation = "active" if role == "initiator" else "passive"
    plan = Plan(version="ikev1", local=here, negotiation=negotiation)
    for address in addresses:
        wire.a.gateway.add_address(f"{address}/32")
    try:
        bring_up(opposite, plan, role)
        ours, theirs = opposite.ours.agreed(plan.name), opposite.peer.agreed(plan.name)
        assert sorted(one.spi_in for one in ours) == sorted(one.spi_out for one in theirs)
        assert len({(one.local, one.remote) for one in ours}) == 10
        for address in addresses:
            require_ping(wire.a.host, address, B.inside)
    finally:
        opposite.ours.remove(plan.name)
        opposite.peer.remove(plan.name)
        for address in addresses:
            wire.a.gateway.run("ip", "address", "del", f"{address}/32", "dev", "lo")


def test_pairwise_leaves_no_pair_out() -> None:
    chosen = [frozenset(enumerate(row)) for row in pairwise(*AXES)]
    for row in product(*AXES):
        for first in enumerate(row):
            for second in enumerate(row):
                assert any({first, second} <= meeting for meeting in chosen)
