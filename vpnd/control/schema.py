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

from vpnd.config.values import UNIT, MomentValue
from vpnd.translate.kinds import PeerKind

TunnelState = Literal["down", "waiting", "connecting", "up", "unhealthy"]
MappingState = Literal["down", "waiting", "connecting", "up"]
HealthState = Literal["unknown", "healthy", "unhealthy"]
Negotiation = Literal["active", "passive", "traffic-triggered"]
Role = Literal["read", "admin"]

NEVER = 2**53
"""Counts stay below: JavaScript's numbers are exact up to there."""


MOST_CAPTURED_SECONDS = 600.0
MOST_CAPTURED_BYTES = 256 * 1024 * 1024
"""Ours: of one capture; `vpnctl pcap` again gets more."""


def words(description: str, *examples: str | None, **more: Any) -> Any:
    """A field of text."""
    return Field(description=description, examples=list(examples) or None, **more)


def number(
    description: str,
    unit: str,
    example: float | None = 0,
    least: float = 0,
    most: float | None = None,
    **more: Any,
) -> Any:
    """A field of a number, with what it counts and its range, which nobody checks: we say it ourselves."""
    extra: dict[str, Any] = {UNIT: unit, "minimum": least}
    if most is not None:
        extra["maximum"] = most
    return Field(description=description, examples=[example], json_schema_extra=extra, **more)


def count(description: str, unit: str, example: int = 0) -> Any:
    """A field that counts, from 0 on."""
    return number(description, unit, example, 0, NEVER, default=0)


