"""One IKE SA: its facts, and what Endpoint knows of it and of a version of IKE, whichever version it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Protocol, Self, TypeVar

from vpnd.ike import natt
from vpnd.ike.faults import Drop
from vpnd.ike.natt import NO_NAT, Nat
from vpnd.ike.outputs import ChildSaInfo, IkeSaInfo
from vpnd.ike.steps import Key
from vpnd.model.child import Path
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import PeerPolicy
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret
from vpnd.model.selectors import Address
from vpnd.model.unreachable import Unreachable
from vpnd.wire.header import Header
from vpnd.wire.iana import IkeVersion

K = TypeVar("K")


class Phase(Enum):
    """How far an IKE SA is, as the other parts care to know."""

    CONNECTING = "connecting"
    """Not authenticated yet."""
    ESTABLISHED = "established"
    """Authenticated; carries exchanges."""
    CLOSING = "closing"
    """Succeeded by another or being deleted; nothing new is begun on it."""
    GONE = "gone"
    """Forgotten; the object has no more part in anything."""


class SaState(Key):
    """Base of the states of a version: what has happened, in words, and the phase that this is for others."""

    phase: Phase

    def __new__(cls, text: str, phase: Phase = Phase.CONNECTING) -> Self:
        state = object.__new__(cls)
        state._value_, state.phase = text, phase
        return state


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What an attempt at an IKE SA has met so far."""

    received: int = 0
    """Messages of the peer that came for it, of use or not."""
    hint: Diagnosis | None = None
    unreachable: tuple[Path, Unreachable] | None = None
    """What ICMP said last, and of which path; anyone may have sent it: words for a diagnosis."""
    way: tuple[Unreachable, str | None] | None = None
    """Why this machine has no way to the peer, and the tunnel's interface into which it leads, if it does."""


