"""Machines that begin IKE here and have the address of no tunnel's peer: which, and when that is said.

One of them may be a peer that comes from another address than it is configured with. The others are scanners,
and a source can be forged: so of a message nothing is kept but where it came from and its version of IKE, of
few machines, and few of them are said. In a flood of forged sources the one that is meant may be missing.
"""

from __future__ import annotations

import math

from vpnd.ike.limits import UNKNOWN_PEERS_SAID, Rate
from vpnd.ike.outputs import UnknownPeer
from vpnd.model.child import Path
from vpnd.model.selectors import Address
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange1, Exchange2, IkeVersion

KEPT = 64
"""Ours: addresses; beyond it the one that was heard least recently goes."""

KEPT_FOR = 600.0
"""Ours: seconds after its last message for which one is kept: no peer waits so long before it tries again."""

SAID_AGAIN = 600.0
"""Ours: seconds after which an address is said once more."""

_FIRST = {
    IkeVersion.V1: (Exchange1.IDENTITY_PROTECTION, Exchange1.AGGRESSIVE),
    IkeVersion.V2: (Exchange2.IKE_SA_INIT,),
}


def begins(header: Header, no_spi: bytes) -> bool:
    """Whether this is the first message of an IKE SA, as far as its header tells."""
    return header.spi_r == no_spi and header.exchange in _FIRST[IkeVersion(header.major)]


class UnknownPeers:
    """Times are seconds on the caller's clock. `said`: how many are said in all."""

    def __init__(self, said: Rate = UNKNOWN_PEERS_SAID) -> None:
        self._rate = said
        self._known: dict[Address, UnknownPeer] = {}
        self._said_at: dict[Address, float] = {}
        self._said, self._counted_at = 0.0, 0.0

    def __len__(self) -> int:
        return len(self._known)

    def note(self, now: float, path: Path, version: IkeVersion) -> UnknownPeer | None:
        """One has sent a first message. Returns what is to be said of it; None: nothing, or it was said."""
        address = path.remote
        before = self._known.pop(address, None)
        if before is None and len(self._known) >= KEPT:
            self._forget(next(iter(self._known)))
        count = before.count + 1 if before is not None and now - before.last < KEPT_FOR else 1
        found = UnknownPeer(address, path.remote_port, path.local, version, count, now)
        self._known[address] = found
        if now - self._said_at.get(address, -math.inf) < SAID_AGAIN:
            return None
        lately = max(0.0, self._said - self._rate.a_second * (now - self._counted_at))
        if lately + 1 > self._rate.most:
            return None
        self._said, self._counted_at = lately + 1, now
        self._said_at[address] = now
        return found

    def present(self, now: float) -> tuple[UnknownPeer, ...]:
        """Those that were heard within `KEPT_FOR`, the last one first."""
        for address in [a for a, one in self._known.items() if now - one.last >= KEPT_FOR]:
            self._forget(address)
        return tuple(reversed(self._known.values()))

    def _forget(self, address: Address) -> None:
        del self._known[address]
        self._said_at.pop(address, None)
