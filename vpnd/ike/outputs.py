"""What the IKE core asks of the world. The caller drains `Endpoint.outputs` after each input, in order."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.proposals import Suite
from vpnd.model.selectors import Address
from vpnd.wire.iana import IkeVersion


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send one IKE message along `path`; the non-ESP marker is added where the local port is 4500."""

    tunnel: str | None
    path: Path
    data: bytes


@dataclass(frozen=True, slots=True)
class Established:
    """An IKE SA is up and authenticated."""

    tunnel: str
    ike: IkeSaInfo


@dataclass(frozen=True, slots=True)
class IkeDown:
    """An IKE SA is gone, with all its children that have not been adopted.

    A ChildDown came for each, or a ChildRetired for what the IKE SA that stays still receives on.
    """

    tunnel: str
    spi_i: bytes
    spi_r: bytes
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class IkeReplaced:
    """The IKE SA `ike` succeeds the one with these SPIs and has adopted its children; no IkeDown follows."""

    tunnel: str
    old_spi_i: bytes
    old_spi_r: bytes
    ike: IkeSaInfo


@dataclass(frozen=True, slots=True)
class _OfChild:
    child: ChildSa

    @property
    def tunnel(self) -> str:
        return self.child.tunnel


@dataclass(frozen=True, slots=True)
class ChildExpected(_OfChild):
    """Receive on this new SA pair. The peer, which is authenticated, has still to say that it has it.

    A ChildUp or ChildReplaced with `expected` follows, or its ChildDown. Call `Endpoint.peer_sends` when the
    first packet has come on it: that says the same.
    """


@dataclass(frozen=True, slots=True)
class ChildUp(_OfChild):
    """Install this new SA pair: inbound before outbound. It owns its mapping from now on.

    With `outbound` it is sent on at once; else OutboundReady follows. `expected`: it receives already.
    """

    outbound: bool = True
    expected: bool = False


@dataclass(frozen=True, slots=True)
class ChildReplaced:
    """`child` succeeds the SA pair with inbound SPI `old_spi_in`.

    Install the inbound SA now. `outbound`: also send on it at once (else `OutboundReady` follows). The old
    inbound SA lives on until its ChildDown. `expected`: the new one receives already.
    """

    old_spi_in: int
    child: ChildSa
    outbound: bool
    expected: bool = False

    @property
    def tunnel(self) -> str:
        return self.child.tunnel


@dataclass(frozen=True, slots=True)
class OutboundReady:
    """Send on the SA pair with this inbound SPI from now on.

    The peer has it installed, or the pair that was sent on goes or only receives (`vpnd.ike.pairs`): this
    comes before its ChildDown or ChildRetired. Nothing else decides which pair of a mapping sends.
    """

    tunnel: str
    spi_in: int


@dataclass(frozen=True, slots=True)
class ChildLimited:
    """The SA pair with this inbound SPI carries no more than `kilobytes` (of 1024 bytes) from its beginning.

    The peer has said so after it was made; a limit that it has already is the lower one of both.
    """

    tunnel: str
    spi_in: int
    kilobytes: int


@dataclass(frozen=True, slots=True)
class ChildRetired:
    """The SA pair with this inbound SPI is not sent on any more; another one has its mapping.

    The peer has been told to delete it, or has deleted it. What is on its way still arrives: the pair
    receives until its ChildDown, even where the IkeDown of its IKE SA comes before that.
    """

    tunnel: str
    mapping: int
    spi_in: int


@dataclass(frozen=True, slots=True)
class ChildDown:
    """Remove the SA pair with this inbound SPI."""

    tunnel: str
    mapping: int
    spi_in: int
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class ChildFailed:
    """A negotiation for one mapping ended without an SA; the IKE SA lives."""

    tunnel: str
    mapping: int
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class Offered:
    """The peer has offered these mappings in one CHILD_SA with another one, which is all it was given there.

    RFC 7296 section 2.9: it wants them, and each is to have a CHILD_SA of its own.
    """

    tunnel: str
    mappings: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IkeRekeyFailed:
    """The IKE SA has found no successor; it goes on until it ends, and tries again before."""

    tunnel: str
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt at an IKE SA ended without one (initiator), or a peer's attempt was refused (responder).

    `unproven`: the sender is not authenticated. Anyone can have such attempts refused, as often
    and with such values in the diagnosis as he likes.
    """

    tunnel: str
    diagnosis: Diagnosis
    initiator: bool
    unproven: bool = False


@dataclass(frozen=True, slots=True)
class PeerDead:
    """No answer within the DPD timeout or the retransmission schedule of an established IKE SA."""

    tunnel: str
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class PeerRenews:
    """The peer begins again what is closed here as redundant; from now on both SAs of a kind stay."""

    tunnel: str


@dataclass(frozen=True, slots=True)
class KeysChanged:
    """An end of the tunnel has proved itself with another pre-shared key than before, or for the first time.

    `Endpoint.known_keys` has it, to be kept over a restart.
    """

    tunnel: str


@dataclass(frozen=True, slots=True)
class NextKeyProved:
    """The peer has proved itself with the next pre-shared key of the tunnel, for the first time."""

    tunnel: str


@dataclass(frozen=True, slots=True)
class PathMoved:
    """An authenticated message came along another path: move the peer's SAs there (RFC 7296 section 2.23)."""

    tunnel: str
    path: Path


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Send the one-byte NAT-keepalive along `path` (RFC 3948 section 2.3): this side is behind a NAT."""

    tunnel: str
    path: Path


CANNOT_BE_READ = "that cannot be read"
"""Ends the ladder's line of a message that does not follow its format; what is wrong is its one detail."""


