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
    AddressValue,
    EncryptionWords,
    GroupNumbers,
    IdentityText,
    IntegrityWords,
    Lifetime,
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


class GatewayTable(Table):
    """`[gateway]`: the VPN gateway, this machine. `type`, `vpc` and `region` are labels.

    `address = "auto"` is None here.
    """

    name: Annotated[str, Field(min_length=1, max_length=MAX_TUNNEL_NAME)]
    address: Annotated[
        OwnAddressValue,
        Field(
            description='The outer address. "auto": the address of the default route\'s interface, followed'
            " when it changes; set ike.local_id then, since the default local identity changes with it."
        ),
    ]
    type: Annotated[Literal["vpc", "ccn"] | None, word("a gateway type", "vpc", "ccn")] = None
    vpc: str | None = None
    region: str | None = None
    max_tunnels: Annotated[
        int, Field(ge=1, le=10_000, description="The quota: how many tunnels may be configured.")
    ] = 1000


class CustomerGatewayTable(Table):
    """`[customer_gateways.NAME]`: the other machine, by IP address or FQDN.

    `address = "any"`: it begins, from wherever it is, and is known by its `remote_id`.
    """

    address: Annotated[str, BeforeValidator(address_or_name)]


class SpdTable(Table):
    """`[[tunnels.NAME.spd]]`: one rule; each local with each remote range is a mapping.

    `protocol` and the ports, where they are given, narrow all of them.
    """

    local: Annotated[list[NetworkValue], Field(min_length=1)]
    remote: Annotated[list[NetworkValue], Field(min_length=1)]
    protocol: ProtocolWord | None = None
    local_port: PortsText | None = None
    remote_port: PortsText | None = None


class IkeTable(Table):
    """`[tunnels.NAME.ike]`. `lifetime` in seconds."""

    version: Annotated[Literal["ikev1", "ikev2"], word("an IKE version", "ikev1", "ikev2")] = "ikev2"
    negotiation_mode: Annotated[
        Literal["main", "aggressive"], word("a negotiation mode", "main", "aggressive")
    ] = "main"
    encryption: EncryptionWords = ["aes-128"]
    integrity: IntegrityWords = ["sha256"]
    dh_group: GroupNumbers = [14]
    local_id: IdentityText | None = None
    remote_id: IdentityText | None = None
    lifetime: Lifetime = 86400
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
    lifetime: Lifetime = 3600
    lifetime_kb: Annotated[int, Field(ge=0, le=2**40)] = DEFAULT_LIFETIME_KB
    encapsulation: Annotated[Literal["auto", "udp"], word("an encapsulation", "auto", "udp")] = "auto"
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

    enabled: bool = True
    timeout: Annotated[
        int,
        Field(
            ge=10, le=3600, description="Seconds of silence after which the peer is dead; usual: 30 to 60."
        ),
    ] = 30
    action: Annotated[Literal["disconnect", "retry"], word("a DPD action", "disconnect", "retry")] = "retry"


class HealthCheckTable(Table):
    """`[tunnels.NAME.health_check]` (NQA). Without `local` or `remote` an address is assigned."""

    enabled: bool = False
    local: AddressValue | None = None
    remote: AddressValue | None = None
    interval_ms: Annotated[int, Field(ge=1000, le=5000)] = 5000
    timeout_ms: Annotated[int, Field(ge=10, le=5000)] = 150
    failures: Annotated[int, Field(ge=3, le=8)] = 3
    recoveries: Annotated[int, Field(ge=1, le=100)] = 3


PrivateNumber = Annotated[int, Field(ge=1, le=65535)]


class SmNumbersTable(Table):
    """`[tunnels.NAME.sm_numbers]`: what this peer calls SM4 and SM3, which have no registered numbers.

    `sm3_icv_length` is in bytes: what is left of HMAC-SM3 on the wire.
    """

    sm4_ikev1_phase1: PrivateNumber = DEFAULT_NUMBERS.sm4_ikev1_phase1
    sm4_ikev1_esp: Annotated[int, Field(ge=1, le=255)] = DEFAULT_NUMBERS.sm4_ikev1_esp
    sm4_ikev2: PrivateNumber = DEFAULT_NUMBERS.sm4_ikev2
    sm3_ikev1_hash: PrivateNumber = DEFAULT_NUMBERS.sm3_ikev1_hash
    sm3_ikev1_esp: PrivateNumber = DEFAULT_NUMBERS.sm3_ikev1_esp
    sm3_ikev2_integ: PrivateNumber = DEFAULT_NUMBERS.sm3_ikev2_integ
    sm3_ikev2_prf: PrivateNumber = DEFAULT_NUMBERS.sm3_ikev2_prf
    sm3_icv_length: Annotated[int, one_of_numbers(SM3_ICV_LENGTHS)] = DEFAULT_NUMBERS.sm3_icv_length


class TunnelTable(Table):
    """`[tunnels.NAME]`."""

    customer_gateway: Annotated[
        str,
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, CustomerGatewayTable.model_json_schema()]},
        ),
    ]
    pre_shared_key: Annotated[str, Field(repr=False)]
    negotiation: Annotated[
        Literal["active", "passive", "traffic-triggered"],
        word("a negotiation type", "active", "passive", "traffic-triggered"),
    ] = "active"
    communication: Annotated[
        Literal["destination-route", "spd-policy"],
        word("a communication mode", "destination-route", "spd-policy"),
    ] = "destination-route"
    routes: list[NetworkValue] = []
    priority: Annotated[int, Field(ge=0, le=65535)] = 0
    interface: Annotated[str, AfterValidator(interface_name)] | None = None
    profile: Annotated[Literal["default", "tencent-cloud"], word("a profile", "default", "tencent-cloud")] = (
        "default"
    )
    description: Annotated[
        str,
        AfterValidator(one_line),
        WithJsonSchema({"type": "string", "maxLength": MAX_DESCRIPTION}),
        Field(description="What the tunnel is for: free text, shown in status."),
    ] = ""
    mtu: Annotated[
        int | None,
        Field(ge=576, le=9000, description="Bytes of an inner packet at most; computed if left out."),
    ] = None
    mss: Annotated[
        int | None,
        Field(ge=256, le=8960, description="Bytes of a TCP segment at most; computed if left out."),
    ] = None
    spd: list[SpdTable] = []
    ike: IkeTable = IkeTable()
    ipsec: IpsecTable = IpsecTable()
    dpd: DpdTable = DpdTable()
    health_check: HealthCheckTable = HealthCheckTable()
    sm_numbers: SmNumbersTable = SmNumbersTable()


TOP_LEVEL_KEYS = ("gateway", "customer_gateways", "tunnels")

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