class Model(BaseModel):
    """Immutable; an unknown field is a mistake of ours and is refused. Validators are made on first use."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)


class RequestBody(Model):
    """What a client sends: `true` is no number, and text is neither. FastAPI needs the validator at once."""

    model_config = ConfigDict(strict=True, defer_build=False)


# -------------------------------------------------------------------------------------- status


class Fault(Model):
    """An error as status shows it: stable code, one line for people, when."""

    code: str = words("The stable code; E- is an error, W- a warning.", "E-PSK")
    message: str = words("One line for people.", "the peer refuses our key (AUTHENTICATION_FAILED)")
    at: datetime = words("When it happened.", "2026-03-01T14:02:11Z")


class GatewayStatus(Model):
    """This machine."""

    name: str = words("What the configuration calls this gateway.", "hq")
    address: str = words("The outer address; auto while it is not known.", "192.0.2.1")
    version: str = words("The version of vpnd.", "0.1.0")
    engine: str = words("What carries the packets.", "python")
    uptime_s: int = number("How long the daemon runs.", "seconds", 61)
    type: Literal["vpc", "ccn"] | None = words("A label: what the gateway belongs to.", "vpc", default=None)
    vpc: str | None = words("A label: the name of the VPC.", "vpc-1", default=None)
    region: str | None = words("A label: where the gateway is.", "eu-1", default=None)
    confirm_in_s: int | None = number(
        "Until the configuration goes back, unless it is confirmed; null: it is.", "seconds", 87, default=None
    )
    rolled_back: Fault | None = Field(
        None,
        description="Why the files differ from what runs, until the next apply or reload; null otherwise.",
    )


class GatewayDetail(GatewayStatus):
    """`GET /v1/gateway`: this machine, and where its labels are set."""

    source: str = words(
        "File and line of its table, or of its first label there.", "/etc/vpnd/vpnd.toml:1", default=""
    )
    from_api: bool = Field(
        False,
        description="Whether type, vpc and region can be set over the API: the file has none of them.",
        examples=[True],
    )


class PeerStatus(Model):
    """The other machine. `address` is the FQDN as it was written while it is not resolved.

    It is null while none of a peer of any address (`address = "any"`) is there.
    """

    address: str | None = words("The peer's outer address, or its name while that is all.", "198.51.100.1")
    port: int | None = number(
        "The peer's UDP port for IKE; null before it was heard.", "UDP port", 4500, 1, 65535, default=None
    )
    vendor: str | None = words("What the peer says that it is, where it does.", "strongSwan", default=None)
    nat: bool = Field(False, description="Whether there is a NAT between the two.", examples=[True])
    nat_at: Literal["here", "there", "both"] | None = words(
        "Who is behind the NAT: this machine, the peer (or it forces UDP), both.", "here", default=None
    )


class IkeStatus(Model):
    """The IKE SA that is in use. `spi_i` and `spi_r` are 16 hex digits."""

    version: Literal["ikev1", "ikev2"] = words("The version of IKE.", "ikev2")
    mode: Literal["main", "aggressive"] | None = words("The mode of phase 1, in IKEv1.", "main", default=None)
    spi_i: str = words("The initiator's SPI (in IKEv1 its cookie), 16 hex digits.", "81aaf615053ac3d0")
    spi_r: str = words("The responder's SPI, 16 hex digits.", "a7c74a3942a62381")
    encryption: str = words("The encryption algorithm.", "aes-128")
    integrity: str | None = words("The integrity algorithm; null with AEAD.", "sha256")
    dh_group: int | None = number("The Diffie-Hellman group.", "group number", 14, 1, 65535)
    age_s: int = number("How long there is this SA.", "seconds", 12)
    rekey_in_s: int | None = number(
        "Until it is replaced; null while that is under way, or is the peer's.", "seconds", 77000
    )
    expires_in_s: int = number("Until it ends at the latest.", "seconds", 86388)


class MappingStatus(Model):
    """One mapping and its ESP SA pair; everything about the SA is null while there is none.

    `protocol` and the ports are null where the rule does not name them; ports are `443` or `1024-65535`.
    """

    local: str = words("The range on this side, as a CIDR block.", "10.1.0.0/24")
    remote: str = words("The range behind the peer, as a CIDR block.", "10.2.0.0/24")
    protocol: str | None = words("Only this IP protocol: a word or a number.", "tcp", default=None)
    local_port: str | None = words("Only this port, or these, on this side.", "443", default=None)
    remote_port: str | None = words("Only this port, or these, at the peer.", "1024-65535", default=None)
    state: MappingState = words("What the mapping does.", "up")
    reason: Fault | None = Field(None, description="Why it is not up, where that is known.")
    spi_in: str | None = words("The SPI of what we receive, 8 hex digits.", "df39ebcd", default=None)
    spi_out: str | None = words("The SPI of what we send, 8 hex digits.", "46a1ff04", default=None)
    encryption: str | None = words("The encryption algorithm.", "aes-128", default=None)
    integrity: str | None = words("The integrity algorithm; null with AEAD.", "sha256", default=None)
    pfs: int | None = number(
        "The group of perfect forward secrecy; null without.", "group number", 14, 1, 65535, default=None
    )
    encapsulation: Literal["udp", "esp"] | None = words(
        "ESP in UDP, or as an IP protocol.", "udp", default=None
    )
    packets_in: int = count("Received with the present SAs.", "packets", 2)
    packets_out: int = count("Sent with the present SAs.", "packets", 2)
    bytes_in: int = count("Received with the present SAs.", "bytes", 168)
    bytes_out: int = count("Sent with the present SAs.", "bytes", 168)
    age_s: int | None = number("How long there are these SAs.", "seconds", 12, default=None)
    rekey_in_s: int | None = number(
        "Until they are replaced; null while that is under way, or is the peer's.",
        "seconds",
        3100,
        default=None,
    )
    expires_in_s: int | None = number("Until they end at the latest.", "seconds", 3588, default=None)


class HealthStatus(Model):
    """The health check (NQA) of one tunnel; `local` and `remote` are the addresses it probes between.

    `sent` and `lost` count echo requests since the start; `loss_percent`, `rtt_ms` and `jitter_ms` are of
    the last 60. `lossy`: the path loses too much, and a tunnel that loses less carries the traffic.
    """

    state: HealthState = words("The verdict; unknown before the first probes.", "healthy")
    sent: int = count("Probes since the start.", "probes", 12)
    lost: int = count("Of these, not answered in time.", "probes", 0)
    rtt_ms: float | None = number("Round trip, mean of the last 60.", "milliseconds", 0.7, default=None)
    jitter_ms: float | None = number(
        "Jitter (RFC 3550) of the last 60 probes.", "milliseconds", 0.1, default=None
    )
    loss_percent: float | None = number("Lost of the last 60 probes.", "percent", 0.0, most=100, default=None)
    lossy: bool = Field(False, description="Whether the path loses too much.", examples=[False])
    local: str | None = words("Where our probes come from.", "169.254.128.1", default=None)
    remote: str | None = words("Where our probes go to.", "169.254.128.2", default=None)


class DpdStatus(Model):
    """Dead peer detection: how long ago the peer was last heard, authenticated."""

    enabled: bool = Field(description="Whether a silent peer is asked for a sign of life.", examples=[True])
    last_heard_s: int | None = number(
        "Since the peer was last heard, authenticated; null: never.", "seconds", 3, default=None
    )


class DropCounts(Model):
    """Packets of this tunnel that went no further, by reason."""

    replay: int = count("Received twice, or older than the window.", "packets")
    integrity: int = count("Received with a wrong integrity check value.", "packets")
    policy: int = count("Outside the ranges of their SA, or of every mapping.", "packets")
    no_sa: int = count("Of an unknown SPI, or to be sent without an SA.", "packets")
    malformed: int = count("No IP packet, no ESP packet, or padded wrongly.", "packets")
    too_big: int = count("To be sent, and larger than the path carries.", "packets")
    lifetime: int = count("Beyond what the SA may carry.", "packets")
    ecn: int = count("Marks of congestion that do not fit (RFC 6040 section 4.2).", "packets")
    path: int = count("Received along another path than that of their SA.", "packets")
    send: int = count("Refused by the kernel: no route, no buffer.", "packets")


class AttemptStatus(Model):
    """An attempt of ours at an IKE SA that is under way."""

    since_s: int = number("How long it goes on.", "seconds", 8)
    sent: int = number("Messages that were sent.", "messages", 4)
    received: int = number("Messages that came.", "messages", 0)
    peer: str = words("Where it is sent to.", "198.51.100.1")
    port: int = number("The UDP port there.", "port", 500, 0, 65535)


class TunnelStatus(Model):
    """One tunnel; `health` is null while the health check is off."""

    name: str = words("The tunnel's name.", "branch-a")
    state: TunnelState = words("What the tunnel does.", "up")
    negotiation: Negotiation = words("Who begins.", "active")
    priority: int = number(
        "Of two tunnels with the same route the lower number carries it.", "rank", 0, most=65535
    )
    description: str = words("What the tunnel is for.", "the office in the north", default="")
    enabled: bool = Field(
        True,
        description="false: it stays down, by its configuration or by vpnctl disable.",
        examples=[True],
    )
    carries_traffic: bool = Field(
        description="Whether it carries the traffic of its routes now.", examples=[True]
    )
    peer: PeerStatus
    ike: IkeStatus | None = Field(None, description="The IKE SA that is in use; null without one.")
    mappings: list[MappingStatus] = Field(
        description="Each pair of ranges, as configured; a destination-route tunnel has one."
    )
    health: HealthStatus | None = Field(None, description="The health check; null while it is off.")
    dpd: DpdStatus
    drops: DropCounts = Field(default_factory=DropCounts)
    last_error: Fault | None = Field(None, description="What went wrong last; null if nothing did.")
    impaired: Fault | None = Field(
        None, description="Why traffic does not pass although the tunnel is up; null if it does."
    )
    attempt: AttemptStatus | None = Field(
        None, description="Our attempt at an IKE SA that is under way; null if there is none."
    )


class Status(Model):
    """`GET /v1/status`: the gateway and every configured tunnel, in the order of the configuration."""

    gateway: GatewayStatus
    tunnels: list[TunnelStatus] = Field(description="Those that match, within limit and offset.")
    total: int = number("How many tunnels match.", "tunnels", 2)


class TunnelList(Model):
    """`GET /v1/tunnels`: the tunnels that match, in the order of the configuration."""

    tunnels: list[TunnelStatus] = Field(description="Those that match, within limit and offset.")
    total: int = number("How many tunnels match.", "tunnels", 2)


# -------------------------------------------------------------------------------------- tunnel


class HealthSample(Model):
    """One minute of the health check's history."""

    at: datetime = words("The beginning of the minute.", "2026-03-01T14:02:00Z")
    sent: int = number("Probes of this minute.", "probes", 12)
    lost: int = number("Of these, not answered in time.", "probes", 0)
    rtt_ms: float | None = number(
        "Mean round trip; null if none was answered.", "milliseconds", 0.7, default=None
    )
    jitter_ms: float | None = number("Jitter (RFC 3550).", "milliseconds", 0.1, default=None)


