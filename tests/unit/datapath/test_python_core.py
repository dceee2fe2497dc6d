"""The engine in Python from inside: how often it looks up what, and numbers that no test can count up to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from tests.unit.datapath.parts import EVERYTHING, LOCAL, child, facing, udp_packet
from tests.unit.datapath.test_outbound import A, B
from vpnd.crypto.entropy import SeededEntropy
from vpnd.datapath.carrier import PythonCarrier
from vpnd.datapath.core import Core
from vpnd.datapath.interface import Datagram, Drop, HardLimit, PolicyRow, SoftLimit
from vpnd.datapath.replay import ESN_END
from vpnd.datapath.sad import SaPair
from vpnd.datapath.tunnels import Tunnel
from vpnd.model.child import ChildSa
from vpnd.model.proposals import Suite

NOW = 100.0


def carrying(sa: ChildSa) -> tuple[PythonCarrier, SaPair]:
    """An engine with one SA, and the SA."""
    made = PythonCarrier(SeededEntropy(1))
    made.add_tunnel("t", False)
    made.replace_policies("t", (PolicyRow(0, EVERYTHING, EVERYTHING),))
    made.install(NOW, sa)
    pair = made.core.sad.by_spi(sa.spi_in)
    assert pair is not None
    return made, pair


def esp_of(carrier: PythonCarrier, *packets: bytes) -> list[bytes]:
    return [packet for train in carrier.send(NOW, "t", packets).trains for packet in train.packets]


def written(carrier: PythonCarrier, *data: bytes, length: int = 0) -> list[bytes]:
    datagrams = [Datagram(one, length or len(one), 0, LOCAL, 4500) for one in data]
    return [write for _, write in carrier.receive(NOW, datagrams, LOCAL, 4500).writes]


@pytest.mark.parametrize("hosts", [(A, B), ("fd00::1", "fd00::2")])
def test_datagrams_of_one_flow_are_asked_about_once_and_all_delivered(hosts: tuple[str, str]) -> None:
    (ours, _), (theirs, pair) = carrying(child()), carrying(facing(child()))
    packets = [udp_packet(*hosts, 300, (number % 7, 9)) for number in range(9)]
    hop_limit = 8 if hosts == (A, B) else 7
    packets[4] = packets[4][:hop_limit] + b"\5" + packets[4][hop_limit + 1 :]
    other = udp_packet("10.1.0.9", B, 300)
    packets = [*packets[:6], other, *packets[6:]]
    esp = esp_of(ours, *packets)
    asked: list[bytes] = []

    class Flows(dict[bytes, int]):
        """The SA's memory of flows, which notes each question."""

        def get(self, flow: bytes, default: Any = None) -> Any:
            asked.append(flow)
            return super().get(flow, default)

    pair.allowed.flows = Flows(pair.allowed.flows)
    assert written(theirs, b"".join(esp), length=len(esp[0])) == packets
    assert (pair.packets_in, pair.bytes_in) == (10, 3000)
    assert len(asked) == 3


def test_a_batch_ends_with_a_look_at_the_tunnels_that_it_had_packets_for() -> None:
    (ours, _), (theirs, _) = carrying(child()), carrying(facing(child()))
    theirs.add_tunnel("idle", False)
    looked: list[str] = []
    for name, tunnel in theirs.core.tunnels.items():
        tunnel.coalescer.flush = partial(looked.append, name)  # type: ignore[method-assign]  # in its place here
    written(theirs, *esp_of(ours, udp_packet(A, B, 60)))
    assert looked == ["t"]
    written(theirs)
    assert looked == ["t"]


@pytest.mark.parametrize("low", [0, 1 << 31])
def test_there_is_no_extended_number_beyond_the_last(low: int) -> None:
    """A peer that used up its numbers, or an attacker who forges one of its packets, costs nobody a batch."""
    sa = child(suite=Suite("aes-128-gcm", None, None, None, True))
    (ours, sender), (theirs, receiver) = carrying(sa), carrying(facing(sa))
    sender.sequence = receiver.window.highest = ESN_END - 2
    last = esp_of(ours, udp_packet(A, B), udp_packet(A, B))
    assert len(last) == 1
    beyond = last[0][:4] + low.to_bytes(4, "big") + last[0][8:]
    assert written(theirs, last[0], beyond) == [udp_packet(A, B)]
    assert theirs.drops("t")[Drop.REPLAY] == 1


def test_the_last_sequence_number_is_sent_and_none_after_it() -> None:
    ours, pair = carrying(child())
    pair.sequence = 2**32 - 3
    sent = esp_of(ours, *[udp_packet(A, B)] * 5)
    assert [packet[4:8].hex() for packet in sent] == ["fffffffe", "ffffffff"]
    assert ours.take_notices() == [SoftLimit("t", 0x1001), HardLimit("t", 0x1001)]
    assert ours.drops("t")[Drop.LIFETIME] == 3


def test_a_tun_that_takes_nothing_is_counted() -> None:
    def refuse(fd: int, buffers: Sequence[bytes]) -> None:
        raise OSError("no")

    core = Core(SeededEntropy(1), lambda *_: 0, lambda *_: None)
    tunnel = Tunnel("t", 7, 1400, False, refuse, lambda address: False)
    core.add_tunnel(tunnel)
    core.install(NOW, facing(child()), True)
    ours, _ = carrying(child())
    for packet in esp_of(ours, udp_packet(A, B)):
        core.inbound.receive(NOW, packet, len(packet), 0, (str(LOCAL), 4500), LOCAL, 4500)
    assert core.drops("t")[Drop.SEND] == 1
