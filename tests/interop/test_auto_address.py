"""`gateway.address = "auto"` where the address really changes, with what vpnd prints for strongSwan there.

a eth0 192.0.2.1, then 192.0.2.77 ---- 192.0.2.2  b, whose own address is beyond: 203.0.113.9
  eth1 198.51.100.1 ------------------ 198.51.100.2
"""

from __future__ import annotations

import json

import pytest

from tests.lab.lab import Lab, Namespace, write
from tests.lab.plan import End, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import agreement
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

PLACEHOLDER = "PUT-THE-PRE-SHARED-KEY-HERE"
FIRST, LATER, OTHER = "192.0.2.1", "192.0.2.77", "198.51.100.1"
OURS = End("a", "auto", "hq.example", "10.1.0.1", ("10.1.0.0/24",))
THEIRS = End("b", "203.0.113.9", "203.0.113.9", "10.2.0.1", ("10.2.0.0/24",))


def wires(lab: Lab) -> tuple[Namespace, Namespace]:
    """Two links; there is no default route yet."""
    a, b = lab.namespace("a"), lab.namespace("b")
    for device, address, other in (("eth0", FIRST, "192.0.2.2"), ("eth1", OTHER, "198.51.100.2")):
        lab.link(a, b, device, device)
        a.add_address(f"{address}/24", device)
        b.add_address(f"{other}/24", device)
    a.add_address(f"{OURS.inside}/32")
    b.add_address(f"{THEIRS.address}/32")
    b.add_address(f"{THEIRS.inside}/32")
    return a, b


@pytest.mark.parametrize("version", ["ikev2", "ikev1"])
def test_the_default_routes_address_is_waited_for_and_followed(lab: Lab, version: str) -> None:
    a, b = wires(lab)
    plan = Plan(local=OURS, remote=THEIRS, version=version, mode="main", negotiation="active")
    if version == "ikev1":
        plan = plan.change(mode="aggressive")
    ours, peer = Vpnd(a, "auto", plans=[plan]), StrongSwan(b)
    tunnel = ours.tunnel(plan.name)
    assert (tunnel["state"], tunnel["last_error"]["code"]) == ("down", "E-ADDRESS")
    assert "no default route" in ours.ctl("why", plan.name, check=False).stdout
    text = ours.ctl("peer-config", plan.name, "--for", "strongswan").stdout
    path = write(peer.directory / "printed.conf", text.replace(PLACEHOLDER, plan.psk), mode=0o600)
    peer.swanctl("--load-all", "--clear", "--noprompt", "--file", str(path))

    def require(address: str) -> None:
        wait_until(lambda: ours.get(f"/v1/tunnels/{plan.name}")["local_address"] == address, address)
        ours.wait_state(plan.name, "up")
        wait_until(lambda: peer.sas()[-1]["remote-host"] == address, "the peer at the new address")
        assert ours.get("/v1/status")["gateway"]["address"] == address
        # strongSwan begins as well, and ends the pair that belonged to one of two IKE SAs.
        agreement(ours, peer, plan.name)
        require_ping(a, OURS.inside, THEIRS.inside)
        require_ping(b, THEIRS.inside, OURS.inside)

    a.ip("route", "add", "default", "via", "192.0.2.2")
    require(FIRST)
    # As at the end of a lease: the address, and with it the route, go; then there are others.
    a.ip("address", "flush", "dev", "eth0")
    a.add_address(f"{LATER}/24", "eth0")
    a.ip("route", "add", "default", "via", "192.0.2.2")
    require(LATER)
    a.ip("route", "replace", "default", "via", "198.51.100.2")
    require(OTHER)
    lines = [json.loads(line) for line in ours.ctl("--json", "events").stdout.splitlines()]
    changed = [line["text"] for line in lines if line["event"] == "address-changed"]
    assert [text.rsplit(" ", 1)[-1] for text in changed] == [FIRST, LATER, OTHER]
    assert f"{LATER} is not the default route's any more" in changed[-1]
