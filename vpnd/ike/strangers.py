"""How much is done for peers that have not proved who they are, and which attempts go when they are many.

A source address can be forged, so that an attempt proves nothing until its peer has sent back what only a
machine at that address can have received: a cookie in IKEv2 (RFC 7296 section 2.6), our SPI in IKEv1.
A forger of an address must not use up what its owner may have, so an attempt without that proof never
keeps a newer one out: the oldest goes.

A wrong key is most often a mistake, so the first failures cost a peer nothing. After those its new
attempts draw on a bucket that one token a second fills. What is refused is dropped before any computation;
SAs that are established, other addresses, and our own attempts are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vpnd.ike.commands import Close
from vpnd.ike.faults import Drop
from vpnd.ike.limits import (
    REFUSALS_BY_ADDRESS,
    REFUSALS_IN_ALL,
    UNPROVED_KEYS_BY_ADDRESS,
    UNPROVED_KEYS_IN_ALL,
    Limits,
    Rate,
)
from vpnd.ike.outputs import Failed, Output
from vpnd.ike.session import Session
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.selectors import Address

ADDRESSES_KEPT = 1024
"""Ours: addresses that something is held against or that have a count of their own; the oldest goes."""


class Lately:
    """Counts that fall with time. Times are seconds on the caller's clock."""

    def __init__(self, by_address: Rate, in_all: Rate) -> None:
        self._by_address, self._in_all = by_address, in_all
        self._counts: dict[Address, tuple[float, float]] = {}
        self._count = (0.0, 0.0)

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, now: float, address: Address) -> None:
        """It happened. An address whose count is full adds nothing to the count in all either."""
        before = self.of(now, address)
        if before + 1 > self._by_address.most:
            return
        if address not in self._counts and len(self._counts) >= ADDRESSES_KEPT:
            del self._counts[next(iter(self._counts))]
        self._counts[address] = (before + 1, now)
        self._count = (min(self.in_all(now) + 1, self._in_all.most), now)

    def take_back(self, now: float, address: Address) -> None:
        """One of those that happened does not count after all."""
        self._counts[address] = (max(0.0, self.of(now, address) - 1), now)
        self._count = (max(0.0, self.in_all(now) - 1), now)

    def of(self, now: float, address: Address) -> float:
        count, counted_at = self._counts.get(address, (0.0, now))
        return max(0.0, count - self._by_address.a_second * (now - counted_at))

    def in_all(self, now: float) -> float:
        count, counted_at = self._count
        return max(0.0, count - self._in_all.a_second * (now - counted_at))

    def is_full(self, now: float, address: Address) -> bool:
        """Whether one more would be too many, for the address or in all."""
        of_address, in_all = self.of(now, address) + 1, self.in_all(now) + 1
        return of_address > self._by_address.most or in_all > self._in_all.most


FREE_FAILURES = 10
"""Ours: failures of one address without a consequence: several tunnels may have the same mistake."""
PER_SECOND = 1.0
"""Ours: attempts of such an address that are admitted each second."""
BURST = 5.0
"""Ours: attempts that are admitted at once after a pause."""
FORGOTTEN_AFTER = 60.0
"""Ours: seconds without a failure after which nothing is held against an address."""


@dataclass(slots=True)
class _Record:
    """What is held against one address: its failures, the last one, and the bucket."""

    failures: int
    failed_at: float
    tokens: float = BURST
    filled_at: float = 0.0


class Throttle:
    """Authentication failures by address. Times are on the caller's clock."""

    def __init__(self) -> None:
        self._records: dict[Address, _Record] = {}

    def __len__(self) -> int:
        return len(self._records)

    def failed(self, now: float, address: Address) -> bool:
        """A peer at this address did not prove its key. Returns whether this one begins the throttling."""
        record = self._current(now, address)
        if record is None:
            if len(self._records) >= ADDRESSES_KEPT:
                del self._records[next(iter(self._records))]
            record = self._records[address] = _Record(0, now)
        record.failures += 1
        record.failed_at = now
        if record.failures == FREE_FAILURES:
            record.tokens, record.filled_at = BURST, now
            return True
        return False

    def proved(self, address: Address) -> None:
        """A peer at this address has the key: nothing is held against it."""
        self._records.pop(address, None)

    def admits(self, now: float, address: Address) -> bool:
        """Whether a new attempt of this address may cost a key exchange; if so, it is counted."""
        record = self._current(now, address)
        if record is None or record.failures < FREE_FAILURES:
            return True
        record.tokens = min(BURST, record.tokens + PER_SECOND * (now - record.filled_at))
        record.filled_at = now
        if record.tokens < 1.0:
            return False
        record.tokens -= 1.0
        return True

    def _current(self, now: float, address: Address) -> _Record | None:
        record = self._records.get(address)
        if record is not None and now - record.failed_at >= FORGOTTEN_AFTER:
            del self._records[address]
            return None
        return record


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
        return self.unproved_of(address) + self.proved_of(address)

    def proved_of(self, address: Address) -> int:
        return len(self._proved_of.get(address, ()))

    def unproved_of(self, address: Address) -> int:
        return len(self._unproved_of.get(address, ()))

    def oldest(self, address: Address | None = None) -> Session | None:
        """What goes first: the oldest without proof, of `address` or of all; of all, else the oldest."""
        if address is not None:
            return next(iter(self._unproved_of.get(address, ())), None)
        return next(iter(self._unproved or self._address), None)


