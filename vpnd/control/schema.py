"""What the management API says, as pydantic models: status, tunnel, why, trace, events, problems.

The field names are the surface that other programs are written against: fields may be added, none is
renamed. Times are RFC 3339 (UTC); durations are whole seconds unless the name says `_ms`; byte and packet
counts are of inner packets. `null` means "there is none" or "not known", never zero.
"""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TunnelState = Literal["down", "waiting", "connecting", "up", "unhealthy"]
MappingState = Literal["down", "waiting", "connecting", "up"]
HealthState = Literal["unknown", "healthy", "unhealthy"]


class Model(BaseModel):
    """Immutable; an unknown field is a mistake of ours and is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


# -------------------------------------------------------------------------------------- status


class Fault(Model):
    """An error as status shows it: stable code, one line for people, when."""

    code: str = Field(examples=["E-PSK"])
    message: str
    at: datetime


class GatewayStatus(Model):
    """This machine."""

    name: str
    address: str
    version: str
    engine: str
    uptime_s: int
    type: Literal["vpc", "ccn"] | None = None
    vpc: str | None = None
    region: str | None = None


class PeerStatus(Model):
    """The other machine. `address` is the FQDN as it was written while it is not resolved.

    It is null while none of a peer of any address (`address = "any"`) is there.
    """

    address: str | None
    port: int | None = None
    vendor: str | None = None
    nat: bool = False


class IkeStatus(Model):
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


class MappingStatus(Model):
    """One mapping and its ESP SA pair; everything about the SA is null while there is none.

    `protocol` and the ports are null where the rule does not name them; ports are `443` or `1024-65535`.
    """

    local: str
    remote: str
    protocol: str | None = None
    local_port: str | None = None
    remote_port: str | None = None
    state: MappingState
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


class HealthStatus(Model):
    """The health check (NQA) of one tunnel; `local` and `remote` are the addresses it probes between.

    `sent` and `lost` count echo requests since the start; `loss_percent`, `rtt_ms` and `jitter_ms` are of
    the last 60. `lossy`: the path loses too much, and a tunnel that loses less carries the traffic.
    """

    state: HealthState
    sent: int = 0
    lost: int = 0
    rtt_ms: float | None = None
    jitter_ms: float | None = None
    loss_percent: float | None = None
    lossy: bool = False
    local: str | None = None
    remote: str | None = None


class DpdStatus(Model):
    """Dead peer detection: how long ago the peer was last heard, authenticated."""

    enabled: bool
    last_heard_s: int | None = None


class DropCounts(Model):
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


class TunnelStatus(Model):
    """One tunnel; `health` is null while the health check is off."""

    name: str
    state: TunnelState
    negotiation: Literal["active", "passive", "traffic-triggered"]
    priority: int
    description: str = ""
    carries_traffic: bool
    peer: PeerStatus
    ike: IkeStatus | None = None
    mappings: list[MappingStatus]
    health: HealthStatus | None = None
    dpd: DpdStatus
    drops: DropCounts = Field(default_factory=DropCounts)
    last_error: Fault | None = None


class Status(Model):
    """`GET /v1/status`: the gateway and every configured tunnel, in the order of the configuration."""

    gateway: GatewayStatus
    tunnels: list[TunnelStatus]


# -------------------------------------------------------------------------------------- tunnel


class HealthSample(Model):
    """One minute of the health check's history."""

    at: datetime
    sent: int
    lost: int
    rtt_ms: float | None = None
    jitter_ms: float | None = None


class TunnelDetail(TunnelStatus):
    """`GET /v1/tunnels/NAME`: the status entry, and what was configured.

    `configuration` is the tunnel's table as TOML would hold it with every default filled in and the key
    left out; `psk_fingerprint` stands for it. `ike_sas` lists more than one while a successor takes over.
    `errors` is newest last. `address_followed`: `gateway.address` is `auto`, and `local_address` that of the
    moment, or `auto` while there is none.
    """

    gateway: str
    customer_gateway: str
    local_address: str
    address_followed: bool = False
    local_id: str
    remote_id: str
    communication: Literal["destination-route", "spd-policy"]
    routes: list[str]
    interface: str
    mtu: int | None = None
    source: str
    from_api: bool = False
    psk_fingerprint: str
    ike_sas: list[IkeStatus] = Field(default_factory=list)
    errors: list[Fault] = Field(default_factory=list)
    retry_in_s: int | None = None
    health_history: list[HealthSample] = Field(default_factory=list)
    configuration: dict[str, Any]


# --------------------------------------------------------------------------------- why, trace


class ExplanationBody(Model):
    """A failure for people: what happened, what the peer said, what we have, what to change, what to try."""

    code: str
    what: str
    peer_said: str | None = None
    we_have: str | None = None
    also_possible: list[str] = Field(default_factory=list)
    change: str | None = None
    try_: list[str] = Field(default_factory=list, alias="try")


