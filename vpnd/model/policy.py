"""What configuration compiles to: everything the protocols, the lifecycle and the datapath are told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from itertools import count

from vpnd.model.identity import Identity
from vpnd.model.numbers import DEFAULT_NUMBERS, Numbers
from vpnd.model.proposals import Proposal
from vpnd.model.secret import Secret
from vpnd.model.selectors import ANY_PORT, Address, Network, Ports, Selector
from vpnd.wire.iana import IkeVersion

ALL_IPV4 = IPv4Network("0.0.0.0/0")
ALL_IPV6 = IPv6Network("::/0")

DEFAULT_REPLAY_WINDOW = 1024
"""Packets. RFC 4303 asks for at least 32 and prefers 64; more forgives peers that seal on several cores."""

IKE_PORT = 500
NAT_T_PORT = 4500


class NegotiationMode(Enum):
    """The phase-1 mode of an IKEv1 tunnel (specification: main or aggressive)."""

    MAIN = "main"
    AGGRESSIVE = "aggressive"


class Negotiation(Enum):
    """Who begins (specification: negotiation type)."""

    ACTIVE = "active"
    PASSIVE = "passive"
    TRAFFIC_TRIGGERED = "traffic-triggered"


class Diagnose(Enum):
    """How a peer that refuses is asked why (`tunnel.prober`): never, by what is configured, or by all."""

    OFF = "off"
    AUTO = "auto"
    ALL = "all"


class Probing(Enum):
    """What an attempt asks that is to come to nothing."""

    OFFER = "whether the peer takes what is offered, which it cannot"
    IDENTITY = "who the peer is"


class Communication(Enum):
    """How traffic reaches the tunnel (specification: communication mode)."""

    DESTINATION_ROUTE = "destination-route"
    SPD_POLICY = "spd-policy"


class EngineChoice(Enum):
    """What carries the packets; AUTO is the native engine where it is installed, else the one in Python."""

    AUTO = "auto"
    NATIVE = "native"
    PYTHON = "python"


class Encapsulation(Enum):
    """How ESP travels: AUTO means UDP when a NAT is found (RFC 3948), else IP protocol 50."""

    AUTO = "auto"
    UDP = "udp"


class DpdAction(Enum):
    """What follows when the peer is found dead (specification: DPD timeout action)."""

    DISCONNECT = "disconnect"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Margin:
    """When the successor of an SA is due: `percent` of a lifetime before its end, and earlier by chance.

    `fuzz` is in percent of the margin: how much earlier at most. It spreads many SAs that were made together.
    """

    percent: int = 10
    fuzz: int = 100

    def soft(self, lifetime: float, chance: float) -> float:
        """How much of `lifetime` has passed then, in its unit; `chance` is from 0 to 1."""
        return lifetime * (1 - self.percent / 100 * (1 + self.fuzz / 100 * chance))

    def length(self, lifetime: float) -> float:
        """What is left of `lifetime` at the latest moment."""
        return lifetime * self.percent / 100


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The hard end of an SA: seconds since it was made, and KB (1024 bytes) carried; None: no byte limit.

    `margin` says how long before either end its successor is due.
    """

    seconds: int
    kilobytes: int | None = None
    margin: Margin = Margin()


