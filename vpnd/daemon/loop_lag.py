"""How late the event loop comes to what is due: what it is busy with keeps everything else waiting."""

from __future__ import annotations

import asyncio

from vpnd.control.operations import Histogram

LOOK_EVERY = 0.1
"""Ours: seconds between two looks: 600 in a minute of trouble, for 0.1 % of a processor."""

BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
"""Seconds; a packet that waits 20 ms is late for speech, one that waits 500 for a retransmission."""


class LoopLag:
    """Counts the delays of a timer of its own by their length."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0

    async def watch(self) -> None:
        """Without end: set a timer, and see when it fires."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_EVERY
            await asyncio.sleep(LOOK_EVERY)
            self.count(loop.time() - due)

    def count(self, seconds: float) -> None:
        """The loop came so late."""
        late = max(0.0, seconds)
        self._total += late
        self._counts[next((n for n, bound in enumerate(BOUNDS) if late <= bound), len(BOUNDS))] += 1

    def histogram(self) -> Histogram:
        """The counts so far."""
        return Histogram(BOUNDS, tuple(self._counts), self._total)
