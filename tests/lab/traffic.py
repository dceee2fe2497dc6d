"""Traffic that proves a tunnel: pings, transfers whose digests must match, and iperf3."""

from __future__ import annotations

import hashlib
import json
import random
import re
import socket
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tests.lab.lab import Namespace

CHUNK = 1 << 18
PIECE = 1 << 24
TRANSFER_PORT = 7000
STALL_TIMEOUT = 120.0
"""Seconds without a byte after which a transfer has failed."""


class TrafficLost(AssertionError):
    """Packets or bytes that were sent through a tunnel did not arrive."""


@dataclass(frozen=True)
class Ping:
    """The result of one ping: packets, and the round trips of those that were answered, in milliseconds."""

    sent: int
    received: int
    round_trips_ms: tuple[float, ...]
    text: str

    @property
    def median_ms(self) -> float:
        """The median round trip. Raises statistics.StatisticsError without an answer."""
        return statistics.median(self.round_trips_ms)

    @property
    def average_ms(self) -> float:
        """The mean round trip. Raises statistics.StatisticsError without an answer."""
        return statistics.fmean(self.round_trips_ms)


def ping(
    source: Namespace,
    local: str,
    remote: str,
    *,
    count: int = 3,
    size: int = 56,
    interval: float | None = None,
    patience: int = 10,
) -> Ping:
    """Ping with `size` bytes of data and wait up to `patience` seconds for the answers. Look at `received`.

    All leave at once: after the last of several, ping waits for no more than the interval between two, and
    what a busy machine answered later than that would count as lost. With an `interval` it does.
    """
    pace = ["-l", str(count), "-i", str(patience)] if interval is None else ["-i", str(interval)]
    done = source.run(
        "ping", "-n", "-c", str(count), *pace, "-W", str(patience), "-s", str(size),
        "-I", local, remote,
        check=False,
        timeout=60 + 2 * patience + count * (interval or 0),
    )  # fmt: skip
    received = re.search(r"(\d+) received", done.stdout)
    return Ping(
        count,
        int(received[1]) if received else 0,
        tuple(map(float, re.findall(r"time=([\d.]+) ms", done.stdout))),
        done.stdout + done.stderr,
    )


def require_ping(source: Namespace, local: str, remote: str, size: int = 56, count: int = 3) -> Ping:
    """Ping, and every packet must be answered."""
    result = ping(source, local, remote, size=size, count=count)
    if result.received != result.sent:
        raise TrafficLost(f"ping {local} -> {remote} with {size} bytes:\n{result.text}")
    return result


@lru_cache(maxsize=1)
def payload(size: int) -> tuple[bytes, str]:
    """Bytes that do not compress or repeat, the same in every run, with their SHA-256."""
    seed = random.Random(size)
    data = b"".join(seed.randbytes(min(PIECE, size - start)) for start in range(0, size, PIECE))
    return data, hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Transfer:
    """A finished TCP transfer; `megabits` is its rate in Mbit/s."""

    size: int
    seconds: float

    @property
    def megabits(self) -> float:
        return self.size * 8 / self.seconds / 1e6


def transfer(
    source: Namespace,
    local: str,
    target: Namespace,
    remote: str,
    size: int = 64 << 20,
    progress: Callable[[int], None] | None = None,
) -> Transfer:
    """Send `size` bytes by TCP from `local` in one namespace to `remote` in the other.

    `progress` is called with the number of bytes that have arrived, now and then. Raises TrafficLost unless
    every byte arrives: the receiver's SHA-256 must be the sender's.
    """
    family = socket.AF_INET6 if ":" in remote else socket.AF_INET
    data, digest = payload(size)
    arrived = hashlib.sha256()
    count = 0
    failure: list[OSError] = []
    with (
        target.socket(family, socket.SOCK_STREAM) as listener,
        source.socket(family, socket.SOCK_STREAM) as sender,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((remote, TRANSFER_PORT))
        listener.listen(1)
        listener.settimeout(STALL_TIMEOUT)
        sender.settimeout(STALL_TIMEOUT)
        sender.bind((local, 0))
        sender.connect((remote, TRANSFER_PORT))
        receiver, _ = listener.accept()
        began = time.monotonic()

        def send() -> None:
            try:
                # The timeout is for a call, and not for a byte.
                for start in range(0, size, CHUNK):
                    sender.sendall(data[start : start + CHUNK])
                sender.shutdown(socket.SHUT_WR)
            except OSError as error:
                failure.append(error)

        worker = threading.Thread(target=send)
        worker.start()
        with receiver:
            receiver.settimeout(STALL_TIMEOUT)
            try:
                while chunk := receiver.recv(CHUNK):
                    arrived.update(chunk)
                    count += len(chunk)
                    if progress is not None:
                        progress(count)
            except OSError as error:
                failure.append(error)
        worker.join()
        seconds = time.monotonic() - began
    if failure or arrived.hexdigest() != digest:
        raise TrafficLost(
            f"{local} -> {remote}: {count} of {size} bytes, {failure or 'their digest differs'}"
        )
    return Transfer(size, seconds)


def iperf(
    source: Namespace, local: str, target: Namespace, remote: str, seconds: float, *options: str
) -> dict[str, Any]:
    """One iperf3 run, the server in the target's namespace; returns the client's JSON. Raises TrafficLost."""
    server = target.spawn("iperf3", "-s", "-1", "-B", remote, log=f"iperf-{time.monotonic_ns()}.log")
    try:
        for _ in range(100):
            done = source.run(
                "iperf3", "-J", "-c", remote, "-B", local, "-t", f"{seconds:g}", *options,
                check=False,
                timeout=seconds + 30,
            )  # fmt: skip
            result: dict[str, Any] = json.loads(done.stdout)
            if "error" not in result:
                return result
            if "Connection refused" not in result["error"]:
                raise TrafficLost(f"iperf3 {local} -> {remote}: {result['error']}")
            time.sleep(0.02)  # the server is not listening yet
        raise TrafficLost(f"iperf3's server does not listen: {server.output()}")
    finally:
        server.stop()
