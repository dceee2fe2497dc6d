"""The order in which IKE messages are served: those of sessions at once, first messages in turns.

Who has a session knows an SPI of ours; who sends a first message may be anyone, in any number. So a first
message waits until the loop has read what else there is, and then the addresses that they come from are
served in turn, for a few milliseconds at a time: a flood with one peer's address delays neither the sessions
of that peer nor the first message of another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from vpnd.model.child import Path
from vpnd.model.selectors import Address

WAITING_OF_ADDRESS = 512
WAITING_IN_ALL = 1024
"""Ours: first messages that wait, each of 10,000 bytes at most, mostly 400; beyond it the oldest is dropped,
whose sender is the first to send it again. At some 0.1 ms each they are served in 50 ms, and what a flood
sends while the processor is busy elsewhere for a third of a second pushes no peer's message out."""

TURN = 0.002
"""Ours: seconds of work on first messages before everything else has its turn again."""


class Intake:
    """Takes every IKE message in. Belongs to the running event loop.

    `may_wait(path, data)` says whether a message is for no session and can wait; `serve(path, data)` handles
    one; `dropped()` is called for each that is given up.
    """

    def __init__(
        self,
        may_wait: Callable[[Path, bytes], bool],
        serve: Callable[[Path, bytes], None],
        dropped: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._may_wait, self._serve, self._dropped = may_wait, serve, dropped
        self._waiting: dict[Address, deque[tuple[Path, bytes]]] = {}
        self._count = 0
        self._turn: asyncio.Handle | None = None

    def __len__(self) -> int:
        return self._count

    def take(self, path: Path, data: bytes) -> None:
        """A message has come."""
        if not self._may_wait(path, data):
            self._serve(path, data)
            return
        if self._count >= WAITING_IN_ALL:
            self._drop(max(self._waiting, key=lambda address: len(self._waiting[address])))
        elif len(self._waiting.get(path.remote, ())) >= WAITING_OF_ADDRESS:
            self._drop(path.remote)
        self._waiting.setdefault(path.remote, deque()).append((path, data))
        self._count += 1
        if self._turn is None:
            self._turn = self._loop.call_soon(self._take_turn)

    def close(self) -> None:
        """What waits is not served any more."""
        self._waiting.clear()
        self._count = 0
        if self._turn is not None:
            self._turn.cancel()

    def _take_turn(self) -> None:
        """Serve for a while, and go on in the loop's next round if there is more."""
        self._turn = None
        ends = self._loop.time() + TURN
        while self._waiting:
            address = next(iter(self._waiting))
            # The address comes last from now on.
            waiting = self._waiting.pop(address)
            path, data = waiting.popleft()
            self._count -= 1
            if waiting:
                self._waiting[address] = waiting
            self._serve(path, data)
            if self._loop.time() >= ends:
                break
        if self._waiting:
            self._turn = self._loop.call_soon(self._take_turn)

    def _drop(self, address: Address) -> None:
        """Give up the oldest of an address that has some."""
        waiting = self._waiting[address]
        waiting.popleft()
        self._count -= 1
        if not waiting:
            del self._waiting[address]
        self._dropped()
