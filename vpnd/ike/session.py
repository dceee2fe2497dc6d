"""The few things that Endpoint knows of an IKE SA and of a version of IKE, whichever version it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from vpnd.ike.outputs import ChildSaInfo, IkeSaInfo
from vpnd.model.child import Path
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import PeerPolicy
from vpnd.wire.header import Header
from vpnd.wire.iana import IkeVersion


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


class Unreachable(Enum):
    """What an ICMP error says about a peer. Anyone can forge one: words for a diagnosis."""

    PORT = "port unreachable"
    HOST = "host or network unreachable"


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


class Session(Protocol):
    """One IKE SA, from the attempt at it to its end.

    `tunnel` is the tunnel's name; a responder's is the first tunnel that fits the addresses until the
    peer's identity decides. `local_spi` is the SPI (IKEv1: cookie) that this side chose and is the key by
    which messages find the session. `handle_` methods and commands return nothing; effects are emitted to
    the Registry that the session was made with.
    """

    policy: PeerPolicy

    @property
    def tunnel(self) -> str:
        """The name of the tunnel."""

    @property
    def local_spi(self) -> bytes:
        """The SPI that this side chose."""

    @property
    def initiator(self) -> bool:
        """Whether this side began it."""

    @property
    def path(self) -> Path:
        """Where both sides are."""

    @property
    def version(self) -> IkeVersion:
        """The version of IKE it speaks."""

    @property
    def phase(self) -> Phase:
        """How far it is."""

    @property
    def is_undecided(self) -> bool:
        """Whether a peer has begun it, and its proof, with what is configured then, decides on the tunnel."""

    def handle_message(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """One message whose SPI is ours; `data` is all of it, header included. Raises Drop, DecodeError."""

    def cannot_read(self, diagnosis: Diagnosis) -> bool:
        """A message to this SPI could not be read: it explains an attempt that nothing else answers.

        Returns whether it is a peer's that has just begun, of which nothing else would be heard.
        """

    def handle_unreachable(self, now: float, path: Path, reason: Unreachable) -> None:
        """The network says that the peer of `path` cannot be reached."""

    def handle_timeout(self, now: float) -> None:
        """Time has come to `next_timeout()` or later."""

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, in seconds on the caller's clock; None: never."""

    def want(self, now: float, mapping: int) -> None:
        """Bring the CHILD_SA of this mapping up, now or once established; no-op when up or under way."""

    def close(self, now: float, diagnosis: Diagnosis) -> None:
        """Tell the peer and end: ChildDown for each child, then IkeDown if it was established."""

    def close_child(self, now: float, spi_in: int, diagnosis: Diagnosis) -> None:
        """DELETE one child; an unknown SPI is ignored."""

    def rekey(self, now: float) -> None:
        """Begin the succession of the IKE SA."""

    def rekey_child(self, now: float, spi_in: int) -> None:
        """Begin the succession of one child; an unknown SPI is ignored."""

    def probe(self, now: float) -> None:
        """Ask the peer for a sign of life now, unless a request is under way that will tell as well."""

    def note_activity(self, now: float) -> None:
        """Authenticated traffic came from the peer."""

    def peer_sends(self, now: float, spi_in: int) -> None:
        """The first packet came on a child that is not sent on yet; an unknown SPI is ignored."""

    def moved(self, now: float, path: Path) -> None:
        """Authenticated ESP came along `path`: emits PathMoved if the peer is there now (`natt.follows`)."""

    def answered_since(self, since: float) -> bool:
        """Whether the peer has said anything under this IKE SA since then."""

    def has_child(self, spi_in: int) -> bool:
        """Whether the child with this inbound SPI is one of ours."""

    def info(self) -> IkeSaInfo | None:
        """What status shows, once established."""

    def child_sas(self) -> tuple[ChildSaInfo, ...]:
        """When each of its SA pairs is rekeyed, and ends."""

    def snapshot(self) -> SaSnapshot:
        """What there is of it now."""


class Version(Protocol):
    """One version of IKE, made with the Registry: how its sessions begin."""

    number: IkeVersion

    def local_spis(self, header: Header) -> tuple[bytes, ...]:
        """The SPIs in `header` that may be ours, the likelier first."""

    def exchange_name(self, exchange: int) -> str:
        """What the ladder calls an exchange type."""

    def initiate(self, now: float, policy: PeerPolicy, mapping: int) -> None:
        """Begin an attempt: a new session, registered, its first message sent. `remote_address` is set."""

    def reinitiate(self, now: float, tunnel: str) -> None:
        """Begin an attempt beside the established IKE SA of a tunnel, for every mapping that is up on it."""

    def proves_address(self, now: float, path: Path, header: Header, data: bytes) -> bool:
        """Whether a message that no session has shows that its sender receives at its address."""

    def respond(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """A message that no session has: begin one as responder, answer without state, or drop it.

        Raises Drop with the reason, or DecodeError.
        """
