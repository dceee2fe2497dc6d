"""strongSwan has several networks in one child, and we a mapping for each pair (RFC 7296 section 2.9)."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.interop.conftest import Opposite
from tests.lab.plan import Plan, SpdRule
from tests.lab.process import wait_until
from tests.lab.traffic import ping, require_ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

HERE, THERE = ("10.1.0.0/24", "10.1.1.0/24"), ("10.2.0.0/24", "10.2.1.0/24")
PAIRS = [(local, remote) for local in HERE for remote in THERE]


@pytest.fixture(scope="module", autouse=True)
def inside(opposite: Opposite) -> None:
    """An address in each network."""
    opposite.wire.a.gateway.add_address("10.1.1.1/32")
    opposite.wire.b.gateway.add_address("10.2.1.1/32")


def settled(opposite: Opposite, name: str) -> bool:
    """Whether both ends have one pair of SAs for each mapping, and the same."""
    ours = opposite.ours.agreed(name)
    theirs = [agreed.mirrored() for agreed in opposite.peer.agreed(name)]
    return Counter((a.local, a.remote) for a in ours) == Counter(PAIRS) and set(ours) == set(theirs)


def ike_of(vpnd: Vpnd, name: str) -> str | None:
    """The initiator's SPI of the IKE SA."""
    ike = vpnd.tunnel(name)["ike"]
    return None if ike is None else str(ike["spi_i"])


def require_traffic(opposite: Opposite) -> None:
    """A ping through each mapping."""
    for local, remote in PAIRS:
        require_ping(opposite.wire.a.gateway, *addresses_of(local, remote))


def addresses_of(local: str, remote: str) -> tuple[str, str]:
    """The address in each network."""
    return local.replace(".0/24", ".1"), remote.replace(".0/24", ".1")


def passes(opposite: Opposite) -> bool:
    """Whether a ping through each mapping is answered."""
    source = opposite.wire.a.gateway
    return all(ping(source, *addresses_of(*pair), count=1, patience=1).received for pair in PAIRS)


@pytest.mark.parametrize("role", ["passive", "active", "traffic-triggered"])
def test_every_mapping_carries_traffic_whoever_began(role: str, opposite: Opposite, row: TellRow) -> None:
    plan = Plan(name=f"one-child-{role}", negotiation=role, rules=(SpdRule(HERE, THERE),), one_child=True)
    vpnd = opposite.ours
    assert isinstance(vpnd, Vpnd)
    opposite.peer.add(plan.other())
    try:
        vpnd.add(plan)
        if role != "active":
            assert opposite.peer.up(plan.name).returncode == 0
        wait_until(lambda: settled(opposite, plan.name), "an SA for each mapping at both ends")
        require_traffic(opposite)
        before = {agreed.spi_in for agreed in vpnd.agreed(plan.name)}
        opposite.peer.swanctl("--rekey", "--child", plan.name)
        wait_until(
            lambda: settled(opposite, plan.name) and not before & {a.spi_in for a in vpnd.agreed(plan.name)},
            "strongSwan's successor of each, of the same mapping",
        )
        require_traffic(opposite)
        ike = ike_of(vpnd, plan.name)
        opposite.peer.swanctl("--rekey", "--ike", plan.name, "--reauth")
        # strongSwan answers the command at once, and ends the old IKE SA before it begins the new one. If we
        # begin one at that moment, it drops one of the two without a word, and we find that out.
        wait_until(
            lambda: ike_of(vpnd, plan.name) not in (ike, None) and settled(opposite, plan.name),
            "each mapping's SA after a new authentication",
        )
        # Where both begin, strongSwan may give the CHILD_SAs of two mappings one reqid, and send the
        # packets of one on the other: they are dropped here, since a mapping takes its own only.
        if role != "active":
            wait_until(lambda: passes(opposite), "traffic in each mapping after it")
        mappings = vpnd.tunnel(plan.name)["mappings"]
        assert [mapping["reason"] for mapping in mappings] == [None] * len(PAIRS)
        what = f"one child of 2 x 2 networks, we are {role}"
        row("narrowing", version="ikev2", what=what, figure=f"{len(mappings)} up")
    finally:
        vpnd.remove(plan.name)
        opposite.peer.remove(plan.name)


def test_an_ikev1_peer_agrees_to_each_pair_that_we_ask_for(opposite: Opposite, row: TellRow) -> None:
    """A quick mode has one pair of networks (RFC 2409 section 5.5); strongSwan asks for its first only."""
    rules = (SpdRule(HERE, THERE),)
    plan = Plan(name="one-child-1", version="ikev1", negotiation="active", rules=rules, one_child=True)
    opposite.peer.add(plan.other())
    try:
        opposite.ours.add(plan)
        wait_until(lambda: settled(opposite, plan.name), "an SA for each mapping at both ends")
        require_traffic(opposite)
        opposite.peer.swanctl("--rekey", "--child", plan.name)
        wait_until(lambda: len(opposite.ours.agreed(plan.name)) == len(PAIRS), "each mapping to be up")
        require_traffic(opposite)
        row("narrowing", version="ikev1", what="one child of 2 x 2 networks, we are active", figure="4 up")
    finally:
        opposite.ours.remove(plan.name)
        opposite.peer.remove(plan.name)
