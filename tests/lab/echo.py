"""ICMP echoes between many pairs of addresses at once: what ping does, for all of them in one process."""

from __future__ import annotations

import random
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from tests.lab.lab import Namespace

ECHO_REQUEST, ECHO_REPLY = 8, 0
HEADER = struct.Struct("!BBHHH")
SMALLEST_IP_HEADER = 20
AT_ONCE = 16
"""Requests under way together: as many of 4,000 bytes fit into a socket's buffer."""
PATIENCE = 5.0
"""Seconds for an answer, as with ping."""


@dataclass(frozen=True)
class Echo:
    """One request: from an address of the namespace to one behind the other gateway, with `size` bytes."""

    local: str
    remote: str
    size: int


def echo(source: Namespace, requests: Iterable[Echo]) -> dict[Echo, float]:
    """Send each request once; the round trips in milliseconds of those answered byte for byte."""
    waiting = deque(requests)
    answered: dict[Echo, float] = {}
    with selectors.DefaultSelector() as selector:
        open_ones: dict[socket.socket, _Request] = {}
        try:
            while waiting or open_ones:
                while waiting and len(open_ones) < AT_ONCE:
                    request = _Request(source, waiting.popleft(), len(waiting))
                    open_ones[request.socket] = request
                    selector.register(request.socket, selectors.EVENT_READ)
                for key, _ in selector.select(0.05):
                    assert isinstance(key.fileobj, socket.socket)
                    request = open_ones[key.fileobj]
                    if request.read():
                        answered[request.echo] = 1000 * (time.monotonic() - request.sent)
                for request in [
                    one for one in open_ones.values() if one.echo in answered or one.is_overdue()
                ]:
                    del open_ones[request.socket]
                    selector.unregister(request.socket)
                    request.socket.close()
        finally:
            for one in open_ones:
                one.close()
    return answered


class _Request:
    """One request that has been sent."""

    def __init__(self, source: Namespace, echo: Echo, number: int) -> None:
        self.echo = echo
        self._identifier = number % 0x10000
        self._data = random.Random(f"{echo}").randbytes(echo.size)
        self.socket = source.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.setblocking(False)
        self.socket.bind((echo.local, 0))
        self.socket.connect((echo.remote, 0))
        self.sent = time.monotonic()
        self.socket.send(self._message(ECHO_REQUEST))

    def is_overdue(self) -> bool:
        return time.monotonic() > self.sent + PATIENCE

    def read(self) -> bool:
        """Whether what has come is the answer, with the same bytes."""
        try:
            packet = self.socket.recv(0x10000)
        except OSError:
            return False  # an ICMP error for an earlier packet
        header = 4 * (packet[0] & 15)
        return len(packet) >= SMALLEST_IP_HEADER and packet[header:] == self._message(ECHO_REPLY)

    def _message(self, kind: int) -> bytes:
        blank = HEADER.pack(kind, 0, 0, self._identifier, 1) + self._data
        return HEADER.pack(kind, 0, checksum(blank), self._identifier, 1) + self._data


def checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)
