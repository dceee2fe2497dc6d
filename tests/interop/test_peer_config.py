"""What `vpnctl peer-config` prints is put on strongSwan as it is, but for the key: the tunnel comes up."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.interop.conftest import Opposite
from tests.lab.lab import write
from tests.lab.plan import A, B, Plan, SpdRule, Suite
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
NAMED = Plan(local=replace(A, identity="hq.example"), remote=replace(B, identity="branch.example"))
TWO = Plan(local=replace(A, networks=("10.1.0.0/24", "10.7.0.0/24")))
V1 = Plan(version="ikev1")
AGGRESSIVE = Plan(version="ikev1", mode="aggressive")
ICMP = ('protocol = "icmp"',)
TCP = ('protocol = "tcp"', 'remote_port = "1024-2047"')
MORE: dict[str, Plan] = {
    "defaults": Plan(),
    "gcm-128": Plan(ike=Suite("aes-128-gcm", "sha256", 19), esp=Suite("aes-128-gcm"), pfs=14),
    "chacha": Plan(ike=Suite("chacha20-poly1305", "sha512", 31), esp=Suite("aes-256-gcm"), pfs=31),
    "aes-192-group-16": Plan(ike=Suite("aes-192", "sha384", 16), esp=Suite("aes-192", "sha384"), pfs=15),
    "group-20": Plan(ike=Suite("aes-256", "sha512", 20), esp=Suite("aes-256", "sha512"), pfs=20),
    "group-21": Plan(ike=Suite("aes-256", "sha256", 21), pfs=21),
    "group-24": Plan(ike=Suite("aes-128", "sha1", 24), esp=Suite("3des", "sha1"), pfs=24),
    "weak-ikev2": Plan(ike=Suite("3des", "md5", 2), esp=Suite("3des", "md5"), pfs=5),
    "names-pfs": replace(NAMED, pfs=14),
    "two-mappings-pfs": replace(TWO, pfs=19),
    "without-esn": Plan(esp_lines=('esn = "no"',)),
    "short-window": Plan(esp_lines=("replay_window = 64",)),
    "short-lives": Plan(lifetime=600, ike_lifetime=3600, lifetime_kb=65536),
    "long-lives": Plan(lifetime=172800, ike_lifetime=604800, lifetime_kb=0),
    "long-dpd": Plan(dpd_timeout=600),
    "two-pfs-groups": Plan(esp=Suite("aes-256-gcm"), esp_lines=("pfs = [19, 14]",)),
    "protocol-and-ports": Plan(
        rules=(SpdRule(A.networks, B.networks, ICMP), SpdRule(A.networks, B.networks, TCP))
    ),
    "raw-esp-if-there-is-no-nat": Plan(encapsulation="auto"),
    "ikev1": V1,
    "ikev1-aes-256-pfs": replace(V1, ike=Suite("aes-256", "sha256", 14), esp=Suite("aes-256"), pfs=14),
    "ikev1-gcm": replace(V1, esp=Suite("aes-128-gcm"), pfs=19),
    "ikev1-two-mappings": replace(TWO, version="ikev1", pfs=5),
    "ikev1-group-1": replace(V1, ike=Suite("des", "md5", 1), esp=Suite("des", "md5"), pfs=1),
    "ikev1-short-lives": replace(V1, lifetime=600, ike_lifetime=3600),
    "aggressive-names": replace(NAMED, version="ikev1", mode="aggressive", pfs=2),
    "aggressive-3des": replace(AGGRESSIVE, ike=Suite("3des", "sha1", 2), esp=Suite("3des", "sha1")),
}
"""With those above more than 30."""


@pytest.mark.parametrize(
    "plan",
    [
        *(pytest.param(plan, id=name) for plan, name in zip(PLANS, NAMES, strict=True)),
        *(pytest.param(plan, id=name, marks=pytest.mark.full_faults) for name, plan in MORE.items()),
    ],
)
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
        assert len(ours.agreed(plan.name)) == len(plan.mappings)

        def alike() -> bool:
            here = sorted((sa.mirrored().local, sa.mirrored().spi_in) for sa in ours.agreed(plan.name))
            # It has protocol and ports beside the range.
            there = ((sa.local.partition("[")[0], sa.spi_in) for sa in opposite.peer.agreed(plan.name))
            return here == sorted(there)

        # The early rekey of the first mapping may fall between two looks.
        wait_until(alike, "both ends to have the same SAs")
        if plan.encapsulation == "udp":
            # This strongSwan carries ESP itself, and in UDP alone.
            assert ping(opposite.wire.a.gateway, plan.local.inside, plan.remote.inside).received == 3
    finally:
        ours.remove(plan.name)


def test_strongswan_takes_two_route_based_tunnels_together(opposite: Opposite) -> None:
    ours = opposite.ours
    assert isinstance(ours, Vpnd)
    plans = [
        Plan(
            name=f"routed-{word}",
            routed=True,
            local=replace(A, identity=f"{word}.hq.example"),
            remote=replace(B, identity=f"{word}.branch.example", networks=(network,)),
            interface=f"vpn-{word}",
            negotiation="passive",
        )
        for word, network in (("one", "10.2.0.0/24"), ("two", "10.8.0.0/24"))
    ]
    try:
        texts = []
        for plan in plans:
            ours.add(plan)
            printed = ours.ctl("peer-config", plan.name, "--for", "strongswan").stdout
            # The peer of a passive tunnel begins, here when the test says so.
            texts.append(printed.replace(PLACEHOLDER, plan.psk).replace("start_action = start", ""))
        numbers = {found for text in texts for found in re.findall(r"if_id_(?:in|out) = (\d+)", text)}
        assert len(numbers) == len(plans), "an interface each"
        path = write(opposite.peer.directory / "printed.conf", "\n".join(texts), mode=0o600)
        opposite.peer.swanctl("--load-all", "--clear", "--noprompt", "--file", str(path))
        for plan in plans:
            opposite.peer.swanctl("--initiate", "--child", plan.name, "--timeout", "10")

        def both() -> bool:
            return all(ours.agreed(plan.name) for plan in plans)

        wait_until(both, "both tunnels to be up")
        raw = opposite.peer.swanctl("--list-sas", "--raw").stdout
        assert set(re.findall(r"if-id-in=([0-9a-f]+)", raw)) == {f"{int(n):x}" for n in numbers}
    finally:
        for plan in plans:
            ours.remove(plan.name)
