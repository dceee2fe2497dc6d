"""`vpnctl reload`, `apply` and `rollback`: it takes as long as it takes, and says how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from vpnd.sdk.transport import AsyncTransport

FIRST_LOOK = 1.0
"""Ours, in seconds: a reload of a few tunnels is over before there is anything to say."""

NO_LIMIT = 86400.0
"""Ours, in seconds. A daemon that is stuck does not answer what is asked meanwhile, and that ends it."""


async def reload(
    client: AsyncTransport,
    tell: Callable[[str], None],
    path: str = "/v1/reload",
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the reload, apply or rollback did. `tell` is given a line whenever there is progress.

    Raises as `Client.post`.
    """
    work = asyncio.ensure_future(client.post(path, body, NO_LIMIT))
    told = ""
    try:
        while not (await asyncio.wait((work,), timeout=FIRST_LOOK))[0]:
            text = _text(await client.get("/v1/reload"))
            if text != told:
                tell(text)
            told = text
        return work.result()
    finally:
        work.cancel()


def _text(progress: dict[str, Any]) -> str:
    if not progress["running"]:
        return "checking the files"
    return f"applying the configuration: {progress['done']} of {progress['total']} tunnels"
