"""The shape of the TOML file, as pydantic models: every key, its values and its default.

A value is checked by itself here and in `values`; what concerns several values is in `rules`. The models
are strict, so a number in quotes is an error and not a number. `load` translates pydantic's own errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from vpnd.config.values import (
    MAX_DESCRIPTION,
    MAX_TUNNEL_NAME,
    UNIT,
    AddressValue,
    EncryptionWords,
    GroupNumbers,
    IdentityText,
    IntegrityWords,
    Lifetime,
    ListenValue,
    MomentValue,
    NetworkValue,
    OwnAddressValue,
    PfsGroups,
    PortsText,
    ProtocolWord,
    RekeyFuzz,
    RekeyMargin,
    ReplayWindow,
    address_or_name,
    interface_name,
    label,
    one_line,
    one_of_numbers,
    word,
)
from vpnd.model.numbers import DEFAULT_NUMBERS, SM3_ICV_LENGTHS
from vpnd.model.policy import DEFAULT_REPLAY_WINDOW

DEFAULT_LIFETIME_KB = 1_843_200
"""KB that an ESP SA carries (specification: the console's value)."""


# -------------------------------------------------------------------------------------- tables


class Table(BaseModel):
    """A table of the file: strict, immutable, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


TypeLabel = Annotated[
    Literal["vpc", "ccn"] | None,
    word("a gateway type", "vpc", "ccn"),
    Field(description="A label that status shows: what the gateway belongs to."),
]
Label = Annotated[
    str, AfterValidator(label), WithJsonSchema({"type": "string", "maxLength": MAX_DESCRIPTION})
]
VpcLabel = Annotated[Label | None, Field(description="A label: the name of the VPC, for type vpc.")]
RegionLabel = Annotated[Label | None, Field(description="A label: where the gateway is.")]


class GatewayLabels(Table):
    """What the API may set of the gateway, where the file says none of it: labels, which status shows."""

    type: TypeLabel = None
    vpc: VpcLabel = None
    region: RegionLabel = None


class GatewayTable(Table):
    """`[gateway]`: the VPN gateway, this machine. `type`, `vpc` and `region` are labels."""

    name: Annotated[
        str, Field(min_length=1, max_length=MAX_TUNNEL_NAME, description="What status calls this gateway.")
    ]
    address: Annotated[
        OwnAddressValue,
        Field(
            description='The outer address. "auto": the address of the default route\'s interface, followed'
            " when it changes; set ike.local_id then, since the default local identity changes with it."
        ),
    ]
    type: TypeLabel = None
    vpc: VpcLabel = None
    region: RegionLabel = None
    max_tunnels: Annotated[
        int, Field(ge=1, le=10_000, description="The quota: how many tunnels may be configured.")
    ] = 1000
    engine: Annotated[
        Literal["auto", "native", "python"],
        word("an engine", "auto", "native", "python"),
        Field(
            description="What carries the packets, from the next start on: the native engine, which has a"
            " package of its own (vpnd[native]), the one in Python, or auto: the native one where it is"
            " installed."
        ),
    ] = "auto"
    capture: Annotated[
        Literal["root", "admin"],
        word("who captures", "root", "admin"),
        Field(
            description="Who may capture what a tunnel carries (`vpnctl pcap`): root alone, or also who may"
            " change things over the socket, the group vpnd."
        ),
    ] = "root"


class MetricsTable(Table):
    """`[metrics]`: what Prometheus reads, at `http://ADDRESS:PORT/metrics`; without it on the socket only."""

    listen: Annotated[
        ListenValue,
        Field(
            description="An IP address and a TCP port. There is no password: anyone who reaches it reads the"
            " tunnels' names, ranges and traffic."
        ),
    ]


class ApiTable(Table):
    """`[api]`: the API over TCP, with TLS and tokens of `vpnctl token`; without it on the socket only."""

    listen: Annotated[ListenValue, Field(description="An IP address and a TCP port.")]
    certificate: Annotated[
        str,
        Field(
            min_length=1, description="The certificate for TLS with its chain: a PEM file, read at reload."
        ),
    ]
    key: Annotated[
        str,
        Field(min_length=1, description="Its key: a PEM file without a password, which others cannot read."),
    ]


class CustomerGatewayTable(Table):
    """`[customer_gateways.NAME]`: the other machine, by IP address or FQDN.

    `address = "any"`: it begins, from wherever it is, and is known by its `remote_id`.
    """

    address: Annotated[
        str,
        BeforeValidator(address_or_name),
        Field(
            description='An IP address; a domain name, looked up for each attempt; or "any" for a peer that'
            " begins from wherever it is, and is known by remote_id."
        ),
    ]


class SpdTable(Table):
    """`[[tunnels.NAME.spd]]`: one rule; each local with each remote range is a mapping.

    `protocol` and the ports, where they are given, narrow all of them.
    """

    local: Annotated[
        list[NetworkValue], Field(min_length=1, description="Ranges on this side, as CIDR blocks.")
    ]
    remote: Annotated[
        list[NetworkValue], Field(min_length=1, description="Ranges behind the peer, as CIDR blocks.")
    ]
    protocol: Annotated[
        ProtocolWord | None,
        Field(description="Only packets of this IP protocol: a word such as tcp, or a number."),
    ] = None
    local_port: Annotated[
        PortsText | None, Field(description='Only packets with this port, or one of "FROM-TO", on this side.')
    ] = None
    remote_port: Annotated[
        PortsText | None, Field(description='Only packets with this port, or one of "FROM-TO", at the peer.')
    ] = None


class IkeTable(Table):
    """`[tunnels.NAME.ike]`. `lifetime` in seconds."""

    version: Annotated[
        Literal["ikev1", "ikev2"],
        word("an IKE version", "ikev1", "ikev2"),
        Field(description="The version that both ends speak."),
    ] = "ikev2"
    negotiation_mode: Annotated[
        Literal["main", "aggressive"],
        word("a negotiation mode", "main", "aggressive"),
        Field(description="For IKEv1: aggressive mode is weak, and for peers that have nothing else."),
    ] = "main"
    encryption: EncryptionWords = ["aes-128"]
    integrity: IntegrityWords = ["sha256"]
    dh_group: Annotated[
        GroupNumbers, Field(description="Diffie-Hellman groups by number, the preferred first.")
    ] = [14]
    local_id: Annotated[
        IdentityText | None,
        Field(description="Who we say we are: an IP address (left out: the gateway's) or a domain name."),
    ] = None
    remote_id: Annotated[
        IdentityText | None,
        Field(
            description="Who the peer has to be: an IP address (left out: the customer gateway's), a domain"
            ' name, or "@TEXT" for an FQDN that looks like something else.'
        ),
    ] = None
    lifetime: Annotated[Lifetime, Field(description="How long an IKE SA may be used.")] = 86400
    rekey_margin: RekeyMargin = 10
    rekey_fuzz: RekeyFuzz = 100


class IpsecTable(Table):
    """`[tunnels.NAME.ipsec]`: ESP tunnel mode. `lifetime` in seconds, `lifetime_kb` in KB, 0: no limit."""

    encryption: EncryptionWords = ["aes-128"]
    integrity: IntegrityWords = ["sha256"]
    pfs: Annotated[
        PfsGroups,
        Field(
            description='"disable" or DH groups. With "disable" a peer that asks for the group of the IKE SA,'
            " or for one of ike.dh_group, gets it, and W-PFS says so; a rekey that the peer refuses is tried"
            " once with the group of the IKE SA."
        ),
    ] = []
    lifetime: Annotated[Lifetime, Field(description="How long an ESP SA may be used.")] = 3600
    lifetime_kb: Annotated[
        int,
        Field(
            ge=0,
            le=2**40,
            description="What an ESP SA carries at most; 0: no limit.",
            json_schema_extra={UNIT: "KB"},
        ),
    ] = DEFAULT_LIFETIME_KB
    encapsulation: Annotated[
        Literal["auto", "udp"],
        word("an encapsulation", "auto", "udp"),
        Field(description="ESP in UDP always, or only where there is a NAT on the way."),
    ] = "auto"
    rekey_margin: RekeyMargin = 10
    rekey_fuzz: RekeyFuzz = 100
    esn: Annotated[
        Literal["auto", "yes", "no"],
        word("a choice of sequence numbers", "auto", "yes", "no"),
        Field(description="Extended sequence numbers, in IKEv2; auto: where the peer has them."),
    ] = "auto"
    replay_window: ReplayWindow = DEFAULT_REPLAY_WINDOW
    sha256_96: Annotated[
        bool, Field(description="96 bits of HMAC-SHA-256 in ESP, for old peers that cut it so.")
    ] = False


class DpdTable(Table):
    """`[tunnels.NAME.dpd]`. `timeout` in seconds."""

    enabled: Annotated[bool, Field(description="Ask a silent peer for a sign of life.")] = True
    timeout: Annotated[
        int,
        Field(
            ge=10,
            le=3600,
            description="Silence after which the peer is dead; usual: 30 to 60.",
            json_schema_extra={UNIT: "seconds"},
        ),
    ] = 30
    action: Annotated[
        Literal["disconnect", "retry"],
        word("a DPD action", "disconnect", "retry"),
        Field(
            description="retry: connect again; disconnect: cleared, until the peer, traffic"
            " (traffic-triggered), vpnctl up or a start of vpnd brings it back."
        ),
    ] = "retry"


class HealthCheckTable(Table):
    """`[tunnels.NAME.health_check]` (NQA). Without `local` or `remote` an address is assigned."""

    enabled: Annotated[bool, Field(description="Send probes through the tunnel.")] = False
    local: Annotated[
        AddressValue | None, Field(description="Where our probes come from; assigned if left out.")
    ] = None
    remote: Annotated[
        AddressValue | None, Field(description="Where our probes go to; assigned if left out.")
    ] = None
    interval_ms: Annotated[
        int,
        Field(
            ge=1000,
            le=5000,
            description="From one probe to the next.",
            json_schema_extra={UNIT: "milliseconds"},
        ),
    ] = 5000
    timeout_ms: Annotated[
        int,
        Field(
            ge=10,
            le=5000,
            description="How long a reply may take.",
            json_schema_extra={UNIT: "milliseconds"},
        ),
    ] = 150
    failures: Annotated[
        int,
        Field(
            ge=3,
            le=8,
            description="Lost in a row, and the tunnel is unhealthy: business traffic is interrupted.",
            json_schema_extra={UNIT: "probes"},
        ),
    ] = 3
    recoveries: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="Answered in a row, and the tunnel is healthy again.",
            json_schema_extra={UNIT: "probes"},
        ),
    ] = 3


PrivateNumber = Annotated[int, Field(ge=1, le=65535, json_schema_extra={UNIT: "registry number"})]


class SmNumbersTable(Table):
    """`[tunnels.NAME.sm_numbers]`: what this peer calls SM4 and SM3, which have no registered numbers.

    `sm3_icv_length` is in bytes: what is left of HMAC-SM3 on the wire.
    """

    sm4_ikev1_phase1: Annotated[
        PrivateNumber, Field(description="SM4 as an encryption algorithm of IKEv1 phase 1.")
    ] = DEFAULT_NUMBERS.sm4_ikev1_phase1
    sm4_ikev1_esp: Annotated[
        int,
        Field(
            ge=1,
            le=255,
            description="SM4 as a transform of ESP in IKEv1.",
            json_schema_extra={UNIT: "registry number"},
        ),
    ] = DEFAULT_NUMBERS.sm4_ikev1_esp
    sm4_ikev2: Annotated[PrivateNumber, Field(description="SM4 as an encryption algorithm of IKEv2.")] = (
        DEFAULT_NUMBERS.sm4_ikev2
    )
    sm3_ikev1_hash: Annotated[PrivateNumber, Field(description="SM3 as a hash of IKEv1 phase 1.")] = (
        DEFAULT_NUMBERS.sm3_ikev1_hash
    )
    sm3_ikev1_esp: Annotated[
        PrivateNumber, Field(description="HMAC-SM3 as an authentication algorithm of ESP in IKEv1.")
    ] = DEFAULT_NUMBERS.sm3_ikev1_esp
    sm3_ikev2_integ: Annotated[
        PrivateNumber, Field(description="HMAC-SM3 as an integrity algorithm of IKEv2.")
    ] = DEFAULT_NUMBERS.sm3_ikev2_integ
    sm3_ikev2_prf: Annotated[PrivateNumber, Field(description="HMAC-SM3 as a PRF of IKEv2.")] = (
        DEFAULT_NUMBERS.sm3_ikev2_prf
    )
    sm3_icv_length: Annotated[
        int,
        one_of_numbers(SM3_ICV_LENGTHS),
        Field(
            description="What is left of HMAC-SM3 on the wire.",
            json_schema_extra={UNIT: "bytes", "enum": list(SM3_ICV_LENGTHS)},
        ),
    ] = DEFAULT_NUMBERS.sm3_icv_length


class TunnelTable(Table):
    """`[tunnels.NAME]`."""

    customer_gateway: Annotated[
        str,
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, CustomerGatewayTable.model_json_schema()]},
        ),
        Field(description="The name of the other machine in [customer_gateways], or that table itself."),
    ]
    pre_shared_key: Annotated[
        str,
        Field(
            repr=False,
            description='The key that both ends have: "file:PATH", "credential:NAME" for one of systemd\'s,'
            ' or "plain:TEXT" in a file that others cannot read.',
        ),
    ]
    next_pre_shared_key: Annotated[
        str | None,
        Field(
            repr=False,
            description="The key that takes the place of pre_shared_key, in the same forms. While both stand"
            " here both are accepted, so that each end may be changed at its time.",
        ),
    ] = None
    retire_after: Annotated[
        MomentValue | None,
        Field(
            description="When pre_shared_key ends by itself and next_pre_shared_key is the only key;"
            " never, if left out.",
            examples=["2026-12-31T00:00:00Z"],
        ),
    ] = None
    negotiation: Annotated[
        Literal["active", "passive", "traffic-triggered"],
        word("a negotiation type", "active", "passive", "traffic-triggered"),
        Field(description="Who begins: this end, the peer alone, or this end when there is traffic."),
    ] = "active"
    communication: Annotated[
        Literal["destination-route", "spd-policy"],
        word("a communication mode", "destination-route", "spd-policy"),
        Field(
            description="What goes into the tunnel: whatever routes lead to its interface, or what a rule of"
            " [[tunnels.NAME.spd]] names."
        ),
    ] = "destination-route"
    routes: Annotated[
        list[NetworkValue],
        Field(description='Ranges behind the peer that are sent into the tunnel; ["0.0.0.0/0"]: everything.'),
    ] = []
    priority: Annotated[
        int,
        Field(
            ge=0,
            le=65535,
            description="Of two tunnels with the same route the lower number carries it.",
            json_schema_extra={UNIT: "rank"},
        ),
    ] = 0
    interface: Annotated[
        Annotated[str, AfterValidator(interface_name)] | None,
        Field(description="The name of the tunnel's interface; made from the tunnel's name if left out."),
    ] = None
    profile: Annotated[
        Literal["default", "tencent-cloud"],
        word("a profile", "default", "tencent-cloud"),
        Field(description="Which defaults apply to what is left out."),
    ] = "default"
    description: Annotated[
        str,
        AfterValidator(one_line),
        WithJsonSchema({"type": "string", "maxLength": MAX_DESCRIPTION}),
        Field(description="What the tunnel is for: free text, shown in status."),
    ] = ""
    enabled: Annotated[
        bool, Field(description="false: it is down, and stays so; vpnctl disable does the same.")
    ] = True
    diagnose: Annotated[
        Literal["auto", "all", "off"],
        word("a way to diagnose", "auto", "all", "off"),
        Field(
            description="auto: a peer that refuses twice is asked which of the configured algorithms it takes"
            " alone, who it is and which IKE version it speaks, by attempts that come to nothing, at most"
            " once in 10 minutes and only while the tunnel has no SA; all: also for algorithms that are not"
            " configured; off: it never is."
        ),
    ] = "auto"
    mtu: Annotated[
        int | None,
        Field(
            ge=576,
            le=9000,
            description="An inner packet at most; computed if left out.",
            json_schema_extra={UNIT: "bytes"},
        ),
    ] = None
    mss: Annotated[
        int | None,
        Field(
            ge=256,
            le=8960,
            description="A TCP segment at most; computed if left out.",
            json_schema_extra={UNIT: "bytes"},
        ),
    ] = None
    spd: list[SpdTable] = []
    ike: IkeTable = IkeTable()
    ipsec: IpsecTable = IpsecTable()
    dpd: DpdTable = DpdTable()
    health_check: HealthCheckTable = HealthCheckTable()
    sm_numbers: SmNumbersTable = SmNumbersTable()


TOP_LEVEL_KEYS = ("gateway", "customer_gateways", "tunnels", "metrics", "api")

PROFILES: Mapping[str, Mapping[str, Mapping[str, object]]] = {
    "default": {},
    "tencent-cloud": {
        "ike": {
            "version": "ikev1",
            "negotiation_mode": "main",
            "encryption": "aes-128",
            "integrity": "md5",
            "dh_group": 1,
            "lifetime": 86400,
        },
        "ipsec": {
            "encryption": "aes-128",
            "integrity": "md5",
            "pfs": "disable",
            "lifetime": 3600,
            "lifetime_kb": DEFAULT_LIFETIME_KB,
        },
    },
}
"""What a profile puts in place of the models' defaults: the console's values for `tencent-cloud`."""


def with_profile(table: Mapping[str, object]) -> dict[str, object]:
    """A tunnel's table with the defaults of its profile filled in; the models add their own."""
    filled = deepcopy(dict(table))
    profile = filled.get("profile")
    for name, defaults in (PROFILES.get(profile, {}) if isinstance(profile, str) else {}).items():
        own = filled.setdefault(name, {})
        if isinstance(own, dict):
            filled[name] = {**defaults, **own}
    return filled