@dataclass(frozen=True, slots=True)
class ChildPolicy:
    """One mapping of a tunnel: the selectors and algorithms of its ESP SAs.

    `index` is the mapping's number in the tunnel, its place at first; it keeps it for as long as it is
    configured, whatever comes and goes beside it (`PeerPolicy.numbered_as`). `pfs` holds the acceptable
    groups of a key exchange for the child, the preferred first; empty means PFS is off. `proposals` carry
    the same groups.
    `protocol` (0: any) and the ports narrow it. `replay_window` is in packets. With
    `sha256_96` the ICV of HMAC-SHA-256 has 96 bits, not 128.
    """

    index: int
    local: Network
    remote: Network
    proposals: tuple[Proposal, ...]
    pfs: tuple[int, ...]
    lifetimes: Lifetimes
    replay_window: int = DEFAULT_REPLAY_WINDOW
    sha256_96: bool = False
    protocol: int = 0
    local_ports: Ports = ANY_PORT
    remote_ports: Ports = ANY_PORT

    @property
    def ts_local(self) -> Selector:
        """Our side of its packets."""
        return Selector.of(self.local, self.protocol, self.local_ports)

    @property
    def ts_remote(self) -> Selector:
        """The peer's side."""
        return Selector.of(self.remote, self.protocol, self.remote_ports)

    @property
    def selects(self) -> tuple[object, ...]:
        """What makes two mappings the same one: ranges, protocol and ports."""
        return self.local, self.remote, self.protocol, self.local_ports, self.remote_ports

    @property
    def protection(self) -> tuple[object, ...]:
        """What its SAs are negotiated by, but for what waits for the next ones."""
        return self.proposals, self.pfs, self.sha256_96

    @property
    def has_ports(self) -> bool:
        """Whether it selects packets by their ports, which a later fragment does not show."""
        return (self.local_ports, self.remote_ports) != (ANY_PORT, ANY_PORT)

    def with_groups(self, *groups: int) -> ChildPolicy:
        """The same with a key exchange in one of these groups, the preferred first."""
        return replace(self, pfs=groups, proposals=tuple(replace(p, dh=groups) for p in self.proposals))

    def __str__(self) -> str:
        return f"{self.ts_local} - {self.ts_remote}"


@dataclass(frozen=True, slots=True)
class DpdPolicy:
    """Dead peer detection (specification: DPD): `timeout` in seconds, 10 to 3600."""

    enabled: bool = True
    timeout: int = 30
    action: DpdAction = DpdAction.RETRY


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """One tunnel as IKE sees it.

    `name` is the tunnel's. `remote_address` is None while an FQDN of the peer is not resolved; the daemon
    then replaces the policy. With `any_address` it stays None: the peer begins, and is known by its identity.
    `mode` is None for IKEv2. `lifetime` is the IKE SA's, in seconds, and `margin` how long before its end it
    is rekeyed. `numbers` are those that the peer knows SM4 and SM3 by.
    With `known_by_name` the peer is configured by its domain name, and its identity is not: it may say its
    address as well.
    `next_psk` is accepted beside `psk`, whose place it is to take; None: there is one key only.
    With `prove_rekey` the first CHILD_SA of IKEv2 is rekeyed early, once, also where PFS is off: what the
    peer wants then shows, and not an hour later.
    """

    name: str
    version: IkeVersion
    mode: NegotiationMode | None
    local_address: Address
    remote_address: Address | None
    local_id: Identity
    remote_id: Identity
    psk: Secret
    proposals: tuple[Proposal, ...]
    lifetime: int
    children: tuple[ChildPolicy, ...]
    encapsulation: Encapsulation = Encapsulation.AUTO
    dpd: DpdPolicy = field(default_factory=DpdPolicy)
    numbers: Numbers = DEFAULT_NUMBERS
    margin: Margin = Margin()
    any_address: bool = False
    known_by_name: bool = False
    prove_rekey: bool = False
    next_psk: Secret | None = None
    probing: Probing | None = None
    """An attempt by it only asks: it is never said to be the first contact, and only the configured identity
    is the peer's."""

    @property
    def lasting(self) -> tuple[object, ...]:
        """What an IKE SA has to its end: who both are, how ESP travels, the numbers of SM4 and SM3."""
        return self.local_id, self.remote_id, self.known_by_name, self.encapsulation, self.numbers

    @property
    def terms(self) -> tuple[object, ...]:
        """What an IKE SA is negotiated by; of these a rekey can change the algorithms alone."""
        return (self.proposals, *self.lasting)

    def on_terms_of(self, other: PeerPolicy) -> PeerPolicy:
        """The same, but negotiated by the terms of another one."""
        return replace(
            self,
            proposals=other.proposals,
            local_id=other.local_id,
            remote_id=other.remote_id,
            known_by_name=other.known_by_name,
            encapsulation=other.encapsulation,
            numbers=other.numbers,
        )

    @property
    def keys(self) -> tuple[Secret, ...]:
        """The pre-shared keys that are accepted, the current one first."""
        return (self.psk,) if self.next_psk in (None, self.psk) else (self.psk, self.next_psk)

    @property
    def key_fingerprints(self) -> str:
        """What stands for the keys that are accepted."""
        return " or ".join(psk.fingerprint() for psk in self.keys)

    @property
    def peer_ids(self) -> tuple[Identity, ...]:
        """What the peer may say that it is; who is known by name says its name or its address."""
        if not self.known_by_name or self.remote_address is None or self.probing:
            return (self.remote_id,)
        return (self.remote_id, Identity.of_address(self.remote_address))

    def child(self, index: int) -> ChildPolicy | None:
        """The mapping with this number; None for one that is not configured (any more)."""
        if index < len(self.children) and self.children[index].index == index:
            return self.children[index]
        return next((child for child in self.children if child.index == index), None)

    def numbered_as(self, before: PeerPolicy) -> PeerPolicy:
        """The same, where each mapping that `before` has as well keeps its number, and new ones get others.

        A number that `before` has is not given to another mapping: SAs of what goes may be there still.
        """
        known = {child.selects: child.index for child in before.children}
        free = (index for index in count() if index not in known.values())
        numbers = [known[child.selects] if child.selects in known else next(free) for child in self.children]
        if numbers == [child.index for child in self.children]:
            return self
        children = (replace(child, index=index) for child, index in zip(self.children, numbers, strict=True))
        return replace(self, children=tuple(children))

    def is_peer(self, identity: Identity) -> bool:
        """Whether this is an identity of the peer."""
        return any(one.matches(identity) for one in self.peer_ids)

    def groups_on_request(self, own: int | None) -> tuple[int, ...]:
        """With PFS off: the groups that a peer gets which asks for one. `own`, the IKE SA's, is first."""
        offered = (group for proposal in self.proposals for group in proposal.dh)
        return tuple(dict.fromkeys(group for group in (own, *offered) if group))


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """The health check (specification: NQA). Intervals and timeouts in seconds."""

    local: Address
    remote: Address
    interval: float = 5.0
    timeout: float = 0.15
    failures: int = 3
    recoveries: int = 3


