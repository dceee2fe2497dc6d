"""AWS Site-to-Site VPN: the options of one tunnel, for the `aws` command."""

from __future__ import annotations

import json
from typing import Any

from vpnd.translate.peers.routers import full_icv, limited, no_esn
from vpnd.translate.sheet import PLACEHOLDER, Sheet, about, key_line, narrowed, only_addresses, only_ipv4
from vpnd.translate.side import AEAD, Side

ENCRYPTION = {
    "aes-128": "AES128",
    "aes-256": "AES256",
    "aes-128-gcm": "AES128-GCM-16",
    "aes-256-gcm": "AES256-GCM-16",
}
INTEGRITY = {"sha1": "SHA1", "sha256": "SHA2-256", "sha384": "SHA2-384", "sha512": "SHA2-512"}
PHASE1_GROUPS = {number: str(number) for number in (2, 14, 15, 16, 19, 20, 21, 24)}
PHASE2_GROUPS = {**PHASE1_GROUPS, 5: "5"}


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    where = (
        "Run it with the aws command. Replace the key and the ID of the transit or virtual private gateway."
    )
    head = about(side, sheet, where)
    only_ipv4(side, sheet)
    only_addresses(side, sheet)
    no_esn(side, sheet)
    full_icv(side, sheet)
    if side.aggressive:
        sheet.cannot('AWS has no aggressive mode: set ike.negotiation_mode = "main", or use ikev2')
    if narrowed(side):
        sheet.cannot("AWS has one pair of ranges, and no protocol or ports: leave them out")
    if len(side.traffic) > 1:
        sheet.cannot(
            f"AWS has one pair of SAs a tunnel, and this one has {len(side.traffic)} mappings: use"
            ' communication = "destination-route", or one mapping that covers all'
        )
    if not side.esp.groups:
        sheet.note(
            "AWS proposes PFS in any case, and this end has it off: with ipsec.pfs = [14] no warning comes."
        )
    sheet.note("A key for AWS has 8 to 64 letters, digits, `.` and `_`, and does not begin with 0.")
    sheet.note(
        "AWS makes two tunnels, each with an address of its own. These options are for the first; for the"
        " second, whose gateway has another address, make a tunnel here with priority = 100."
    )
    ours = str(side.remote_address) if side.remote_address is not None else "OUR-PUBLIC-ADDRESS"
    sheet.lines(f"aws ec2 create-customer-gateway --type ipsec.1 --public-ip {ours} --bgp-asn 65000")
    sheet.why(key_line(side))
    sheet.lines(
        "cat > vpn-connection.json <<'END'", *json.dumps(_request(side, sheet), indent=2).splitlines(), "END"
    )
    sheet.lines("aws ec2 create-vpn-connection --cli-input-json file://vpn-connection.json")
    sheet.why(f"Then a static route for each network behind {side.gateway}:")
    sheet.lines(
        "aws ec2 create-vpn-connection-route --vpn-connection-id vpn-..."
        f" --destination-cidr-block {side.behind}"
    )
    return head


def _request(side: Side, sheet: Sheet) -> dict[str, Any]:
    (first, *_) = side.traffic
    return {
        "Type": "ipsec.1",
        "CustomerGatewayId": "cgw-...",
        "TransitGatewayId": "tgw-...",
        "Options": {
            "StaticRoutesOnly": True,
            "LocalIpv4NetworkCidr": str(first.remote),
            "RemoteIpv4NetworkCidr": str(first.local),
            "TunnelOptions": [_tunnel(side, sheet)],
        },
    }


def _tunnel(side: Side, sheet: Sheet) -> dict[str, Any]:
    options: dict[str, Any] = {
        "PreSharedKey": PLACEHOLDER,
        "IKEVersions": _values(["ikev2" if side.ikev2 else "ikev1"]),
        "StartupAction": "start" if side.begins else "add",
        "Phase1LifetimeSeconds": limited(side.ike_lifetime, 900, 28_800, "lifetime of the IKE SA", sheet),
        "Phase2LifetimeSeconds": limited(side.esp_lifetime, 900, 3600, "lifetime of ESP SAs", sheet),
        "ReplayWindowSize": min(max(side.replay_window, 64), 2048),
    }
    for phase, algorithms, groups in ((1, side.ike, PHASE1_GROUPS), (2, side.esp, PHASE2_GROUPS)):
        ciphers = sheet.words(ENCRYPTION, algorithms.encryption, "encryption")
        options[f"Phase{phase}EncryptionAlgorithms"] = _values([word for _, word in ciphers])
        if phase == 1 or not set(algorithms.encryption) <= AEAD:
            hashes = sheet.words(INTEGRITY, algorithms.integrity, "integrity")
            options[f"Phase{phase}IntegrityAlgorithms"] = _values([word for _, word in hashes])
        if algorithms.groups:
            found = sheet.words(groups, algorithms.groups, "DH group")
            options[f"Phase{phase}DHGroupNumbers"] = _values([number for number, _ in found])
    if side.dpd is not None:
        options["DPDTimeoutSeconds"] = max(side.dpd, 30)
        options["DPDTimeoutAction"] = "restart" if side.begins else "clear"
    return options


def _values(values: list[Any]) -> list[dict[str, Any]]:
    return [{"Value": value} for value in values]
