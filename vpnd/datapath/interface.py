"""What an engine does, whichever it is: SAs in, packets through, notices and counters out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

from vpnd.model.child import ChildSa, Path
from vpnd.model.policy import NAT_T_PORT
from vpnd.model.selectors import Address, Selector
from vpnd.model.unreachable import Unreachable

INTERFACE = 2
"""The number of this interface. An engine that is installed by itself says for which one it was made."""

WAITING_PACKETS = 16
"""Ours: first packets of a mapping that wait for its SA, enough that a ping or a SYN is not lost."""
WAITING_BYTES = 64 * 1024
WAITING_TIME = 30.0
"""Seconds: as long as an initiator's attempt lasts; nobody wants an older answer."""
ACQUIRE_INTERVAL = 1.0
"""Seconds between two notices that a mapping's packets wait."""

ICMP_RATE = 100.0
"""Ours: ICMP errors a second for one tunnel, for RFC 1812 section 4.3.2.8 wants a limit."""
ICMP_BURST = 100.0

PROBE_INTERVAL = 60.0
PROBED_LENGTH = 1000
"""Ours: seconds between two packets with DF to one address, and the least bytes of one."""

MTU_INTERVAL = 1.0
"""Seconds between two notices about the path to one address."""

UNKNOWN_SPI_INTERVAL = 1.0
"""Seconds between two notices about SPIs that no SA has, from one peer, and from all strangers together."""

EARLY_PACKETS = 256
EARLY_TIME = 1.0
"""Ours: packets of peers that are kept for an SA that may come, and seconds: as an answer may take."""


@dataclass(frozen=True, slots=True)
class Features:
    """What the engine may use of the kernel; each is also given up when the kernel refuses it."""

    udp_segment: bool = True
    udp_gro: bool = True


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """`mark` is the firewall mark of what is sent (SO_MARK), 0 for none."""

    mark: int = 0


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What can be set, and what the kernel is asked for.

    `raw` opens the sockets of IP protocol 50. `vnet_header` says whether TUN descriptors have a
    `virtio_net_hdr`; None: the descriptor is asked.
    """

    vnet_header: bool | None = None
    port: int = NAT_T_PORT
    raw: bool = True
    sockets: SocketOptions = field(default_factory=SocketOptions)
    features: Features = field(default_factory=Features)


class Drop(IntEnum):
    """Why a packet went no further; every drop is counted under one of these."""

    MALFORMED = 0
    """Not an IP packet, not an ESP packet, or padding that breaks RFC 4303 section 2.4."""
    NO_SA = 1
    """Inbound: unknown SPI, also where its SA came soon after. Outbound: no SA for its selectors yet."""
    REPLAY = 2
    """Sequence number repeated or older than the window (RFC 4303 section 3.4.3)."""
    INTEGRITY = 3
    """The ICV or AEAD tag does not verify."""
    POLICY = 4
    """Decrypted, but outside its SA's selectors (RFC 4301 section 5.2), or not for any mapping."""
    TOO_BIG = 5
    """DF is set and the packet does not fit; the sender was told (RFC 4301 section 8)."""
    LIFETIME = 6
    """The SA reached the end of its bytes or sequence numbers."""
    ECN = 7
    """Not-ECT inside and CE outside (RFC 6040 section 4.2)."""
    DECRYPTED_BAD_PATH = 8
    """The SA is not in use along the path the packet came on."""
    SEND = 9
    """The kernel refused to send: no route, no buffer."""


# ------------------------------------------------------------------------------------- notices


@dataclass(frozen=True, slots=True)
class Acquire:
    """A packet of this mapping waits for an SA that does not exist; said once in `ACQUIRE_INTERVAL`."""

    tunnel: str
    mapping: int
    source: Address
    destination: Address
    protocol: int


@dataclass(frozen=True, slots=True)
class SoftLimit:
    """The SA with this inbound SPI should be replaced: the end of its bytes or sequence numbers is near."""

    tunnel: str
    spi_in: int


@dataclass(frozen=True, slots=True)
class HardLimit:
    """The SA with this inbound SPI carries nothing more: its bytes or sequence numbers are used up."""

    tunnel: str
    spi_in: int


