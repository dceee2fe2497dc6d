"""What several values of a configuration must agree on: addresses, mappings, modes, names.

Each function below checks one paragraph of the rules and reports every breach of it, with the line of the
value that came later. A value that is already wrong by itself is not here: `schema` has refused it.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as Table
from functools import partial
from ipaddress import ip_address

from vpnd.config import health_rules
from vpnd.config.configuration import Configuration, Findings, Tunnel, dotted
from vpnd.config.mappings import MAX_MAPPINGS, Mapping, mappings_of, protocol_of
from vpnd.config.places import Path as KeyPath
from vpnd.config.problems import Problem, did_you_mean, quoted
from vpnd.config.schema import GatewayTable, SpdTable
from vpnd.config.values import AUTO, LARGEST_PORT
from vpnd.crypto.suites import ENCRYPTIONS, INTEGRITIES
from vpnd.datapath.engines import HOW_TO_INSTALL, is_native_installed
from vpnd.datapath.mtu import MINIMUM_MTU
from vpnd.datapath.mtu import mss as mss_of
from vpnd.ike.v1.keys import KEYS_TRIED
from vpnd.model.identity import ANY, Identity
from vpnd.model.secret import Secret
from vpnd.model.selectors import Address, Network
from vpnd.model.text import may_be_a_key
from vpnd.wire.ip import PORT_PROTOCOLS

USUAL_DPD_TIMEOUT = (30, 60)
"""Seconds, both ends included (specification: DPD)."""

EARLIEST_REKEY = 80
"""Ours: percent of a lifetime before its end, at most, at which an SA is replaced."""


def check(configuration: Configuration, findings: Findings) -> None:
    """Report everything that does not fit together."""
    _gateway_labels(configuration, findings)
    _open_metrics(configuration, findings)
    for tunnel in configuration.tunnels.values():
        findings.add(_of_one(configuration, tunnel))
    _engine(configuration, findings)
    _tunnel_limit(configuration, findings)
    _mapping_limit(configuration, findings)
    _mapping_overlaps(configuration, findings)
    _interfaces(configuration, findings)
    health_rules.check(configuration, findings)
    _peers_with_several_tunnels(configuration, findings)
    _next_keys(configuration, findings)
    _keys_of_main_mode(configuration, findings)
    _shared_keys(configuration, findings)
    _routes_with_several_tunnels(configuration, findings)


def _of_one(configuration: Configuration, tunnel: Tunnel) -> tuple[Problem, ...]:
    """What a tunnel alone, its customer gateway and this gateway say, asked once while they are the same."""

    def find() -> tuple[Problem, ...]:
        findings = Findings()
        _customer_gateway(configuration, tunnel, findings)
        _any_address(configuration, tunnel, findings)
        _changing_identity(configuration, tunnel, findings)
        _communication(tunnel, findings)
        _version_and_mode(tunnel, findings)
        _dpd(tunnel, findings)
        _rekey_margin(tunnel, findings)
        _sequence_numbers(tunnel, findings)
        _short_sha256(tunnel, findings)
        _dpd_action(tunnel, findings)
        _repeated_routes(tunnel, findings)
        _routes_to_the_peer(configuration, tunnel, findings)
        _sizes(tunnel, findings)
        return tuple(findings)

    peer = configuration.customer_gateway(tunnel)
    if peer is None:
        return find()  # its hint is about all customer gateways
    gateway = (peer.name, peer.table, peer.path, peer.source.label, peer.source.places)
    return tunnel.source.once(("rules", tunnel.name), (tunnel.table, configuration.gateway, *gateway), find)


# ------------------------------------------------------------------------------------- gateways


def _gateway_labels(configuration: Configuration, findings: Findings) -> None:
    gateway = configuration.gateway
    source = configuration.labels_source or configuration.gateway_source
    if gateway is not None and source is not None and gateway.vpc is not None and gateway.type == "ccn":
        hint = 'remove vpc, or write type = "vpc"'
        findings.error(
            source, ("gateway", "vpc"), "E-GATEWAY", "a gateway of type ccn belongs to no VPC", hint
        )


def _open_metrics(configuration: Configuration, findings: Findings) -> None:
    metrics, source = configuration.metrics, configuration.metrics_source
    if metrics is None or source is None or metrics.listen.address.is_loopback:
        return
    message = (
        f"metrics at {metrics.listen} are open to others: anyone who reaches the port reads names, ranges and"
        " traffic of all tunnels, without a password and in clear"
    )
    hint = "listen at 127.0.0.1 and let a proxy or a tunnel lead there, or let a filter guard the port"
    findings.warn(source, ("metrics", "listen"), "W-METRICS-OPEN", message, hint)


def _engine(configuration: Configuration, findings: Findings) -> None:
    """An engine that is not installed cannot be asked for."""
    gateway, source = configuration.gateway, configuration.gateway_source
    if gateway is None or source is None or gateway.engine != "native" or is_native_installed():
        return
    hint = f'{HOW_TO_INSTALL}; or engine = "auto", which does without'
    findings.error(source, ("gateway", "engine"), "E-ENGINE", "the native engine is not installed", hint)


def _tunnel_limit(configuration: Configuration, findings: Findings) -> None:
    """The quota of the gateway; the tunnels of the API are the last, so one of them is refused first."""
    gateway = configuration.gateway
    if gateway is None or len(configuration.tunnels) <= gateway.max_tunnels:
        return
    beyond = tuple(configuration.tunnels.values())[gateway.max_tunnels]
    message = f"{len(configuration.tunnels)} tunnels; gateway.max_tunnels allows {gateway.max_tunnels}"
    findings.error(
        beyond.source, beyond.path, "E-LIMIT", message, "remove tunnels, or raise gateway.max_tunnels"
    )


def _customer_gateway(configuration: Configuration, tunnel: Tunnel, findings: Findings) -> None:
    peer = configuration.customer_gateway(tunnel)
    path = (*tunnel.path, "customer_gateway")
    name = tunnel.table.customer_gateway
    if peer is None:
        if name.startswith("tunnels.") and name.endswith(".customer_gateway"):
            return  # the table in its place was refused, which has been said
        known = [gateway.name for gateway in configuration.customer_gateways.values()]
        shown = "NAME" if may_be_a_key(name) else name
        hint = did_you_mean(name, known) or f"add [customer_gateways.{shown}] with its address"
        findings.error(
            tunnel.source, path, "E-CUSTOMER-GATEWAY", f"there is no customer gateway {quoted(name)}", hint
        )
        return
    gateway = configuration.gateway
    address = _as_address(peer.table.address)
    if gateway is None or gateway.address is None or address is None:
        return
    if address == gateway.address:
        findings.error(
            peer.source,
            (*peer.path, "address"),
            "E-ADDRESS",
            f"the customer gateway {quoted(peer.name)} has the address of this gateway, {address}",
            "give it the other machine's outer address",
        )
    elif address.version != gateway.address.version:
        findings.error(
            peer.source,
            (*peer.path, "address"),
            "E-ADDRESS",
            f"the customer gateway's address {address} and the gateway's {gateway.address} are of two kinds",
            "both ends of a tunnel have IPv4 outer addresses, or both IPv6",
        )


def _any_address(configuration: Configuration, tunnel: Tunnel, findings: Findings) -> None:
    """A peer of any address cannot be called, and nothing but its identity tells who it is."""
    peer, table = configuration.customer_gateway(tunnel), tunnel.table
    if peer is None or peer.table.address != ANY:
        return
    who = f"the customer gateway {quoted(peer.name)} may have any address"
    wrong = []
    # A value that was refused by itself has its error already, and its default in its place.
    ike = tunnel.written.get("ike")
    known = table.ike.remote_id is not None or (isinstance(ike, Table) and "remote_id" in ike)
    refused = tunnel.written.get("negotiation", table.negotiation) != table.negotiation
    if table.negotiation != "passive" and not refused:
        wrong.append(("negotiation", f"{who}, so it has to begin", 'write negotiation = "passive"'))
    if not known:
        wrong.append(("customer_gateway", f"{who}, so it is known by its identity only", "set ike.remote_id"))
    if table.ike.version == "ikev1" and table.ike.negotiation_mode == "aggressive":
        message = f"{who}: in aggressive mode everyone who asks would get a hash of the key to try guesses on"
        wrong.append(
            ("ike.negotiation_mode", message, "use IKEv2, or main mode with one key for all such peers")
        )
    for key, message, hint in wrong:
        findings.error(tunnel.source, (*tunnel.path, *key.split(".")), "E-ANY", message, hint)


def _changing_identity(configuration: Configuration, tunnel: Tunnel, findings: Findings) -> None:
    """With an address that may change the default identity does so too, and the peer expects one."""
    gateway, ike = configuration.gateway, tunnel.written.get("ike")
    written = tunnel.table.ike.local_id is not None or (isinstance(ike, Table) and "local_id" in ike)
    if gateway is None or gateway.address is not None or written:
        return
    message = (
        f'gateway.address is "{AUTO}" and ike.local_id is not set: our identity is the address of the moment,'
        " and a peer that expects the old one refuses us after a change"
    )
    hint = 'set ike.local_id to a name such as "hq.example.com", the same at the peer'
    findings.warn(tunnel.source, tunnel.path, "W-LOCAL-ID", message, hint)


def _as_address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


# ----------------------------------------------------------------------------- modes and suites


def _version_and_mode(tunnel: Tunnel, findings: Findings) -> None:
    ike, ipsec, path = tunnel.table.ike, tunnel.table.ipsec, tunnel.path
    if ike.version == "ikev2":
        if ike.negotiation_mode == "aggressive":
            hint = 'remove negotiation_mode, or write version = "ikev1"'
            key = (*path, "ike", "negotiation_mode")
            findings.error(tunnel.source, key, "E-MODE", "aggressive mode exists only in IKEv1", hint)
        return
    for index, word in enumerate(ike.encryption):
        if ENCRYPTIONS[word].ikev1_phase1 is None:
            hint = 'use aes-128, aes-192 or aes-256, or version = "ikev2"'
            message = f"IKEv1 cannot protect itself with {word}: AEAD ciphers came with IKEv2 (RFC 5282)"
            findings.error(tunnel.source, (*path, "ike", "encryption", index), "E-AEAD", message, hint)
    for index, word in enumerate(ipsec.encryption):
        if ENCRYPTIONS[word].ikev1_esp is None:
            hint = 'use aes-128-gcm or aes-256-gcm, or version = "ikev2"'
            message = f"IKEv1 has no number for {word} in ESP"
            findings.error(tunnel.source, (*path, "ipsec", "encryption", index), "E-AEAD", message, hint)
    for index, word in enumerate(ike.integrity):
        if INTEGRITIES[word].ikev1_hash is None:
            message = f"IKEv1 has no number for {word}"
            findings.error(
                tunnel.source, (*path, "ike", "integrity", index), "E-VALUE", message, "use sha256"
            )
    if ike.negotiation_mode == "aggressive" and len(ike.dh_group) > 1:
        hint = "name one group, the same at the peer (RFC 2409 section 5.4)"
        message = "aggressive mode cannot negotiate the DH group: only the first is offered"
        findings.warn(tunnel.source, (*path, "ike", "dh_group"), "W-AGGRESSIVE-DH", message, hint)


def _dpd_action(tunnel: Tunnel, findings: Findings) -> None:
    """An active tunnel that disconnects does not begin again by itself (specification: DPD)."""
    table = tunnel.table
    if table.negotiation == "active" and table.dpd.enabled and table.dpd.action == "disconnect":
        key = (*tunnel.path, "dpd", "action")
        message = (
            'negotiation is "active" and dpd.action "disconnect": after a dead peer the tunnel stays down'
            " until the peer begins, vpnctl up or a start of vpnd"
        )
        findings.warn(tunnel.source, key, "W-DPD-ACTION", message, 'write dpd.action = "retry" to reconnect')


def _dpd(tunnel: Tunnel, findings: Findings) -> None:
    """Peers are made for 30 to 60 seconds (specification: DPD), and the cloud's takes nothing else."""
    timeout, low, high = tunnel.table.dpd.timeout, *USUAL_DPD_TIMEOUT
    if low <= timeout <= high:
        return
    key = (*tunnel.path, "dpd", "timeout")
    if tunnel.table.profile == "tencent-cloud":
        message = f"dpd.timeout is {timeout}; allowed with profile tencent-cloud: {low} to {high}"
        hint = f"set dpd.timeout to a number from {low} to {high}"
        findings.error(tunnel.source, key, "E-RANGE", message, hint)
        return
    effect = (
        "a path that is down for a moment ends the tunnel"
        if timeout < low
        else "a dead peer is found late, and traffic is lost until then"
    )
    message = f"dpd.timeout is {timeout}, outside the usual {low} to {high} seconds: {effect}"
    findings.warn(tunnel.source, key, "W-DPD-TIMEOUT", message, "keep it if that is what you want")


