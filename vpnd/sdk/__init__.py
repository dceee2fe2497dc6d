"""A typed client of vpnd's management API: `Client`, and `AsyncClient` for asyncio.

    from vpnd.sdk import Client

    with Client() as vpnd:
        for tunnel in vpnd.status().tunnels:
            print(tunnel.name, tunnel.state)

It needs nothing of the daemon, and of packages only h11. What is answered are dataclasses
(`vpnd.sdk.models`, made from the OpenAPI document); what goes wrong is `Refused` or `DaemonUnreachable`.
`docs/sdk.md` has examples.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vpnd.sdk.client import AsyncClient, Client
    from vpnd.sdk.errors import DaemonUnreachable, Refused, UnexpectedAnswer, VpndError

_HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "DaemonUnreachable": "errors",
    "Refused": "errors",
    "UnexpectedAnswer": "errors",
    "VpndError": "errors",
}

__all__ = ["AsyncClient", "Client", "DaemonUnreachable", "Refused", "UnexpectedAnswer", "VpndError"]


def __getattr__(name: str) -> Any:
    """Each name is imported when it is first used: a program that asks one thing starts at once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
