"""A real NAT box between vpnd and strongSwan: it forgets its mappings, and others forge packets.

Both versions, and vpnd on either side of the box; all at the same time, each in namespaces of its own.
"""

from __future__ import annotations

import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from scapy.layers.inet import UDP
from scapy.utils import rdpcap

from tests.lab.capture import Capture
from tests.lab.heartbeat import Heartbeat
from tests.lab.lab import Lab
from tests.lab.nat import FIRST, HIDDEN, OUTSIDE, SECOND, Nat, nat_between, plans
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.traffic import ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

KEEPALIVE = 20.0
"""Seconds: the longest that traffic may stand still; the rows have the figures."""
NAME = "t1"
FORGER = 33333
"""A port of the box that no mapping has."""
OTHER_PORTS = "20000-29999"
INFORMATIONAL_1, INFORMATIONAL_2 = bytes((8, 0x10, 5, 1)), bytes((46, 0x20, 37, 8))
"""Next payload, version, exchange and flags of an encrypted message."""
STEADY = 5.0
"""Seconds without an answer that are no interruption on a busy machine."""


@dataclass(frozen=True)
class Case:
    """A version, and whether vpnd is the one behind the box."""

    version: str
    hidden: bool

    def __str__(self) -> str:
        return f"{self.version}, vpnd {'behind' if self.hidden else 'outside'}"


CASES = [Case(version, hidden) for version in ("ikev1", "ikev2") for hidden in (True, False)]


@dataclass
class Scene:
    """A tunnel through the box, with traffic; `figures` are the interruptions in seconds by what was done."""

    case: Case
    nat: Nat
    ours: Vpnd
    peer: StrongSwan
    heartbeat: Heartbeat
    figures: dict[str, float | None] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """The port that the gateway outside believes the other to have."""
        if self.case.hidden:
            return int(self.peer.sas()[-1]["remote-port"])
        return int(self.ours.tunnel(NAME)["peer"]["port"])

    def interruption(self, since: float) -> float | None:
        """The longest time without an answer from `since` on; None: there is no answer any more."""
        answers = [at for at in self.heartbeat.answers if at > since - STEADY]
        if not answers or time.time() - answers[-1] > STEADY:
            return None
        return max(after - before for before, after in pairwise(answers))

    def require_traffic(self, since: float) -> None:
        """Wait for an answer to a ping that left after `since`."""
        wait_until(lambda: self.heartbeat.first_after(since + 0.3) is not None, "traffic")


def test_moved_mappings_are_followed_and_forged_packets_are_not(lab: Lab, row: TellRow) -> None:
    nats = {case: nat_between(lab, f"{case.version[-1]}{'h' if case.hidden else 'o'}") for case in CASES}
    figures: dict[Case, dict[str, float | None]] = {case: {} for case in CASES}
    with ThreadPoolExecutor(len(CASES)) as pool:
        played = [pool.submit(play, case, nats[case], figures[case]) for case in CASES]
    for case in CASES:
        for fault, figure in figures[case].items():
            row(
                "faults",
                id="F18",
                fault=fault,
                moment=f"loaded, {case}",
                target=f"no interruption over {STEADY:g} s" if "forged" in fault else f"{KEEPALIVE:g} s",
                figure="no traffic any more" if figure is None else f"{figure:.1f} s",
            )
    for one in played:
        one.result()
    for case in CASES:
        for fault, figure in figures[case].items():
            assert figure is not None, (case, fault)
            assert figure <= STEADY or "forged" not in fault, (case, fault)


def play(case: Case, nat: Nat, figures: dict[str, float | None]) -> None:
    """One tunnel: forged packets, another port, another address."""
    hidden, outside = plans(case.version)
    ours_at, peer_at = (nat.hidden, nat.outside) if case.hidden else (nat.outside, nat.hidden)
    our_plan, their_plan = (hidden, outside) if case.hidden else (outside, hidden)
    ours = Vpnd(ours_at, our_plan.local.address, plans=[our_plan])
    peer = StrongSwan(peer_at)
    peer.add(their_plan)
    if not case.hidden:
        assert peer.up(NAME).returncode == 0
    ours.wait_state(NAME, "up")
    assert ours.tunnel(NAME)["peer"]["nat"]
    with Heartbeat(nat.hidden, HIDDEN.inside, OUTSIDE.inside) as heartbeat:
        scene = Scene(case, nat, ours, peer, heartbeat, figures)
        wait_until(lambda: len(heartbeat.answers) > 10, "traffic")
        assert 10000 <= scene.port <= 19999
        ike = ours.tunnel(NAME)["ike"]["spi_i"]
        if not case.hidden:
            forge(scene)
        move(scene, "another port of the NAT", OTHER_PORTS)
        if not case.hidden:
            move(scene, "another address of the NAT", "10000-19999", SECOND)
            assert ours.tunnel(NAME)["peer"]["address"] == SECOND
            assert "peer-moved" in ours.told(NAME)
        # It was followed, not found dead and begun once more.
        assert ours.tunnel(NAME)["ike"]["spi_i"] == ike, ours.ctl("events").stdout


