"""The ends of pre-shared keys: at its moment the next key takes the place of a tunnel's current one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from vpnd.daemon.events.journal import Journal
from vpnd.host.clock import Clock
from vpnd.model.policy import GatewayPolicy, TunnelPolicy

LOOK_EVERY = 1.0
"""Ours: seconds between two looks at the calendar, which may be set at any time."""


class KeyEnds:
    """Looks whether a key has ended, and has the configuration applied as it is from then on."""

    def __init__(
        self,
        clock: Clock,
        journal: Journal,
        policy: Callable[[], GatewayPolicy],
        apply: Callable[[], Awaitable[object]],
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._policy = policy
        self._apply = apply
        self._ended: Callable[[str], Awaitable[bool]] | None = None

    def then(self, ended: Callable[[str], Awaitable[bool]]) -> None:
        """`ended` is given each tunnel whose key has ended, and says whether nothing is left to tidy up."""
        self._ended = ended

    async def watch(self) -> None:
        """Without end."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = self._clock.wall()
            due = [tunnel for tunnel in self._policy().tunnels if tunnel.at(now) is not tunnel]
            if due:
                await self._apply()
            for tunnel in due:
                tidy = self._ended is not None and await self._ended(tunnel.name)
                self._journal.event(tunnel.name, "key-retired", _text(tunnel, tidy))


def _text(before: TunnelPolicy, tidy: bool) -> str:
    peer = before.peer
    following = peer.next_psk.fingerprint() if peer.next_psk is not None else ""
    text = f"the key {peer.psk.fingerprint()} has ended, {following} is in force"
    if tidy:
        return text
    return (
        f"{text}: in the configuration make next_pre_shared_key the pre_shared_key, and remove retire_after"
    )