def _rekey_margin(tunnel: Tunnel, findings: Findings) -> None:
    """An SA that is replaced as soon as it is made would be replaced without end."""
    for section, table in (("ike", tunnel.table.ike), ("ipsec", tunnel.table.ipsec)):
        earliest = table.rekey_margin * (100 + table.rekey_fuzz) / 100
        if earliest > EARLIEST_REKEY:
            message = (
                f"{section}.rekey_margin {table.rekey_margin} with rekey_fuzz {table.rekey_fuzz} replaces an"
                f" SA up to {earliest:.0f} % of its lifetime before the end; at most {EARLIEST_REKEY}"
            )
            key = (*tunnel.path, section, "rekey_margin")
            written = tunnel.source.places.exact(key) is not None
            hint = f"margin + margin * fuzz / 100 is at most {EARLIEST_REKEY}: make one of them smaller"
            place = key if written else (*tunnel.path, section, "rekey_fuzz")
            findings.error(tunnel.source, place, "E-REKEY-MARGIN", message, hint)


def _sequence_numbers(tunnel: Tunnel, findings: Findings) -> None:
    if tunnel.table.ipsec.esn == "yes" and tunnel.table.ike.version == "ikev1":
        key = (*tunnel.path, "ipsec", "esn")
        message = "vpnd negotiates extended sequence numbers in IKEv2 only"
        findings.error(tunnel.source, key, "E-ESN", message, 'remove esn, or write version = "ikev2"')


