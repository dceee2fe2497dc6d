"""Completion in a shell: the scripts that are installed with the programs ask the programs themselves."""

from __future__ import annotations

import os
from pathlib import Path

from vpnd.config.paths import DEFAULT_SOCKET
from vpnd.control.commandline import Context

PATIENCE = 2.0
"""Ours, in seconds: an operator has pressed Tab and waits."""


def prepare(program: str) -> None:
    """Let the program answer a shell that completes its command line; without one nothing is imported."""
    if f"_{program.upper()}_COMPLETE" in os.environ:
        from typer._completion_classes import completion_init

        completion_init()


def peer_kinds(incomplete: str) -> list[str]:
    """The products of `vpnctl peer-config` that begin with what is typed."""
    from vpnd.translate.kinds import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


def tunnel_names(context: Context, incomplete: str) -> list[str]:
    """The names of the daemon's tunnels that begin with what is typed; none where it does not answer."""
    import asyncio

    from vpnd.sdk.errors import DaemonUnreachable, Refused
    from vpnd.sdk.transport import AsyncTransport

    given = context.params.get("socket") or (context.find_root().params or {}).get("socket")
    client = AsyncTransport(Path(given or DEFAULT_SOCKET))

    async def ask() -> list[str]:
        async with asyncio.timeout(PATIENCE):
            return [tunnel["name"] for tunnel in (await client.get("/v1/status"))["tunnels"]]

    try:
        names = asyncio.run(ask())
    except (DaemonUnreachable, Refused, TimeoutError):
        return []
    return [name for name in names if name.startswith(incomplete)]
