"""The other side's configuration, as the API answers it."""

from __future__ import annotations

import asyncio

from vpnd.control.operations import Conflict
from vpnd.control.schema import TunnelDetail, TunnelPeerConfig
from vpnd.translate.kinds import KINDS, PeerKind


async def written_for(tunnel: TunnelDetail, kind: PeerKind) -> TunnelPeerConfig:
    """What to put on the peer of this tunnel. Raises Conflict where its product cannot do it."""
    return await asyncio.to_thread(_written, tunnel, kind)


def _written(tunnel: TunnelDetail, kind: PeerKind) -> TunnelPeerConfig:
    # Few ask for it, and the writers of all products would take memory of every daemon.
    from vpnd.translate.peer_config import peer_config
    from vpnd.translate.side import NotPossible

    try:
        found = peer_config(tunnel.model_dump(mode="json", by_alias=True), kind)
    except NotPossible as reason:
        hint = "change the tunnel, or the peer's product"
        raise Conflict("E-PEER-CONFIG", str(reason), hint) from None
    return TunnelPeerConfig(
        tunnel=tunnel.name,
        kind=kind,
        title=KINDS[kind],
        configuration=found.text,
        notes=list(found.notes),
    )