@dataclass(frozen=True, slots=True)
class UnknownSpi:
    """ESP with an SPI that no SA has came from `source`; said once in `UNKNOWN_SPI_INTERVAL`."""

    spi: int
    source: Address


@dataclass(frozen=True, slots=True)
class PeerSends:
    """The first authenticated packet came on this SA, which is not sent on yet: the peer has it installed."""

    tunnel: str
    spi_in: int


@dataclass(frozen=True, slots=True)
class PeerMoved:
    """An authenticated, newest packet of this SA came from another address or port (RFC 3948 section 3.1)."""

    tunnel: str
    spi_in: int
    path: Path


@dataclass(frozen=True, slots=True)
class PathMtu:
    """The network says that datagrams to `remote` must fit in `mtu` bytes, IP header included."""

    remote: Address
    mtu: int


@dataclass(frozen=True, slots=True)
class IkeUnreached:
    """An IKE message that was sent from port 4500 along `path` has not arrived, says ICMP or the kernel."""

    path: Path
    reason: Unreachable


@dataclass(frozen=True, slots=True)
class TunLost:
    """The TUN of this tunnel was deleted; its descriptor is of no use any more, and is not read."""

    tunnel: str


Notice = (
    Acquire | SoftLimit | HardLimit | UnknownSpi | PeerSends | PeerMoved | PathMtu | IkeUnreached | TunLost
)


# --------------------------------------------------------------------------------------- stats


