"""Weather on a wire: a process between two gateways that loses, delays, copies, reorders and damages.

    a eth0 ---- eth0 relay eth1 ---- eth0 b

The gateways see one Ethernet; the relay takes each frame from one side and gives it to the other. What
happens to the `number`th datagram of a direction follows from the seed, the direction and the number alone,
so a run is repeated by its seed. Each decision is a line of the log.

`python -m tests.lab.relay SOCKET LOG` is the process; it is told the weather through the Unix socket.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import selectors
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from tests.lab.lab import Lab, Namespace
from tests.lab.plan import A6, B6, A, B
from tests.lab.process import Child, wait_until
from tests.lab.topology import Site, Wire

SOL_PACKET = 263
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
FRAME = 65536
RECEIVED_AT_ONCE = 64
BUFFER = 8 << 20

ETHERNET = 14
IPV4, IPV6 = 0x0800, 0x86DD
UDP, ESP = 17, 50
IKE_PORTS = (500, 4500)

A_TO_B, B_TO_A = "a->b", "b->a"
SIDES = {"eth0": A_TO_B, "eth1": B_TO_A}


@dataclass(frozen=True)
class Weather:
    """What happens in one direction to datagrams of these kinds. Chances are 0 to 1, delays seconds.

    Each copy draws its own delay between the two bounds, so that a spread of delays reorders. `drops` are
    the numbers, from 1, of datagrams that are lost in any case.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    copies: int = 2
    corrupt: float = 0.0
    delay: tuple[float, float] = (0.0, 0.0)
    drops: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ("ike", "esp")

    @classmethod
    def of(cls, told: dict[str, Any]) -> Weather:
        """What `asdict` has made, read from JSON, which knows no tuples."""
        lists: dict[str, Any] = {key: tuple(value) for key, value in told.items() if isinstance(value, list)}
        return replace(cls(**told), **lists)


CALM = Weather()


@dataclass(frozen=True)
class Copy:
    """One copy that arrives: seconds of delay, and which bit of the payload is wrong in it, if any."""

    delay: float
    bit: int | None


def decide(seed: int, direction: str, number: int, length: int, weather: Weather) -> tuple[Copy, ...]:
    """The copies that arrive of the `number`th datagram of a direction, whose payload has `length` bytes."""
    dice = random.Random(f"{seed} {direction} {number}")
    lost = dice.random() < weather.loss
    copies = weather.copies if dice.random() < weather.duplicate else 1
    if lost or number in weather.drops:
        return ()
    return tuple(
        Copy(
            dice.uniform(*weather.delay),
            dice.randrange(8 * length) if length and dice.random() < weather.corrupt else None,
        )
        for _ in range(copies)
    )


@dataclass(frozen=True)
class Datagram:
    """Where the datagram of a frame is: its kind, and in the frame the IP payload and what is in that."""

    kind: str
    protocol: int
    header: int
    payload: int
    end: int


def datagram_of(frame: bytes) -> Datagram | None:
    """The IKE or ESP datagram in an Ethernet frame, or None. Fragments after the first are not looked at."""
    ethertype = int.from_bytes(frame[12:ETHERNET], "big")
    if ethertype == IPV4 and len(frame) >= ETHERNET + 20:
        if int.from_bytes(frame[20:22], "big") & 0x1FFF:
            return None
        protocol, header = frame[23], ETHERNET + 4 * (frame[ETHERNET] & 15)
        end = ETHERNET + int.from_bytes(frame[16:18], "big")
    elif ethertype == IPV6 and len(frame) >= ETHERNET + 40:
        protocol, header = frame[20], ETHERNET + 40
        end = header + int.from_bytes(frame[18:20], "big")
    else:
        return None
    if protocol == ESP:
        return Datagram("esp", protocol, header, header, end)
    if protocol != UDP or len(frame) < header + 8:
        return None
    ports = struct.unpack_from("!HH", frame, header)
    payload = header + 8
    if not set(ports) & set(IKE_PORTS) or end - payload <= 1:
        return None
    marked = 4500 in ports and frame[payload : payload + 4] != bytes(4)
    return Datagram("esp" if marked else "ike", protocol, header, payload, end)


