"""What either engine shows to who captures a tunnel, and what it says of IKE messages that do not arrive."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from tests.datapath.test_engine import ALL, A, B, Side, Sides, arrived, until
from tests.unit.datapath.parts import GCM, child, tcp_packet, udp_packet
from vpnd.datapath.interface import Drop, IkeUnreached, PeerMoved
from vpnd.model.child import Path
from vpnd.model.unreachable import Unreachable
from vpnd.wire.icmp import Echo
from vpnd.wire.udpencap import NON_ESP_MARKER


@dataclass
class Heard:
    """A tap that keeps what it hears."""

    said: list[tuple[object, ...]] = field(default_factory=list)
    esp: list[bytes] = field(default_factory=list)

    def inner(self, outbound: bool, packets: Sequence[bytes]) -> None:
        self.said += [("inner", outbound, packet) for packet in packets]

    def outer(self, outbound: bool, path: Path, udp: bool, packets: Sequence[bytes]) -> None:
        self.said += [("outer", outbound, path, udp, packet) for packet in packets]
        self.esp += packets


@pytest.fixture
async def both(engine: str) -> AsyncIterator[Sides]:
    sides = Sides(engine, 4, True, ALL)
    sides.connect()
    yield sides
    sides.a.close()
    sides.b.close()


def path_of(side: Side, other: Side) -> Path:
    return Path(side.address, side.port, other.address, other.port)


async def test_each_layer_and_direction_is_heard_once_and_in_order(both: Sides) -> None:
    taps = Heard(), Heard()
    both.a.engine.tap("t", taps[0])
    both.b.engine.tap("t", taps[1])
    packets = [udp_packet(A, B, 100 + i) for i in range(3)]
    for packet in packets:
        both.a.put(packet)
        assert await arrived(both.b, 1) == [packet]
    there, back = path_of(both.a, both.b), path_of(both.b, both.a)
    out, came = taps
    wire = [entry for packet, esp in zip(packets, out.esp, strict=True)
            for entry in (("inner", True, packet), ("outer", True, there, True, esp))]  # fmt: skip
    assert out.said == wire
    assert [esp[:8] for esp in out.esp] == [(0x2002).to_bytes(4) + n.to_bytes(4) for n in (1, 2, 3)]
    wire = [entry for packet, esp in zip(packets, out.esp, strict=True)
            for entry in (("outer", False, back, True, esp), ("inner", False, packet))]  # fmt: skip
    assert came.said == wire


async def test_what_is_not_authentic_or_comes_twice_is_not_heard(both: Sides) -> None:
    out, came = Heard(), Heard()
    both.a.engine.tap("t", out)
    both.b.engine.tap("t", came)
    packets = [udp_packet(A, B, 200)] * 4
    both.a.put(*packets)
    await arrived(both.b, 4)
    assert len(came.said) == 8
    both.a.put(udp_packet(A, B, 200))
    await arrived(both.b, 1)
    (last,) = out.esp[4:]
    damaged = bytearray(last)
    damaged[-1] ^= 1
    damaged[7] += 1
    heard = len(came.said)
    for packet in (last, bytes(damaged)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(packet, (str(both.b.address), both.b.port))
    await until(lambda: both.b.engine.drops("t")[Drop.INTEGRITY] == 1)
    assert both.b.engine.drops("t")[Drop.REPLAY] == 1
    assert len(came.said) == heard


async def test_a_run_with_one_damaged_packet_shows_the_others(both: Sides) -> None:
    out, came = Heard(), Heard()
    both.a.engine.tap("t", out)
    sent = [udp_packet(A, B, 300, (1000, 2000 + i)) for i in range(5)]
    both.a.put(*sent)
    await arrived(both.b, 5)
    third = child(0x3003, 0x1001, GCM, path=path_of(both.b, both.a), labels=(2, 1))
    both.b.engine.install(third)
    # The same packets to an SA that has seen none of them: sealed for its SPI by an SA of the other side.
    both.a.engine.install(child(0x1002, 0x3003, GCM, path=path_of(both.a, both.b)))
    out.esp.clear()
    both.b.engine.tap("t", came)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unheard:
        unheard.bind(("127.0.0.1", 0))
        there = Path(both.a.address, both.a.port, both.a.address, unheard.getsockname()[1])
        both.a.engine.move(0x1002, there)
        both.a.put(*sent)
        await until(lambda: len(out.esp) == 5)
    run = [bytearray(esp) for esp in out.esp]
    run[2][-1] ^= 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as train:
        size = len(run[0]).to_bytes(2, "little")
        train.sendmsg(run, [(socket.SOL_UDP, 103, size)], 0, (str(both.b.address), both.b.port))
    await arrived(both.b, 4)
    assert both.b.engine.drops("t")[Drop.INTEGRITY] == 1
    assert [entry[-1] for entry in came.said if entry[0] == "inner"] == sent[:2] + sent[3:]
    assert came.esp == [bytes(esp) for esp in (*run[:2], *run[3:])]


async def test_probes_and_their_answers_are_heard_and_nothing_after_the_end(both: Sides) -> None:
    local, remote = ip_address(A), ip_address(B)
    both.b.engine.answer_probes("t", remote, local)
    heard = Heard()
    both.b.engine.tap("t", heard)
    probe = Echo(local, remote, False, 7, 1, bytes(8)).encode()
    both.a.engine.send_packet("t", probe)
    answer = (await arrived(both.a, 1))[0]
    assert [entry[:2] for entry in heard.said] == [
        ("outer", False), ("inner", False), ("inner", True), ("outer", True)
    ]  # fmt: skip
    assert [entry[-1] for entry in heard.said if entry[0] == "inner"] == [probe, answer]
    both.b.engine.tap("t", None)
    both.b.engine.tap("unknown", heard)
    both.a.put(tcp_packet(A, B))
    await arrived(both.b, 1)
    assert len(heard.said) == 4


async def test_an_ike_message_to_a_closed_port_is_told_and_esp_to_it_is_not(both: Sides) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.3", 0))
        port = gone.getsockname()[1]
    there = Path(both.a.address, both.a.port, ip_address("127.0.0.3"), port)
    both.a.engine.move(0x1001, there)
    both.a.put(udp_packet(A, B))
    both.a.engine.send_ike(path_of(both.a, both.b), bytes(28))
    await until(lambda: bool(both.b.ike))
    assert both.a.notices == []
    both.a.engine.send_ike(there, bytes(28))
    await until(lambda: bool(both.a.notices))
    assert both.a.notices == [IkeUnreached(there, Unreachable.PORT)]


async def test_an_ike_message_that_this_machine_forbids_is_told_after_the_call(both: Sides) -> None:
    """A broadcast address stands for a firewall rule: the kernel refuses both with a lack of permission."""
    there = Path(both.a.address, both.a.port, ip_address("127.255.255.255"), 4500)
    both.a.engine.send_ike(there, NON_ESP_MARKER)
    assert both.a.notices == []
    await asyncio.sleep(0)
    assert both.a.notices == [IkeUnreached(there, Unreachable.FORBIDDEN_HERE)]


async def test_both_ends_of_a_path_change_with_it(both: Sides) -> None:
    """Our own address changes as well, and the notice of the peer's move names it."""
    ours = ip_address("192.0.2.77")
    both.a.engine.move(0x1001, Path(ours, 4501, ip_address("127.0.0.9"), 4500))
    both.b.put(udp_packet(B, A))
    await arrived(both.a, 1)
    assert both.a.notices == [PeerMoved("t", 0x1001, Path(ours, 4501, both.b.address, both.b.port))]