class TunnelDetail(TunnelStatus):
    """`GET /v1/tunnels/NAME`: the status entry, and what was configured.

    `configuration` is the tunnel's table as TOML would hold it with every default filled in and the key
    left out; `psk_fingerprint` stands for it. `ike_sas` lists more than one while a successor takes over.
    `errors` is newest last. `address_followed`: `gateway.address` is `auto`, and `local_address` that of the
    moment, or `auto` while there is none.
    """

    gateway: str = words("The name of this gateway.", "hq")
    customer_gateway: str = words(
        "The name of the other machine, or that of the tunnel if it has none.", "branch"
    )
    local_address: str = words("Our outer address.", "192.0.2.1")
    address_followed: bool = Field(
        False, description="Whether the address is that of the default route.", examples=[False]
    )
    local_id: str = words("Who we say we are.", "192.0.2.1")
    remote_id: str = words("Who the peer has to be.", "gw.branch.example")
    communication: Literal["destination-route", "spd-policy"] = words(
        "What goes into the tunnel: by routes, or by rules.", "destination-route"
    )
    routes: list[str] = Field(
        description="Ranges behind the peer that are sent into the tunnel.", examples=[["10.2.0.0/16"]]
    )
    interface: str = words("The tunnel's interface.", "vpn-branch-a")
    mtu: int | None = number(
        "What an inner packet has at most; null while there is no interface.",
        "bytes",
        1400,
        576,
        65535,
        default=None,
    )
    source: str = words("File and line of the tunnel's table.", "/etc/vpnd/vpnd.toml:8")
    from_api: bool = Field(
        False, description="Whether it was made over the API, and can be changed there.", examples=[False]
    )
    psk_fingerprint: str = words("Eight hex digits that stand for the key.", "3f9a-77c1")
    ike_sas: list[IkeStatus] = Field(
        default_factory=list, description="Every IKE SA; more than one while a successor takes over."
    )
    errors: list[Fault] = Field(default_factory=list, description="The last errors, newest last.")
    retry_in_s: int | None = number(
        "Until the next attempt; null if none is due.", "seconds", 30, default=None
    )
    health_history: list[HealthSample] = Field(
        default_factory=list, description="The health check by the minute, newest last."
    )
    configuration: dict[str, Any] = Field(
        description="The tunnel's table with every default, without its key.",
        examples=[{"negotiation": "active", "routes": ["10.2.0.0/16"]}],
    )


