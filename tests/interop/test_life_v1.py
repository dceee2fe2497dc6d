"""The life of an IKEv1 tunnel with strongSwan: succession and DELETE by either side, traffic after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.interop.conftest import Opposite
from tests.lab.plan import A, Agreed, B, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

NAME = "t1"


@pytest.fixture(params=["main", "aggressive"])
def tunnel(request: pytest.FixtureRequest, opposite: Opposite) -> Iterator[tuple[Vpnd, StrongSwan]]:
    """Both ends of a tunnel that is up, with PFS."""
    ours, peer = opposite.ours, opposite.peer
    assert isinstance(ours, Vpnd)
    plan = Plan(name=NAME, version="ikev1", mode=request.param, negotiation="active", pfs=14)
    peer.add(plan.other())
    ours.add(plan)
    try:
        wait_until(lambda: bool(ours.agreed(NAME)), "the tunnel to be up")
        yield ours, peer
    finally:
        ours.remove(NAME)
        peer.remove(NAME)


def traffic(opposite: Opposite) -> None:
    """Both ways."""
    require_ping(opposite.wire.a.host, A.inside, B.inside)
    require_ping(opposite.wire.b.host, B.inside, A.inside)


def pair_of(ours: Vpnd) -> int | None:
    """The inbound SPI of the pair that carries traffic."""
    agreed: list[Agreed] = ours.agreed(NAME)
    return agreed[0].spi_in if agreed else None


def cookie_of(ours: Vpnd) -> str | None:
    """The initiator's cookie of the ISAKMP SA."""
    ike = ours.tunnel(NAME)["ike"]
    return None if ike is None else str(ike["spi_i"])


def test_sas_succeed_one_another_and_end(tunnel: tuple[Vpnd, StrongSwan], opposite: Opposite) -> None:
    ours, peer = tunnel
    traffic(opposite)

    steps: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("our renewal", lambda: ours.ctl("rekey", NAME, "--ike"), lambda: cookie_of(ours)),
        ("our rekeying", lambda: ours.ctl("rekey", NAME, "--child"), lambda: pair_of(ours)),
        ("its rekeying", lambda: peer.swanctl("--rekey", "--child", NAME), lambda: pair_of(ours)),
        ("its renewal", lambda: peer.swanctl("--rekey", "--ike", NAME), lambda: cookie_of(ours)),
        ("its DELETE", lambda: peer.swanctl("--terminate", "--child", NAME), lambda: pair_of(ours)),
        ("its end", lambda: peer.swanctl("--terminate", "--ike", NAME, check=False), lambda: cookie_of(ours)),
    ]
    for what, begin, value in steps:
        before, pair = value(), pair_of(ours)
        begin()
        wait_until(lambda: value() not in (None, before) and bool(pair_of(ours)), what)  # noqa: B023 (used at once)
        if "renewal" in what:
            assert pair_of(ours) == pair, f"{what} must not touch the ESP SAs"
        traffic(opposite)

    ours.ctl("down", NAME)
    wait_until(lambda: not peer.sas(), "strongSwan to have no SA left")


@pytest.mark.parametrize("mode", ["main", "aggressive"])
def test_two_tunnels_of_the_same_addresses_have_a_key_each(mode: str, opposite: Opposite) -> None:
    """In main mode strongSwan's identity arrives under a key that we must have picked before."""
    ours, peer, wire = opposite.ours, opposite.peer, opposite.wire
    inside = "10.3.0.1"
    one = Plan("one", version="ikev1", mode=mode, remote=replace(B, identity="one.vpn.example"))
    two = one.change(
        name="two",
        interface="vpn-two",
        psk="the second key is another than the first",
        remote=replace(B, identity="two.vpn.example", inside=inside, networks=("10.3.0.0/24",)),
    )
    wire.b.gateway.add_address(f"{inside}/32")
    try:
        for plan in (one, two):
            peer.add(plan.other())
            ours.add(plan)
        for plan in (two, one):
            done = peer.up(plan.name)
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
            wait_until(lambda: bool(ours.agreed(plan.name)), "the tunnel to be up")  # noqa: B023 (used at once)
            assert ours.agreed(plan.name)[0] == peer.agreed(plan.name)[0].mirrored()
        require_ping(wire.a.host, A.inside, B.inside)
        require_ping(wire.a.host, A.inside, inside)
    finally:
        for plan in (one, two):
            ours.remove(plan.name)
            peer.remove(plan.name)
        wire.b.gateway.ip("address", "del", f"{inside}/32", "dev", "lo")
