"""Tencent Cloud: the request CreateVpnConnection as JSON, for `tccli` and for `vpnctl import`."""

from __future__ import annotations

import json
from typing import Any

from vpnd.model.identity import Identity
from vpnd.translate.peers.routers import full_icv, is_name, limited, name_of, no_esn
from vpnd.translate.sheet import PLACEHOLDER, Sheet, about, key_line, narrowed, only_ipv4
from vpnd.translate.side import Side

ENCRYPTION = {
    "aes-128": "AES-CBC-128",
    "aes-192": "AES-CBC-192",
    "aes-256": "AES-CBC-256",
    "3des": "3DES-CBC",
    "des": "DES-CBC",
    "sm4": "SM4",
}
INTEGRITY = {
    "md5": "MD5",
    "sha1": "SHA1",
    "sha256": "SHA-256",
    "sha384": "SHA-384",
    "sha512": "SHA-512",
    "sm3": "SM3",
}
GROUP = {number: f"GROUP{number}" for number in (1, 2, 5, 14, 24)}
PFS_GROUP = {number: f"DH-GROUP{number}" for number in (1, 2, 5, 14, 24)}
NEGOTIATION = {"active": "passive", "passive": "active", "traffic-triggered": "flowTrigger"}
"""Ours, and what the cloud is to do then."""


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    where = (
        "Run it with tccli, or fill the console's form from it. Replace the key and the three IDs."
        " LocalAddress is the public address of the VPN gateway there."
    )
    head = about(side, sheet, where)
    only_ipv4(side, sheet)
    no_esn(side, sheet)
    full_icv(side, sheet)
    if narrowed(side):
        sheet.cannot("Tencent Cloud has ranges in its SPD policies, and no protocol or ports: leave them out")
    request = _request(side, sheet)
    sheet.why(key_line(side))
    sheet.lines("cat > vpn-connection.json <<'END'", *json.dumps(request, indent=2).splitlines(), "END")
    sheet.lines("tccli vpc CreateVpnConnection --cli-input-json file://$PWD/vpn-connection.json")
    if side.routed:
        sheet.why(f"Then route the networks behind {side.gateway} to this tunnel (CreateVpnGatewayRoutes).")
    return head


def _request(side: Side, sheet: Sheet) -> dict[str, Any]:
    request: dict[str, Any] = {
        "VpcId": "vpc-...",
        "VpnGatewayId": "vpngw-...",
        "CustomerGatewayId": "cgw-...",
        "VpnConnectionName": side.tunnel,
        "PreShareKey": PLACEHOLDER,
        "RouteType": "StaticRoute" if side.routed else "Policy",
        "NegotiationType": NEGOTIATION[side.settings["negotiation"]],
        "IKEOptionsSpecification": _ike(side, sheet),
        "IPSECOptionsSpecification": _ipsec(side, sheet),
        "DpdEnable": 0 if side.dpd is None else 1,
    }
    if not side.routed:
        policies: dict[str, list[str]] = {}
        for one in side.traffic:
            policies.setdefault(str(one.local), []).append(str(one.remote))
        request["SecurityPolicyDatabases"] = [
            {"LocalCidrBlock": local, "RemoteCidrBlock": remotes} for local, remotes in policies.items()
        ]
    if side.dpd is not None:
        timeout = limited(side.dpd, 30, 60, "DPD timeout", sheet)
        request |= {"DpdTimeout": str(timeout), "DpdAction": "restart"}
    if side.health is not None:
        local, remote = side.health
        request |= {
            "EnableHealthCheck": True,
            "HealthCheckLocalIp": str(local),
            "HealthCheckRemoteIp": str(remote),
        }
    return request


def _ike(side: Side, sheet: Sheet) -> dict[str, Any]:
    found = {
        "IKEVersion": "IKEV2" if side.ikev2 else "IKEV1",
        "ExchangeMode": "AGGRESSIVE" if side.aggressive else "MAIN",
        "PropoEncryAlgorithm": sheet.only_one(
            sheet.words(ENCRYPTION, side.ike.encryption, "encryption"), "cipher"
        ),
        "PropoAuthenAlgorithm": sheet.only_one(
            sheet.words(INTEGRITY, side.ike.integrity, "integrity"), "hash"
        ),
        "DhGroupName": sheet.only_one(sheet.words(GROUP, side.ike.groups, "DH group"), "DH group"),
        "IKESaLifetimeSeconds": limited(side.ike_lifetime, 60, 604_800, "lifetime of the IKE SA", sheet),
    }
    return {**found, **_identity("Local", side.local_id), **_identity("Remote", side.remote_id)}


def _identity(end: str, identity: Identity) -> dict[str, str]:
    if is_name(identity):
        return {f"{end}Identity": "FQDN", f"{end}FqdnName": name_of(identity)}
    return {f"{end}Identity": "ADDRESS", f"{end}Address": str(identity)}


def _ipsec(side: Side, sheet: Sheet) -> dict[str, Any]:
    groups = sheet.words(PFS_GROUP, side.esp.groups, "PFS group")
    return {
        "EncryptAlgorithm": sheet.only_one(
            sheet.words(ENCRYPTION, side.esp.encryption, "encryption"), "cipher"
        ),
        "IntegrityAlgorith": sheet.only_one(sheet.words(INTEGRITY, side.esp.integrity, "integrity"), "hash"),
        "PfsDhGroup": sheet.only_one(groups, "PFS group") if groups else "NULL",
        "IPSECSaLifetimeSeconds": limited(side.esp_lifetime, 180, 604_800, "lifetime of ESP SAs", sheet),
        "IPSECSaLifetimeTraffic": limited(side.kilobytes or 4_294_967_295, 2560, 4_294_967_295, "KB", sheet),
    }
