"""What an operator sees of a tunnel and of its mappings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vpnd.tunnel.commands import MappingState, TunnelState
from vpnd.tunnel.mappings import Mapping

if TYPE_CHECKING:
    from vpnd.tunnel.lifecycle import Tunnel


def tunnel_state(tunnel: Tunnel) -> TunnelState:
    """The state of the whole tunnel: up with its first mapping."""
    if tunnel.closed or tunnel.blocked is not None:
        return TunnelState.DOWN
    if any(m.owner for m in tunnel.mappings):
        return TunnelState.UNHEALTHY if tunnel.sick else TunnelState.UP
    if tunnel.attempt is not None or any(m.wanted for m in tunnel.mappings):
        return TunnelState.CONNECTING
    return TunnelState.WAITING


def mapping_state(tunnel: Tunnel, mapping: Mapping) -> MappingState:
    """The state of one mapping; one that failed is down until its next try."""
    if mapping.owner is not None:
        return MappingState.UP
    if tunnel.closed:
        return MappingState.DOWN
    if mapping.connecting or (mapping.wanted and mapping.reason is None):
        return MappingState.CONNECTING
    return MappingState.WAITING if mapping.reason is None else MappingState.DOWN
