"""What `vpnctl why` says of each tunnel, kept in the state directory for when the daemon is down.

STATE/reasons.json    mode 0600; written when something has changed, every few seconds at most
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vpnd.config.kept import REASONS_FILE
from vpnd.control.schema import Why
from vpnd.daemon.service import Service
from vpnd.daemon.state import replace_files
from vpnd.model.secret import Secret
from vpnd.tunnel.lifecycle import Tunnel, impaired

EVERY = 5.0
"""Ours: seconds between two looks; so much of the last words is missing after a crash."""


class KeptReasons:
    """Looks what has changed, and writes it. `why` explains one tunnel."""

    def __init__(self, service: Service, why: Callable[[str], Why], state: Path) -> None:
        self._service = service
        self._why = why
        self._path = state / REASONS_FILE
        self._seen: dict[str, tuple[object, ...]] = {}
        self._tunnels: dict[str, dict[str, Any]] = {}

    async def watch(self) -> None:
        """Look again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.keep()

    async def keep(self) -> None:
        """Write what is new; a disk that does not take it is no reason to stop."""
        if not await self._look():
            return
        at = self._service.gateway.clock.wall().isoformat(timespec="seconds")
        document = {"format": 1, "at": at, "tunnels": self._tunnels}
        text = Secret(json.dumps(document, indent=1).encode() + b"\n")
        try:
            await self._service.in_thread(_write, self._path, text)
        except OSError as error:
            self._service.journal.warn(None, f"{self._path} cannot be written: {error.strerror}")

    async def _look(self) -> bool:
        """Whether anything has changed; one tunnel at a time, since each takes a moment."""
        tunnels = {tunnel.name: tunnel for tunnel in self._service.gateway.tunnels}
        changed = False
        for name in [name for name in self._seen if name not in tunnels]:
            del self._seen[name]
            self._tunnels.pop(name, None)
            changed = True
        unknown = bool(self._service.gateway.unknown_peers())
        for name, tunnel in tunnels.items():
            seen = _signature(tunnel, unknown)
            if self._seen.get(name) == seen or name not in self._service.gateway.tunnels:
                continue
            self._tunnels[name] = self._why(name).model_dump(mode="json", by_alias=True)
            self._seen[name] = seen
            changed = True
            await asyncio.sleep(0)
        return changed


def _write(path: Path, text: Secret) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_files({path: text})


def _signature(tunnel: Tunnel, unknown: bool) -> tuple[object, ...]:
    """What the explanation depends on, without what moves each second.

    `unknown`: machines that may be its peer begin IKE; which, anyone can change as often as he likes.
    """
    standing = tunnel.standing
    reasons = tuple((m.reason, m.unrenewed, m.narrowed, m.with_pfs) for m in tunnel.mappings)
    last = standing.faults[-1] if standing.faults else None
    refused = next(reversed(standing.refused.values()), None)
    sought = unknown and not any(m.owner for m in tunnel.mappings)
    return tunnel.state, tunnel.failure, impaired(tunnel), last, refused, reasons, standing.tries, sought
