"""Numbered datagrams through a tunnel at a steady rate, with the time of each: how long traffic was away."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from itertools import pairwise
from typing import Self

from tests.lab.lab import Namespace
from tests.lab.process import PATIENCE

PORT = 7200
SETTLED = 0.3
"""Seconds for what another way delays to arrive after the last datagram has."""
LAST = 5.0
"""Seconds for the last datagram to arrive, if it does: what a busy machine still carries is not lost."""
NUMBER = struct.Struct("!I")


class Trickle:
    """`rate` datagrams a second from one namespace to another for the length of a `with` block."""

    def __init__(
        self, source: Namespace, local: str, target: Namespace, remote: str, rate: int = 50, port: int = PORT
    ) -> None:
        self._rate = rate
        self._stop, self._done = threading.Event(), threading.Event()
        self._receiver = target.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receiver.bind((remote, port))
        self._receiver.settimeout(0.1)
        self._sender = source.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sender.bind((local, 0))
        self._to = (remote, port)
        self.sent: list[float] = []
        """When each datagram was sent, by its number, in seconds of the monotonic clock."""
        self.arrived: dict[int, float] = {}
        """When each datagram arrived."""

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        sending, receiving = self._threads
        sending.join()
        self._done.set()
        receiving.join()
        self._sender.close()
        self._receiver.close()

    @property
    def lost(self) -> int:
        """Datagrams that have not arrived; the last few may still be on their way while it runs."""
        return len(self.sent) - len(self.arrived)

    def first_after(self, moment: float) -> float | None:
        """When the first datagram that was sent after a moment arrived, or None until one has."""
        times = [at for number, at in self.arrived.copy().items() if self.sent[number] >= moment]
        return min(times, default=None)

    def wait_first_after(self, moment: float, timeout: float = PATIENCE) -> float:
        """Wait for it; seconds from the moment to its arrival. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while (at := self.first_after(moment)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing that was sent after the moment arrived within {timeout} s")
            time.sleep(0.01)
        return at - moment

    def longest_gap(self, since: float = 0.0) -> float:
        """The longest time between two arrivals after `since`, in seconds."""
        times = sorted(at for at in self.arrived.values() if at >= since)
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def _send(self) -> None:
        began = time.monotonic()
        number = 0
        while not self._stop.is_set():
            self.sent.append(time.monotonic())
            # Without a route, or with an ICMP error that came back, it counts as lost.
            with suppress(OSError):
                self._sender.sendto(NUMBER.pack(number), self._to)
            number += 1
            self._stop.wait(max(0.0, began + number / self._rate - time.monotonic()))

    def _receive(self) -> None:
        # The sender has ended before the last number is known.
        ends: float | None = None
        while ends is None or time.monotonic() < ends:
            if self._done.is_set():
                ends = time.monotonic() + LAST if ends is None else ends
                if len(self.sent) - 1 in self.arrived:
                    ends = min(ends, self.arrived[len(self.sent) - 1] + SETTLED)
            try:
                data = self._receiver.recv(64)
            except OSError:
                continue
            self.arrived.setdefault(NUMBER.unpack(data)[0], time.monotonic())
