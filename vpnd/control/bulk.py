"""`vpnctl up --all`: every tunnel is brought up, several at once, and each tells how it went."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from vpnd.sdk.errors import Refused
from vpnd.sdk.transport import AsyncTransport, tunnel_path

AT_ONCE = 8
"""Ours: tunnels that are waited for at once; half of the actions that the daemon admits."""


async def up_all(client: AsyncTransport, timeout_s: float, note: Callable[[str], None]) -> dict[str, Any]:
    """Bring up every tunnel but disabled ones, each within `timeout_s` seconds; `note` hears of each.

    Returns `tunnels`, in the order of the configuration, each with its `error` or null, and the counts `up`
    and `failed`. Raises Refused and DaemonUnreachable as `Client.get` does.
    """
    status = await client.get("/v1/status")
    names = [tunnel["name"] for tunnel in status["tunnels"] if tunnel.get("enabled", True)]
    room, done = asyncio.Semaphore(AT_ONCE), 0

    async def one(name: str) -> dict[str, Any]:
        nonlocal done
        async with room:
            entry = await _up(client, name, timeout_s)
        done += 1
        error = entry["error"]
        how = f"is {entry['state']}" if error is None else f"failed: {error['code']}  {error['message']}"
        note(f"[{done}/{len(names)}] {name} {how}")
        return entry

    entries = await asyncio.gather(*map(one, names))
    failed = sum(entry["error"] is not None for entry in entries)
    return {"action": "up", "up": len(entries) - failed, "failed": failed, "tunnels": entries}


async def _up(client: AsyncTransport, name: str, timeout_s: float) -> dict[str, Any]:
    try:
        done = await client.post(tunnel_path(name, "up"), {"timeout_s": timeout_s}, timeout_s)
    except Refused as refusal:
        return {"tunnel": name, "state": None, "error": dict(refusal.error)}
    return {"tunnel": name, "state": done["state"], "error": None}