@dataclass(frozen=True, slots=True)
class SaStats:
    """Counters of one SA pair since its installation: inner bytes, monotonic times in seconds."""

    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int
    last_in: float
    last_out: float


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One mapping of a tunnel as the SPD sees it: what may enter and leave through this tunnel."""

    mapping: int
    local: tuple[Selector, ...]
    remote: tuple[Selector, ...]


class Tap(Protocol):
    """Hears what a tunnel carries while it is captured, a batch at a time; it must be quick."""

    def inner(self, outbound: bool, packets: Sequence[bytes]) -> None:
        """IP packets that were read from the TUN, or came out of ESP; some may be dropped yet."""

    def outer(self, outbound: bool, path: Path, udp: bool, packets: Sequence[bytes]) -> None:
        """ESP packets that are sent along a path, or were received and are authentic, from their SPI on."""


OnIke = Callable[[Path, bytes], None]
OnNotice = Callable[[Notice], None]


class Engine(Protocol):
    """Carries packets between TUN descriptors and the outer network.

    **Threads and time.** All calls come from one thread, that of the event loop, and so do the callbacks.
    `on_ike(path, data)` is called for each IKE message that arrives on the UDP socket that ESP shares (port
    4500, marker removed); `on_notice` for each notice: after the batch that caused it, in the order in which
    they arose, and never before a call of the engine has returned in which it arose. Either may call the
    engine. Every time is one of the loop's clock.

    **Waiting.** A packet whose mapping has no SA waits for one: at most `WAITING_PACKETS` and
    `WAITING_BYTES` of a mapping, each at most `WAITING_TIME`; what comes when they are full is dropped as
    `Drop.NO_SA`. `Acquire` is given out every `ACQUIRE_INTERVAL` meanwhile. What waits for a mapping goes
    with it (`replace_policies`).

    **Early.** ESP with an SPI that no SA has is dropped as `Drop.NO_SA`. Of an address that has an SA, the
    last `EARLY_PACKETS` are kept for `EARLY_TIME`, and received once an SA with their SPI is installed.

    **ICMP.** An error "packet too big" from the network is believed about a packet of an SA that is sent on
    (RFC 4301 section 8.2): it quotes the SPI, and came from where this SA's packets go. What the kernel says
    of its own interface needs no quote. Neither makes a path larger, and `PathMtu` is given out once in
    `MTU_INTERVAL` for an address, with no less than the family's least (576, 1280). One packet of at least
    `PROBED_LENGTH` bytes in `PROBE_INTERVAL` is sent with DF to an IPv4 address; a send that the kernel
    refused as too long makes the next one due at once. The ICMP errors that the engine writes to a TUN are
    at most `ICMP_RATE` a second, after a burst of `ICMP_BURST`, for each tunnel.

    **Order.** Packets of one flow and one SA are handed to the kernel in the order in which they were read.
    What the kernel does with them then is its own affair: a thread that moves to another processor may have
    its datagrams overtaken on a loopback, and a replay window is there for that.
    """

    name: str

    segments: int
    """Packets of TCP that its TUNs may have in one burst (IFLA_GSO_MAX_SEGS): as many full ones as it sends
    at once. What it can read of such a burst at a time (TUNSETOFFLOAD) it asks its descriptors for itself."""

    def listen(self, address: Address) -> None:
        """Receive UDP 4500 and ESP on `address`, no longer on another one of its family.

        Raises OSError if one of its sockets cannot be opened; nothing has changed then, and none stays open.
        """

    def port(self, version: int) -> int:
        """The UDP port that ESP and IKE share, for IPv4 (4) or IPv6 (6); of use where the options said 0.

        Raises KeyError where it listens on no address of this version.
        """

    def add_tunnel(self, tunnel: str, tun_fd: int, mtu: int) -> None:
        """Begin to carry the packets of one TUN (opened with `IFF_VNET_HDR`). Raises ValueError if known.

        A TUN that is deleted gives one `TunLost` and is not read any more; one that is down goes on.
        """

    def remove_tunnel(self, tunnel: str) -> None:
        """Stop carrying its packets and forget its SAs; the descriptor stays the caller's to close."""

    def set_mtu(self, tunnel: str, path_mtu: int) -> None:
        """The path to this tunnel's peer now carries datagrams of `path_mtu` bytes, IP header included."""

    def set_limits(self, tunnel: str, mtu: int | None, mss: int | None) -> None:
        """Inner packets have at most `mtu` bytes, TCP segments `mss`; None: as many as the path carries."""

    def replace_policies(self, tunnel: str, rows: tuple[PolicyRow, ...]) -> None:
        """The mappings of a tunnel, all at once; SAs of mappings that are gone stay until removed."""

    def install(self, child: ChildSa, outbound: bool = True) -> None:
        """Receive on `child.spi_in`; with `outbound`, also send this mapping's packets on `child.spi_out`.

        What waits for the mapping is sent before this returns, and so it is with `use_outbound`.
        What the peer has sent on it a moment ago, before its answer was here, is received now.
        """

    def use_outbound(self, spi_in: int) -> None:
        """Send this mapping's packets on the SA pair with this inbound SPI from now on."""

    def limit(self, spi_in: int, kilobytes: int) -> None:
        """The SA pair carries no more than so many KB (1024 bytes) each way, from its installation on.

        Of that and the limit that it has the lower one counts. Unknown SPIs are ignored.
        """

    def remove(self, spi_in: int) -> None:
        """Forget an SA pair; its keys go with it. Unknown SPIs are ignored."""

    def move(self, spi_in: int, path: Path) -> None:
        """Send along `path` from now on: the peer's authenticated new address."""

    def interrupt(self, tunnel: str, interrupted: bool, keep: tuple[Address, ...] = ()) -> None:
        """Drop business traffic of a tunnel both ways, all but packets from or to `keep` (health probes)."""

    def send_packet(self, tunnel: str, packet: bytes) -> None:
        """Send one inner packet now, before all that wait in the TUN: a health probe measures no queue."""

    def answer_probes(self, tunnel: str, local: Address, remote: Address) -> None:
        """Answer echo requests from `remote` to `local` at once, before all that wait in the TUN."""

    def tap(self, tunnel: str, tap: Tap | None) -> None:
        """Let `tap` hear what this tunnel carries from now on, or nobody. Unknown tunnels are ignored."""

    def stats(self, spi_in: int) -> SaStats | None:
        """Counters of one SA pair, or None if it is not installed."""

    def take_heard(self) -> dict[str, float]:
        """Tunnels whose peers sent authentic packets since the last call; the monotonic time of the last."""

    def take_sent(self) -> dict[str, float]:
        """Tunnels whose packets left since the last call; the monotonic time of the last."""

    def drops(self, tunnel: str | None = None) -> dict[Drop, int]:
        """Counters of one tunnel, or of everything that belongs to none."""

    def send_ike(self, path: Path, data: bytes) -> None:
        """Send one IKE message from the shared UDP socket, with the non-ESP marker (RFC 3948 section 2.2)."""

    def send_keepalive(self, path: Path) -> None:
        """Send the one-byte NAT-keepalive from the shared UDP socket (RFC 3948 section 2.3)."""

    def close(self) -> None:
        """Stop: unregister every descriptor from the loop and close the sockets that the engine opened."""


