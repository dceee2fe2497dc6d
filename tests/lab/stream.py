"""A stream of numbered UDP packets both ways, of which every one is accounted for.

`Streams` runs a program at each end, `python -m tests.lab.stream LOCAL REMOTE RATE FILE`, which sends to the
other at a steady rate and receives what the other sends. SIGUSR2 begins the sending, SIGUSR1 ends it; once
nothing has come for a while after that, or at SIGTERM, what was sent and received is in the file.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from tests.lab.lab import Namespace
from tests.lab.process import Child, wait_until

PORT = 7100
PACKET_LENGTH = 1400
"""Bytes of IP packet."""
IP_AND_UDP = 28
BUFFER = 64 << 20
"""Bytes of receive buffer: seconds of the stream, so that the rig itself loses nothing."""
BURST = 16
"""Packets that may be sent at once after this process had to wait for the processor; the rest is put off."""
SETTLED = 1.0
"""Seconds without a packet after which none is on its way any more."""
QUEUED = 30.0
"""Seconds that are waited for that: a busy gateway has many packets in its queues."""
SO_TIMESTAMPNS = 35
NUMBER = struct.Struct("!Q")
TIMESPEC = struct.Struct("@qq")


@dataclass(frozen=True)
class Gap:
    """Packets that never arrived: the first's number, how many, and when the one before came (Unix time)."""

    first: int
    count: int
    after: float


@dataclass(frozen=True)
class Flow:
    """One direction of a stream. `longest_gap_ms` is between two arrivals, by the kernel's clock."""

    sent: int
    received: int
    duplicates: int
    reordered: int
    longest_gap_ms: float
    seconds: float
    gaps: tuple[Gap, ...]

    @property
    def lost(self) -> int:
        """Packets that never arrived."""
        return self.sent - self.received

    @property
    def megabits(self) -> float:
        """The rate of sending in Mbit/s, IP headers included."""
        return self.sent * PACKET_LENGTH * 8 / self.seconds / 1e6 if self.seconds else 0.0

    def explanation(self) -> str:
        """What was lost, and when, for a failed test."""
        lost = [
            f"{gap.count} from number {gap.first}, after "
            f"{time.strftime('%H:%M:%S', time.gmtime(gap.after))}.{int(gap.after % 1 * 1000):03}"
            for gap in self.gaps
        ]
        return f"{self.lost} of {self.sent} lost: {'; '.join(lost)}"


class Streams:
    """A stream each way between two namespaces for the length of a `with` block; then `flows` has both."""

    def __init__(
        self, a: Namespace, inside_a: str, b: Namespace, inside_b: str, megabits: float = 20.0
    ) -> None:
        self._ends = ((a, inside_a, inside_b), (b, inside_b, inside_a))
        self._megabits = megabits
        self._children: list[Child] = []
        self._files: list[Path] = []
        self.flows: tuple[Flow, Flow] | None = None
        """From a to b, and from b to a."""

    def __enter__(self) -> Streams:
        for namespace, local, remote in self._ends:
            number = len(list(namespace.lab.directory.glob("stream-*.log")))
            self._files.append(namespace.lab.directory / f"stream-{number}.json")
            self._children.append(
                namespace.spawn(
                    sys.executable, "-m", "tests.lab.stream",
                    local, remote, str(self._megabits), str(self._files[-1]),
                    log=f"stream-{number}.log",
                )
            )  # fmt: skip
        for child in self._children:
            wait_until(lambda c=child: "ready" in c.output(), "the stream to be ready")  # type: ignore[misc]  # a default binds the value of this turn
        for child in self._children:
            child.signal(signal.SIGUSR2)
        return self

    def __exit__(self, *exception: object) -> None:
        for child in self._children:
            child.signal(signal.SIGUSR1)
        with suppress(TimeoutError):
            wait_until(
                lambda: all(file.exists() for file in self._files),
                "the last packets to arrive",
                timeout=QUEUED,
                interval=0.1,
            )
        for child in self._children:
            child.stop()
        told = [json.loads(file.read_text()) if file.exists() else None for file in self._files]
        if told[0] is not None and told[1] is not None:
            self.flows = flow(told[0], told[1]), flow(told[1], told[0])

    def require_flows(self) -> tuple[Flow, Flow]:
        """Both directions, once the block has ended. Raises RuntimeError with what the programs said."""
        if self.flows is None:
            raise RuntimeError("\n".join(child.output() for child in self._children))
        return self.flows