def forge(scene: Scene) -> None:
    """Packets from another port with the right SPIs, and authentic ones once more: nothing moves."""
    nat, port, began = scene.nat, scene.port, time.time()
    with Capture(nat.box, "eth1", f"udp and src host {FIRST}") as path:
        time.sleep(0.5)
    authentic = payloads(path)
    assert authentic
    withheld = withhold(scene)
    tunnel = scene.ours.tunnel(NAME)
    spi = int(tunnel["mappings"][0]["spi_in"], 16)
    ike = bytes.fromhex(tunnel["ike"]["spi_i"] + tunnel["ike"]["spi_r"])
    forged = [
        b"\xff",
        *(struct.pack("!II", spi, 1 << 20 | number) + bytes(120) for number in range(20)),
        *(
            bytes(4) + ike + bytes((46, 0x20, 37, 8)) + struct.pack("!II", n, 80) + bytes(52)
            for n in range(4)
        ),
        *(bytes(4) + ike + bytes((8, 0x10, 5, 1)) + struct.pack("!II", n, 92) + bytes(64) for n in range(4)),
        *authentic,
        *withheld,
    ]
    with nat.box.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
        forger.bind((FIRST, FORGER))
        for data in forged:
            forger.sendto(data, (OUTSIDE.address, 4500))
    time.sleep(1.5)
    assert scene.port == port
    # Not for a moment either: what follows a forged packet asks, and goes back.
    assert "peer-moved" not in scene.ours.told(NAME), scene.ours.ctl("events").stdout
    scene.figures[f"{len(forged)} forged and repeated packets"] = scene.interruption(began)


def withhold(scene: Scene) -> list[bytes]:
    """ESP packets that the box takes for itself, while newer ones arrive: authentic, and never seen."""
    box = scene.nat.box
    filtered = "udp dst port 4500 and udp[8:4] != 0"
    with Capture(box, "eth1", filtered) as passed, Capture(box, "eth0", filtered) as sent:
        box.run("nft", "add table ip thief")
        box.run("nft", "add chain ip thief through { type filter hook forward priority 0; }")
        box.run("nft", "add rule ip thief through iif eth0 udp dport 4500 counter drop")

        def has_taken() -> bool:
            return "packets 0" not in box.run("nft", "list", "table", "ip", "thief").stdout

        wait_until(has_taken, "a packet to be withheld")
        box.run("nft", "delete", "table", "ip", "thief")
        scene.require_traffic(time.time())
    seen = set(payloads(passed))
    withheld = [payload for payload in payloads(sent) if payload not in seen]
    assert withheld
    return withheld


def payloads(path: Path) -> list[bytes]:
    """What the datagrams of a capture hold."""
    return [bytes(packet[UDP].payload) for packet in rdpcap(str(path)) if UDP in packet]


def move(scene: Scene, what: str, ports: str, address: str | None = None) -> None:
    """The box forgets its mappings and gives others."""
    before, moved = scene.port, time.time()
    scene.nat.change(address, ports)
    try:
        scene.require_traffic(time.time())
        wait_until(lambda: scene.port != before, "the new port")
    finally:
        scene.figures[what] = scene.interruption(moved)


IDLE = 45.0
"""Seconds without traffic, in which two keepalives leave."""
FORGETFUL = 25
"""Seconds after which the box forgets a mapping that nobody uses."""


def test_keepalives_hold_the_mapping(request: pytest.FixtureRequest, lab: Lab, row: TellRow) -> None:
    if not request.config.getoption("--full-faults"):
        pytest.skip("waits for 45 s: only with --full-faults")
    versions = ("ikev1", "ikev2")
    nats = {version: nat_between(lab, f"{version[-1]}k") for version in versions}
    with ThreadPoolExecutor(len(versions)) as pool:
        waited = {version: pool.submit(stay_idle, nats[version], version) for version in versions}
    for version in versions:
        kept, answered = waited[version].result()
        row(
            "faults",
            id="F18",
            fault=f"NAT forgets after {FORGETFUL} s",
            moment=f"idle, {version}, vpnd behind",
            target="the first ping from outside is answered",
            figure=f"{kept} keepalives in {IDLE:g} s, {answered} of 1 answered",
        )
        assert kept >= 2
        assert answered == 1


def stay_idle(nat: Nat, version: str) -> tuple[int, int]:
    """A tunnel from behind the box without traffic: keepalives seen, and pings answered after that."""
    for state in ("udp_timeout", "udp_timeout_stream"):
        nat.box.sysctl(f"net.netfilter.nf_conntrack_{state}", str(FORGETFUL))
    hidden, outside = plans(version)
    ours = Vpnd(nat.hidden, HIDDEN.address, plans=[hidden])
    peer = StrongSwan(nat.outside)
    peer.add(outside)
    ours.wait_state(NAME, "up")
    with Capture(nat.box, "eth1", f"udp dst port 4500 and src host {FIRST} and udp[4:2] = 9") as path:
        time.sleep(IDLE)
    kept = sum(bytes(packet[UDP].payload)[:1] == b"\xff" for packet in rdpcap(str(path)))
    return kept, ping(nat.outside, OUTSIDE.inside, HIDDEN.inside, count=1).received
