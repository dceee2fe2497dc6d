"""F17: an address of ours or of a peer known by name is another; the name servers are silent."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.lab.lab import Lab, Namespace
from tests.lab.plan import NO_DPD, A, B, Plan
from tests.lab.process import PATIENCE, wait_until
from tests.lab.topology import Wire, two_gateways
from tests.lab.trickle import Trickle
from tests.lab.vpnd import Vpnd, with_names
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow]

HQ, BRANCH = replace(A, address="hq.vpn.example"), replace(B, address="branch.vpn.example")
PLAN = Plan(local=HQ, remote=BRANCH, routed=True, negotiation="active", dpd_timeout=NO_DPD)
RESOLVER = f"nameserver {B.address}\noptions timeout:30 attempts:5\n"
"""A name server that takes every question and answers none. Who waits for it waits for minutes, longer than
a request or the end of the daemon is waited for."""


@dataclass
class Named:
    """Two vpnd that know each other by name, and the file in which each looks names up."""

    wire: Wire
    ours: Vpnd
    peer: Vpnd
    hosts: dict[str, Path]
    name_server: socket.socket

    def tell(self, knower: str, name: str, address: str) -> None:
        """One of the two finds a name at this address from now on; in place, since it is mounted."""
        self.hosts[knower].write_text(f"127.0.0.1 localhost\n{address} {name}\n")

    def trickle(self) -> Trickle:
        return Trickle(self.wire.a.host, A.inside, self.wire.b.host, B.inside)


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Named]:
    with Lab() as lab:
        wire = two_gateways(lab)
        resolver = lab.directory / "resolv.conf"
        resolver.write_text(RESOLVER)
        hosts = {label: lab.directory / f"hosts-{label}" for label in ("a", "b")}
        for path in hosts.values():
            path.touch()

        def vpnd(namespace: Namespace, address: str, path: Path) -> Vpnd:
            return Vpnd(namespace, address, with_names(path, resolver))

        ours = vpnd(wire.a.gateway, A.address, hosts["a"])
        with wire.b.gateway.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server:
            name_server.bind(("", 53))
            name_server.settimeout(PATIENCE)
            yield Named(wire, ours, vpnd(wire.b.gateway, B.address, hosts["b"]), hosts, name_server)


@pytest.fixture
def named(laboratory: Named) -> Iterator[Named]:
    """The tunnel is up by its names; we are active, the peer only answers."""
    named = laboratory
    move(named.wire.a.gateway, A.address)
    move(named.wire.b.gateway, B.address)
    named.tell("a", BRANCH.address, B.address)
    named.tell("b", HQ.address, A.address)
    named.peer.add(PLAN.other().change(negotiation="passive"))
    named.ours.add(PLAN)
    named.ours.wait_state(PLAN.name, "up")
    yield named
    named.ours.remove(PLAN.name)
    named.peer.remove(PLAN.name)


def move(gateway: Namespace, address: str) -> None:
    """The gateway's one address outside, as after a DHCP lease of another."""
    gateway.ip("-4", "address", "flush", "dev", "eth0")
    gateway.add_address(f"{address}/24", "eth0")


@contextmanager
def no_ike_from(gateway: Namespace, address: str) -> Iterator[None]:
    """For the length of the block nothing of IKE comes in from an address."""
    gateway.run("nft", "add table ip wall; add chain ip wall input { type filter hook input priority 0; }")
    gateway.run("nft", f"add rule ip wall input ip saddr {address} udp dport {{500, 4500}} drop")
    try:
        yield
    finally:
        gateway.run("nft", "delete", "table", "ip", "wall")


MOVERS = ("this box", "the peer", "the peer, which does not knock")
"""A peer that has moved may be known by what it sends; where it sends nothing its silence tells."""


@pytest.mark.parametrize("mover", MOVERS)
def test_f17_an_address_changes(mover: str, named: Named, row: TellRow) -> None:
    before = len(named.ours.events(PLAN.name))
    silence = no_ike_from(named.wire.a.gateway, "192.0.2.12") if "knock" in mover else nullcontext()
    found = "address-changed" if mover == "this box" else "peer-resolved"
    with named.trickle() as stream:
        stream.wait_first_after(time.monotonic())
        with silence:
            if mover == "this box":
                move(named.wire.a.gateway, "192.0.2.11")
                named.tell("b", HQ.address, "192.0.2.11")
            else:
                move(named.wire.b.gateway, "192.0.2.12")
                named.tell("a", BRANCH.address, "192.0.2.12")
            moved = time.monotonic()
            wait_until(lambda: found in named.ours.told(PLAN.name, before), found)
        stream.wait_first_after(time.monotonic())
        back = stream.wait_first_after(moved)
    row(
        "faults", id="F17", fault=f"address of {mover} changes",
        moment="traffic, passive peer by name" if mover == "this box" else "traffic, peer by name",
        target="vpnd-ikev2", figure=f"traffic after {back:.1f} s",
    )  # fmt: skip
    told = named.ours.told(PLAN.name, before)
    assert "tunnel-lost" not in told or "E-DPD" not in told
    named.ours.wait_state(PLAN.name, "up")


def test_f17_name_servers_are_silent(named: Named, row: TellRow) -> None:
    named.hosts["a"].write_text("127.0.0.1 localhost\n")
    other = PLAN.change(name="t2", interface="vpn-two", remote=replace(BRANCH, address="other.vpn.example"))
    other = other.change(remote=replace(other.remote, networks=("10.3.0.0/24",), identity="192.0.2.3"))
    with named.trickle() as stream:
        stream.wait_first_after(time.monotonic())
        named.ours.add(other)
        while b"other" not in named.name_server.recv(512):
            pass
        # It is being looked up from now on, and stays so: all else goes on.
        began = time.monotonic()
        for _ in range(10):
            named.ours.call("GET", "/v1/status")
        answered = time.monotonic() - began
        stream.wait_first_after(time.monotonic())
    began = time.monotonic()
    assert named.ours.stop() == 0
    ended = time.monotonic() - began
    row(
        "faults", id="F17", fault="name servers silent", moment="traffic, looking up", target="vpnd-ikev2",
        figure=f"{stream.lost} lost, ten times status in {answered:.2f} s, SIGTERM {ended:.1f} s",
    )  # fmt: skip
    named.tell("a", BRANCH.address, B.address)
    named.ours.start()
    named.ours.remove(other.name)
    assert stream.lost == 0
