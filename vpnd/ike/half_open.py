"""Attempts of peers that are not authenticated yet, and which of them goes when there are too many.

A source address can be forged, so that an attempt proves nothing until its peer has sent back what only a
machine at that address can have received: a cookie in IKEv2 (RFC 7296 section 2.6), our SPI in IKEv1.
A forger of an address must not use up what its owner may have, so an attempt without that proof never
keeps a newer one out: the oldest goes.
"""

from __future__ import annotations

from vpnd.ike.session import Session
from vpnd.model.selectors import Address


class HalfOpen:
    """The half-open attempts, oldest first: of each address and in all, with and without a proved address."""

    def __init__(self) -> None:
        self._address: dict[Session, Address] = {}
        self._unproved: dict[Session, None] = {}
        self._unproved_of: dict[Address, dict[Session, None]] = {}
        self._proved_of: dict[Address, dict[Session, None]] = {}

    def __len__(self) -> int:
        return len(self._address)

    def addresses(self) -> tuple[Address, ...]:
        """The peer's address of each, oldest first."""
        return tuple(self._address.values())

    def begin(self, session: Session, address: Address, proved: bool) -> None:
        """A peer's attempt has taken state; `proved`: its address is."""
        self.end(session)
        self._address[session] = address
        if not proved:
            self._unproved[session] = None
        (self._proved_of if proved else self._unproved_of).setdefault(address, {})[session] = None

    def prove(self, session: Session) -> None:
        """What only the owner of its address can know has come; no-op if the attempt is not half-open."""
        address = self._address.get(session)
        if address is not None:
            self.begin(session, address, proved=True)

    def end(self, session: Session) -> None:
        """It has been authenticated or forgotten."""
        address = self._address.pop(session, None)
        self._unproved.pop(session, None)
        if address is None:
            return
        for held in (self._proved_of, self._unproved_of):
            if session in held.get(address, ()):
                del held[address][session]
                if not held[address]:
                    del held[address]

    def of(self, address: Address) -> int:
        """How many an address has."""
        return self.unproved_of(address) + self.proved_of(address)

    def proved_of(self, address: Address) -> int:
        """How many of an address have proved it."""
        return len(self._proved_of.get(address, ()))

    def unproved_of(self, address: Address) -> int:
        """How many of an address have not."""
        return len(self._unproved_of.get(address, ()))

    def oldest(self, address: Address | None = None) -> Session | None:
        """What goes first: the oldest without proof, of `address` or of all; of all, else the oldest."""
        if address is not None:
            return next(iter(self._unproved_of.get(address, ())), None)
        return next(iter(self._unproved or self._address), None)
