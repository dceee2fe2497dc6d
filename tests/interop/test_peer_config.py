"""What `vpnctl peer-config` prints is put on strongSwan as it is, but for the key: the tunnel comes up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.interop.conftest import Opposite
from tests.lab.lab import write
from tests.lab.plan import A, B, Plan, Suite
from tests.lab.process import wait_until
from tests.lab.traffic import ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

PLACEHOLDER = "PUT-THE-PRE-SHARED-KEY-HERE"

PLANS = [
    Plan(ike=Suite("aes-256-gcm", "sha384", 31), esp=Suite("chacha20-poly1305"), pfs=19),
    Plan(
        local=replace(A, identity="hq.example", networks=("10.1.0.0/24", "10.7.0.0/24")),
        remote=replace(B, identity="branch.example"),
    ),
    Plan(version="ikev1", ike=Suite("aes-128", "sha1", 5), esp=Suite("3des", "md5"), pfs=2),
    Plan(version="ikev1", mode="aggressive", ike=Suite("aes-256", "sha512", 14)),
    *(
        Plan(
            version=version,
            mode=mode,
            local=replace(A, identity="@user@hq.example"),
            remote=replace(B, identity="@203.0.113.1"),
        )
        for version, mode in (("ikev2", "main"), ("ikev1", "aggressive"))
    ),
]
NAMES = [
    *("aead", "names-and-two-mappings", "ikev1-legacy", "aggressive"),
    *("fqdns-that-look-otherwise", "fqdns-that-look-otherwise-aggressive"),
]


@pytest.mark.parametrize("plan", PLANS, ids=NAMES)
def test_strongswan_takes_it_and_the_tunnel_carries_traffic(opposite: Opposite, plan: Plan) -> None:
    ours = opposite.ours
    assert isinstance(ours, Vpnd)
    plan = plan.change(negotiation="traffic-triggered")
    ours.add(plan)
    try:
        printed = ours.ctl("peer-config", plan.name, "--for", "strongswan").stdout
        assert plan.psk not in printed
        text = printed.replace(PLACEHOLDER, plan.psk)
        path = write(opposite.peer.directory / "printed.conf", text, mode=0o600)
        opposite.peer.swanctl("--load-all", "--clear", "--noprompt", "--file", str(path))
        up = ours.up(plan.name)
        assert up.returncode == 0, up.stderr + opposite.peer.log()[-2000:]
        assert len(ours.agreed(plan.name)) == len(plan.local.networks)

        def alike() -> bool:
            here = sorted((sa.mirrored().local, sa.mirrored().spi_in) for sa in ours.agreed(plan.name))
            return here == sorted((sa.local, sa.spi_in) for sa in opposite.peer.agreed(plan.name))

        # The early rekey of the first mapping may fall between two looks.
        wait_until(alike, "both ends to have the same SAs")
        assert ping(opposite.wire.a.gateway, plan.local.inside, plan.remote.inside).received == 3
    finally:
        ours.remove(plan.name)


def test_strongswan_takes_that_of_a_route_based_tunnel(opposite: Opposite) -> None:
    ours = opposite.ours
    assert isinstance(ours, Vpnd)
    plan = Plan(routed=True)
    ours.add(plan)
    try:
        printed = ours.ctl("peer-config", plan.name, "--for", "strongswan").stdout
        path = write(opposite.peer.directory / "printed.conf", printed, mode=0o600)
        loaded = opposite.peer.swanctl("--load-all", "--clear", "--noprompt", "--file", str(path))
        assert f"loaded connection '{plan.name}'" in loaded.stdout
        opposite.peer.swanctl("--terminate", "--ike", plan.name, "--timeout", "3", check=False)
    finally:
        ours.remove(plan.name)
