"""What a capture holds, that Wireshark's `tshark` reads it, who may make one, and that no secret is in it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_recorder import secrets_of, shown_as
from tests.unit.datapath.parts import child, udp_packet
from vpnd.control.operations import Conflict
from vpnd.control.schema import CaptureRequest
from vpnd.daemon import captures
from vpnd.daemon.captures import Capture, esp_packet
from vpnd.daemon.captures import udp_packet as framed
from vpnd.datapath.engine import PythonEngine
from vpnd.datapath.interface import EngineOptions, PolicyRow
from vpnd.host.clock import SystemClock
from vpnd.model.child import ChildSa
from vpnd.model.child import Path as NetworkPath
from vpnd.model.selectors import Selector
from vpnd.wire.ip import checksum

TSHARK = shutil.which("tshark")


def need_tshark() -> None:
    """What follows is Wireshark's word; skips where it is not installed."""
    if TSHARK is None:
        pytest.skip("what tshark says was not looked at: it is not installed (apt-get install tshark)")


def packets(content: bytes) -> list[tuple[int, bytes]]:
    """The interface and the bytes of each packet in a file; its blocks must be whole."""
    found, at = [], 0
    while at < len(content):
        kind, length = struct.unpack_from("<II", content, at)
        assert struct.unpack_from("<I", content, at + length - 4) == (length,)
        if kind == 6:
            interface, _, _, caught, _ = struct.unpack_from("<IIIII", content, at + 8)
            found.append((interface, content[at + 28 : at + 28 + caught]))
        at += length
    return found


ROUTED = 'routes = ["10.2.0.0/16"]'
BACK = 'negotiation = "passive"\nroutes = ["10.1.0.0/16"]'


