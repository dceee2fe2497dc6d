"""The algorithms of the specification against strongSwan: both modes of IKEv1, IKEv2, PFS, both roles.

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
from tests.lab.lab import write
from tests.lab.plan import A, B, Plan, Suite
from tests.lab.topology import agreement
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

MODES = ("main", "aggressive", "ikev2")
ENCRYPTIONS = ("aes-128", "aes-192", "aes-256", "3des", "des")
INTEGRITIES = ("md5", "sha1", "sha256", "sha384", "sha512")
GROUPS = ("1", "2", "5", "14", "24")
PFS = ("off", "1", "2", "5", "14", "24")
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

    def tunnel(self, number: int) -> Tunnel:
        """The tunnel in this place of a batch."""
        plan = Plan(
            version=self.version,
            mode="main" if self.version == "ikev2" else self.mode,
            ike=Suite(self.encryption, self.integrity, int(self.group)),
            esp=Suite(following(ENCRYPTIONS, self.encryption), following(INTEGRITIES, self.integrity)),
            pfs=0 if self.pfs == "off" else int(self.pfs),
        )
        return place(plan, number, role=self.role)


def following(words: tuple[str, ...], word: str) -> str:
    """The word after this one, in a ring."""
    return words[(words.index(word) + 1) % len(words)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cases" in metafunc.fixturenames:
        groups = {"every pair of values": [Case(*values) for values in pairwise(*AXES)]}
        if metafunc.config.getoption("--full-grid"):
            groups = {
                "-".join(suite): [Case(*suite, *values) for values in product(GROUPS, PFS, ROLES)]
                for suite in product(MODES, ENCRYPTIONS, INTEGRITIES)
            }
        metafunc.parametrize("cases", groups.values(), ids=groups)


def test_sas_are_as_configured_and_traffic_arrives(
    cases: list[Case], batch: Batch, row: TellRow, pytestconfig: pytest.Config
) -> None:
    tunnels = {case: case.tunnel(number) for number, case in enumerate(cases)}
    batch.run(list(tunnels.values()))
    title = "the algorithms of the specification with strongSwan"
    if pytestconfig.getoption("--full-grid"):
        tell_in_short(row, title, tunnels)
    else:
        for case, tunnel in tunnels.items():
            figures = {"up within s": f"{tunnel.seconds:.1f}", "ping ms": f"{tunnel.round_trip_ms:.2f}"}
            row(title, **asdict(case), **figures, fault=tunnel.fault or "")
    assert not faults(tunnels)


def tell_in_short(row: TellRow, title: str, tunnels: dict[Case, Tunnel]) -> None:
    """One row for those of one mode, cipher and hash, with how many of them passed; failures in full."""
    for case, tunnel in tunnels.items():
        if tunnel.fault is not None:
            row(f"{title}: failures", **asdict(case), fault=tunnel.fault)
    first = next(iter(tunnels))
    row(
        title,
        mode=first.mode,
        encryption=first.encryption,
        integrity=first.integrity,
        passed=f"{len(tunnels) - len(faults(tunnels))} of {len(tunnels)}",
        **{"all up after s": f"{max(tunnel.seconds for tunnel in tunnels.values()):.1f}"},
    )


@pytest.mark.parametrize("role", ROLES)
def test_ten_mappings_come_up_one_after_the_other(role: str, opposite: Opposite) -> None:
    """Ten networks behind our gateway, each with an address that answers."""
    wire = opposite.wire
    addresses = [f"10.11.{number}.1" for number in range(10)]
    here = replace(A, networks=tuple(f"10.11.{number}.0/24" for number in range(10)))
    plan = Plan(version="ikev1", local=here, negotiation=negotiation(role))
    for address in addresses:
        wire.a.gateway.add_address(f"{address}/32")
    try:
        opposite.peer.add(plan.other())
        opposite.ours.add(plan)
        opposite.bring_up(plan, role)
        ours = agreement(opposite.ours, opposite.peer, plan.name, mappings=10)
        assert len({(one.local, one.remote) for one in ours}) == 10
        for address in addresses:
            require_ping(wire.a.host, address, B.inside)
    finally:
        opposite.ours.remove(plan.name)
        opposite.peer.remove(plan.name)
        for address in addresses:
            wire.a.gateway.run("ip", "address", "del", f"{address}/32", "dev", "lo")


PROFILE = """
[customer_gateways.tencent]
address = "{address}"
[tunnels.tencent]
customer_gateway = "tencent"
pre_shared_key = "plain:{key}"
profile = "tencent-cloud"
routes = ["{network}"]
"""


def test_the_profile_of_the_console_comes_up(opposite: Opposite) -> None:
    """strongSwan has what the console proposes; our file has the profile and nothing else."""
    ours, peer, wire = opposite.ours, opposite.peer, opposite.wire
    if not isinstance(ours, Vpnd):
        pytest.skip("the profile is vpnd's")
    weak = Suite("aes-128", "md5", 1)
    plan = Plan("tencent", version="ikev1", ike=weak, esp=weak, routed=True)
    text = PROFILE.format(address=B.address, key=plan.psk, network=B.networks[0])
    path = write(ours.directory / "tencent.toml", text, mode=0o600)
    peer.add(plan.other())
    try:
        ours.ctl("add", str(path))
        (here,) = agreement(ours, peer, plan.name)
        assert (here.version, here.ike, here.esp_encryption, here.esp_integrity, here.pfs) == (
            "ikev1", weak, "aes-128", "md5", 0,
        )  # fmt: skip
        require_ping(wire.a.host, A.inside, B.inside)
        require_ping(wire.b.host, B.inside, A.inside, size=4000)
    finally:
        ours.remove(plan.name)
        peer.remove(plan.name)


def test_pairwise_leaves_no_pair_out() -> None:
    assert not left_out(pairwise(*AXES), *AXES)