def _short_sha256(tunnel: Tunnel, findings: Findings) -> None:
    ipsec = tunnel.table.ipsec
    without = "sha256" not in ipsec.integrity or all(ENCRYPTIONS[word].aead for word in ipsec.encryption)
    if ipsec.sha256_96 and without:
        key = (*tunnel.path, "ipsec", "sha256_96")
        message = "sha256_96 has no effect: no HMAC-SHA-256 is configured for ESP"
        findings.warn(tunnel.source, key, "W-SHA256-96", message, "remove it")


# -------------------------------------------------------------------------- routes and mappings


def _communication(tunnel: Tunnel, findings: Findings) -> None:
    table, source, path = tunnel.table, tunnel.source, tunnel.path
    if table.communication == "destination-route":
        if table.spd:
            hint = 'write communication = "spd-policy", or routes instead of spd'
            findings.error(
                source,
                (*path, "spd"),
                "E-COMMUNICATION",
                "spd rules belong to communication spd-policy",
                hint,
            )
        elif not tunnel.written.get("routes"):
            message = "a destination-route tunnel without routes: vpnd sends nothing into it"
            hint = 'add routes = ["10.2.0.0/16"] with the ranges behind the peer, or route to its interface'
            findings.warn(source, path, "W-NO-ROUTES", message, hint)
        return
    if table.routes:
        hint = "remove routes: an spd-policy tunnel sends what its mappings say"
        findings.error(
            source,
            (*path, "routes"),
            "E-COMMUNICATION",
            "routes belong to communication destination-route",
            hint,
        )
    if not table.spd:
        hint = f"add [[{dotted(path)}.spd]] with local and remote"
        findings.error(
            source, (*path, "communication"), "E-COMMUNICATION", "an spd-policy tunnel has no spd", hint
        )
    for index, rule in enumerate(table.spd):
        _ports(tunnel, index, rule, findings)
    for mapping in mappings_of(table):
        if mapping.local.version != mapping.remote.version:
            key = _mapping_path(tunnel, mapping)
            message = f"the mapping {mapping} joins IPv4 and IPv6"
            findings.error(source, key, "E-FAMILY", message, "put the two kinds into rules of their own")