@dataclass(slots=True, eq=False)
class Sa(Generic[K]):
    """The facts of one IKE SA, with keys of type K. Nothing here sends, waits or moves a state."""

    policy: PeerPolicy
    path: Path
    initiator: bool
    local_spi: bytes
    peer_spi: bytes
    attempt: Any
    state: Any
    nat: Nat = field(default=NO_NAT, init=False)
    former: Path | None = field(default=None, init=False)
    """Where the peer was before it moved, until it has answered from where it is."""
    made_by: PeerPolicy | None = field(default=None, init=False)
    """The policy that it was negotiated by, once it is up; `policy` is what holds now."""
    last_message: float = field(default=0.0, init=False)
    """When the peer's last authentic message came, in seconds on the caller's clock; ESP does not count."""
    psk: Secret | None = field(default=None, init=False)
    """The pre-shared key of our proof, as soon as it is known which of the tunnel's it is."""
    _suite: Suite | None = field(default=None, init=False)
    _keys: K | None = field(default=None, init=False)

    @property
    def tunnel(self) -> str:
        """The name of the tunnel; a responder's is the first that fits until the peer's identity decides."""
        return self.policy.name

    @property
    def outdated(self) -> bool:
        """Whether it was made by other terms than those that hold: another one is to take its place."""
        return self.made_by is not None and self.made_by.terms != self.policy.terms

    @property
    def can_be_rekeyed(self) -> bool:
        """Whether an outdated one differs in nothing but what a rekey changes: its algorithms."""
        return self.made_by is not None and self.made_by.lasting == self.policy.lasting

    @property
    def phase(self) -> Phase:
        phase: Phase = self.state.phase
        return phase

    @property
    def chosen(self) -> Suite | None:
        """The algorithms, as soon as they are chosen."""
        return self._suite

    @property
    def is_stranger(self) -> bool:
        """Whether a peer has begun it that has not proved itself."""
        return not self.initiator and self.phase is Phase.CONNECTING

    @property
    def spi_i(self) -> bytes:
        """The SPI (IKEv1: cookie) of its initiator."""
        return self.local_spi if self.initiator else self.peer_spi

    @property
    def spi_r(self) -> bytes:
        """The SPI (IKEv1: cookie) of its responder."""
        return self.peer_spi if self.initiator else self.local_spi

    def follows(self, path: Path) -> bool:
        """An authentic, new packet came along `path`: whether the peer has moved there, for IKE and ESP.

        An attacker may have sent a copy of a packet before the peer's own came. So a question follows along
        both paths until it is answered: the answer says which of them is the peer's.
        """
        moves = natt.follows(self.nat, self.path, path)
        if moves:
            self.former, self.path = self.path, path
        return moves

    @property
    def suite(self) -> Suite:
        """The chosen algorithms. Raises Drop before they are."""
        if self._suite is None:
            raise Drop("no suite yet")
        return self._suite

    def groups_on_request(self) -> tuple[int, ...]:
        """The groups that a peer gets which asks for PFS where it is off, first that of this IKE SA."""
        return self.policy.groups_on_request(self.suite.dh)

    @property
    def has_keys(self) -> bool:
        return self._keys is not None

    @property
    def keys(self) -> K:
        """Raises Drop before they are agreed."""
        if self._keys is None:
            raise Drop("no keys yet")
        return self._keys

    @property
    def about(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class SaSnapshot:
    """One IKE SA at one moment, or the attempt at one, also while it ends. No key is in it.

    `state` is the name of its state in the table of its version. `former`: where the peer was before it
    moved, until it has answered from `path`. `children` are inbound SPIs, oldest first. `deadlines` are the
    moments at which something will happen to it or to a child of it, by what that is, and `liveness` the
    next one that only asks whether the peer is there, in seconds on the caller's clock. `ivs`: in IKEv1 the
    last block of phase 1, as that of message ID 0, and of each quick mode (RFC 2409 appendix B).
    """

    tunnel: str
    version: IkeVersion
    initiator: bool
    spi_i: bytes
    spi_r: bytes
    phase: Phase
    state: str
    path: Path
    former: Path | None
    children: tuple[int, ...]
    deadlines: Mapping[str, float]
    liveness: float | None
    ivs: Mapping[int, bytes]


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
        return tuple(sa for sa in self.sas if sa.tunnel == tunnel)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt of ours is. `began` is on the caller's clock; `sent` and `received` are messages.

    `diagnosis` is what there would be to say if it ended now: a guess, while an answer may come.
    """

    began: float
    sent: int
    received: int
    path: Path
    diagnosis: Diagnosis
    suite: Suite | None
    """What the peer has chosen, if it has."""


class Session(ABC):
    """One IKE SA, from the attempt at it to its end.

    The SPI that this side chose is the key by which messages find it. Inputs return nothing; effects are
    emitted to the Registry that the session was made with.
    """

    version: IkeVersion
    sa: Sa[Any]
    context: Any
    """What its actions see (`vpnd.ike.context`)."""

    # --- inputs

    @abstractmethod
    def handle_message(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """One message whose SPI is ours; `data` is all of it, header included. Raises Drop, DecodeError."""

    def cannot_read(self, diagnosis: Diagnosis) -> bool:
        """A message to this SPI could not be read: it explains an attempt that nothing else answers.

        Returns whether it is a peer's that has just begun, of which nothing else would be heard.
        """
        sa = self.sa
        if sa.phase is Phase.CONNECTING and sa.initiator and sa.attempt.hint is None:
            sa.attempt.hint = diagnosis
        return not sa.initiator and not sa.has_keys

    def handle_timeout(self, now: float) -> None:
        """Time has come to `next_timeout()` or later."""
        for key in self.context.timers.expired(now):
            self.command(now, key)

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, in seconds on the caller's clock; None: never."""
        due: float | None = self.context.timers.next_timeout()
        return due

    @abstractmethod
    def note_activity(self, now: float) -> None:
        """Authenticated traffic came from the peer."""

    @abstractmethod
    def peer_sends(self, now: float, spi_in: int) -> None:
        """The first packet came on a child that is not sent on yet; an unknown SPI is ignored."""

    @abstractmethod
    def command(self, now: float, cause: object) -> None:
        """Run the row of a command or a timer; one without a row does nothing."""

    # --- facts

    @property
    @abstractmethod
    def is_undecided(self) -> bool:
        """Whether a peer has begun it, and its proof, with what is configured then, decides on the tunnel."""

    @property
    @abstractmethod
    def vendor(self) -> str | None:
        """The maker of the peer's product, if its vendor IDs name one that is known."""

    @abstractmethod
    def answered_since(self, since: float) -> bool:
        """Whether the peer has said anything under this IKE SA since then."""

    @abstractmethod
    def has_child(self, spi_in: int) -> bool:
        """Whether the child with this inbound SPI is one of ours."""

    @abstractmethod
    def info(self) -> IkeSaInfo:
        """What status shows of it, while it is established."""

    @abstractmethod
    def progress(self) -> Progress:
        """How far it is, while it is an attempt of ours."""

    @abstractmethod
    def child_sas(self) -> tuple[ChildSaInfo, ...]:
        """When each of its SA pairs is rekeyed, and ends."""

    def snapshot(self) -> SaSnapshot:
        sa = self.sa
        spis, state = (sa.spi_i, sa.spi_r), sa.state.name
        about = (sa.tunnel, self.version, sa.initiator, *spis, sa.phase, state, sa.path, sa.former)
        return SaSnapshot(*about, *self._held())

    @abstractmethod
    def _held(self) -> tuple[tuple[int, ...], dict[str, float], float | None, dict[int, bytes]]:
        """`children`, `deadlines`, `liveness` and `ivs` of the snapshot."""


class Version(Protocol):
    """One version of IKE, made with the Registry: how its sessions begin."""

    number: IkeVersion

    def local_spis(self, header: Header) -> tuple[bytes, ...]:
        """The SPIs in `header` that may be ours, the likelier first."""

    def exchange_name(self, exchange: int) -> str:
        """What the ladder calls an exchange type."""

    def initiate(self, now: float, policy: PeerPolicy, remote: Address, mapping: int) -> None:
        """Begin an attempt with the peer at `remote`: a new session, registered, its first message sent."""

    def reinitiate(self, now: float, live: Session, remote: Address) -> None:
        """Begin an attempt beside an established IKE SA, for every mapping that is up on it."""

    def proves_address(self, now: float, path: Path, header: Header, data: bytes) -> bool:
        """Whether a message that no session has shows that its sender receives at its address."""

    def respond(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """A message of no session: begin one, answer without state, or drop it. Raises Drop, DecodeError."""
