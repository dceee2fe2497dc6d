"""Tencent Cloud's VPN connections as JSON: what its API answers, or what CreateVpnConnection takes.

They are seen from the cloud: its local end is our peer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpnd.config.secrets import is_text
from vpnd.model.secret import Secret
from vpnd.translate.imports import words
from vpnd.translate.imports.files import Reader
from vpnd.translate.imports.model import Algorithms, Broken, Connection, Found, Place, Rule, bounded

ENCRYPTION = {
    "AES-CBC-128": "aes-128",
    "AES-CBC-192": "aes-192",
    "AES-CBS-192": "aes-192",
    "AES-CBC-256": "aes-256",
    "3DES-CBC": "3des",
    "3DES": "3des",
    "DES-CBC": "des",
    "DES": "des",
    "SM4": "sm4",
}
INTEGRITY = {
    "MD5": "md5",
    "SHA": "sha1",
    "SHA1": "sha1",
    "SHA-1": "sha1",
    "SHA-256": "sha256",
    "SHA256": "sha256",
    "SHA-384": "sha384",
    "SHA-512": "sha512",
    "SM3": "sm3",
}
NEGOTIATION = {"active": "passive", "passive": "active", "flowtrigger": "traffic-triggered"}
LABELS = frozenset(
    [
        "VpcId",
        "VpnConnectionId",
        "VpnConnectionName",
        "VpnGatewayId",
        "CustomerGatewayId",
        "VpnProto",
        "EncryptProto",
        "CreatedTime",
        "State",
        "NetStatus",
        "HealthCheckStatus",
        "RequestId",
        "TotalCount",
        "CdcId",
        "VpnGatewayRoutes",
        "IKEOptionsSpecification",
        "IPSECOptionsSpecification",
        "SecurityPolicyDatabases",
        "SecurityPolicyDatabaseSet",
        "PreShareKey",
        "RouteType",
        "NegotiationType",
        "DpdEnable",
        "DpdTimeout",
        "DpdAction",
        "EnableHealthCheck",
        "HealthCheckLocalIp",
        "HealthCheckRemoteIp",
        "Tags",
        "TagSet",
    ]
)
MEANINGS = {
    "HealthCheckConfig": "the health check's times are in [tunnels.X.health_check]",
    "BgpConfig": "vpnd has no BGP of its own: run FRR on the tunnel's interface",
    "EnableBgp": "vpnd has no BGP of its own: run FRR on the tunnel's interface",
}


def read(path: Path, reader: Reader) -> Found:
    """Every connection of the file. Raises Broken."""
    text, found = reader.text(path), Found(remarks=reader.remarks)
    # What `vpnctl peer-config` prints is a script with the JSON in it.
    script = re.search(r"<<'END'\n(.*?)\nEND(?:\n|$)", text, re.DOTALL)
    try:
        document = json.loads(script[1] if script else text)
    except RecursionError:
        raise Broken(Place(str(path), 1), "the values are nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Broken(Place(str(path), error.lineno), f"this is no JSON: {error.msg}") from None
    except ValueError:
        # Python reads no number of more than 4300 digits.
        raise Broken(Place(str(path), 1), "a number in it is too long") from None
    for number, one in enumerate(_connections(document)):
        made = _made(one, number, text, str(path), found)
        if made is not None:
            found.add(made)
    if not found.connections and not found.remarks.found:
        raise Broken(Place(str(path), 1), "there is no VpnConnectionSet, and no VPN connection, in it")
    return found


def _connections(document: Any) -> list[Mapping[str, Any]]:
    if isinstance(document, list):
        return [one for one in document if isinstance(one, dict)]
    if not isinstance(document, dict):
        return []
    inner = document.get("Response", document)
    if not isinstance(inner, dict):
        return []
    for key in ("VpnConnectionSet", "VpnConnections"):
        if isinstance(inner.get(key), list):
            return [one for one in inner[key] if isinstance(one, dict)]
    one = inner.get("VpnConnection", inner)
    return [one] if isinstance(one, dict) and "IKEOptionsSpecification" in one else []


def _made(one: Mapping[str, Any], number: int, text: str, file: str, found: Found) -> Connection | None:
    name = str(one.get("VpnConnectionName") or one.get("VpnConnectionId") or f"connection-{number + 1}")
    place = Place(file, _line_of(text, name))
    ike, ipsec = one.get("IKEOptionsSpecification"), one.get("IPSECOptionsSpecification")
    ike, ipsec = (ike if isinstance(ike, dict) else {}), (ipsec if isinstance(ipsec, dict) else {})
    made = Connection(name, place)
    made.ikev2 = str(ike.get("IKEVersion", "IKEV1")).upper() == "IKEV2"
    made.aggressive = str(ike.get("ExchangeMode", "MAIN")).upper() == "AGGRESSIVE"
    for ours, theirs in (("remote", "Local"), ("local", "Remote")):
        address, fqdn = ike.get(f"{theirs}Address"), ike.get(f"{theirs}FqdnName")
        if address:
            setattr(made, f"{ours}_address", str(address))
        if str(ike.get(f"{theirs}Identity", "")).upper() == "FQDN" and fqdn:
            setattr(made, f"{ours}_id", words.identity(str(fqdn)))
    made.ike = _algorithms(ike, "PropoEncryAlgorithm", "PropoAuthenAlgorithm", "DhGroupName", place, found)
    made.esp = _algorithms(ipsec, "EncryptAlgorithm", "IntegrityAlgorith", "PfsDhGroup", place, found)
    made.ike_lifetime = _number(ike.get("IKESaLifetimeSeconds"))
    made.esp_lifetime = _number(ipsec.get("IPSECSaLifetimeSeconds"))
    made.kilobytes = _number(ipsec.get("IPSECSaLifetimeTraffic"))
    made.negotiation = NEGOTIATION.get(str(one.get("NegotiationType", "")).lower(), "active")
    _rest(one, made, place, found)
    return made


def _rest(one: Mapping[str, Any], made: Connection, place: Place, found: Found) -> None:
    policies = one.get("SecurityPolicyDatabases") or one.get("SecurityPolicyDatabaseSet") or []
    for policy in policies if isinstance(policies, list) else []:
        if not isinstance(policy, dict):
            continue
        remote = words.network(str(policy.get("LocalCidrBlock")))
        blocks = policy.get("RemoteCidrBlock")
        each = blocks if isinstance(blocks, list) else [blocks]
        bounded(each, place, f"{made.name}: RemoteCidrBlock")
        local = [words.network(str(block)) for block in each]
        known = [block for block in local if block is not None]
        if remote is None or len(known) != len(local):
            found.remarks.add(
                place, f"{made.name}: {policy}", "a range is no CIDR block: write the rule by hand"
            )
        elif known:
            made.rules.append(Rule(known, [remote]))
    if one.get("DpdEnable") is not None:
        made.dpd = (
            (_number(one.get("DpdTimeout")) or 30) if str(one["DpdEnable"]) in ("1", "True", "true") else 0
        )
        action = str(one.get("DpdAction", "")).lower()
        made.dpd_action = {"clear": "disconnect", "restart": "retry"}.get(action)
    if one.get("EnableHealthCheck") and one.get("HealthCheckLocalIp") and one.get("HealthCheckRemoteIp"):
        made.health = str(one["HealthCheckRemoteIp"]), str(one["HealthCheckLocalIp"])
    key = one.get("PreShareKey")
    if isinstance(key, str) and key and not set(key) <= {"*"}:
        if is_text(key):
            made.secret = Secret(key.encode())
        else:
            text = (
                "it is no Unicode text (half a surrogate pair), so that its bytes cannot be known: left out"
            )
            found.remarks.add(place, f"{made.name}: PreShareKey", text)
    for name in one:
        if name not in LABELS:
            text = MEANINGS.get(name, "this is not known to the importer: look up what it does")
            found.remarks.add(place, f"{made.name}: {name}", text)


def _algorithms(
    table: Mapping[str, Any], cipher: str, hashed: str, group: str, place: Place, found: Found
) -> Algorithms:
    made = Algorithms()
    for key, known, into in ((cipher, ENCRYPTION, made.encryption), (hashed, INTEGRITY, made.integrity)):
        word = str(table.get(key) or "")
        if word.upper() in known:
            into.append(known[word.upper()])
        elif word:
            found.remarks.add(
                place, f"{key}: {word}", "vpnd has no such algorithm: choose another at both ends"
            )
    number = re.search(r"(\d+)$", str(table.get(group) or ""))
    if number is not None and f"dh{number[1]}" in words.GROUPS:
        made.groups.append(words.GROUPS[f"dh{number[1]}"])
    elif number is not None:
        found.remarks.add(
            place, f"{group}: {number[0]}", "vpnd has no such DH group: choose another at both ends"
        )
    return made


def _number(value: Any) -> int | None:
    text = str(value)
    return int(text) if text.isdecimal() and len(text) <= 15 else None


def _line_of(text: str, name: str) -> int:
    """Where the connection's name stands, for its remarks."""
    at = text.find(json.dumps(name, ensure_ascii=False))
    return text.count("\n", 0, at) + 1 if at >= 0 else 1
