"""A peer that holds the keys sends what its SA is not for: over the real TUN none of it comes out."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from tests.interop.test_vpnd_to_vpnd import association_of
from tests.lab.lab import Lab
from tests.lab.leaks import PORT, count_packets, counted
from tests.lab.observed import read_keys
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.topology import two_gateways
from tests.lab.vpnd import Vpnd, observed_command

pytestmark = [pytest.mark.root, pytest.mark.slow]

AHEAD = 1000
"""Sequence numbers that the peer itself has not come to."""
DATAGRAM = UDP(sport=1, dport=PORT) / Raw(b"from the other site")

COVERED = IP(src=B.inside, dst=A.inside) / DATAGRAM
NOT_COVERED: list[Packet] = [
    IP(src="10.9.0.1", dst=A.inside) / DATAGRAM,
    IP(src=B.inside, dst=A.address) / DATAGRAM,
    IP(src=B.address, dst=A.inside) / DATAGRAM,
    IP(src=A.inside, dst=A.inside) / DATAGRAM,
    IP(src="127.0.0.1", dst=A.inside) / DATAGRAM,
    IPv6(src="fd02::1", dst="fd01::1") / DATAGRAM,
]


def test_what_an_sa_is_not_for_is_dropped_and_counted(lab: Lab) -> None:
    wire = two_gateways(lab)
    plan = Plan(negotiation="active", encapsulation="auto")
    keys = lab.directory / "keys"
    theirs = Vpnd(wire.b.gateway, B.address, plans=[plan.other().change(negotiation="passive")])
    ours = Vpnd(wire.a.gateway, A.address, observed_command(keys), plans=[plan])
    ours.wait_state(plan.name, "up")
    ours.wait_proved(plan.name)
    (agreed,) = ours.agreed(plan.name)
    # From now on the peer is another who has its keys.
    assert not agreed.udp
    theirs.kill()
    sa = association_of(read_keys(keys)[agreed.spi_in], IP(src=B.address, dst=A.address))
    sa.seq_num = AHEAD
    count_packets(wire.a.gateway, "input")

    def drops() -> int:
        counts: dict[str, int] = ours.tunnel(plan.name)["drops"]
        assert counts["integrity"] == counts["replay"] == 0
        return counts["policy"]

    with wire.b.gateway.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:

        def send(packet: Packet) -> None:
            sealed = sa.encrypt(built(packet))
            raw.sendto(bytes(sealed), (A.address, 0))

        send(COVERED)
        wait_until(lambda: counted(wire.a.gateway) == 1, "the packet that the SA is for")
        before = drops()
        for packet in NOT_COVERED:
            send(packet)
        wait_until(lambda: drops() - before == len(NOT_COVERED), "each of the others to be counted")
        # The tunnel goes on: what it is for still comes out, and nothing else has.
        send(COVERED)
        wait_until(lambda: counted(wire.a.gateway) == 2, "the packet that the SA is for")


def built(packet: Packet) -> Packet:
    """The packet as it is on a wire: scapy computes lengths and checksums when it is built."""
    return type(packet)(bytes(packet))
