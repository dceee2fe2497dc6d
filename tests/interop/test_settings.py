"""Settings of ESP, of the interface and of rules, with what `vpnctl peer-config` writes on strongSwan."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.utils import rdpcap

from tests.interop.conftest import Opposite
from tests.lab.capture import Capture
from tests.lab.lab import write
from tests.lab.plan import Plan, SpdRule
from tests.lab.process import wait_until
from tests.lab.topology import settle
from tests.lab.traffic import ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

PLACEHOLDER = "PUT-THE-PRE-SHARED-KEY-HERE"
HERE, THERE = "10.1.0.0/24", "10.2.0.0/24"


@contextmanager
def printed(opposite: Opposite, plan: Plan, up: bool = True) -> Iterator[Vpnd]:
    """The tunnel at vpnd, and at strongSwan what vpnd prints for it; it is negotiated from our end."""
    ours = opposite.ours
    assert isinstance(ours, Vpnd)
    ours.add(plan)
    try:
        text = ours.ctl("peer-config", plan.name, "--for", "strongswan").stdout
        path = write(
            opposite.peer.directory / "printed.conf", text.replace(PLACEHOLDER, plan.psk), mode=0o600
        )
        opposite.peer.swanctl("--load-all", "--clear", "--noprompt", "--file", str(path))
        if up:
            done = ours.up(plan.name)
            assert done.returncode == 0, done.stderr + opposite.peer.log()[-2000:]
        yield ours
    finally:
        ours.remove(plan.name)


def test_a_rekey_comes_by_the_margin(opposite: Opposite) -> None:
    """At half of 30 s, and not at the usual 24 to 27, by the times of vpnd's own events."""
    plan = Plan(lifetime=30, esp_lines=("rekey_margin = 50", "rekey_fuzz = 0"))
    with printed(opposite, plan.change(negotiation="traffic-triggered")) as ours:
        before = len(ours.events(plan.name))
        settle(ours, opposite.peer, plan)
        ours.wait_proved(plan.name)
        (mapping,) = ours.tunnel(plan.name)["mappings"]
        assert mapping["rekey_in_s"] + mapping["age_s"] in (14, 15)

        def rekeyed() -> list[float]:
            events = [event for event in ours.events(plan.name)[before:] if event["event"] == "rekeyed"]
            return [datetime.fromisoformat(event["at"]).timestamp() for event in events]

        wait_until(lambda: len(rekeyed()) > 1, "the rekey after the early one", interval=0.2)
        early, late = rekeyed()[:2]
        assert 14 <= late - early < 22
        assert ping(opposite.wire.a.gateway, plan.local.inside, plan.remote.inside).received == 3


def test_mtu_and_mss_hold_at_both_ends(opposite: Opposite) -> None:
    plan = Plan(negotiation="traffic-triggered", lines=("mtu = 1000", "mss = 700"))
    gateway, peer = opposite.wire.a.gateway, opposite.wire.b.gateway
    with printed(opposite, plan):
        link = json.loads(gateway.ip("-json", "link", "show", plan.interface).stdout)
        assert link[0]["mtu"] == 1000
        with peer.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
            server.bind((plan.remote.inside, 8080))
            server.listen()
            with gateway.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.bind((plan.local.inside, 0))
                client.settimeout(5)
                client.connect((plan.remote.inside, 8080))
                accepted, _ = server.accept()
                with accepted:
                    for one in (client, accepted):
                        segment = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
                        assert 680 <= segment <= 700, segment


PORTS = {
    "ikev1": (("protocol = 'tcp'", "remote_port = 8443"), ("protocol = 'udp'", "local_port = 514")),
    "ikev2": (
        ("protocol = 'tcp'", "remote_port = '8000-8443'"),
        ("protocol = 'udp'", "local_port = 514", "remote_port = '1024-65534'"),
    ),
}


@pytest.mark.parametrize("version", ["ikev1", "ikev2"])
def test_only_the_ports_of_the_rules_enter_the_tunnel(opposite: Opposite, version: str) -> None:
    """What they select is never seen in clear, all else takes the main table's way, in clear."""
    rules = tuple(SpdRule((HERE,), (THERE,), lines) for lines in PORTS[version])
    plan = Plan(version=version, negotiation="active", rules=rules)
    gateway = opposite.wire.a.gateway
    gateway.ip("route", "replace", "10.2.0.0/16", "via", "192.0.2.2")
    inside = {("tcp", 5001, 8443), ("udp", 514, 1024)}
    sent = [*inside, ("tcp", 5002, 8444), ("udp", 515, 1024)]
    sent += [("udp", 514, 1023)] if version == "ikev2" else []
    with printed(opposite, plan, up=False) as ours:
        wait_until(lambda: len(ours.agreed(plan.name)) == 2, "both mappings to be up", 20)
        # The early rekey makes a new SA, whose counters begin at 0.
        settle(ours, opposite.peer, plan)
        status = ours.tunnel(plan.name)["mappings"]
        assert [m["protocol"] for m in status] == ["tcp", "udp"]
        with Capture(opposite.wire.b.gateway, "eth0", "tcp or udp") as path:
            for protocol, source, destination in sent:
                knock(opposite, plan, protocol, source, destination)
        clear = set()
        for packet in rdpcap(str(path)):
            layer = TCP if TCP in packet else UDP if UDP in packet else None
            if layer is not None and packet[IP].src == plan.local.inside:
                clear.add((layer.__name__.lower(), packet[layer].sport, packet[layer].dport))
        assert clear == set(sent) - inside
        after = ours.tunnel(plan.name)["mappings"]
        assert [m["packets_out"] > 0 for m in after] == [True, True]
        assert ours.tunnel(plan.name)["drops"]["policy"] == 0


def knock(opposite: Opposite, plan: Plan, protocol: str, source: int, destination: int) -> None:
    """One packet of this protocol, from one port to another; nobody need answer."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with opposite.wire.a.gateway.socket(socket.AF_INET, kind) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sender.bind((plan.local.inside, source))
        sender.settimeout(0.5)
        try:
            sender.connect((plan.remote.inside, destination))
            if protocol == "udp":
                sender.send(b"knock")
        except OSError:
            return