class SettingStatus(Model):
    """One effective value of a tunnel. A fingerprint stands for a key."""

    key: str = words("The dotted key within the tunnel's table.", "ike.encryption")
    value: Any = Field(description="The value that is in force; null: none.", examples=[["aes-128"]])
    origin: Literal["file", "profile", "default", "derived"] = words(
        "What decided it: what was written, the profile, the default, or another value.", "file"
    )
    place: str | None = words(
        "File and line of what was written, or of the value that it is derived from; null: of nothing.",
        "/etc/vpnd/vpnd.toml:21",
        default=None,
    )


class TunnelSettings(Model):
    """`GET /v1/tunnels/NAME/settings`: every value that is in force, and where it comes from."""

    tunnel: str = words("The tunnel's name.", "branch-a")
    settings: list[SettingStatus] = Field(description="The values, in the order of the table.")


class TunnelExport(Model):
    """`GET /v1/tunnels/NAME/export`: the tunnel as a file that `vpnctl add` takes, without its key."""

    tunnel: str = words("The tunnel's name.", "branch-a")
    toml: str = words("The text of the file.", '[tunnels.branch-a]\nnegotiation = "active"\n')


class TunnelPeerConfig(Model):
    """`GET /v1/tunnels/NAME/peer-config?kind=KIND`: what to put on the peer, all but the key."""

    tunnel: str = words("The tunnel's name.", "branch-a")
    kind: PeerKind = words("What the peer is.", "strongswan")
    title: str = words("What that product is called.", "strongSwan (swanctl.conf)")
    configuration: str = words(
        "The text, with a placeholder and a fingerprint in place of the key.", "connections {\n ... }\n"
    )
    notes: list[str] = Field(
        description="What the peer's operator has to know; it stands in the text as well.",
        examples=[["Cisco IOS takes one PFS group: 14 is written, 19 left out."]],
    )


# ---------------------------------------------------------------------------------------- keys


class KeyUse(Model):
    """The key that one end has proved itself with last."""

    fingerprint: str = words("Eight hex digits that stand for the key.", "3f9a-77c1")
    since: datetime = Field(description="Since when it has used this key.", examples=["2026-11-29T12:00:00Z"])


class KeyRemark(Model):
    """What is probably wrong with a key; never a part of it."""

    code: str = words("Its stable code.", "W-PSK-SPACE")
    message: str = words("What it is.", "the key begins or ends with white space")
    hint: str = words("What to do.", "remove it, unless the peer has it too")


class KeyStatus(Model):
    """The pre-shared keys of one tunnel, as fingerprints, and which of them is in use.

    `ours` and `theirs` are what each end has proved itself with last, also before a restart; null: nothing
    was ever up. In IKEv1 they are the same.
    """

    tunnel: str = words("The tunnel's name.", "branch-a")
    current: str = words("The fingerprint of pre_shared_key.", "3f9a-77c1")
    next: str | None = words(
        "That of next_pre_shared_key; null: no key is being replaced.", "51b2-0e9d", default=None
    )
    retire_after: datetime | None = Field(
        None,
        description="When the current key ends by itself; null: when that is asked for.",
        examples=["2026-12-31T00:00:00Z"],
    )
    ours: KeyUse | None = Field(None, description="What this end uses.")
    theirs: KeyUse | None = Field(None, description="What the peer uses.")
    remarks: list[KeyRemark] = Field(default=[], description="What is probably wrong with the current key.")


class KeyList(Model):
    """`GET /v1/keys`: the keys of every tunnel."""

    keys: list[KeyStatus] = Field(description="The tunnels in the order of the configuration.")


class KeyRotation(Model):
    """A step in the replacement of a key, which was done, or what is to be written into a file for it."""

    tunnel: str = words("The tunnel's name.", "branch-a")
    done: bool = Field(description="Whether it is done; if not, `lines` say what to do.", examples=[True])
    lines: list[str] = Field(
        default=[],
        description="What to write, and where, for a tunnel that a file defines.",
        examples=[["# /etc/vpnd/vpnd.toml:12, in [tunnels.branch-a]"]],
    )
    keys: KeyStatus = Field(description="The keys after it.")


# --------------------------------------------------------------------------------- why, trace


class ConfiguredHere(Model):
    """A value that the failure is about: its key in the tunnel's table, and where it stands."""

    key: str = words("The key.", "ike.dh_group")
    value: Any = Field(
        None, description="Its value; a fingerprint in place of a pre-shared key.", examples=[[14]]
    )
    place: str | None = words(
        "`FILE:LINE` of the key, or of the table where it is left out; null for a tunnel of the API.",
        "/etc/vpnd/vpnd.toml:14",
        default=None,
    )
    written: bool = Field(True, description="Whether it is written there, or a default.", examples=[True])