class Strangers:
    """The half-open attempts, the failures and the refusals of a gateway, within its `limits`."""

    def __init__(self, limits: Limits, emit: Callable[[Output], None], count: Callable[[str], None]) -> None:
        self.half_open = HalfOpen()
        self._limits = limits
        self._emit, self._count = emit, count
        self._throttle = Throttle()
        self._refusals = Lately(REFUSALS_BY_ADDRESS, REFUSALS_IN_ALL)
        self._unproved_keys = Lately(UNPROVED_KEYS_BY_ADDRESS, UNPROVED_KEYS_IN_ALL)

    @property
    def are_many(self) -> bool:
        """Whether so many attempts are half-open that a newcomer is asked for a cookie."""
        return len(self.half_open) >= self._limits.half_open_before_cookies

    # --- the proof of the key

    def admit(self, now: float, address: Address) -> None:
        """A peer's new attempt is about to cost a key exchange. Raises Drop if it failed too often before."""
        if not self._throttle.admits(now, address):
            raise Drop("too many attempts with a wrong key")

    def not_proved(self, now: float, tunnel: str, address: Address) -> None:
        """A peer's attempt at this tunnel ended without the proof of its key. A flood is logged."""
        if self._throttle.failed(now, address):
            detail = f"{FREE_FAILURES} failed; from now on {PER_SECOND:.0f} each second is looked at"
            diagnosis = Diagnosis.of(Code.FLOOD, peer=address, detail=detail)
            self._emit(Failed(tunnel, diagnosis, initiator=False, unproven=True))

    def proved(self, address: Address) -> None:
        """A peer at this address has proved its key."""
        self._throttle.proved(address)

    def check_key_exchange(self, now: float, address: Address) -> None:
        """Raises Drop if `spend_key_exchange` would: what leads to it need not be read then."""
        if self._unproved_keys.is_full(now, address):
            raise Drop("too many key exchanges without proof of the address")

    def spend_key_exchange(self, now: float, address: Address) -> None:
        """A key exchange for a peer whose address nothing proves. Raises Drop after too many of them."""
        self.check_key_exchange(now, address)
        self._unproved_keys.add(now, address)

    def key_exchange_was_worth_it(self, now: float, address: Address) -> None:
        """The peer has proved its key: what was spent for it counts against nobody."""
        self._unproved_keys.take_back(now, address)

    # --- the proof of the address

    def is_crowded(self, now: float, address: Address) -> bool:
        """Whether a newcomer at `address` has to prove it: many are half-open, or were refused lately.

        Who forges the address of a peer brings it to this, and no further (RFC 7296 section 2.6).
        """
        limits, refusals = self._limits, self._refusals
        here = self.half_open.of(address) + refusals.of(now, address)
        everywhere = len(self.half_open) + refusals.in_all(now)
        return (
            here >= limits.half_open_before_cookies_per_address
            or everywhere >= limits.half_open_before_cookies
        )

    def refused_first(self, now: float, address: Address) -> None:
        """A first message from `address` came to nothing, and left no state."""
        self._refusals.add(now, address)

    def check_room(self, address: Address) -> None:
        """A peer that has proved its address may have one more half-open attempt. Raises Drop if not."""
        if self.half_open.proved_of(address) >= self._limits.half_open_per_address:
            raise Drop("half-open: too many of this address")

    def begin(self, now: float, session: Session, address: Address, proved: bool) -> None:
        """A peer's attempt has taken state here, unauthenticated; the oldest goes if there are too many."""
        half_open, limits = self.half_open, self._limits
        half_open.begin(session, address, proved)
        most = limits.half_open_unproved_per_address
        while half_open.unproved_of(address) > most and (oldest := half_open.oldest(address)):
            self._make_room(now, oldest)
        while len(half_open) > limits.half_open_in_all and (oldest := half_open.oldest()):
            self._make_room(now, oldest)

    def address_proved(self, session: Session, address: Address) -> None:
        """A half-open attempt shows that its peer receives at `address`. Raises Drop if that has too many."""
        self.check_room(address)
        self.half_open.prove(session)

    def _make_room(self, now: float, oldest: Session) -> None:
        self._count("half-open: the oldest made room")
        oldest.command(now, Close(Diagnosis.of(Code.SILENT, peer=oldest.sa.path.remote)))