# ------------------------------------------------------------------- without input and output


class Datagram(NamedTuple):
    """What one receive gives: a datagram, or several of `length` bytes that the kernel joined.

    The last of them may be shorter. `port` is 0 for raw ESP.
    """

    data: bytes
    length: int
    traffic_class: int
    remote: Address
    port: int


class Train(NamedTuple):
    """ESP packets of one SA that leave with one send: of one length, but perhaps a shorter last one.

    `port` is 0 for raw ESP.
    """

    spi_in: int
    remote: Address
    port: int
    udp: bool
    packets: list[bytes]
    traffic_class: int


class Carried(NamedTuple):
    """What came of a call, each in its order."""

    trains: list[Train]
    writes: list[tuple[str, bytes]]
    """Tunnels, and what is written to their TUNs: behind a `virtio_net_hdr` where they have one.

    ICMP errors of the engine's own may come before or after what arrived with them.
    """
    ike: list[tuple[Address, int, bytes]]
    """Senders of IKE messages, their ports, and the messages without the marker."""


class Carrier(Protocol):
    """An engine without its descriptors: packets and datagrams in, trains and writes out, as calls return.

    The same as behind an `Engine`, which adds descriptors and a clock: every engine has both, so that tests
    and simulations play on whichever, and two can be compared byte by byte. `now` never goes back. No
    destination is taken for this host's, so every joined checksum is verified. Entropy was handed in.
    """

    def add_tunnel(self, tunnel: str, vnet_header: bool, joins_udp: bool = False) -> None:
        """`joins_udp`: its TUN takes joined datagrams of UDP. Raises ValueError if it is known."""

    def remove_tunnel(self, tunnel: str) -> None: ...

    def set_own(self, addresses: Sequence[Address]) -> None:
        """The addresses that are listened on: SAs that are installed later carry no packets from them."""

    def set_mtu(self, tunnel: str, path_mtu: int) -> None: ...

    def set_limits(self, tunnel: str, mtu: int | None, mss: int | None) -> None: ...

    def replace_policies(self, tunnel: str, rows: tuple[PolicyRow, ...]) -> None: ...

    def interrupt(self, tunnel: str, interrupted: bool, keep: tuple[Address, ...] = ()) -> None: ...

    def answer_probes(self, tunnel: str, local: Address, remote: Address) -> None: ...

    def install(self, now: float, child: ChildSa, outbound: bool = True) -> Carried:
        """What waited for it leaves, and what came early is written."""

    def use_outbound(self, now: float, spi_in: int) -> Carried: ...

    def limit(self, spi_in: int, kilobytes: int) -> None: ...

    def remove(self, spi_in: int) -> None: ...

    def move(self, spi_in: int, path: Path) -> None: ...

    def send(self, now: float, tunnel: str, packets: Sequence[bytes]) -> Carried:
        """Packets as they come from the TUN, each by itself, without a header. Writes are ICMP errors."""

    def receive(self, now: float, datagrams: Sequence[Datagram], local: Address, port: int) -> Carried:
        """A batch of datagrams to `port` of `local`; port 0 is raw ESP. Trains are answers to probes."""

    def believe(self, now: float, remote: Address, port: int, mtu: int, quote: bytes | None) -> None:
        """An error says "too big" of what was sent there; it quotes an ESP packet, or is the kernel's own."""

    def take_notices(self) -> list[Notice]:
        """Those since the last call."""

    def stats(self, spi_in: int) -> SaStats | None: ...

    def take_heard(self) -> dict[str, float]: ...

    def take_sent(self) -> dict[str, float]: ...

    def drops(self, tunnel: str | None = None) -> dict[Drop, int]: ...