class ExplanationBody(Model):
    """A failure for people: what happened, what the peer said, what we have, what to change, what to try."""

    code: str = words("The stable code of the failure.", "E-PSK")
    what: str = words("What happened.", "the two ends have different keys")
    peer_said: str | None = words("What the peer said.", "AUTHENTICATION_FAILED in IKE_AUTH", default=None)
    we_have: str | None = words(
        "What is configured here.", "the key with the fingerprint 3f9a-77c1", default=None
    )
    also_possible: list[str] = Field(
        default_factory=list, description="Other reasons that look the same.", examples=[["another identity"]]
    )
    change: str | None = words("What to change.", "give both ends the same key", default=None)
    try_: list[str] = Field(
        default_factory=list,
        alias="try",
        description="Commands that tell more.",
        examples=[["vpnctl psk fingerprint branch-a"]],
    )
    where: list[ConfiguredHere] = Field(
        default_factory=list, description="The values here that it is about, and where they stand."
    )


class Why(Model):
    """`GET /v1/tunnels/NAME/why`: the failure that stands explained, else the last one that is over.

    `error` is null if there was none. `mapping` is set when the failure concerns one mapping only. `tries`
    counts attempts since `since`.
    """

    tunnel: str = words("The tunnel's name.", "branch-a")
    state: TunnelState = words("What the tunnel does now.", "connecting")
    error: Fault | None = Field(None, description="The last failure; null if there was none.")
    mapping: str | None = words(
        "The mapping that it concerns, if not the whole tunnel.", "10.1.0.0/24 to 10.2.0.0/24", default=None
    )
    tries: int | None = number("Attempts that failed so.", "attempts", 6, 1, default=None)
    since: datetime | None = words("When the first of these failed.", "2026-03-01T14:02:11Z", default=None)
    explanation: ExplanationBody | None = Field(None, description="The failure for people.")
    standing: bool = Field(
        False, description="Whether it stands; false: it is over, or there was none.", examples=[True]
    )
    so_far: bool = Field(
        False,
        description="Whether it is what is known of an attempt that still goes on.",
        examples=[False],
    )
    attempt: AttemptStatus | None = Field(
        None, description="Our attempt that is under way; null if there is none."
    )


class TraceLine(Model):
    """One IKE message: `text` in the RFC's notation, `detail` its decoded attributes, `size` in bytes."""

    id: int = number("It only grows; for `after` of a later request.", "messages", 1772373731003, default=0)
    at: datetime = words("When it was sent or received.", "2026-03-01T14:02:11Z")
    direction: Literal["out", "in"] = words("Sent or received.", "out")
    text: str = words("The message in the RFC's notation.", "IKE_SA_INIT 0 {SA, KE, Ni}")
    size: int = number("Of the whole message.", "bytes", 420)
    detail: list[str] = Field(
        default_factory=list, description="Its decoded attributes.", examples=[["aes-128 sha256 modp2048"]]
    )


class Trace(Model):
    """`GET /v1/tunnels/NAME/trace`: the last IKE messages, oldest first."""

    tunnel: str = words("The tunnel's name.", "branch-a")
    lines: list[TraceLine] = Field(description="The messages, oldest first.")


class CaptureRequest(RequestBody):
    """Body of `POST /v1/tunnels/NAME/capture`: what is captured, and how much at most."""

    inner: bool = Field(True, description="The packets that go through the tunnel.")
    outer: bool = Field(True, description="ESP as it is on the wire.")
    ike: bool = Field(True, description="IKE messages, decrypted, in frames that were never sent.")
    seconds: float = Field(
        60.0,
        gt=0,
        le=MOST_CAPTURED_SECONDS,
        description="It ends after so long.",
        json_schema_extra={UNIT: "seconds"},
    )
    bytes: int = Field(
        16 * 1024 * 1024,
        ge=4096,
        le=MOST_CAPTURED_BYTES,
        description="It ends when the file is so large.",
        json_schema_extra={UNIT: "bytes"},
    )


class BundleFile(Model):
    """One file of a bundle: its path there, and its text."""

    name: str = words("Where it stands in the bundle.", "tunnels/branch-a/trace.json")
    text: str = words("What it holds.", "{}")


class Bundle(Model):
    """`GET /v1/bundle`: what support needs to know of a gateway, without a key."""

    files: list[BundleFile] = Field(description="The files, as a bundle holds them.")
    left_out: list[str] = Field(
        default=[], description="Tunnels for which there was no room.", examples=[["branch-z"]]
    )


# -------------------------------------------------------------------------------------- events


class Event(Model):
    """One state change. `event` is a stable word (`tunnel-up`); `text` for people; `code` of a fault.

    `id` is for `after` of a later request; null where nothing can be asked for after it. `by`: who
    has asked for a change over the API.
    """

    id: str | None = words("For `after` or Last-Event-ID of a later request.", "5f0c2a9e-17", default=None)
    at: datetime = words("When it happened.", "2026-03-01T14:02:11Z")
    tunnel: str | None = words("The tunnel that it concerns; null: the gateway.", "branch-a", default=None)
    event: str = words("A stable word for what happened.", "tunnel-up")
    text: str = words("One line for people.", "up with 198.51.100.1")
    code: str | None = words("The code of a fault.", "E-PSK", default=None)
    by: str | None = words(
        "Who has asked for a change: uid N over the socket, token NAME from ADDRESS over TCP.",
        "uid 0",
        default=None,
    )