class Why(Model):
    """`GET /v1/tunnels/NAME/why`: the last failure explained; `error` is null if there was none.

    `mapping` is set when the failure concerns one mapping only. `tries` counts attempts since `since`.
    """

    tunnel: str
    state: TunnelState
    error: Fault | None = None
    mapping: str | None = None
    tries: int | None = None
    since: datetime | None = None
    explanation: ExplanationBody | None = None


class TraceLine(Model):
    """One IKE message: `text` in the RFC's notation, `detail` its decoded attributes, `size` in bytes."""

    at: datetime
    direction: Literal["out", "in"]
    text: str
    size: int
    detail: list[str] = Field(default_factory=list)


class Trace(Model):
    """`GET /v1/tunnels/NAME/trace`: the last IKE messages, oldest first."""

    tunnel: str
    lines: list[TraceLine]


# -------------------------------------------------------------------------------------- events


class Event(Model):
    """One state change. `event` is a stable word (`tunnel-up`); `text` for people; `code` of a fault.

    `id` is for `after` of a later request; null where nothing can be asked for after it.
    """

    id: str | None = None
    at: datetime
    tunnel: str | None = None
    event: str
    text: str
    code: str | None = None


# ------------------------------------------------------------------------------- configuration


class ProblemBody(Model):
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


class ReloadResult(Model):
    """What a reload did, by tunnel name. Nothing was changed if `applied` is false."""

    applied: bool
    added: list[str] = Field(default_factory=list)
    changed: list[str] = Field(default_factory=list)
    removed: list[str] = Field(default_factory=list)
    unchanged: list[str] = Field(default_factory=list)
    problems: list[ProblemBody] = Field(default_factory=list)


class ReloadProgress(Model):
    """Whether a configuration is being applied, at the start as well, and how many of its tunnels it has."""

    running: bool
    done: int
    total: int


class TunnelChange(Model):
    """What a PUT or DELETE did; `problems` holds the warnings of a PUT that was accepted."""

    tunnel: str
    change: Literal["created", "changed", "unchanged", "removed"]
    problems: list[ProblemBody] = Field(default_factory=list)


class MappingPreview(Model):
    """A mapping that a tunnel would have."""

    local: str
    remote: str


class TunnelCheck(Model):
    """What a PUT of this tunnel would say; nothing was changed. `ok`: it would be accepted.

    `spd_mappings` counts those of all spd-policy tunnels of the gateway with this one, of `max_spd_mappings`.
    """

    ok: bool
    problems: list[ProblemBody] = Field(default_factory=list)
    mappings: list[MappingPreview] = Field(default_factory=list)
    spd_mappings: int
    max_spd_mappings: int


class CustomerGatewayStatus(Model):
    """A customer gateway that has a name of its own, and the tunnels to it."""

    name: str
    address: str
    tunnels: list[str] = Field(default_factory=list)


class CustomerGateways(Model):
    """`GET /v1/customer-gateways`, in the order of the configuration."""

    customer_gateways: list[CustomerGatewayStatus]


class ActionResult(Model):
    """An action that was done: the tunnel's state after it."""

    tunnel: str
    action: Literal["up", "down", "reset", "rekey"]
    state: TunnelState


class RequestBody(Model):
    """What a client sends: `true` is no number, and text is neither."""

    model_config = ConfigDict(strict=True)


class SwitchRequest(RequestBody):
    """Body of `switch`. `group` is the name of one of its tunnels, or a route.

    `tunnel` is to carry the group's routes from now on; null: health and priority decide again.
    """

    group: str
    tunnel: str | None = None


class CarriedRoute(Model):
    """A route and the tunnel that carries it."""

    route: str
    tunnel: str


class GroupStatus(Model):
    """Tunnels that share routes, the preferred first; `by_hand` is the operator's choice, if there is one."""

    name: str
    tunnels: list[str]
    routes: list[CarriedRoute]
    by_hand: str | None = None


class UpRequest(RequestBody):
    """Body of `up`, `reset` and `rekey`: how long to wait for the peer, in seconds."""

    timeout_s: float = Field(default=30.0, gt=0, le=600)


class RekeyRequest(UpRequest):
    """Which SAs to replace; with neither set, both the IKE SA and the ESP SAs."""

    ike: bool = False
    child: bool = False


class ErrorBody(Model):
    """What went wrong with a request. `problems` are the configuration's, where that was the reason."""

    code: str
    message: str
    hint: str | None = None
    problems: list[ProblemBody] = Field(default_factory=list)


PROBLEM_TYPE = "urn:vpnd:error:"
"""What the code of an error stands behind in the type of its problem document."""


class ErrorResponse(Model):
    """The body of every answer with a status of 400 or more: a problem document (RFC 9457).

    `error` has it in vpnd's own terms.
    """

    type: str = Field(examples=[f"{PROBLEM_TYPE}E-UNKNOWN-TUNNEL"])
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    error: ErrorBody

    @classmethod
    def of(cls, status: int, error: ErrorBody) -> ErrorResponse:
        """The document of an error that is answered with this HTTP status."""
        title = HTTPStatus(status).phrase
        return cls(
            type=PROBLEM_TYPE + error.code, title=title, status=status, detail=error.message, error=error
        )
