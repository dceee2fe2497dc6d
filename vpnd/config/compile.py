"""From a checked configuration to what every other layer works by."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any

from vpnd.config.assign import HealthAddresses, health_addresses, interface_names
from vpnd.config.configuration import Configuration, Tunnel
from vpnd.config.load import Loaded
from vpnd.config.mappings import mappings_of
from vpnd.config.problems import ConfigurationInvalid
from vpnd.config.schema import GatewayTable, HealthCheckTable, IkeTable, IpsecTable
from vpnd.config.secrets import KEYS
from vpnd.crypto.suites import ENCRYPTIONS
from vpnd.model.identity import ANY, Identity
from vpnd.model.numbers import Numbers
from vpnd.model.policy import (
    ChildPolicy,
    Communication,
    Diagnose,
    DpdAction,
    DpdPolicy,
    Encapsulation,
    GatewayPolicy,
    HealthPolicy,
    Lifetimes,
    Margin,
    Negotiation,
    NegotiationMode,
    PeerPolicy,
    TunnelPolicy,
)
from vpnd.model.proposals import Proposal
from vpnd.model.secret import Secret
from vpnd.model.selectors import UNSPECIFIED, Address, Network
from vpnd.wire.iana import IkeVersion, Protocol


def compile_gateway(loaded: Loaded) -> GatewayPolicy:
    """The gateway and its tunnels as values. Raises ConfigurationInvalid if there is an error."""
    gateway = loaded.configuration.gateway
    if gateway is None or not loaded.ok:
        raise ConfigurationInvalid(loaded.problems)
    configuration = loaded.configuration
    interfaces = interface_names(configuration.tables)
    health = _health_addresses(configuration, gateway)
    tunnels = tuple(
        _tunnel_once(
            gateway,
            tunnel,
            configuration.customer_gateways[tunnel.table.customer_gateway].table.address,
            interfaces[tunnel.name],
            health.get(tunnel.name),
        )
        for tunnel in configuration.tunnels.values()
    )
    labels = (("type", gateway.type), ("vpc", gateway.vpc), ("region", gateway.region))
    written = tuple((key, value) for key, value in labels if value is not None)
    metrics = configuration.metrics.listen if configuration.metrics is not None else None
    return GatewayPolicy(gateway.name, gateway.address or UNSPECIFIED[4], tunnels, written, metrics)


def compile_for_guard(loaded: Loaded) -> tuple[TunnelPolicy, ...]:
    """What can be read of a configuration with errors, as far as a guard needs it: ranges and addresses.

    Nothing can be negotiated by it: the algorithms are the defaults, and there are no keys.
    """
    configuration = loaded.configuration
    gateway = configuration.gateway or GatewayTable.model_construct(name="", address=None)
    tunnels = []
    for tunnel in configuration.tunnels.values():
        plain = tunnel.table.model_copy(update={"ike": IkeTable(), "ipsec": IpsecTable()})
        peer = configuration.customer_gateway(tunnel)
        remote = peer.table.address if peer is not None else "unknown"
        tunnels.append(
            _tunnel(gateway, replace(tunnel, table=plain, secret=None, next_secret=None), remote, "", None)
        )
    return tuple(tunnels)


def describe(loaded: Loaded, name: str, local_id: str | None = None) -> dict[str, Any]:
    """A tunnel's table as TOML would hold it, every default filled in and the key left out.

    Words, numbers and lists only. `local_id` is the default in use while it follows the address, None where
    there is no address yet. Raises KeyError for a tunnel that there is not.
    """
    configuration, gateway = loaded.configuration, loaded.configuration.gateway
    addresses = _health_addresses(configuration, gateway).get(name) if gateway is not None else None
    return _described(loaded, name, interface_names(configuration.tables)[name], addresses, local_id)


def describe_compiled(loaded: Loaded, policy: TunnelPolicy) -> dict[str, Any]:
    """As `describe`, of a tunnel that is compiled already: without a look at all the others."""
    return _described(loaded, policy.name, policy.interface, policy.health, None)


def _described(
    loaded: Loaded,
    name: str,
    interface: str,
    addresses: HealthAddresses | HealthPolicy | None,
    local_id: str | None,
) -> dict[str, Any]:
    configuration = loaded.configuration
    tunnel = configuration.tunnels[name]
    gateway = configuration.gateway
    peer = configuration.customer_gateway(tunnel)
    table = tunnel.table.model_dump(mode="json", exclude=set(KEYS))
    table["customer_gateway"] = {"name": peer.name, "address": peer.table.address} if peer else None
    table["interface"] = interface
    table["enabled"] = tunnel.table.enabled and not tunnel.disabled
    table["ipsec"]["pfs"] = table["ipsec"]["pfs"] or "disable"
    if gateway is not None and peer is not None:
        own = str(gateway.address) if gateway.address is not None else local_id
        table["ike"]["local_id"] = tunnel.table.ike.local_id or own
        table["ike"]["remote_id"] = tunnel.table.ike.remote_id or peer.table.address
        if addresses is not None:
            table["health_check"]["local"] = str(addresses.local)
            table["health_check"]["remote"] = str(addresses.remote)
    return table


def _health_addresses(configuration: Configuration, gateway: GatewayTable) -> dict[str, HealthAddresses]:
    ranges: list[Network] = []
    for table in configuration.tables.values():
        ranges += table.routes
        for spd in table.spd:
            ranges += [*spd.local, *spd.remote]
    return health_addresses(gateway.name, configuration.tables, ranges)


def _tunnel_once(
    gateway: GatewayTable,
    tunnel: Tunnel,
    remote: str,
    interface: str,
    health: HealthAddresses | None,
) -> TunnelPolicy:
    """The very same policy as long as nothing that it is made of is another."""
    keys = (tunnel.secret, tunnel.next_secret)
    of = (gateway.address, tunnel.table, *keys, tunnel.disabled, remote, interface, health)
    make = partial(_tunnel, gateway, tunnel, remote, interface, health)
    return tunnel.source.once(("policy", tunnel.name), of, make)


def _tunnel(
    gateway: GatewayTable,
    tunnel: Tunnel,
    remote: str,
    interface: str,
    health: HealthAddresses | None,
) -> TunnelPolicy:
    table = tunnel.table
    return TunnelPolicy(
        name=tunnel.name,
        peer=_peer(gateway, tunnel, remote),
        remote=remote,
        negotiation=Negotiation(table.negotiation),
        communication=Communication(table.communication),
        routes=tuple(dict.fromkeys(table.routes)),
        priority=table.priority,
        interface=interface,
        health=_health(table.health_check, health) if health is not None else None,
        mtu=table.mtu,
        mss=table.mss,
        description=table.description,
        diagnose=Diagnose(table.diagnose),
        retire_after=table.retire_after if tunnel.next_secret is not None else None,
        enabled=table.enabled and not tunnel.disabled,
    )


def _peer(gateway: GatewayTable, tunnel: Tunnel, remote: str) -> PeerPolicy:
    ike, ipsec, dpd = tunnel.table.ike, tunnel.table.ipsec, tunnel.table.dpd
    address = _address(remote)
    local = gateway.address or UNSPECIFIED[address.version if address is not None else 4]
    version = IkeVersion.V1 if ike.version == "ikev1" else IkeVersion.V2
    # What IKEv1 has for extended sequence numbers (RFC 4304) is not negotiated here.
    proposals = esp_proposals(ipsec, ESN[ipsec.esn if version is IkeVersion.V2 else "no"])
    margin = Margin(ipsec.rekey_margin, ipsec.rekey_fuzz)
    lifetimes = Lifetimes(ipsec.lifetime, ipsec.lifetime_kb or None, margin)
    return PeerPolicy(
        name=tunnel.name,
        version=version,
        mode=NegotiationMode(ike.negotiation_mode) if version is IkeVersion.V1 else None,
        local_address=local,
        remote_address=address,
        any_address=remote == ANY,
        local_id=Identity.of(ike.local_id) if ike.local_id else Identity.of_address(local),
        # A configuration with errors, in which `any` has no identity, is guarded as well.
        remote_id=Identity.of(ike.remote_id or (f"@{ANY}" if remote == ANY else remote)),
        psk=tunnel.secret or Secret(b""),
        next_psk=tunnel.next_secret,
        proposals=ike_proposals(ike),
        lifetime=ike.lifetime,
        margin=Margin(ike.rekey_margin, ike.rekey_fuzz),
        children=tuple(
            ChildPolicy(
                index,
                mapping.local,
                mapping.remote,
                proposals,
                tuple(ipsec.pfs),
                lifetimes,
                ipsec.replay_window,
                ipsec.sha256_96,
                mapping.protocol,
                mapping.local_ports,
                mapping.remote_ports,
            )
            for index, mapping in enumerate(mappings_of(tunnel.table))
        ),
        encapsulation=Encapsulation(ipsec.encapsulation),
        dpd=DpdPolicy(dpd.enabled, dpd.timeout, DpdAction(dpd.action)),
        numbers=Numbers(**dict(tunnel.table.sm_numbers)),
        prove_rekey=True,
        known_by_name=ike.remote_id is None and remote != ANY and address is None,
    )


def _address(text: str) -> Address | None:
    """The address, or None for a name that the daemon resolves."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def _health(table: HealthCheckTable, addresses: HealthAddresses) -> HealthPolicy:
    return HealthPolicy(
        local=addresses.local,
        remote=addresses.remote,
        interval=table.interval_ms / 1000,
        timeout=table.timeout_ms / 1000,
        failures=table.failures,
        recoveries=table.recoveries,
    )