# --------------------------------------------------------------------------------------- tokens


class TokenRequest(RequestBody):
    """Body of `POST /v1/tokens`."""

    name: str = words("What it is called in lists and events.", "monitoring")
    role: Role = words("read: it changes nothing; admin: it may do everything.", "read", default="read")


class TokenStatus(Model):
    """A token for the API over TCP, but for what it is."""

    name: str = words("What it is called in lists and events.", "monitoring")
    role: Role = words("read: it changes nothing; admin: it may do everything.", "read")
    created: datetime = words("When it was made.", "2026-03-01T14:02:11Z")


class TokenList(Model):
    """`GET /v1/tokens`, by name."""

    tokens: list[TokenStatus] = Field(description="Every token that is valid.")


class TokenCreated(Model):
    """A new token. It is shown here and never again."""

    name: str = words("What it is called in lists and events.", "monitoring")
    role: Role = words("read: it changes nothing; admin: it may do everything.", "read")
    token: str = words("The token, for the header Authorization: Bearer TOKEN.", "vpnd_...")


class TokenRevoked(Model):
    """A token that is of no use any more."""

    name: str = words("What it was called.", "monitoring")
    revoked: Literal[True] = Field(True, description="It is of no use any more.", examples=[True])


# ------------------------------------------------------------------------------- configuration


class ProblemBody(Model):
    """One finding of the configuration check; `line` is 1-based, null where there is none (the API).

    `key` is the dotted path of the value: `tunnels.branch-a.ike.encryption[0]`.
    """

    file: str = words("The file, or request for what was sent.", "/etc/vpnd/vpnd.toml")
    line: int | None = number("The line in the file; null where there is none.", "line", 12, 1)
    code: str = words("The stable code.", "E-VALUE")
    severity: Literal["error", "warning"] = words(
        "An error keeps the configuration from being used.", "error"
    )
    message: str = words("What is wrong.", '"aes128" is not an encryption algorithm')
    hint: str | None = words("What to write instead.", 'did you mean "aes-128"?', default=None)
    key: str | None = words(
        "The dotted path of the value.", "tunnels.branch-a.ike.encryption[0]", default=None
    )


def _problems(description: str) -> Any:
    return Field(default_factory=list, description=description)


def _names(description: str, *examples: str) -> Any:
    return Field(default_factory=list, description=description, examples=[list(examples)])


class ReloadResult(Model):
    """What a reload did, by tunnel name. Nothing was changed if `applied` is false."""

    applied: bool = Field(description="Whether the configuration is in force.", examples=[True])
    added: list[str] = _names("Tunnels that are new.", "branch-c")
    changed: list[str] = _names("Tunnels that have changed.", "branch-a")
    removed: list[str] = _names("Tunnels that are gone.")
    unchanged: list[str] = _names("Tunnels that were not touched.", "branch-b")
    problems: list[ProblemBody] = _problems("Warnings of the configuration.")


class ReloadProgress(Model):
    """Whether a configuration is being applied, at the start as well, and how many of its tunnels it has."""

    running: bool = Field(description="Whether a configuration is being applied.", examples=[True])
    done: int = number("Tunnels that are as configured.", "tunnels", 12)
    total: int = number("Tunnels that the change touches.", "tunnels", 200)


ChangeClass = Literal["live", "next start", "next SA", "rekey", "new IKE SA", "interface", "break"]


def _class() -> Any:
    return Field(
        alias="class",
        description="What it costs, the cheapest first: in place; from the next rekey on; successors of the"
        " ESP SAs; a new IKE SA before the old one goes; the interface renamed; DELETE and all again.",
        examples=["next SA"],
    )


class KeyChangeBody(Model):
    """One key of the configuration that changes. Fingerprints stand for keys."""

    key: str = words("The dotted key within the tunnel's table, or in the file.", "ike.lifetime")
    before: Any = Field(description="The effective value before; null: none.", examples=[86400])
    after: Any = Field(description="The effective value after; null: none.", examples=[28800])
    class_: ChangeClass = _class()


class TunnelPlan(Model):
    """What becomes of one tunnel, and what that costs."""

    tunnel: str = words("The tunnel's name.", "branch-a")
    change: Literal["added", "changed", "removed"] = words("What becomes of it.", "changed")
    class_: ChangeClass = _class()
    cost: str = words("What it costs, for people.", "nothing: applied in place")
    keys: list[KeyChangeBody] = Field(
        default_factory=list, description="The keys that change; none for a tunnel that comes or goes."
    )
    mappings_added: int = count("Mappings that come.", "mappings")
    mappings_removed: int = count("Mappings that go.", "mappings")
    mappings_kept: int = count("Mappings that keep their SAs, as far as the class allows.", "mappings")


