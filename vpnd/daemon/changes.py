"""Changes of tunnels: what a new configuration changes, how far the daemon is, and who may change now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vpnd.model.policy import TunnelPolicy


@dataclass(frozen=True, slots=True)
class Progress:
    """Whether a configuration is being applied: tunnels that are as it says, of those that it touches."""

    running: bool = False
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """The names of the tunnels by what becomes of them, each in the order of its configuration."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    same: list[str]

    @classmethod
    def between(cls, before: Mapping[str, TunnelPolicy], after: Mapping[str, TunnelPolicy]) -> Change:
        """What leads from one configuration to another."""
        differs = {
            name: policy is not before[name] and policy != before[name]
            for name, policy in after.items()
            if name in before
        }
        return cls(
            added=[name for name in after if name not in before],
            changed=[name for name, other in differs.items() if other],
            removed=[name for name in before if name not in after],
            same=[name for name, other in differs.items() if not other],
        )

    @property
    def steps(self) -> int:
        """How many tunnels are touched."""
        return len(self.added) + len(self.changed) + len(self.removed)

    def __str__(self) -> str:
        return (
            f"{len(self.added)} added, {len(self.changed)} changed, "
            f"{len(self.removed)} removed, {len(self.same)} untouched"
        )


class Changes:
    """Who may change tunnels now: a configuration, a repair, an address that is learnt. It owns both locks.

    A change of many tunnels holds `_many` as long as it takes; what touches tunnels, its steps and a change
    of one, holds `_one`. They are taken in this order, or `_one` alone, and only here; each is free again
    when its block is left, whatever ended that.
    """

    def __init__(self) -> None:
        self._many = asyncio.Lock()
        self._one = asyncio.Lock()

    @asynccontextmanager
    async def of_many(self) -> AsyncIterator[None]:
        """A change of many tunnels, one at a time. It touches them in a `step` each: others go in between."""
        async with self._many:
            yield

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        """One step of a change of many."""
        async with self._one:
            yield

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A change for which no other may be half done."""
        async with self._many, self._one:
            yield

    @asynccontextmanager
    async def of_one(self, is_settled: Callable[[], bool]) -> AsyncIterator[None]:
        """A change of one tunnel. It waits for a change of many, unless that has done with the tunnel.

        `is_settled` says so, or that the tunnel is not touched; it is asked between two steps.
        """
        async with self._one:
            if not self._many.locked() or is_settled():
                yield
                return
        async with self.alone():
            yield

    async def close(self) -> None:
        """Wait for the change that is under way, and let none follow it."""
        await self._many.acquire()
        await self._one.acquire()