def _ports(tunnel: Tunnel, index: int, rule: SpdTable, findings: Findings) -> None:
    """Ports belong to a protocol that has them; IKEv1 has room for one (RFC 2407 section 4.6.2)."""
    for key, text in (("local_port", rule.local_port), ("remote_port", rule.remote_port)):
        if text is None:
            continue
        place = (*tunnel.path, "spd", index, key)
        protocol = rule.protocol or "any protocol"
        if protocol_of(rule.protocol) not in PORT_PROTOCOLS:
            message = f"{key} {text} with {protocol}: it has no ports"
            if rule.protocol is None:
                message = f"{key} {text} without a protocol, which says whose ports these are"
            hint = 'write protocol = "tcp" or "udp", once for each if it is both; icmp is taken as a whole'
            findings.error(tunnel.source, place, "E-PORT", message, hint)
        elif text == str(LARGEST_PORT):
            message = f"the kernel's rules cannot name port {LARGEST_PORT} (Linux)"
            findings.error(tunnel.source, place, "E-PORT", message, "use another port, or a range")
        elif "-" in text and tunnel.table.ike.version == "ikev1":
            message = f"IKEv1 cannot ask for a range of ports such as {text} (RFC 2407 section 4.6.2)"
            hint = f'a rule for each port, or none for all of {protocol}, or version = "ikev2"'
            findings.error(tunnel.source, place, "E-PORT", message, hint)


