"""The relay itself: the same seed decides the same, and what it damages looks whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.faults.conftest import Arenas
from tests.lab.plan import A, B
from tests.lab.relay import A_TO_B, B_TO_A, CALM, Copy, Weather, damaged, datagram_of, decide
from tests.lab.traffic import ping, require_ping

STORM = Weather(loss=0.3, duplicate=0.2, corrupt=0.3, delay=(0.0, 0.4))
IKE = Ether() / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=500, dport=500) / Raw(bytes(range(40)))
IKE6 = Ether() / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=4500, dport=4500)
PADDING = bytes(6)


def decided(seed: int, direction: str, count: int = 200) -> list[tuple[Copy, ...]]:
    return [decide(seed, direction, number, 100, STORM) for number in range(1, count + 1)]


def test_the_same_seed_decides_the_same_whatever_the_order() -> None:
    there, back = decided(7, A_TO_B), decided(7, B_TO_A)
    assert decided(7, A_TO_B) == there
    assert there != back
    assert decided(8, A_TO_B) != there
    assert [decide(7, A_TO_B, number, 100, STORM) for number in (200, 1)] == [there[-1], there[0]]


def test_the_weather_is_as_told() -> None:
    fates = [fate for seed in range(20) for fate in decided(seed, A_TO_B)]
    copies = [copy for fate in fates for copy in fate]
    assert 0.25 < sum(not fate for fate in fates) / len(fates) < 0.35
    assert 0.15 < sum(len(fate) == 2 for fate in fates) / sum(map(bool, fates)) < 0.25
    assert 0.25 < sum(copy.bit is not None for copy in copies) / len(copies) < 0.35
    assert all(0 <= copy.delay <= 0.4 and (copy.bit is None or copy.bit < 800) for copy in copies)
    assert decide(1, A_TO_B, 3, 100, CALM) == (Copy(0.0, None),)
    assert decide(1, A_TO_B, 3, 100, replace(CALM, drops=(3,))) == ()


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (IKE, "ike"),
        (IKE6 / Raw(bytes(4) + bytes(28)), "ike"),
        (IKE6 / Raw(b"\1\2\3\4" + bytes(28)), "esp"),
        (IKE6 / Raw(b"\xff"), None),
        (Ether() / IP(proto=50) / Raw(bytes(40)), "esp"),
        (Ether() / IPv6(nh=50) / Raw(bytes(40)), "esp"),
        (Ether() / IP(proto=50, frag=100) / Raw(bytes(40)), None),
        (Ether() / IP() / UDP(sport=53, dport=53) / Raw(bytes(40)), None),
        (Ether() / Raw(bytes(40)), None),
    ],
    ids=["ike", "ike6-4500", "esp6-4500", "keepalive", "esp", "esp6", "fragment", "dns", "ethernet"],
)
def test_kinds_are_told_apart(packet: Ether, kind: str | None) -> None:
    found = datagram_of(bytes(packet) + PADDING)
    assert (found.kind if found else None) == kind


@pytest.mark.parametrize("packet", [IKE, IKE6 / Raw(bytes(45))], ids=["ipv4", "ipv6"])
def test_a_damaged_datagram_has_one_wrong_bit_and_a_right_checksum(packet: Ether) -> None:
    frame = bytes(packet) + PADDING
    datagram = datagram_of(frame)
    assert datagram is not None
    for bit in (0, 9, 8 * (datagram.end - datagram.payload) - 1):
        changed = damaged(frame, datagram, bit)
        before, after = Ether(frame)[UDP], Ether(changed)[UDP]
        flipped = int.from_bytes(bytes(before.payload), "big") ^ int.from_bytes(bytes(after.payload), "big")
        assert flipped.bit_count() == 1
        recomputed = Ether(changed)
        del recomputed[UDP].chksum
        assert Ether(bytes(recomputed))[UDP].chksum == after.chksum
        assert (len(changed), changed[-6:]) == (len(frame), PADDING)


@pytest.mark.root
@pytest.mark.slow
def test_frames_pass_and_only_what_is_meant_is_touched(arenas: Arenas) -> None:
    arena = arenas("vpnd")
    wire = arena.weathered.wire
    arena.weathered.relay.weather(Weather(loss=1.0))
    require_ping(wire.a.gateway, A.address, B.address, size=1472)
    arena.weathered.relay.weather(Weather(loss=1.0, kinds=("other",)))
    assert ping(wire.a.gateway, A.address, B.address, count=1).received == 1