def damaged(frame: bytes, datagram: Datagram, bit: int) -> bytes:
    """The frame with one bit of the datagram's payload changed, and a UDP checksum that hides it."""
    changed = bytearray(frame)
    changed[datagram.payload + bit // 8] ^= 1 << bit % 8
    if datagram.protocol == UDP:
        at = datagram.header + 6
        changed[at : at + 2] = bytes(2)
        # The addresses are before the UDP header in either version.
        addresses = changed[datagram.header - (32 if changed[12:14] == b"\x86\xdd" else 8) : datagram.header]
        body = bytes(changed[datagram.header : datagram.end])
        total = checksum(bytes(addresses) + struct.pack("!HH", UDP, len(body)) + body)
        changed[at : at + 2] = struct.pack("!H", total or 0xFFFF)
    return bytes(changed)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


@dataclass
class Bridge:
    """The process: two packet sockets, the weather of each direction, and the frames that wait."""

    log: TextIO
    seed: int = 0
    weather: dict[str, Weather] = field(default_factory=lambda: dict.fromkeys(SIDES.values(), CALM))
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES.values(), 0))
    waiting: list[tuple[float, int, str, bytes]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def run(self, control: socket.socket) -> None:
        """Without end."""
        sockets = {device: packet_socket(device) for device in SIDES}
        outs = {A_TO_B: sockets["eth1"], B_TO_A: sockets["eth0"]}
        with selectors.DefaultSelector() as selector:
            for device, side in sockets.items():
                selector.register(side, selectors.EVENT_READ, device)
            selector.register(control, selectors.EVENT_READ, None)
            while True:
                for key, _ in selector.select(self._pause()):
                    if key.data is None:
                        self._hear(control)
                    else:
                        self._take(sockets[key.data], SIDES[key.data])
                while self.waiting and self.waiting[0][0] <= time.monotonic():
                    _, _, direction, frame = heapq.heappop(self.waiting)
                    give(outs[direction], frame)

    def _pause(self) -> float | None:
        return max(0.0, self.waiting[0][0] - time.monotonic()) if self.waiting else None

    def _hear(self, control: socket.socket) -> None:
        """Another weather: everything is counted from 1 again."""
        data, sender = control.recvfrom(FRAME)
        told = json.loads(data)
        self.seed = told["seed"]
        self.weather = {direction: Weather.of(values) for direction, values in told["weather"].items()}
        self.counts = dict.fromkeys(self.counts, 0)
        self._tell(told)
        control.sendto(b"heard", sender)

    def _take(self, side: socket.socket, direction: str) -> None:
        for _ in range(RECEIVED_AT_ONCE):
            try:
                frame = side.recv(FRAME)
            except BlockingIOError:
                return
            except OSError:
                return  # ENETDOWN: the link is down, and may come back
            self._send(direction, frame)

    def _send(self, direction: str, frame: bytes) -> None:
        now = time.monotonic()
        datagram = datagram_of(frame)
        weather = self.weather[direction]
        if datagram is None or datagram.kind not in weather.kinds:
            self._later(now, direction, frame)
            return
        self.counts[direction] += 1
        number, length = self.counts[direction], datagram.end - datagram.payload
        copies = decide(self.seed, direction, number, length, weather)
        for copy in copies:
            carried = frame if copy.bit is None else damaged(frame, datagram, copy.bit)
            self._later(now + copy.delay, direction, carried)
        if weather != CALM:
            fates = [[round(copy.delay, 4), copy.bit] for copy in copies]
            self._tell([round(now, 4), direction, number, datagram.kind, length, fates])

    def _later(self, at: float, direction: str, frame: bytes) -> None:
        heapq.heappush(self.waiting, (at, next(self._order), direction, frame))

    def _tell(self, line: object) -> None:
        print(json.dumps(line), file=self.log, flush=True)


def packet_socket(device: str) -> socket.socket:
    """All frames that come in by a device."""
    side = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
    side.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    side.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    side.bind((device, ETH_P_ALL))
    return side


def give(side: socket.socket, frame: bytes) -> None:
    """Send a frame; where the link is down or full it is lost, as on a wire."""
    try:
        side.send(frame)
    except OSError:
        return


class Relay:
    """The relay of a laboratory, as a test sees it."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.log = namespace.lab.directory / f"{namespace.label}.log"
        self._socket = namespace.lab.directory / f"{namespace.label}.sock"
        self._back = namespace.lab.directory / f"{namespace.label}.back"
        self._child: Child = namespace.spawn(
            sys.executable, "-m", "tests.lab.relay", str(self._socket), str(self.log),
            log=f"{namespace.label}.out",
        )  # fmt: skip
        wait_until(self._ready, "the relay to listen")

    def _ready(self) -> bool:
        if self._child.exit_code is not None:
            raise RuntimeError(f"the relay ended:\n{self._child.output()}")
        return self._socket.exists()

    def weather(self, both: Weather = CALM, back: Weather | None = None, *, seed: int = 0) -> None:
        """From now on this weather, from a to b, and `back` from b to a if it is another there."""
        told = {"seed": seed, "weather": {A_TO_B: asdict(both), B_TO_A: asdict(back or both)}}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:
            self._back.unlink(missing_ok=True)
            control.bind(str(self._back))
            control.settimeout(10)
            control.sendto(json.dumps(told).encode(), str(self._socket))
            control.recv(16)

    def decisions(self) -> list[list[object]]:
        """What was decided since the last change of the weather, each as in the log."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        last = max((index for index, line in enumerate(lines) if isinstance(line, dict)), default=-1)
        return lines[last + 1 :]

    def quiet(self, seconds: float) -> bool:
        """Whether the last datagram that this weather is for came so long ago."""
        decided = self.decisions()
        return not decided or time.monotonic() - float(str(decided[-1][0])) >= seconds

    def carrier(self, up: bool, side: str = "eth0") -> None:
        """Plug the cable of one side in, or pull it."""
        self.namespace.ip("link", "set", side, "up" if up else "down")


@dataclass
class Weathered:
    """Two gateways with the relay between them."""

    wire: Wire
    relay: Relay


def through_relay(lab: Lab, prefix: str = "") -> Weathered:
    """As `two_gateways` but for the relay in between. Checksums and segments are the senders' own work."""
    a, b, middle = (lab.namespace(f"{prefix}{label}") for label in ("a", "b", "relay"))
    middle.sysctl("net.ipv6.conf.all.disable_ipv6", "1")
    middle.sysctl("net.ipv6.conf.default.disable_ipv6", "1")
    lab.link(a, middle, "eth0", "eth0")
    lab.link(b, middle, "eth0", "eth1")
    sites = []
    for namespace, end, end6 in ((a, A, A6), (b, B, B6)):
        namespace.run("ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
        namespace.add_address(f"{end.address}/24", "eth0")
        namespace.add_address(f"{end6.address}/64", "eth0")
        namespace.add_address(f"{end.inside}/32")
        namespace.add_address(f"{end6.inside}/128")
        sites.append(Site(namespace, namespace, end.inside, end6.inside))
    return Weathered(Wire(*sites), Relay(middle))


def main() -> None:
    """The process."""
    path, log = map(Path, sys.argv[1:])
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(str(path))
    with log.open("a") as file:
        Bridge(file).run(control)


if __name__ == "__main__":
    main()