def _sizes(tunnel: Tunnel, findings: Findings) -> None:
    """Linux has no IPv6 on an interface below its least MTU; an MSS without room in a packet says nothing."""
    table, least = tunnel.table, MINIMUM_MTU[6]
    versions = {mapping.local.version for mapping in mappings_of(table)}
    if table.mtu is not None and table.mtu < least and 6 in versions:
        message = f"mtu is {table.mtu}, and the tunnel carries IPv6, which needs {least} (RFC 8200 section 5)"
        findings.error(
            tunnel.source, (*tunnel.path, "mtu"), "E-MTU", message, f"at least {least}, or leave it out"
        )
    most = None if table.mtu is None else mss_of(table.mtu, 4)
    if table.mss is not None and most is not None and table.mss > most:
        message = f"mss {table.mss} has no effect: with mtu {table.mtu} no segment has more than {most} bytes"
        findings.warn(
            tunnel.source, (*tunnel.path, "mss"), "W-MSS", message, f"at most {most}, or leave it out"
        )


def _mapping_path(tunnel: Tunnel, mapping: Mapping) -> KeyPath:
    return (*tunnel.path, "spd", mapping.rule, "remote", mapping.place)


def _spd_mappings(configuration: Configuration) -> Iterator[tuple[Tunnel, Mapping]]:
    for tunnel in configuration.tunnels.values():
        if tunnel.table.communication == "spd-policy":
            for mapping in mappings_of(tunnel.table):
                yield tunnel, mapping


def _mapping_limit(configuration: Configuration, findings: Findings) -> None:
    for count, (tunnel, mapping) in enumerate(_spd_mappings(configuration)):
        if count == MAX_MAPPINGS:
            total = configuration.spd_mappings
            message = f"{total} mappings over all spd-policy tunnels; a gateway has at most {MAX_MAPPINGS}"
            hint = "join ranges, or use destination-route"
            findings.error(tunnel.source, _mapping_path(tunnel, mapping), "E-LIMIT", message, hint)
            return


def _mapping_overlaps(configuration: Configuration, findings: Findings) -> None:
    """No packet belongs to two mappings; those beyond the limit are not compared, they are refused anyway."""
    seen: list[tuple[Tunnel, Mapping]] = []
    for tunnel, mapping in _spd_mappings(configuration):
        if len(seen) == MAX_MAPPINGS:
            return
        for other_tunnel, other in seen:
            if mapping.overlaps(other):
                source = other_tunnel.source
                line = source.places.line(_mapping_path(other_tunnel, other))
                place = source.label if line is None else f"{source.label}:{line}"
                owner = f"tunnel {other_tunnel.name} ({place})"
                message = f"{mapping} overlaps {other} of {owner}: both ranges intersect"
                hint = "change one range, so that no packet belongs to both mappings"
                findings.error(tunnel.source, _mapping_path(tunnel, mapping), "E-OVERLAP", message, hint)
                break
        seen.append((tunnel, mapping))