@dataclass(frozen=True, slots=True)
class TunnelPolicy:
    """One tunnel, whole. `remote` is the customer gateway's address, FQDN or `any` as it was written.

    One that is not `enabled` is down, and stays so.
    `mtu` is how many bytes an inner packet has at most, `mss` a TCP segment; None: what the path carries.
    At `retire_after` the next pre-shared key takes the place of the current one, which ends; None: never.
    """

    name: str
    peer: PeerPolicy
    remote: str
    negotiation: Negotiation
    communication: Communication
    routes: tuple[Network, ...]
    priority: int
    interface: str
    health: HealthPolicy | None = None
    mtu: int | None = None
    mss: int | None = None
    description: str = ""
    enabled: bool = True
    diagnose: Diagnose = Diagnose.AUTO
    retire_after: datetime | None = None

    def at(self, moment: datetime) -> TunnelPolicy:
        """As it is in force at this moment: with the next key alone from the end of the current one on."""
        if self.peer.next_psk is None or self.retire_after is None or moment < self.retire_after:
            return self
        peer = replace(self.peer, psk=self.peer.next_psk, next_psk=None)
        return replace(self, peer=peer, retire_after=None)


@dataclass(frozen=True, slots=True)
class ListenAt:
    """A TCP port of this machine; an unspecified address stands for all that it has."""

    address: Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class GatewayPolicy:
    """The gateway and its tunnels, in the order in which they were written."""

    name: str
    address: Address
    tunnels: tuple[TunnelPolicy, ...]
    labels: tuple[tuple[str, str], ...] = ()
    metrics: ListenAt | None = None
    """Where metrics are served besides the socket."""

    def at(self, moment: datetime) -> GatewayPolicy:
        """As it is in force at this moment."""
        return replace(self, tunnels=tuple(tunnel.at(moment) for tunnel in self.tunnels))
