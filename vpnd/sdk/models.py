"""What the API answers. Made by contrib/sdk_models.py from the OpenAPI document, not by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """An action that was done: the tunnel's state after it."""

    tunnel: str
    action: Literal["up", "down", "reset", "rekey", "disable", "enable"]
    state: Literal["down", "waiting", "connecting", "up", "unhealthy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyRequest:
    """Body of `apply`: after `confirm_s` the confirmed configuration comes back, unless `confirm` came."""

    confirm_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatus:
    """An attempt of ours at an IKE SA that is under way."""

    since_s: int
    sent: int
    received: int
    peer: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """One file of a bundle: its path there, and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedRoute:
    """A route and the tunnel that carries it."""

    route: str
    tunnel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredHere:
    """A value that the failure is about: its key in the tunnel's table, and where it stands."""

    key: str
    value: Any = None
    place: str | None = None
    written: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """What `confirm` did."""

    configuration: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerGatewayStatus:
    """A customer gateway that has a name of its own, and the tunnels to it."""

    name: str
    address: str
    tunnels: tuple[str, ...] = ()
    source: str = ""
    from_api: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DpdStatus:
    """Dead peer detection: how long ago the peer was last heard, authenticated."""

    enabled: bool
    last_heard_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DropCounts:
    """Packets of this tunnel that went no further, by reason."""

    replay: int = 0
    integrity: int = 0
    policy: int = 0
    no_sa: int = 0
    malformed: int = 0
    too_big: int = 0
    lifetime: int = 0
    ecn: int = 0
    path: int = 0
    send: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An error as status shows it: stable code, one line for people, when."""

    code: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSample:
    """One minute of the health check's history."""

    at: datetime
    sent: int
    lost: int
    rtt_ms: float | None = None
    jitter_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthStatus:
    """The health check (NQA) of one tunnel; `local` and `remote` are the addresses it probes between.

    `sent` and `lost` count echo requests since the start; `loss_percent`, `rtt_ms` and `jitter_ms` are of
    the last 60. `lossy`: the path loses too much, and a tunnel that loses less carries the traffic.
    """

    state: Literal["unknown", "healthy", "unhealthy"]
    sent: int = 0
    lost: int = 0
    rtt_ms: float | None = None
    jitter_ms: float | None = None
    loss_percent: float | None = None
    lossy: bool = False
    local: str | None = None
    remote: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeStatus:
    """The IKE SA that is in use. `spi_i` and `spi_r` are 16 hex digits."""

    version: Literal["ikev1", "ikev2"]
    mode: Literal["main", "aggressive"] | None = None
    spi_i: str
    spi_r: str
    encryption: str
    integrity: str | None
    dh_group: int | None
    age_s: int
    rekey_in_s: int | None
    expires_in_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptConfiguration:
    """A configuration that is kept: without keys, which are never rolled back."""

    configuration: int
    back: int
    at: datetime
    what: str
    running: bool
    confirmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChangeBody:
    """One key of the configuration that changes. Fingerprints stand for keys."""

    key: str
    before: Any
    after: Any
    class_: Literal["live", "next start", "next SA", "rekey", "new IKE SA", "interface", "break"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRemark:
    """What is probably wrong with a key; never a part of it."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """The key that one end has proved itself with last."""

    fingerprint: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingPreview:
    """A mapping that a tunnel would have."""

    local: str
    remote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """The other machine. `address` is the FQDN as it was written while it is not resolved.

    It is null while none of a peer of any address (`address = "any"`) is there.
    """

    address: str | None
    port: int | None = None
    vendor: str | None = None
    nat: bool = False
    nat_at: Literal["here", "there", "both"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """Body of `plan`: with `back`, what `rollback` by so many would do; without, what `apply` would."""

    back: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding of the configuration check; `line` is 1-based, null where there is none (the API).

    `key` is the dotted path of the value: `tunnels.branch-a.ike.encryption[0]`.
    """

    file: str
    line: int | None
    code: str
    severity: Literal["error", "warning"]
    message: str
    hint: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadProgress:
    """Whether a configuration is being applied, at the start as well, and how many of its tunnels it has."""

    running: bool
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """Body of `rollback`: without `back` the confirmed configuration, or, if that runs, the one before."""

    back: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingStatus:
    """One effective value of a tunnel. A fingerprint stands for a key."""

    key: str
    value: Any
    origin: Literal["file", "profile", "default", "derived"]
    place: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCreated:
    """A new token. It is shown here and never again."""

    name: str
    role: Literal["read", "admin"]
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRevoked:
    """A token that is of no use any more."""

    name: str
    revoked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStatus:
    """A token for the API over TCP, but for what it is."""

    name: str
    role: Literal["read", "admin"]
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceLine:
    """One IKE message: `text` in the RFC's notation, `detail` its decoded attributes, `size` in bytes."""

    id: int = 0
    at: datetime
    direction: Literal["out", "in"]
    text: str
    size: int
    detail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelExport:
    """`GET /v1/tunnels/NAME/export`: the tunnel as a file that `vpnctl add` takes, without its key."""

    tunnel: str
    toml: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelPeerConfig:
    """`GET /v1/tunnels/NAME/peer-config?kind=KIND`: what to put on the peer, all but the key."""

    tunnel: str
    kind: Literal[
        "strongswan",
        "libreswan",
        "cisco-ios",
        "cisco-asa",
        "fortigate",
        "huawei",
        "h3c",
        "mikrotik",
        "tencent-cloud",
        "aws",
        "azure",
        "vpnd",
    ]
    title: str
    configuration: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One state change. `event` is a stable word (`tunnel-up`); `text` for people; `code` of a fault.

    `id` is for `after` of a later request; null where nothing can be asked for after it. `by`: who
    has asked for a change over the API.
    """

    id: str | None = None
    at: datetime
    tunnel: str | None = None
    event: str
    text: str
    code: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """`GET /v1/bundle`: what support needs to know of a gateway, without a key."""

    files: tuple[BundleFile, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Configurations:
    """`GET /v1/configurations`: those that are kept, the one that runs first."""

    configurations: tuple[KeptConfiguration, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerGatewayChange:
    """What a PUT or DELETE of a customer gateway did.

    `tunnels` are those that are negotiated again because of it.
    """

    customer_gateway: str
    change: Literal["created", "changed", "unchanged", "removed"]
    tunnels: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerGateways:
    """`GET /v1/customer-gateways`, in the order of the configuration."""

    customer_gateways: tuple[CustomerGatewayStatus, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A failure for people: what happened, what the peer said, what we have, what to change, what to try."""

    code: str
    what: str
    peer_said: str | None = None
    we_have: str | None = None
    also_possible: tuple[str, ...] = ()
    change: str | None = None
    try_: tuple[str, ...] = ()
    where: tuple[ConfiguredHere, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayChange:
    """What a PUT of the gateway's labels did; no tunnel is touched by it."""

    change: Literal["changed", "unchanged"]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayDetail:
    """`GET /v1/gateway`: this machine, and where its labels are set."""

    name: str
    address: str
    version: str
    engine: str
    uptime_s: int
    type: Literal["vpc", "ccn"] | None = None
    vpc: str | None = None
    region: str | None = None
    confirm_in_s: int | None = None
    rolled_back: Fault | None = None
    source: str = ""
    from_api: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStatus:
    """This machine."""

    name: str
    address: str
    version: str
    engine: str
    uptime_s: int
    type: Literal["vpc", "ccn"] | None = None
    vpc: str | None = None
    region: str | None = None
    confirm_in_s: int | None = None
    rolled_back: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """Tunnels that share routes, the preferred first; `by_hand` is the operator's choice, if there is one."""

    name: str
    tunnels: tuple[str, ...]
    routes: tuple[CarriedRoute, ...]
    by_hand: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """The pre-shared keys of one tunnel, as fingerprints, and which of them is in use.

    `ours` and `theirs` are what each end has proved itself with last, also before a restart; null: nothing
    was ever up. In IKEv1 they are the same.
    """

    tunnel: str
    current: str
    next: str | None = None
    retire_after: datetime | None = None
    ours: KeyUse | None = None
    theirs: KeyUse | None = None
    remarks: tuple[KeyRemark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingStatus:
    """One mapping and its ESP SA pair; everything about the SA is null while there is none.

    `protocol` and the ports are null where the rule does not name them; ports are `443` or `1024-65535`.
    """

    local: str
    remote: str
    protocol: str | None = None
    local_port: str | None = None
    remote_port: str | None = None
    state: Literal["down", "waiting", "connecting", "up"]
    reason: Fault | None = None
    spi_in: str | None = None
    spi_out: str | None = None
    encryption: str | None = None
    integrity: str | None = None
    pfs: int | None = None
    encapsulation: Literal["udp", "esp"] | None = None
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    age_s: int | None = None
    rekey_in_s: int | None = None
    expires_in_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadResult:
    """What a reload did, by tunnel name. Nothing was changed if `applied` is false."""

    applied: bool
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenList:
    """`GET /v1/tokens`, by name."""

    tokens: tuple[TokenStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """`GET /v1/tunnels/NAME/trace`: the last IKE messages, oldest first."""

    tunnel: str
    lines: tuple[TraceLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelChange:
    """What a PUT or DELETE did; `problems` holds the warnings of a PUT that was accepted."""

    tunnel: str
    change: Literal["created", "changed", "unchanged", "removed"]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelCheck:
    """What a PUT of this tunnel would say; nothing was changed. `ok`: it would be accepted.

    `spd_mappings` counts those of all spd-policy tunnels of the gateway with this one, of `max_spd_mappings`.
    """

    ok: bool
    problems: tuple[Problem, ...] = ()
    mappings: tuple[MappingPreview, ...] = ()
    spd_mappings: int
    max_spd_mappings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelPlan:
    """What becomes of one tunnel, and what that costs."""

    tunnel: str
    change: Literal["added", "changed", "removed"]
    class_: Literal["live", "next start", "next SA", "rekey", "new IKE SA", "interface", "break"]
    cost: str
    keys: tuple[KeyChangeBody, ...] = ()
    mappings_added: int = 0
    mappings_removed: int = 0
    mappings_kept: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelSettings:
    """`GET /v1/tunnels/NAME/settings`: every value that is in force, and where it comes from."""

    tunnel: str
    settings: tuple[SettingStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What `apply` or `rollback` did; `configuration` is the number of what is in force now."""

    gateway: tuple[KeyChangeBody, ...] = ()
    tunnels: tuple[TunnelPlan, ...]
    unchanged: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    configuration: int | None = None
    confirm_in_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyList:
    """`GET /v1/keys`: the keys of every tunnel."""

    keys: tuple[KeyStatus, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotation:
    """A step in the replacement of a key, which was done, or what is to be written into a file for it."""

    tunnel: str
    done: bool
    lines: tuple[str, ...] = ()
    keys: KeyStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`GET /v1/plan`: what the candidate, or an older configuration, would change. Nothing was changed."""

    gateway: tuple[KeyChangeBody, ...] = ()
    tunnels: tuple[TunnelPlan, ...]
    unchanged: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelDetail:
    """`GET /v1/tunnels/NAME`: the status entry, and what was configured.

    `configuration` is the tunnel's table as TOML would hold it with every default filled in and the key
    left out; `psk_fingerprint` stands for it. `ike_sas` lists more than one while a successor takes over.
    `errors` is newest last. `address_followed`: `gateway.address` is `auto`, and `local_address` that of the
    moment, or `auto` while there is none.
    """

    name: str
    state: Literal["down", "waiting", "connecting", "up", "unhealthy"]
    negotiation: Literal["active", "passive", "traffic-triggered"]
    priority: int
    description: str = ""
    enabled: bool = True
    carries_traffic: bool
    peer: PeerStatus
    ike: IkeStatus | None = None
    mappings: tuple[MappingStatus, ...]
    health: HealthStatus | None = None
    dpd: DpdStatus
    drops: DropCounts = DropCounts()
    last_error: Fault | None = None
    impaired: Fault | None = None
    attempt: AttemptStatus | None = None
    gateway: str
    customer_gateway: str
    local_address: str
    address_followed: bool = False
    local_id: str
    remote_id: str
    communication: Literal["destination-route", "spd-policy"]
    routes: tuple[str, ...]
    interface: str
    mtu: int | None = None
    source: str
    from_api: bool = False
    psk_fingerprint: str
    ike_sas: tuple[IkeStatus, ...] = ()
    errors: tuple[Fault, ...] = ()
    retry_in_s: int | None = None
    health_history: tuple[HealthSample, ...] = ()
    configuration: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelStatus:
    """One tunnel; `health` is null while the health check is off."""

    name: str
    state: Literal["down", "waiting", "connecting", "up", "unhealthy"]
    negotiation: Literal["active", "passive", "traffic-triggered"]
    priority: int
    description: str = ""
    enabled: bool = True
    carries_traffic: bool
    peer: PeerStatus
    ike: IkeStatus | None = None
    mappings: tuple[MappingStatus, ...]
    health: HealthStatus | None = None
    dpd: DpdStatus
    drops: DropCounts = DropCounts()
    last_error: Fault | None = None
    impaired: Fault | None = None
    attempt: AttemptStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """`GET /v1/tunnels/NAME/why`: the failure that stands explained, else the last one that is over.

    `error` is null if there was none. `mapping` is set when the failure concerns one mapping only. `tries`
    counts attempts since `since`.
    """

    tunnel: str
    state: Literal["down", "waiting", "connecting", "up", "unhealthy"]
    error: Fault | None = None
    mapping: str | None = None
    tries: int | None = None
    since: datetime | None = None
    explanation: Explanation | None = None
    standing: bool = False
    so_far: bool = False
    attempt: AttemptStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """`GET /v1/status`: the gateway and every configured tunnel, in the order of the configuration."""

    gateway: GatewayStatus
    tunnels: tuple[TunnelStatus, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelList:
    """`GET /v1/tunnels`: the tunnels that match, in the order of the configuration."""

    tunnels: tuple[TunnelStatus, ...]
    total: int