@dataclass(frozen=True, slots=True)
class UnknownPeer:
    """A machine whose address no tunnel has as its peer's begins IKE. Anyone can: its source may be forged.

    `address` and `port` are where its last message came from, `local` where it went, `count` how many there
    were lately; `last` is in seconds on the caller's clock. Nothing else is known of it. As an output it is
    said seldom (`vpnd.ike.unknown_peers`).
    """

    address: Address
    port: int
    local: Address
    version: IkeVersion
    count: int
    last: float

    @property
    def tunnel(self) -> None:
        """It is no tunnel's."""
        return


@dataclass(frozen=True, slots=True)
class LadderLine:
    """One message as `vpnctl trace` draws it.

    `outbound`: from us. `text` is the exchange, message ID and payloads in the RFC's notation, such as
    `IKE_AUTH 1 {IDi, AUTH, SA, TSi, TSr}`; `detail` holds decoded attributes, one line each. Never a key.
    Made by `Registry.draw`, which bounds both. `stranger`: its peer had not proved itself by then.
    """

    tunnel: str
    outbound: bool
    text: str
    size: int
    detail: tuple[str, ...] = ()
    stranger: bool = False

    @property
    def exchange(self) -> str:
        """The exchange, with which the text begins."""
        if self.is_unreadable:
            return self.text.removesuffix(f" {CANNOT_BE_READ}")
        return self.text.partition(" ")[0]

    @property
    def is_unreadable(self) -> bool:
        """Whether the message does not follow its format; `detail` says what is wrong."""
        return self.text.endswith(CANNOT_BE_READ)

    @property
    def is_sign_of_life(self) -> bool:
        """An empty INFORMATIONAL of IKEv2, or the question and answer of RFC 3706."""
        return self.text.endswith("{}") or "N(R_U_THERE" in self.text


@dataclass(frozen=True, slots=True)
class Decrypted:
    """One message in clear, while its tunnel is captured (`Endpoint.capture`): header and payloads.

    It was not sent so. `path` is our side's, whichever the direction. The proof of phase 1 of IKEv1 is blank:
    who has all else could try keys with it (RFC 2409 section 5).
    """

    tunnel: str
    outbound: bool
    path: Path
    message: bytes


@dataclass(frozen=True, slots=True)
class Story:
    """A state change, in the words of the row that made it: one event for the log."""

    tunnel: str
    text: str


@dataclass(frozen=True, slots=True)
class IkeSaInfo:
    """What status shows of one IKE SA. Times are seconds on the caller's clock.

    `rekey_at`: when its rekey begins here, unless the peer comes first; None while one is under way.
    """

    tunnel: str
    version: IkeVersion
    mode: str | None
    initiator: bool
    spi_i: bytes
    spi_r: bytes
    suite: Suite
    path: Path
    nat: bool
    vendor: str | None
    established_at: float
    rekey_at: float | None
    expires_at: float
    last_heard: float
    nat_at: str | None = None
    """Who is behind the NAT: here, there, both."""


@dataclass(frozen=True, slots=True)
class ChildSaInfo:
    """What is ahead of one SA pair. Times are seconds on the caller's clock.

    `rekey_at`: when its rekey begins here, unless the peer or a limit in bytes comes first. None while one is
    under way, and for a pair that has its successor.
    """

    spi_in: int
    rekey_at: float | None
    expires_at: float


Output = (
    Transmit
    | Established
    | IkeReplaced
    | IkeDown
    | ChildExpected
    | ChildUp
    | ChildReplaced
    | OutboundReady
    | ChildLimited
    | ChildRetired
    | ChildDown
    | ChildFailed
    | Offered
    | IkeRekeyFailed
    | Failed
    | PeerDead
    | PeerRenews
    | KeysChanged
    | NextKeyProved
    | PathMoved
    | Keepalive
    | UnknownPeer
    | LadderLine
    | Decrypted
    | Story
)