def tshark(file: Path, *arguments: str) -> str:
    """What it says of a file; it must find nothing wrong with it."""
    done = subprocess.run(
        [str(TSHARK), "-r", str(file), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "malformed" not in done.stdout.lower()
    return done.stdout


async def captured(pair: Pair, work: Any, **wanted: Any) -> bytes:
    """The file of a capture that lasts as long as `work`."""
    stream = pair.hq.operator.capture("t", CaptureRequest(**wanted))
    pieces: list[bytes] = []

    async def read() -> None:
        pieces.extend([piece async for piece in stream])

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    await work
    await asyncio.sleep(1)
    pair.hq.service.gateway.captures.end("t")
    await reading
    return b"".join(pieces)


async def negotiated(pair: Pair) -> None:
    await pair.hq.operator.up("t", 60)
    await asyncio.sleep(15)
    await pair.hq.operator.rekey("t", ike=True, child=True, timeout=10)
    await asyncio.sleep(5)


VERSIONS: Mapping[str, tuple[str, int]] = {
    "ikev2": ("", 2),
    "main": ('[tunnels.t.ike]\nversion = "ikev1"\n', 1),
    "aggressive": ('[tunnels.t.ike]\nversion = "ikev1"\nnegotiation_mode = "aggressive"\n', 1),
}


@with_pair
@pytest.mark.parametrize("version", VERSIONS)
async def test_ike_is_in_clear_and_no_secret_is_in_the_file(pair: Pair, version: str) -> None:
    text, major = VERSIONS[version]
    pair.configure({"t": f"{ROUTED}\n{text}"}, {"t": f"{BACK}\n{text}"})
    await pair.start()
    await pair.hq.operator.down("t")
    content = await captured(pair, negotiated(pair))
    said = "".join([content.decode("latin-1"), content.hex(), repr(content)])
    for secret in secrets_of(pair):
        for one in shown_as(secret):
            assert one not in said
    assert ("t", "capture-ended") in pair.hq.events()
    assert len(packets(content)) > 5
    need_tshark()
    file = pair.hq.directory / "capture.pcapng"
    file.write_bytes(content)
    kinds = tshark(
        file, "-T", "fields", "-e", "isakmp.exchangetype", "-e", "isakmp.version", "-e", "isakmp.flags"
    )
    exchanges = {int(line.split()[0]) for line in kinds.splitlines()}
    assert exchanges == {"ikev2": {34, 35, 36, 37}, "main": {2, 5, 32}, "aggressive": {4, 5, 32}}[version]
    shown = tshark(file, "-V")
    assert ("Payload: Traffic Selector" in shown) is (major == 2)
    assert shown.count("Payload: Identification") >= 2
    assert "Encrypted and Authenticated" not in shown
    assert "Payload: Security Association" in shown
    for secret in secrets_of(pair):
        assert not any(one in shown for one in shown_as(secret))


@with_pair
async def test_the_proof_of_phase_one_is_blank(pair: Pair) -> None:
    """With all else in clear, keys could be tried with it."""
    text, _ = VERSIONS["main"]
    pair.configure({"t": f"{ROUTED}\n{text}"}, {"t": f"{BACK}\n{text}"})
    shown: list[bytes] = []
    pair.hq.service.gateway.captures.ike = lambda message: shown.append(message.message)  # type: ignore[method-assign] # for this test
    pair.hq.service.gateway.endpoint.capture("t", True)
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    proofs = [message for message in shown if message[16] == 5]
    assert len(proofs) == 2
    assert all(bytes(32) in message for message in proofs)


@with_pair
async def test_nothing_is_made_of_messages_while_nobody_captures(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    made: list[object] = []
    pair.hq.service.gateway.captures.ike = made.append  # type: ignore[method-assign,assignment] # for this test
    await pair.start()
    await captured(pair, asyncio.sleep(0), ike=False)
    await pair.until(lambda: pair.state() == ("up", "up"))
    await pair.hq.operator.rekey("t", ike=True, child=True, timeout=10)
    assert made == []
    assert pair.hq.engine.taps == {"t": None}


@with_pair
async def test_bounds_in_time_bytes_and_number(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    await pair.start()
    running = pair.hq.service.gateway.captures
    stream = pair.hq.operator.capture("t", CaptureRequest(seconds=5))
    with pytest.raises(Conflict, match="captured already"):
        pair.hq.operator.capture("t", CaptureRequest())
    began = asyncio.get_running_loop().time()
    assert b"".join([piece async for piece in stream]).startswith(b"\x0a\x0d\x0d\x0a")
    assert 4.9 < asyncio.get_running_loop().time() - began < 6
    # A reader that never comes holds no tap.
    pair.hq.operator.capture("t", CaptureRequest(seconds=5))
    await asyncio.sleep(7)
    assert pair.hq.engine.taps == {"t": None}
    small = running.begin("t", CaptureRequest(bytes=4096))
    small.inner(True, [bytes(1000)] * 9)
    assert (small.over, small.packets) == (True, 3)
    running.end("t")
    monkeypatch.setattr(captures, "MOST", 0)
    with pytest.raises(Conflict, match="0 captures run"):
        pair.hq.operator.capture("t", CaptureRequest())


async def test_a_slow_reader_costs_packets_and_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "WAITING_BYTES", 5000)
    capture = Capture(SystemClock(), "t", CaptureRequest())
    capture.inner(True, [bytes(1000)] * 20)
    assert (capture.packets, capture.dropped) == (4, [16, 0, 0])
    capture.end()
    assert len(b"".join([piece async for piece in capture.stream()])) < 6000


@pytest.mark.parametrize("addresses", [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")])
@pytest.mark.parametrize("outbound", [True, False])
def test_frames_have_the_addresses_of_the_path(addresses: tuple[str, str], outbound: bool) -> None:
    ours, theirs = map(ip_address, addresses)
    path = NetworkPath(ours, 4500, theirs, 1024)
    source = ours if outbound else theirs
    ports = (4500, 1024) if outbound else (1024, 4500)
    packet = framed(path, outbound, b"abc")
    at = packet.index(source.packed)
    assert at == (12 if ours.version == 4 else 8)
    udp = packet[20 if ours.version == 4 else 40 :]
    assert (int.from_bytes(udp[:2]), int.from_bytes(udp[2:4]), udp[8:]) == (*ports, b"abc")
    pseudo = packet[at : at + 2 * len(source.packed)] + (17).to_bytes(2) + len(udp).to_bytes(2)
    assert checksum(pseudo + udp) in (0, 0xFFFF)
    esp = esp_packet(path, outbound, bytes(20))
    assert esp[9 if ours.version == 4 else 6] == 50


class Ends:
    """Two engines on loopback, each with a socket in place of a TUN."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        options = EngineOptions(vnet_header=False, port=0, raw=False)
        self.addresses = ip_address("127.0.0.1"), ip_address("127.0.0.2")
        self.engines = [
            PythonEngine(loop, [address], lambda path, data: None, lambda notice: None, options)
            for address in self.addresses
        ]
        everything = (Selector.of(ip_network("0.0.0.0/0")),)
        self.tuns: list[socket.socket] = []
        for engine in self.engines:
            inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.tuns += [inside, outside]
            engine.add_tunnel("t", inside.fileno(), 1400)
            engine.replace_policies("t", (PolicyRow(0, everything, everything),))
        for number, engine in enumerate(self.engines):
            engine.install(self._child(number))

    def _child(self, number: int) -> ChildSa:
        path = NetworkPath(
            self.addresses[number],
            self.engines[number].port(4),
            self.addresses[1 - number],
            self.engines[1 - number].port(4),
        )
        spis, labels = ((0x1001, 0x2002), (1, 2)) if number == 0 else ((0x2002, 0x1001), (2, 1))
        return child(*spis, path=path, labels=labels)

    def close(self) -> None:
        for engine in self.engines:
            engine.close()
        for tun in self.tuns:
            tun.close()


async def test_inner_packets_and_esp_of_a_real_datapath(tmp_path: Path) -> None:
    ends = Ends()
    try:
        capture = Capture(SystemClock(), "t", CaptureRequest())
        ends.engines[0].tap("t", capture)
        _, near, _, far = ends.tuns
        there, back = udp_packet("10.1.0.1", "10.2.0.1", 120), udp_packet("10.2.0.1", "10.1.0.1", 130)
        for tun, other, packet in ((near, far, there), (far, near, back)):
            tun.send(packet)
            other.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(other, 2000) == packet
        ends.engines[0].tap("t", None)
        capture.end()
        content = b"".join([piece async for piece in capture.stream()])
    finally:
        ends.close()
    carried = packets(content)
    assert [interface for interface, _ in carried] == [0, 1, 1, 0]
    assert [carried[0][1], carried[3][1]] == [there, back]
    assert [packet[9] for _, packet in carried] == [17] * 4
    need_tshark()
    file = tmp_path / "capture.pcapng"
    file.write_bytes(content)
    said = tshark(file, "-T", "fields", "-e", "frame.interface_name", "-e", "ip.src", "-e", "ip.len")
    lines = [line.split("\t") for line in said.splitlines()]
    assert [line[0] for line in lines] == ["t inner", "t outer", "t outer", "t inner"]
    assert [line[1] for line in lines] == ["10.1.0.1", "127.0.0.1", "127.0.0.2", "10.2.0.1"]
    assert [lines[0][2], lines[3][2]] == ["120", "130"]
