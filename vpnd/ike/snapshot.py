"""What an endpoint holds at one moment: to be looked at, and never changed."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.ike.session import SaSnapshot
from vpnd.model.selectors import Address


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that an endpoint holds, but for what it is configured with.

    `sas` are oldest first. `esp_spis` are the inbound SPIs that are given out: of CHILD_SAs, and of those
    that are being negotiated. `half_open` has the peer's address of each attempt of a peer that is not
    authenticated. `first_messages` and `deadlines` count the entries by which a repeated first message is
    known, and by which an SA waits for a moment; `queued` those of `deadlines` with what is out of date.
    """

    sas: tuple[SaSnapshot, ...]
    esp_spis: frozenset[int]
    half_open: tuple[Address, ...]
    first_messages: int
    deadlines: int
    queued: int

    def of(self, tunnel: str) -> tuple[SaSnapshot, ...]:
        """The IKE SAs of one tunnel, oldest first."""
        return tuple(sa for sa in self.sas if sa.tunnel == tunnel)
