"""Changes of tunnels: what a new configuration changes, how far the daemon is, and who may change now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
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
        return cls(
            added=[name for name in after if name not in before],
            changed=[name for name in after if name in before and after[name] != before[name]],
            removed=[name for name in before if name not in after],
            same=[name for name in after if name in before and after[name] == before[name]],
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
    """The locks of everything that changes tunnels: a configuration, a repair, an address that is learnt.

    `all` is held by a change of many tunnels, as long as that takes, and `one` by each change of a single
    one, in between those steps too. A task that needs both takes `all` first.
    """

    def __init__(self) -> None:
        self.all = asyncio.Lock()
        self.one = asyncio.Lock()

    async def close(self) -> None:
        """Wait for the change that is under way, and let none follow it."""
        await self.all.acquire()