def flow(sender: dict[str, Any], receiver: dict[str, Any]) -> Flow:
    """One direction, from what its two ends have told."""
    sent, behind = sender["sent"], receiver["highest"] + 1
    gaps = [Gap(*gap) for gap in receiver["gaps"]]
    if behind < sent:
        gaps.append(Gap(behind, sent - behind, receiver["last"]))
    return Flow(
        sent,
        receiver["received"],
        receiver["duplicates"],
        receiver["reordered"],
        receiver["longest_gap"] * 1000,
        sender["seconds"],
        tuple(gaps),
    )


@dataclass
class Received:
    """What has arrived."""

    highest: int = -1
    count: int = 0
    duplicates: int = 0
    reordered: int = 0
    first: float = 0.0
    last: float = 0.0
    longest_gap: float = 0.0
    missing: dict[int, float] = field(default_factory=dict)
    """Numbers below the highest that have not come, each with the time of the arrival before it."""

    def take(self, number: int, at: float) -> None:
        """One packet."""
        if number > self.highest:
            for skipped in range(self.highest + 1, number):
                self.missing[skipped] = self.last
            self.highest = number
        elif self.missing.pop(number, None) is None:
            self.duplicates += 1
            return
        else:
            self.reordered += 1
        self.count += 1
        if self.last:
            self.longest_gap = max(self.longest_gap, at - self.last)
        self.last = at

    def gaps(self) -> list[tuple[int, int, float]]:
        """The numbers that never came, as runs."""
        numbers = sorted(self.missing)
        starts = [n for before, n in pairwise([-2, *numbers]) if n != before + 1]
        ends = [n for n, after in pairwise([*numbers, -2]) if after != n + 1]
        return [(n, end - n + 1, self.missing[n]) for n, end in zip(starts, ends, strict=True)]


def main(local: str, remote: str, megabits: str, file: str) -> None:
    """One end of the stream."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.bind((local, PORT))
        sock.setblocking(False)
        end = _End(sock, (remote, PORT), float(megabits))
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, end.on_signal)
        print("ready", flush=True)
        end.run()
    received = end.received
    whole = Path(f"{file}.part")
    whole.write_text(
        json.dumps(
            {
                "sent": end.sent,
                "seconds": end.seconds,
                "received": received.count,
                "duplicates": received.duplicates,
                "reordered": received.reordered,
                "highest": received.highest,
                "longest_gap": received.longest_gap,
                "last": received.last,
                "gaps": received.gaps(),
            }
        )
    )
    whole.rename(file)


class _End:
    def __init__(self, sock: socket.socket, remote: tuple[str, int], megabits: float) -> None:
        self._sock = sock
        self._remote = remote
        self._interval = PACKET_LENGTH * 8 / megabits / 1e6
        self._padding = bytes(PACKET_LENGTH - IP_AND_UDP - NUMBER.size)
        self._sending = False
        self._ends = False
        self._sent_all = False
        self._heard = 0.0
        """When the last packet came, or the sending ended."""
        self._due = 0.0
        self.sent = 0
        self.seconds = 0.0
        self.received = Received()

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGUSR2:
            self._due = time.monotonic()
        self._sending = number == signal.SIGUSR2
        self._sent_all = number == signal.SIGUSR1
        self._ends = number == signal.SIGTERM
        self._heard = time.monotonic()

    def run(self) -> None:
        began = None
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while not self._ends:
            now = time.monotonic()
            if self._sending:
                began = now if began is None else began
                self._send(now)
                self.seconds = now - began
            poll.poll(max(0.0, self._due - time.monotonic()) * 1000 if self._sending else 20)
            self._receive()
            if self._sent_all and time.monotonic() - self._heard > SETTLED:
                return

    def _send(self, now: float) -> None:
        self._due = max(self._due, now - BURST * self._interval)
        while self._due <= now:
            try:
                self._sock.sendto(NUMBER.pack(self.sent) + self._padding, self._remote)
            except BlockingIOError:
                return
            except OSError:
                pass  # it counts as sent, and so as lost
            self.sent += 1
            self._due += self._interval

    def _receive(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(64, 64)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error
            self._heard = time.monotonic()
            seconds, nanoseconds = TIMESPEC.unpack_from(ancillary[0][2])
            self.received.take(NUMBER.unpack_from(data)[0], seconds + nanoseconds / 1e9)


if __name__ == "__main__":
    main(*sys.argv[1:])