class Plan(Model):
    """`GET /v1/plan`: what the candidate, or an older configuration, would change. Nothing was changed."""

    gateway: list[KeyChangeBody] = Field(
        default_factory=list, description="Keys of the gateway's own tables that change."
    )
    tunnels: list[TunnelPlan] = Field(description="The tunnels that change.")
    unchanged: list[str] = _names("Tunnels that are not touched.", "branch-b")
    problems: list[ProblemBody] = _problems("Warnings of the configuration.")


class PlanRequest(RequestBody):
    """Body of `plan`: with `back`, what `rollback` by so many would do; without, what `apply` would."""

    back: int | None = number(
        "So many configurations before the one that runs; null: the files.",
        "configurations",
        1,
        1,
        19,
        default=None,
        ge=1,
        le=19,
    )


class ApplyRequest(RequestBody):
    """Body of `apply`: after `confirm_s` the confirmed configuration comes back, unless `confirm` came."""

    confirm_s: float | None = number(
        "How long to wait for `confirm`; null: it is confirmed at once.",
        "seconds",
        120,
        1,
        86400,
        default=None,
        ge=1,
        le=86400,
    )


class RollbackRequest(RequestBody):
    """Body of `rollback`: without `back` the confirmed configuration, or, if that runs, the one before."""

    back: int | None = number(
        "So many configurations before the one that runs.",
        "configurations",
        1,
        1,
        19,
        default=None,
        ge=1,
        le=19,
    )


class Applied(Plan):
    """What `apply` or `rollback` did; `configuration` is the number of what is in force now."""

    configuration: int | None = number(
        "The number of what is in force; null: it could not be kept.", "number", 17, 1, default=None
    )
    confirm_in_s: float | None = number(
        "How long it waits for `confirm`; null: it is confirmed.", "seconds", 120, default=None
    )


class Confirmed(Model):
    """What `confirm` did."""

    configuration: int = number("The number of what is confirmed now.", "number", 17, 1)


class KeptConfiguration(Model):
    """A configuration that is kept: without keys, which are never rolled back."""

    configuration: int = number("Its number.", "number", 17, 1)
    back: int = number("So many before the one that runs: what `rollback` takes.", "configurations", 0)
    at: datetime = words("When it was put in force.", "2026-03-01T14:02:11Z")
    what: str = words("What brought it.", "apply")
    running: bool = Field(description="Whether it is in force.", examples=[True])
    confirmed: bool = Field(description="Whether it is the confirmed one.", examples=[True])


class Configurations(Model):
    """`GET /v1/configurations`: those that are kept, the one that runs first."""

    configurations: list[KeptConfiguration] = Field(description="At most 20.")


class TunnelChange(Model):
    """What a PUT or DELETE did; `problems` holds the warnings of a PUT that was accepted."""

    tunnel: str = words("The tunnel's name.", "branch-a")
    change: Literal["created", "changed", "unchanged", "removed"] = words("What became of it.", "created")
    problems: list[ProblemBody] = _problems("Warnings of the tunnel.")


class MappingPreview(Model):
    """A mapping that a tunnel would have."""

    local: str = words("The range on this side, as a CIDR block.", "10.1.0.0/24")
    remote: str = words("The range behind the peer, as a CIDR block.", "10.2.0.0/24")


class TunnelCheck(Model):
    """What a PUT of this tunnel would say; nothing was changed. `ok`: it would be accepted.

    `spd_mappings` counts those of all spd-policy tunnels of the gateway with this one, of `max_spd_mappings`.
    """

    ok: bool = Field(description="Whether a PUT would be accepted.", examples=[True])
    problems: list[ProblemBody] = _problems("Errors, and warnings of this tunnel.")
    mappings: list[MappingPreview] = Field(
        default_factory=list, description="The mappings that it would have."
    )
    spd_mappings: int = number("Mappings of all spd-policy tunnels with this one.", "mappings", 12)
    max_spd_mappings: int = number("How many there may be.", "mappings", 200)


class CustomerGatewayStatus(Model):
    """A customer gateway that has a name of its own, and the tunnels to it."""

    name: str = words("Its name, by which tunnels refer to it.", "branch")
    address: str = words("IP address, domain name, or any for a peer that begins.", "198.51.100.1")
    tunnels: list[str] = _names("The tunnels that name it, in the order of the configuration.", "branch-a")
    source: str = words("File and line of its table.", "/etc/vpnd/vpnd.toml:5", default="")
    from_api: bool = Field(
        False, description="Whether it was made over the API, and can be changed there.", examples=[False]
    )


class CustomerGateways(Model):
    """`GET /v1/customer-gateways`, in the order of the configuration."""

    customer_gateways: list[CustomerGatewayStatus] = Field(
        description="Those that match, within limit and offset."
    )
    total: int = number("How many match.", "customer gateways", 1)


