"""When a peer may be asked why an attempt has failed (`vpnd.tunnel.prober`)."""

from __future__ import annotations

from collections.abc import Callable

from vpnd.model.policy import Diagnose
from vpnd.tunnel.commands import AttemptFailed
from vpnd.tunnel.lifecycle import Tunnel
from vpnd.tunnel.prober import Prober
from vpnd.tunnel.tunnels import Tunnels

HasSa = Callable[[str], object]
"""Whether the tunnel of this name has an IKE SA."""


def attempt_failed(prober: Prober, now: float, change: AttemptFailed, tunnels: Tunnels, has: HasSa) -> None:
    """An attempt to make an IKE SA, begun here, of a tunnel that has none and may ask: that counts."""
    tunnel = tunnels.get(change.tunnel)
    begun_here = change.mapping is None and not change.renewal and not change.unproven
    if tunnel is None or not begun_here or not _may_ask(tunnel, has):
        return
    policy, shares = tunnel.policy, _shares_an_identity(tunnel, tunnels, has)
    prober.failed(now, policy.peer, change.diagnosis, policy.diagnose, shares)


def _may_ask(tunnel: Tunnel, has: HasSa) -> bool:
    """Whether nothing is up, and nobody has forbidden it."""
    is_up = any(mapping.owner for mapping in tunnel.mappings) or has(tunnel.name)
    return tunnel.policy.diagnose is not Diagnose.OFF and not is_up and not tunnel.standing.is_down


def _shares_an_identity(tunnel: Tunnel, tunnels: Tunnels, has: HasSa) -> bool:
    """Whether an SA of another tunnel with the same peer has our identity too.

    A peer that allows one SA for each pair of identities would let the last one replace the others.
    """
    peer = tunnel.policy.peer
    return any(
        (other.policy.peer.remote_address, other.policy.peer.local_id) == (peer.remote_address, peer.local_id)
        and has(other.name)
        for other in tunnels
        if other is not tunnel
    )
