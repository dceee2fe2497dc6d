"""Waiting for something to happen to a tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Watchers:
    """Those who wait for a change of a tunnel. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def wake(self, tunnel: str) -> None:
        """Something changed."""
        for future in self._waiting.pop(tunnel, ()):
            if not future.done():
                future.set_result(None)

    async def wait(self, tunnel: str, until: Callable[[], bool], seconds: float) -> bool:
        """Wait until `until()` holds, looking again after each change. False: `seconds` went by."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not until():
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.setdefault(tunnel, set()).add(future)
            try:
                async with asyncio.timeout_at(deadline):
                    await future
            except TimeoutError:
                return until()
            finally:
                self._waiting.get(tunnel, set()).discard(future)
        return True
