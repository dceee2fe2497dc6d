"""What the other side is to be set to, where vpnd can write it."""

from __future__ import annotations

from dataclasses import asdict

from vpnd.sdk.models import TunnelDetail


def peer_config_of(tunnel: TunnelDetail) -> tuple[str | None, str | None]:
    """The other side's configuration, or why there is none."""
    from vpnd.control.peer_config import NotPossible, strongswan

    try:
        return strongswan(asdict(tunnel)), None
    except NotPossible as reason:
        return None, str(reason)
