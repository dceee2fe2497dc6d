"""What is written for the connections that were read: one file of tunnels, and a key file for each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from itertools import chain, count
from pathlib import PurePosixPath
from typing import Any

from vpnd.config.values import MAX_TUNNEL_NAME
from vpnd.crypto.suites import ENCRYPTIONS
from vpnd.model.secret import Secret
from vpnd.translate.imports import words
from vpnd.translate.imports.model import MAX_CONNECTIONS, Connection, Found, Keyring, Place

CONFIGURATION = "vpnd.toml"
KEYS = "psk"
EVERYTHING = {"0.0.0.0/0", "::/0"}

MAX_DPD = 3600
MIN_DPD = 10
MIN_WINDOW, MAX_WINDOW = 64, 4096


@dataclass(slots=True)
class Written:
    """The text of the configuration, and the keys by the names of their files."""

    text: str
    keys: dict[str, Secret] = field(default_factory=dict)
    tunnels: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    """Of each tunnel, in the order of `tunnels`."""


def write(found: Found, directory: PurePosixPath) -> Written:
    """TOML for all that was read; key files are named beneath `directory`."""
    names = _names(found.connections)
    gateway = _gateway(found)
    peers: dict[str, str] = {}
    lines = [
        "# Made by vpnctl import. Look through it, check it with vpnd check, and put it in its place.",
        "",
        "[gateway]",
        'name = "gateway"',
        f"address = {_value(gateway)}",
    ]
    tunnels: list[str] = []
    files: dict[str, None] = {}
    keys = Keyring(found.keys)
    written = Written("")
    for connection, name in zip(found.connections, names, strict=True):
        peer = connection.remote_address or "any"
        if peer not in peers:
            peers[peer] = f"peer-{len(peers) + 1}"
            lines += ["", f"[customer_gateways.{peers[peer]}]", f"address = {_value(peer)}"]
        secret = connection.secret or keys.key_for(connection)
        file = _unlike(f"{KEYS}/{_file_name(name)}", files)
        files[file] = None
        if secret is not None:
            written.keys[file] = secret
        else:
            text = "there is no pre-shared key for it: write it into the file that pre_shared_key names"
            found.remarks.add(connection.place, f"{connection.name}", text)
        tunnels += _tunnel(connection, name, peers[peer], str(directory / file), gateway, found)
    written.text = "\n".join([*lines, *tunnels]) + "\n"
    written.tunnels, written.key_files = tuple(names), tuple(files)
    return written


def _names(connections: Sequence[Connection]) -> list[str]:
    """Names that vpnd takes, each once."""
    found: dict[str, None] = {}
    for connection in connections:
        plain = "".join(c if c.isprintable() and c not in '/"\\' else "-" for c in connection.name)
        name = _unlike(plain.strip()[: MAX_TUNNEL_NAME - len(f"-{MAX_CONNECTIONS}")] or "tunnel", found)
        found[name] = None
    return list(found)


def _unlike(name: str, found: Container[str]) -> str:
    """The name, with a number if there is one like it."""
    numbered = (f"{name}-{number}" for number in count(2))
    return next(one for one in chain((name,), numbered) if one not in found)


def _file_name(name: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in name)
    return plain.lstrip(".") or "key"


def _gateway(found: Found) -> str:
    """The address that most connections have at this end."""
    known = [one.local_address for one in found.connections if _is_address(one.local_address)]
    counted = Counter(address for address in known if address is not None)
    if not counted:
        return "auto"
    (usual, _), *_ = counted.most_common()
    for connection in found.connections:
        if connection.local_address in counted and connection.local_address != usual:
            text = f"a gateway of vpnd has one outer address: {usual} is written, and this one needs another"
            found.remarks.add(connection.place, f"{connection.name}: {connection.local_address}", text)
    return usual


def _is_address(text: str | None) -> bool:
    try:
        return text is not None and not ip_address(text).is_unspecified
    except ValueError:
        return False


def _tunnel(connection: Connection, name: str, peer: str, key: str, gateway: str, found: Found) -> list[str]:
    table = f"tunnels.{_value(name)}"
    routed = _is_routed(connection)
    negotiation = connection.negotiation if connection.remote_address is not None else "passive"
    lines = [
        "",
        f"[{table}]",
        f"customer_gateway = {_value(peer)}",
        f"pre_shared_key = {_value(f'file:{key}')}",
        f"negotiation = {_value(negotiation)}",
        f"communication = {_value('destination-route' if routed else 'spd-policy')}",
    ]
    if connection.remote_address is None and connection.negotiation != "passive":
        text = "the peer may have any address, so it begins: negotiation is passive"
        found.remarks.add(connection.place, connection.name, text)
    if routed:
        lines += ["# The networks behind the peer that are sent into the tunnel:", "routes = []"]
        text = (
            "it is for all addresses: write the networks behind the peer as routes, or route to its interface"
        )
        found.remarks.add(connection.place, connection.name, text)
    for rule in [] if routed else words.pairs(connection.rules):
        lines += ["", f"[[{table}.spd]]", f"local = {_value(rule.local)}", f"remote = {_value(rule.remote)}"]
        for word in ("protocol", "local_port", "remote_port"):
            if (value := getattr(rule, word)) is not None:
                lines.append(f"{word} = {_value(value)}")
    tables = {
        "ike": _ike(connection, gateway, found),
        "ipsec": _ipsec(connection, found),
        "dpd": _dpd(connection),
        "health_check": _health(connection, found, routed=routed),
    }
    for word, values in tables.items():
        if values:
            lines += ["", f"[{table}.{word}]", *(f"{k} = {_value(v)}" for k, v in values.items())]
    return lines


def _is_routed(connection: Connection) -> bool:
    rules = connection.rules
    ends = [network for rule in rules for network in (*rule.local, *rule.remote)]
    return not rules or (set(ends) <= EVERYTHING and not any(rule.protocol for rule in rules))


def _ike(connection: Connection, gateway: str, found: Found) -> dict[str, Any]:
    algorithms, place = connection.ike, connection.place
    ciphers = algorithms.encryption
    if not connection.ikev2:
        ciphers = _without_aead(ciphers, place, connection, found)
    groups = algorithms.groups or [14]
    if connection.aggressive and len(groups) > 1:
        text = f"in aggressive mode there is one DH group: {groups[0]} is taken"
        found.remarks.add(place, connection.name, text)
        groups = groups[:1]
    values: dict[str, Any] = {"version": "ikev2" if connection.ikev2 else "ikev1"}
    if connection.aggressive and not connection.ikev2:
        values["negotiation_mode"] = "aggressive"
    values |= {"encryption": ciphers or ["aes-128"], "integrity": algorithms.integrity or ["sha256"]}
    values["dh_group"] = groups
    local = connection.local_id or (connection.local_address if connection.local_address != gateway else None)
    if local is not None:
        values["local_id"] = local
    remote = connection.remote_id
    if remote is None and connection.remote_address is None:
        text = "a peer of any address is known by its identity: correct remote_id"
        found.remarks.add(place, connection.name, text)
        remote = f"{_file_name(connection.name)}.invalid"
    if remote is not None:
        values["remote_id"] = remote
    if connection.ike_lifetime:
        values["lifetime"] = max(connection.ike_lifetime, 60)
    return values


def _ipsec(connection: Connection, found: Found) -> dict[str, Any]:
    algorithms = connection.esp
    ciphers = list(algorithms.encryption)
    if not connection.ikev2 and "chacha20-poly1305" in ciphers:
        ciphers.remove("chacha20-poly1305")
        text = "IKEv1 has no number for chacha20-poly1305: left out"
        found.remarks.add(connection.place, connection.name, text)
    values: dict[str, Any] = {"encryption": ciphers or ["aes-128"]}
    values["integrity"] = algorithms.integrity or ["sha256"]
    values["pfs"] = algorithms.groups or "disable"
    if connection.esp_lifetime:
        values["lifetime"] = max(connection.esp_lifetime, 60)
    if connection.kilobytes:
        values["lifetime_kb"] = min(connection.kilobytes, 2**40)
    if connection.udp:
        values["encapsulation"] = "udp"
    if connection.ikev2 and algorithms.esn:
        values["esn"] = "auto" if len(algorithms.esn) > 1 else "yes" if True in algorithms.esn else "no"
    if connection.replay_window:
        values["replay_window"] = min(max(connection.replay_window, MIN_WINDOW), MAX_WINDOW) // 64 * 64
    if connection.sha256_96:
        values["sha256_96"] = True
    return values


def _without_aead(ciphers: list[str], place: Place, connection: Connection, found: Found) -> list[str]:
    kept = [word for word in ciphers if not ENCRYPTIONS[word].aead]
    if len(kept) != len(ciphers):
        text = "IKEv1 has no AEAD ciphers in phase 1: left out"
        found.remarks.add(place, connection.name, text)
    return kept


def _dpd(connection: Connection) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if connection.dpd == 0:
        values["enabled"] = False
    elif connection.dpd:
        values["timeout"] = min(max(connection.dpd, MIN_DPD), MAX_DPD)
    if connection.dpd_action:
        values["action"] = connection.dpd_action
    return values


def _health(connection: Connection, found: Found, *, routed: bool) -> Mapping[str, Any]:
    """Its probes need a mapping that carries them."""
    if connection.health is None:
        return {}
    local, remote = connection.health
    values = {"local": local, "remote": remote}
    rules = connection.rules
    if routed or any(_holds(one.local, local) and _holds(one.remote, remote) for one in rules):
        return {"enabled": True, **values}
    text = (
        f"the health check's addresses {local} and {remote} are in no rule: add one for them at both ends,"
        " and set health_check.enabled"
    )
    found.remarks.add(connection.place, f"{connection.name}: the health check", text)
    return {"enabled": False, **values}


def _holds(networks: Sequence[str], address: str) -> bool:
    try:
        return any(ip_address(address) in ip_network(one) for one in networks)
    except ValueError:
        return False


def _value(value: object) -> str:
    """A value as TOML has it, which for words, numbers and lists of them is JSON."""
    return json.dumps(value, ensure_ascii=False)
