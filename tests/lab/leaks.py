"""Protected traffic at a steady rate, and what of it is seen in clear on the wire outside.

Every packet carries `MARK_TEXT` and goes between two inner addresses, so that it is recognised wherever it
turns up: as a whole packet, inside another, or as an address in an ARP or ICMP message.

`python -m tests.lab.leaks RATE SOURCE TARGET [SOURCE TARGET]` is the sender.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from tests.lab.lab import Namespace
from tests.lab.process import wait_until

MARK_TEXT = b"<in clear nowhere but inside>"
PORT = 7200
BURSTS = 500
"""Bursts a second: a packet each would ask more of the timer than it gives."""

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_STATISTICS = 263, 6
PACKET_IGNORE_OUTGOING = 23
BUFFER = 64 << 20
LONGEST = 65536
ETHERNET, IPV4_HEADER, UDP_HEADER = 14, 20, 8
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
UDP, ESP = 17, 50


@dataclass(frozen=True)
class Seen:
    """Counters of one moment: packets sent, delivered, and on the wire as ESP and in clear."""

    sent: int
    esp: int
    clear: int
    delivered: int

    def since(self, before: Seen) -> Seen:
        """What came between."""
        return Seen(
            self.sent - before.sent,
            self.esp - before.esp,
            self.clear - before.clear,
            self.delivered - before.delivered,
        )


class Outside:
    """Looks at every frame that comes by on one interface, for the length of a `with` block.

    `clear` counts those that hold the mark, or one of `inner` outside ESP; `examples` has the first of them.
    `dropped` are those that it was too slow to look at: with any, `clear` proves nothing.
    """

    def __init__(self, namespace: Namespace, device: str, inner: tuple[str, ...]) -> None:
        self._namespace = namespace
        self._device = device
        self._inner = tuple(ip_address(text).packed for text in inner)
        self._ending = threading.Event()
        self.esp = 0
        self.clear = 0
        self.dropped = 0
        self.examples: list[bytes] = []

    def __enter__(self) -> Self:
        kind = socket.SOCK_RAW
        self._socket = self._namespace.socket(socket.AF_PACKET, kind, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        with self._namespace.entered():
            self._socket.bind((self._device, ETH_P_ALL))
        self._socket.settimeout(0.1)
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        _, self.dropped = struct.unpack("II", statistics)
        self._socket.close()

    def _look(self) -> None:
        frame = bytearray(LONGEST)
        while True:
            try:
                size = self._socket.recv_into(frame)
            except TimeoutError:
                if self._ending.is_set():
                    return
                continue
            self._count(frame, size)

    def _count(self, frame: bytearray, size: int) -> None:
        esp = is_esp(frame)
        self.esp += esp
        if frame.find(MARK_TEXT, 0, size) >= 0 or (
            not esp and any(frame.find(address, 0, size) >= 0 for address in self._inner)
        ):
            self.clear += 1
            if len(self.examples) < 5:
                self.examples.append(bytes(frame[:size]))


def is_esp(frame: bytes | bytearray) -> bool:
    """Whether an Ethernet frame is ESP over IPv4, as such or in UDP 4500 (RFC 3948)."""
    if int.from_bytes(frame[12:14], "big") != ETHERTYPE_IPV4:
        return False
    protocol = frame[ETHERNET + 9]
    at = ETHERNET + IPV4_HEADER
    in_udp = protocol == UDP and frame[at : at + 2] == frame[at + 2 : at + 4] == b"\x11\x94"
    return protocol == ESP or (in_udp and frame[at + UDP_HEADER : at + UDP_HEADER + 4] != bytes(4))


class Rig:
    """A sender in one namespace, a receiver in another, and an onlooker on the wire between them."""

    def __init__(
        self,
        sender: Namespace,
        receiver: Namespace,
        outside: tuple[Namespace, str],
        ways: tuple[tuple[str, str], ...],
        rate: int,
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self._ways = ways
        self._rate = rate
        self.outside = Outside(*outside, tuple(address for way in ways for address in way))

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Packets are sent and looked for in the block, and for a moment longer."""
        count_packets(self._sender, "output")
        count_packets(self._receiver, "input")
        arguments = [address for way in self._ways for address in way]
        with self.outside:
            child = self._sender.spawn(
                sys.executable, "-m", "tests.lab.leaks", str(self._rate), *arguments, log="leaks-sender.log"
            )
            try:
                wait_until(lambda: counted(self._sender) > 0, "the sender to begin", 20)
                yield self
            finally:
                child.stop()
                time.sleep(0.2)

    def seen(self) -> Seen:
        """The counters now."""
        outside = self.outside
        return Seen(counted(self._sender), outside.esp, outside.clear, counted(self._receiver))


def count_packets(namespace: Namespace, hook: str) -> None:
    """From now on the namespace counts our packets that it sends (`output`) or receives (`input`)."""
    namespace.run("nft", "add", "table", "inet", "leaks")
    namespace.run("nft", f"add chain inet leaks {hook} {{ type filter hook {hook} priority -400 ; }}")
    namespace.run("nft", f"add rule inet leaks {hook} udp dport {PORT} counter")


def counted(namespace: Namespace) -> int:
    """How many of our packets a namespace has counted."""
    ruleset = json.loads(namespace.run("nft", "-j", "list", "table", "inet", "leaks").stdout)
    rules = [entry["rule"] for entry in ruleset["nftables"] if "rule" in entry]
    return sum(part["counter"]["packets"] for rule in rules for part in rule["expr"] if "counter" in part)


def send(rate: int, ways: list[tuple[str, str]]) -> None:
    """Send `rate` packets a second, the ways in turn, until this process is ended."""
    sockets: list[tuple[socket.socket, tuple[str, int]]] = []
    for source, target in ways:
        sock = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((source, 0))
        sock.setblocking(False)
        sockets.append((sock, (target, PORT)))
    payload = MARK_TEXT.ljust(64, b".")
    began, number = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) * rate)
        for index in range(number, min(due, number + rate)):
            sock, there = sockets[index % len(sockets)]
            # What comes back as an ICMP error, and a full queue, are not the sender's matter.
            with suppress(OSError):
                sock.sendto(payload, there)
        number = due
        time.sleep(1 / BURSTS)


if __name__ == "__main__":
    addresses = sys.argv[2:]
    send(int(sys.argv[1]), list(zip(addresses[::2], addresses[1::2], strict=True)))
