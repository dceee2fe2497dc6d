"""What a tunnel carries, as pcapng, while it is captured: inner packets, ESP, and IKE decrypted.

Nothing here sees a key: ESP is what is on the wire, and IKE is drawn by IKE itself, as messages in clear, in
UDP packets that were never sent. What cannot be kept up with is dropped and counted, never waited for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from vpnd import __version__
from vpnd.control.operations import Conflict
from vpnd.control.schema import CaptureRequest
from vpnd.datapath.interface import Engine
from vpnd.host.clock import Clock
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import Decrypted
from vpnd.model.child import Path
from vpnd.model.policy import NAT_T_PORT
from vpnd.wire.iana import IpProtocol
from vpnd.wire.ip import checksum, encode_packet, pseudo_header
from vpnd.wire.pcapng import LONGEST_PACKET, file_header, packet_block, statistics_block
from vpnd.wire.udpencap import NON_ESP_MARKER

MOST = 4
"""Ours: captures at once, each of another tunnel."""

WAITING_BYTES = 4 * 1024 * 1024
"""Ours: what waits for a reader that is slow; more is dropped."""

GATHERED = 0.05
"""Ours: seconds for which packets are gathered, so that a piece of the answer is not one packet."""

GRACE = 1.0
"""Ours: seconds after which a capture that is over has no tap any more, whatever its reader does."""

INNER, OUTER, IKE = range(3)
UDP_HEADER_LENGTH = 8


class Capture:
    """One capture: a tap of the datapath, and the stream of its file."""

    def __init__(self, clock: Clock, tunnel: str, wanted: CaptureRequest) -> None:
        self._clock = clock
        self.wanted = wanted
        self._ends = clock.now() + wanted.seconds
        self._room = wanted.bytes
        self._blocks: deque[bytes] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self.over = False
        self.packets = 0
        self.dropped = [0, 0, 0]
        self._names = [f"{tunnel} {part}" for part in ("inner", "outer", "ike")]

    # ------------------------------------------------------------------- what the datapath says

    def inner(self, outbound: bool, packets: Sequence[bytes]) -> None:
        """IP packets on their way into the tunnel, or out of it."""
        if self.wanted.inner:
            self._add(INNER, outbound, packets)

    def outer(self, outbound: bool, path: Path, udp: bool, packets: Sequence[bytes]) -> None:
        """ESP packets of one path, from their SPI on."""
        if self.wanted.outer:
            make = udp_packet if udp else esp_packet
            self._add(OUTER, outbound, [make(path, outbound, packet) for packet in packets])

    def ike(self, message: Decrypted) -> None:
        """One IKE message in clear."""
        if self.wanted.ike:
            path = message.path
            marker = NON_ESP_MARKER if NAT_T_PORT in (path.local_port, path.remote_port) else b""
            self._add(IKE, message.outbound, [udp_packet(path, message.outbound, marker + message.message)])

    def _add(self, interface: int, outbound: bool, packets: Sequence[bytes]) -> None:
        if self.over:
            return
        at = self._clock.wall().timestamp()
        for packet in packets:
            block = packet_block(interface, at, packet[:LONGEST_PACKET], outbound)
            if len(block) > self._room:
                self.end()
                return
            if self._waiting + len(block) > WAITING_BYTES:
                self.dropped[interface] += 1
                continue
            self._blocks.append(block)
            self._waiting += len(block)
            self._room -= len(block)
            self.packets += 1
        self._wake.set()

    # ---------------------------------------------------------------------------- its reader

    def end(self) -> None:
        """No more packets: the reader gets what waits, and the end."""
        self.over = True
        self._wake.set()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The file, piece by piece, until the time is over or it is full."""
        yield file_header(self._names, f"vpnd {__version__}")
        while True:
            left = self._ends - self._clock.now()
            if left <= 0:
                self.over = True
            if not self.over:
                try:
                    await asyncio.wait_for(self._wake.wait(), left)
                except TimeoutError:
                    self.over = True
                else:
                    await asyncio.sleep(min(GATHERED, max(0.0, left)))
            self._wake.clear()
            piece = b"".join(self._blocks)
            self._blocks.clear()
            self._waiting = 0
            if piece:
                yield piece
            if self.over and not self._blocks:
                break
        at = self._clock.wall().timestamp()
        yield b"".join(statistics_block(number, at, lost) for number, lost in enumerate(self.dropped))


class Captures:
    """The captures that run, one for a tunnel."""

    def __init__(self, clock: Clock, engine: Engine, endpoint: Endpoint) -> None:
        self._clock = clock
        self._engine = engine
        self._endpoint = endpoint
        self._running: dict[str, Capture] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def begin(self, tunnel: str, wanted: CaptureRequest) -> Capture:
        """Tap the tunnel. Raises Conflict where that is done already, or where too many are."""
        if tunnel in self._running:
            raise Conflict("E-BUSY-CAPTURE", f"{tunnel} is captured already", "end that capture, or wait")
        if len(self._running) >= MOST:
            raise Conflict("E-BUSY-CAPTURE", f"{MOST} captures run", "end one, or wait")
        capture = self._running[tunnel] = Capture(self._clock, tunnel, wanted)
        # Also where its reader never comes.
        loop = asyncio.get_running_loop()
        self._timers[tunnel] = loop.call_later(wanted.seconds + GRACE, self.end, tunnel)
        self._tap(tunnel, capture)
        self._endpoint.capture(tunnel, wanted.ike)
        return capture

    async def run(
        self, tunnel: str, capture: Capture, ended: Callable[[Capture], None]
    ) -> AsyncGenerator[bytes, None]:
        """The stream of a capture that was begun; whatever ends it, the tap is removed."""
        try:
            async for piece in capture.stream():
                yield piece
        finally:
            self.end(tunnel)
            ended(capture)

    def ike(self, message: Decrypted) -> None:
        """An IKE message in clear, of a tunnel that is captured."""
        if (capture := self._running.get(message.tunnel)) is not None:
            capture.ike(message)

    def end(self, tunnel: str) -> None:
        """Remove the tap of a tunnel, if there is one."""
        if (capture := self._running.pop(tunnel, None)) is not None:
            self._timers.pop(tunnel).cancel()
            capture.end()
            self._tap(tunnel, None)
            self._endpoint.capture(tunnel, False)

    def _tap(self, tunnel: str, capture: Capture | None) -> None:
        self._engine.tap(tunnel, capture)

    def close(self) -> None:
        """The daemon ends."""
        for tunnel in tuple(self._running):
            self.end(tunnel)


def udp_packet(path: Path, outbound: bool, payload: bytes) -> bytes:
    """A UDP packet along a path, of whichever direction, with its checksum (RFC 768)."""
    ours, theirs = (path.local, path.local_port), (path.remote, path.remote_port)
    (source, sport), (destination, dport) = (ours, theirs) if outbound else (theirs, ours)
    length = UDP_HEADER_LENGTH + len(payload)
    head = b"".join(number.to_bytes(2, "big") for number in (sport, dport, length))
    covered = pseudo_header(source, destination, IpProtocol.UDP, length) + head + bytes(2) + payload
    total = checksum(covered) or 0xFFFF
    return encode_packet(source, destination, IpProtocol.UDP, head + total.to_bytes(2, "big") + payload)


def esp_packet(path: Path, outbound: bool, payload: bytes) -> bytes:
    """An ESP packet along a path, as IP protocol 50."""
    source, destination = (path.local, path.remote) if outbound else (path.remote, path.local)
    return encode_packet(source, destination, IpProtocol.ESP, payload)
