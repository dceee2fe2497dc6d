"""`vpnctl doctor` on setups that are broken for real: the right check says so, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.lab.lab import Lab, Namespace
from tests.lab.plan import A, B, Plan
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import Wire, two_sites
from tests.lab.vpnd import PROGRAMS, Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow, pytest.mark.full_faults]

PLAN = Plan()


@dataclass
class Scene:
    """A tunnel from vpnd to strongSwan that works."""

    wire: Wire
    vpnd: Vpnd
    peer: StrongSwan

    def examine(self) -> dict[str, dict[str, Any]]:
        """The findings of doctor by their check; of two of one check the worse one."""
        told = self.wire.a.gateway.run(
            *(str(PROGRAMS / "vpnctl"), "--socket", str(self.vpnd.socket), "--json", "doctor", PLAN.name),
            check=False,
        )
        found: dict[str, dict[str, Any]] = {}
        for one in json.loads(told.stdout)["tunnels"][0]["checks"]:
            if found.get(one["check"], {}).get("verdict") != "bad":
                found[one["check"]] = one
        return found


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab() as lab:
        wire = two_sites(lab)
        peer = StrongSwan(wire.b.gateway)
        peer.add(PLAN.other())
        vpnd = Vpnd(wire.a.gateway, A.address)
        vpnd.add(PLAN)
        yield Scene(wire, vpnd, peer)


@contextmanager
def rule(at: Namespace, hook: str, text: str) -> Iterator[None]:
    """A rule of a firewall that counts what it drops."""
    at.run("nft", "add", "table", "inet", "lab")
    at.run("nft", f"add chain inet lab one {{ type filter hook {hook} priority 0 ; }}")
    at.run("nft", f"add rule inet lab one {text} counter drop")
    try:
        yield
    finally:
        at.run("nft", "delete", "table", "inet", "lab")


@contextmanager
def setting(at: Namespace, name: str, value: str, before: str) -> Iterator[None]:
    at.sysctl(name, value)
    try:
        yield
    finally:
        at.sysctl(name, before)


@contextmanager
def without_route(scene: Scene) -> Iterator[None]:
    scene.wire.a.gateway.ip("route", "add", "unreachable", f"{B.address}/32")
    try:
        yield
    finally:
        scene.wire.a.gateway.ip("route", "del", "unreachable", f"{B.address}/32")


@contextmanager
def into_the_tunnel(scene: Scene) -> Iterator[None]:
    route = (f"{B.address}/32", "dev", PLAN.interface)
    scene.wire.a.gateway.ip("route", "add", *route)
    try:
        yield
    finally:
        scene.wire.a.gateway.ip("route", "del", *route)


@contextmanager
def narrow(scene: Scene) -> Iterator[None]:
    """The peer's link carries less than ours, of which nothing says so."""
    scene.wire.b.gateway.ip("link", "set", "eth0", "mtu", "1300")
    try:
        yield
    finally:
        scene.wire.b.gateway.ip("link", "set", "eth0", "mtu", "1500")


@contextmanager
def wrong_key(scene: Scene) -> Iterator[None]:
    scene.vpnd.ctl("down", PLAN.name)
    scene.vpnd.add(PLAN.change(psk="another key than that of the peer"))
    scene.vpnd.up(PLAN.name, 3)
    try:
        yield
    finally:
        scene.vpnd.add(PLAN)


@contextmanager
def closed_here(scene: Scene) -> Iterator[None]:
    """Our own firewall drops what the peer answers."""
    scene.vpnd.ctl("down", PLAN.name)
    with rule(scene.wire.a.gateway, "input", "udp sport { 500, 4500 }"):
        scene.vpnd.up(PLAN.name, 3)
        yield


@contextmanager
def range_of_ours(scene: Scene) -> Iterator[None]:
    """The peer's network is one that we have as well."""
    own = A.networks[0]
    scene.vpnd.add(PLAN.change(remote=replace(B, networks=(own,))))
    try:
        yield
    finally:
        scene.vpnd.add(PLAN)


Break = Callable[[Scene], AbstractContextManager[None]]

BROKEN: dict[str, tuple[Break, str, str]] = {
    "UDP 4500 is dropped": (
        lambda s: rule(s.wire.b.gateway, "input", "udp dport 4500"),
        "UDP 4500",
        "let UDP 4500 pass",
    ),
    "UDP 500 is dropped": (
        lambda s: rule(s.wire.b.gateway, "input", "udp dport 500"),
        "UDP 500",
        "let UDP 500 pass",
    ),
    "our own firewall drops answers": (closed_here, "firewall", "nft -a list chain inet lab one"),
    "no route": (without_route, "route to the peer", "ip route get"),
    "a route into the tunnel": (into_the_tunnel, "route to the peer", "via ROUTER"),
    "a narrow path": (narrow, "path MTU", "mtu = "),
    "not forwarding": (
        lambda s: setting(s.wire.a.gateway, "net.ipv4.ip_forward", "0", "1"),
        "forwarding",
        "sysctl -w net.ipv4.ip_forward=1",
    ),
    "another key": (wrong_key, "key", "vpnctl psk fingerprint"),
    "one network at both ends": (range_of_ours, "overlap", "other addresses"),
}


def test_what_works_is_found_good(scene: Scene) -> None:
    assert scene.vpnd.up(PLAN.name).returncode == 0
    found = scene.examine()
    assert [one for one in found.values() if one["verdict"] == "bad"] == []
    for check in ("UDP 500", "UDP 4500", "IKE messages", "interface", "forwarding", "NAT", "path MTU"):
        assert found[check]["verdict"] in ("good", "note"), found[check]
    assert [sa["name"] for sa in scene.peer.sas()] == [PLAN.name], "what doctor sends leaves nothing there"


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_named(scene: Scene, what: str) -> None:
    breaks, check, hint = BROKEN[what]
    scene.vpnd.up(PLAN.name)
    with breaks(scene):
        found = scene.examine()[check]
    assert (found["verdict"], hint in found["next"]) == ("bad", True), found


def test_a_peer_whose_service_is_not_there(scene: Scene) -> None:
    scene.peer.stop()
    found = scene.examine()
    for port in (500, 4500):
        assert found[f"UDP {port}"]["verdict"] == "bad"
        assert "nothing listens" in found[f"UDP {port}"]["text"]