def _repeated_routes(tunnel: Tunnel, findings: Findings) -> None:
    routes = tunnel.table.routes
    for index, route in enumerate(routes):
        if route in routes[:index]:
            key = (*tunnel.path, "routes", index)
            findings.warn(
                tunnel.source, key, "W-ROUTE-TWICE", f"the route {route} is listed twice", "remove one"
            )


def _routes_to_the_peer(configuration: Configuration, tunnel: Tunnel, findings: Findings) -> None:
    """The peer's outer address lies before the tunnel, not behind it; vpnd's own packets take no such route.

    A default route means everything, so it holds every peer on purpose.
    """
    gateway, peer = configuration.gateway, configuration.customer_gateway(tunnel)
    address = _as_address(peer.table.address) if peer is not None else None
    own = gateway.address if gateway is not None else None
    if gateway is None or peer is None or address is None:
        return
    sent: list[tuple[KeyPath, Network]] = [
        ((*tunnel.path, "routes", index), route) for index, route in enumerate(tunnel.table.routes)
    ]
    sent += [
        (_mapping_path(tunnel, mapping), mapping.remote)
        for mapping in mappings_of(tunnel.table)
        if tunnel.table.communication == "spd-policy" and own is not None and own in mapping.local
    ]
    for key, network in sent:
        if network.prefixlen and address in network:
            message = (
                f"{network} holds the peer itself, {address}: what else this machine sends to that address"
                " goes into the tunnel, and nowhere while the tunnel is down"
            )
            hint = f"leave {address} out, by smaller ranges, unless that is what you want"
            findings.warn(tunnel.source, key, "W-ROUTE-PEER", message, hint)


def _routes_with_several_tunnels(configuration: Configuration, findings: Findings) -> None:
    """Of two tunnels with one route the priority says which carries it, unless both have the same."""
    carriers: dict[tuple[Network, int], Tunnel] = {}
    for tunnel in configuration.tunnels.values():
        for index, route in enumerate(dict.fromkeys(tunnel.table.routes)):
            other = carriers.setdefault((route, tunnel.table.priority), tunnel)
            if other is not tunnel:
                key = (*tunnel.path, "routes", index)
                message = f"{route} is also a route of {other.name} ({other.place}), with the same priority"
                hint = "give the secondary tunnel priority = 100"
                findings.warn(tunnel.source, key, "W-PRIORITY", message, hint)


# ---------------------------------------------------------------------------------------- names


def _interfaces(configuration: Configuration, findings: Findings) -> None:
    owners: dict[str, Tunnel] = {}
    for tunnel in configuration.tunnels.values():
        name = tunnel.table.interface
        if name is None:
            continue
        owner = owners.setdefault(name, tunnel)
        if owner is not tunnel:
            key = (*tunnel.path, "interface")
            message = f"{quoted(name)} is also the interface of {owner.name} ({owner.place})"
            findings.error(
                tunnel.source, key, "E-INTERFACE", message, "each tunnel has an interface of its own"
            )


def _peers_with_several_tunnels(configuration: Configuration, findings: Findings) -> None:
    """A responder tells two tunnels to one address apart by the identities, so those must differ."""
    peers: dict[tuple[object, ...], Tunnel] = {}
    for tunnel in configuration.tunnels.values():
        gateway, peer = configuration.gateway, configuration.customer_gateway(tunnel)
        if gateway is None or peer is None:
            continue
        address = peer.table.address
        find = partial(_ends, gateway, tunnel, address)
        ends = tunnel.source.once(("ends", tunnel.name), (gateway.address, tunnel.table, address), find)
        if ends is None:
            continue
        twin = peers.setdefault(ends, tunnel)
        if twin is not tunnel:
            owner = f"{twin.name} ({twin.place})"
            message = f"{owner} has the same peer and identities: when the peer begins, they look alike"
            hint = "give each an identity of its own (local_id, remote_id)"
            findings.warn(tunnel.source, (*tunnel.path, "customer_gateway"), "W-SAME-PEER", message, hint)


def _ends(gateway: GatewayTable, tunnel: Tunnel, address: str) -> tuple[object, ...] | None:
    """By what a responder knows it: version, address, and both identities; None: it has none of its own."""
    ike = tunnel.table.ike
    own = Identity.of(ike.local_id) if ike.local_id else _default_identity(gateway)
    if address == ANY and ike.remote_id is None:
        return None
    return ike.version, address.lower(), own and own.key, Identity.of(ike.remote_id or address).key