class CustomerGatewayChange(Model):
    """What a PUT or DELETE of a customer gateway did.

    `tunnels` are those that are negotiated again because of it.
    """

    customer_gateway: str = words("Its name.", "branch")
    change: Literal["created", "changed", "unchanged", "removed"] = words("What became of it.", "created")
    tunnels: list[str] = _names("The tunnels that changed with it.", "branch-a")
    problems: list[ProblemBody] = _problems("Warnings of the customer gateway and of its tunnels.")


class GatewayChange(Model):
    """What a PUT of the gateway's labels did; no tunnel is touched by it."""

    change: Literal["changed", "unchanged"] = words("What became of them.", "changed")
    problems: list[ProblemBody] = _problems("Warnings of the labels.")


class ActionResult(Model):
    """An action that was done: the tunnel's state after it."""

    tunnel: str = words("The tunnel's name.", "branch-a")
    action: Literal["up", "down", "reset", "rekey", "disable", "enable"] = words("What was done.", "up")
    state: TunnelState = words("What the tunnel does now.", "up")


class SwitchRequest(RequestBody):
    """Body of `switch`. `group` is the name of one of its tunnels, or a route.

    `tunnel` is to carry the group's routes from now on; null: health and priority decide again.
    """

    group: str = words("One of the group's tunnels, or a route.", "branch-a")
    tunnel: str | None = words(
        "Which tunnel carries the routes from now on; null: health and priority decide.",
        "branch-b",
        default=None,
    )


class CarriedRoute(Model):
    """A route and the tunnel that carries it."""

    route: str = words("The range, as a CIDR block.", "10.2.0.0/16")
    tunnel: str = words("The tunnel's name; empty while none can carry it.", "branch-a")


class GroupStatus(Model):
    """Tunnels that share routes, the preferred first; `by_hand` is the operator's choice, if there is one."""

    name: str = words("The group's name: its preferred tunnel.", "branch-a")
    tunnels: list[str] = Field(
        description="Its tunnels, the preferred first.", examples=[["branch-a", "branch-b"]]
    )
    routes: list[CarriedRoute] = Field(description="The routes that they share.")
    by_hand: str | None = words(
        "The tunnel that an operator has chosen; null: none.", "branch-b", default=None
    )


class UpRequest(RequestBody):
    """Body of `up`, `reset` and `rekey`: how long to wait for the peer, in seconds."""

    timeout_s: float = Field(
        default=30.0,
        gt=0,
        le=600,
        description="How long to wait for the peer.",
        examples=[30],
        json_schema_extra={UNIT: "seconds"},
    )


class RotateRequest(UpRequest):
    """Which step in the replacement of a key. Each end takes them at its own time.

    `begin`: `key` is accepted beside the current one. `prove`: authenticate with it, beside what there is.
    `finish`: it is the only key. `cancel`: it is forgotten.
    """

    step: Literal["begin", "prove", "finish", "cancel"] = words("What to do.", "begin", default="begin")
    key: str | None = words(
        "The next key, `plain:TEXT`; only `begin` takes one.", "plain:TEXT", default=None, repr=False
    )
    retire_after: MomentValue | None = Field(
        None,
        description="When the current key ends by itself; with `begin`. Null: when `finish` is asked for.",
        examples=["2026-12-31T00:00:00Z"],
    )
    force: bool = Field(
        False, description="`finish` although the peer was not seen with the next key.", examples=[False]
    )


class RekeyRequest(UpRequest):
    """Which SAs to replace; with neither set, both the IKE SA and the ESP SAs."""

    ike: bool = Field(False, description="Replace the IKE SA.", examples=[False])
    child: bool = Field(False, description="Replace the ESP SAs.", examples=[True])


# --------------------------------------------------------------------------------------- errors


class ErrorBody(Model):
    """What went wrong with a request. `problems` are the configuration's, where that was the reason."""

    code: str = words("The stable code.", "E-UNKNOWN-TUNNEL")
    message: str = words("One line for people.", "no tunnel is called 'nobody'")
    hint: str | None = words("What to change or to try.", "configured: branch-a, branch-b", default=None)
    problems: list[ProblemBody] = _problems(
        "The findings of the configuration check, where they are the reason."
    )


PROBLEM_TYPE = "urn:vpnd:error:"
"""What the code of an error stands behind in the type of its problem document."""


class ErrorResponse(Model):
    """The body of every answer with a status of 400 or more: a problem document (RFC 9457).

    `error` has it in vpnd's own terms.
    """

    type: str = words("The kind of error: urn:vpnd:error: with its code.", f"{PROBLEM_TYPE}E-UNKNOWN-TUNNEL")
    title: str = words("The words of the HTTP status.", "Not Found")
    status: int = Field(
        ge=400,
        le=599,
        description="The HTTP status.",
        examples=[404],
        json_schema_extra={UNIT: "HTTP status"},
    )
    detail: str = words("One line for people.", "no tunnel is called 'nobody'")
    error: ErrorBody

    @classmethod
    def of(cls, status: int, error: ErrorBody) -> ErrorResponse:
        """The document of an error that is answered with this HTTP status."""
        title = HTTPStatus(status).phrase
        return cls(
            type=PROBLEM_TYPE + error.code, title=title, status=status, detail=error.message, error=error
        )