def ike_proposals(table: IkeTable) -> tuple[Proposal, ...]:
    """What may protect the IKE SA. The PRF is the integrity words' HMAC, also with AEAD ciphers."""
    words, groups = tuple(table.integrity), tuple(table.dh_group)
    return tuple(
        Proposal(
            protocol=Protocol.IKE,
            encryption=encryption,
            prf=words,
            integrity=() if aead else words,
            dh=groups,
            esn=(),
            number=number,
        )
        for number, (aead, encryption) in enumerate(_by_kind(table.encryption), start=1)
    )


ESN = {"auto": (True, False), "yes": (True,), "no": (False,)}
"""Extended sequence numbers first: RFC 4303 section 2.2.1 has them for the default of IKEv2."""


def esp_proposals(table: IpsecTable, esn: tuple[bool, ...] = (False,)) -> tuple[Proposal, ...]:
    """What may protect packets; with PFS the groups go with it."""
    words, groups = tuple(table.integrity), tuple(table.pfs)
    return tuple(
        Proposal(
            protocol=Protocol.ESP,
            encryption=encryption,
            integrity=() if aead else words,
            dh=groups,
            esn=esn,
            number=number,
        )
        for number, (aead, encryption) in enumerate(_by_kind(table.encryption), start=1)
    )


def _by_kind(words: list[str]) -> tuple[tuple[bool, tuple[str, ...]], ...]:
    """AEAD ciphers and others apart, for RFC 7296 section 3.3 wants them in separate proposals.

    The kind of the preferred cipher comes first, and each kind keeps its order.
    """
    kinds: dict[bool, list[str]] = {}
    for word in words:
        kinds.setdefault(ENCRYPTIONS[word].aead, []).append(word)
    return tuple((aead, tuple(found)) for aead, found in kinds.items())