def _default_identity(gateway: GatewayTable) -> Identity | None:
    """Ours where `local_id` is not set; None: that of an address that is not known yet."""
    return Identity.of_address(gateway.address) if gateway.address is not None else None


def _next_keys(configuration: Configuration, findings: Findings) -> None:
    """A key takes the place of another one."""
    for tunnel in configuration.tunnels.values():
        if tunnel.table.retire_after is not None and tunnel.table.next_pre_shared_key is None:
            message = "retire_after ends pre_shared_key, and no next_pre_shared_key takes its place"
            where = (tunnel.source, (*tunnel.path, "retire_after"))
            findings.error(*where, "E-RETIRE", message, "add next_pre_shared_key, or remove retire_after")
        if tunnel.next_secret is not None and tunnel.next_secret == tunnel.secret:
            where = (tunnel.source, (*tunnel.path, "next_pre_shared_key"))
            message = "next_pre_shared_key is the same key as pre_shared_key: nothing changes"
            findings.warn(*where, "W-PSK-SAME", message, "vpnctl psk generate makes another one")


def _keys_of_main_mode(configuration: Configuration, findings: Findings) -> None:
    """IKEv1 main mode needs the key before the identity has arrived: vpnd tries a few, a peer may not."""
    keys: dict[str, list[Tunnel]] = {}
    for tunnel in sorted(_main_mode(configuration), key=lambda t: not _is_any(configuration, t)):
        peer = configuration.customer_gateway(tunnel)
        address = peer.table.address if peer is not None else ""
        others = keys.setdefault(address, list(keys.get(ANY, ())))
        if any(other.secret == tunnel.secret for other in others):
            continue
        others.append(tunnel)
        where = (tunnel.source, (*tunnel.path, "pre_shared_key"))
        hint = "use one key for all of them, or aggressive mode, or IKEv2"
        if address == ANY and len(others) > 1:
            message = (
                "IKEv1 main mode needs the key before the identity, and nothing else tells peers of any"
                f" address apart: {others[0].name} ({others[0].place}) has another key"
            )
            findings.error(*where, "E-MAIN-MODE-KEY", message, "use one key for all of them, or IKEv2")
        elif len(others) > KEYS_TRIED:
            message = f"IKEv1 main mode with {address} has more than {KEYS_TRIED} keys, too many to try"
            findings.error(*where, "E-MAIN-MODE-KEY", message, hint)
        elif len(others) > 1:
            message = (
                f"IKEv1 main mode needs the key before the identity, and {others[0].name} ({others[0].place})"
                f" has another key for {address}: vpnd tries both, the peer may try only one"
            )
            findings.warn(*where, "W-MAIN-MODE-KEY", message, f"if the peer refuses one: {hint}")


def _shared_keys(configuration: Configuration, findings: Findings) -> None:
    """Only its key keeps a peer of any address from saying that it is another."""
    owners: dict[Secret, Tunnel] = {}
    for tunnel in configuration.tunnels.values():
        if tunnel.secret is None or not _is_any(configuration, tunnel):
            continue
        owner = owners.setdefault(tunnel.secret, tunnel)
        if owner.table.ike.remote_id != tunnel.table.ike.remote_id:
            who = f"{owner.name} ({owner.place})"
            message = f"{who} has the same key: each of the two peers can say it is the other"
            hint = "IKEv2 with a key for each peer; IKEv1 main mode can have only one"
            where = (tunnel.source, (*tunnel.path, "pre_shared_key"))
            findings.warn(*where, "W-SHARED-KEY", message, hint)


def _main_mode(configuration: Configuration) -> list[Tunnel]:
    return [
        tunnel
        for tunnel in configuration.tunnels.values()
        if tunnel.table.ike.version == "ikev1"
        and tunnel.table.ike.negotiation_mode == "main"
        and tunnel.secret is not None
        and configuration.customer_gateway(tunnel) is not None
    ]


def _is_any(configuration: Configuration, tunnel: Tunnel) -> bool:
    peer = configuration.customer_gateway(tunnel)
    return peer is not None and peer.table.address == ANY
