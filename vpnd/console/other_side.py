"""What the other side is to be set to, where vpnd can write it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from vpnd.sdk import AsyncClient, VpndError
from vpnd.translate.kinds import KINDS, PeerKind

USUAL: PeerKind = "strongswan"


async def other_side(vpnd: AsyncClient, name: str, kind: PeerKind = USUAL) -> dict[str, Any]:
    """What the pages show: the configuration for this product, or why there is none."""
    text, reason = None, None
    try:
        text = (await vpnd.peer_config(name, kind)).configuration
    except VpndError as failure:
        reason = str(failure)
    return {"peer_config": text, "no_peer_config": reason, "kind": kind, "kinds": KINDS}


def kind_of(request: Request) -> PeerKind:
    """The product that the request names; the usual one if it names none that there is."""
    wanted = request.query_params.get("kind")
    return next((kind for kind in KINDS if kind == wanted), USUAL)
