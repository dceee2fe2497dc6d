"""A host behind each gateway: the gateways forward, and tell the hosts what does not fit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.lab.lab import Lab
from tests.lab.plan import A, B, Gateway, Plan
from tests.lab.topology import Wire, start, two_sites
from tests.lab.traffic import require_ping, transfer

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

SIZE = 16 << 20
"""Bytes: thousands of the largest segments."""


@dataclass
class Sites:
    wire: Wire
    a: Gateway
    b: Gateway


@pytest.fixture(params=["vpnd", "strongswan"])
def sites(request: pytest.FixtureRequest, lab: Lab) -> Sites:
    """Two sites, the tunnel between them up."""
    wire = two_sites(lab)
    a, b = start("vpnd", wire.a.gateway, A.address), start(request.param, wire.b.gateway, B.address)
    plan = Plan(negotiation="active")
    b.add(plan.other().change(negotiation="passive"))
    a.add(plan)
    done = a.up(plan.name)
    assert done.returncode == 0, done.stdout + done.stderr
    return Sites(wire, a, b)


def test_hosts_behind_the_gateways_reach_each_other(sites: Sites) -> None:
    a, b = sites.wire.a, sites.wire.b
    require_ping(a.host, a.inside, b.inside)
    require_ping(b.host, b.inside, a.inside, size=4000)
    # The hosts' interfaces carry 1500 bytes: without the clamped MSS the segments would not fit the tunnel.
    transfer(a.host, a.inside, b.host, b.inside, SIZE)
    transfer(b.host, b.inside, a.host, a.inside, SIZE)


def test_a_host_is_told_what_fits(sites: Sites) -> None:
    a, b = sites.wire.a, sites.wire.b
    arguments = ("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1472", "-I", a.inside, b.inside)
    refused = a.host.run(*arguments, check=False)
    assert refused.returncode != 0
    assert "Frag needed" in refused.stdout or "too long" in refused.stdout, refused.stdout
