"""Two daemons on one wire, in a loop whose time jumps to the next timer."""

from __future__ import annotations

import asyncio
import inspect
import selectors
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.unit.daemon.fakes import Machine, Wire, configuration


class JumpingSelector(selectors.DefaultSelector):
    """Never waits: what the loop would have slept is added to its time."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.time += max(timeout, 0)
            return ready
        return ready if ready or timeout is not None else super().select(None)


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop in which a year takes as long as its events."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.time

    def jump(self, seconds: float) -> None:
        """Nothing ran for so long."""
        self._jumping.time += seconds


PROVED = 10.0
"""Seconds until the rekey of the first mapping is proved, and its old SAs are gone."""


class Pair:
    """`hq` and `branch`, each other's peers."""

    def __init__(self, directory: Path) -> None:
        self.wire = Wire()
        self.hq = Machine(self.wire, directory / "hq", "192.0.2.1", 1)
        self.branch = Machine(self.wire, directory / "branch", "192.0.2.2", 2)

    def configure(self, hq: dict[str, str], branch: dict[str, str]) -> None:
        """The tunnels of both, by name: the rest of each table."""
        self.hq.write(configuration("hq", "192.0.2.1", "192.0.2.2", hq))
        self.branch.write(configuration("branch", "192.0.2.2", "192.0.2.1", branch))

    async def start(self) -> None:
        await self.branch.start()
        await self.hq.start()

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Let time pass until it holds."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 (the time is made up)
                await asyncio.sleep(0.05)

    def state(self, name: str = "t") -> tuple[str, str]:
        """The tunnel's state on both sides."""
        return (
            self.hq.service.gateway.tunnels[name].state.value,
            self.branch.service.gateway.tunnels[name].state.value,
        )


def with_pair(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine with a `pair`, run on a loop whose time jumps; the daemons end with it."""

    async def run(tmp_path: Path, arguments: dict[str, Any]) -> None:
        pair = Pair(tmp_path)
        try:
            await test(pair=pair, **arguments)
        finally:
            for machine in (pair.hq, pair.branch):
                if not machine.host.closed:
                    await machine.stop()

    def wrapped(tmp_path: Path, **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(run(tmp_path, arguments))

    signature = inspect.signature(test)
    here = inspect.Parameter("tmp_path", inspect.Parameter.KEYWORD_ONLY)
    others = [p.replace(kind=p.KEYWORD_ONLY) for name, p in signature.parameters.items() if name != "pair"]
    wrapped.__signature__ = inspect.Signature([here, *others])  # type: ignore[attr-defined] # what pytest reads
    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    if hasattr(test, "pytestmark"):
        wrapped.pytestmark = test.pytestmark  # type: ignore[attr-defined] # parametrize below this decorator
    return wrapped
