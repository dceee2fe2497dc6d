"""Azure VPN Gateway, for the `az` command."""

from __future__ import annotations

from vpnd.translate.peers.routers import full_icv, limited, no_esn
from vpnd.translate.sheet import PLACEHOLDER, Sheet, about, key_line, narrowed, only_addresses, only_ipv4
from vpnd.translate.side import Side

ENCRYPTION = {
    "aes-128": "AES128",
    "aes-192": "AES192",
    "aes-256": "AES256",
    "3des": "DES3",
    "des": "DES",
    "aes-128-gcm": "GCMAES128",
    "aes-256-gcm": "GCMAES256",
}
IKE_INTEGRITY = {"md5": "MD5", "sha1": "SHA1", "sha256": "SHA256", "sha384": "SHA384"}
ESP_INTEGRITY = {"md5": "MD5", "sha1": "SHA1", "sha256": "SHA256"}
GROUP = {1: "DHGroup1", 2: "DHGroup2", 14: "DHGroup14", 19: "ECP256", 20: "ECP384", 24: "DHGroup24"}
PFS_GROUP = {1: "PFS1", 2: "PFS2", 14: "PFS2048", 19: "ECP256", 20: "ECP384", 24: "PFS24"}
IKE_LIFETIME = 28_800
"""Seconds: Azure's is fixed."""


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    where = "Run it with az. Replace the key, GROUP (the resource group) and GATEWAY (its VPN gateway)."
    head = about(side, sheet, where)
    only_ipv4(side, sheet)
    only_addresses(side, sheet)
    no_esn(side, sheet)
    full_icv(side, sheet)
    _notes(side, sheet)
    ours = str(side.remote_address) if side.remote_address is not None else "OUR-PUBLIC-ADDRESS"
    ranges = " ".join(dict.fromkeys(str(one.remote) for one in side.traffic))
    if side.routed:
        ranges = f"{side.behind}"
    sheet.lines(
        f"az network local-gateway create -g GROUP -n {side.name} --gateway-ip-address {ours} \\",
        f"    --local-address-prefixes {ranges}",
    )
    sheet.why(key_line(side))
    sheet.lines(
        f"az network vpn-connection create -g GROUP -n {side.name} --vnet-gateway1 GATEWAY \\",
        f"    --local-gateway2 {side.name} --shared-key '{PLACEHOLDER}' \\",
        f"    --use-policy-based-traffic-selectors {'false' if side.routed else 'true'}",
    )
    connection = [f"az network vpn-connection update -g GROUP -n {side.name} \\"]
    connection.append(f"    --set connectionProtocol={'IKEv2' if side.ikev2 else 'IKEv1'}")
    if side.dpd is not None:
        connection[-1] += f" dpdTimeoutSeconds={min(max(side.dpd, 9), 3600)}"
    connection[-1] += f" connectionMode={'Default' if side.begins else 'ResponderOnly'}"
    sheet.lines(*connection, *_policy(side, sheet))
    return head


def _notes(side: Side, sheet: Sheet) -> None:
    if side.aggressive:
        sheet.cannot('Azure has no aggressive mode: set ike.negotiation_mode = "main", or use ikev2')
    if narrowed(side):
        sheet.cannot("Azure has ranges in its selectors, and no protocol or ports: leave them out")
    if not side.ikev2:
        sheet.note(
            "Azure takes IKEv1 on VpnGw1 and larger; the type of the connection cannot be changed later."
        )
    if side.ike_lifetime != IKE_LIFETIME:
        sheet.note(f"Azure's IKE SA lives {IKE_LIFETIME} s, and this end has {side.ike_lifetime}: both work.")
    if not side.routed:
        sheet.note(
            "Azure proposes each range of the virtual network with each of these: the rules need them all."
        )


def _policy(side: Side, sheet: Sheet) -> list[str]:
    cipher = sheet.only_one(sheet.words(ENCRYPTION, side.ike.encryption, "encryption"), "cipher for IKE")
    hashed = sheet.only_one(sheet.words(IKE_INTEGRITY, side.ike.integrity, "integrity"), "hash for IKE")
    esp = sheet.only_one(sheet.words(ENCRYPTION, side.esp.encryption, "encryption"), "cipher for ESP")
    groups = sheet.words(PFS_GROUP, side.esp.groups, "PFS group")
    if esp.startswith("GCM"):
        integrity = esp
    else:
        found = sheet.words(ESP_INTEGRITY, side.esp.integrity, "integrity for ESP")
        integrity = sheet.only_one(found, "hash for ESP")
    kilobytes = limited(side.kilobytes or 102_400_000, 1024, 2_147_483_647, "KB of ESP SAs", sheet)
    return [
        f"az network vpn-connection ipsec-policy add -g GROUP --connection-name {side.name} \\",
        f"    --ike-encryption {cipher} --ike-integrity {hashed} \\",
        f"    --dh-group {sheet.only_one(sheet.words(GROUP, side.ike.groups, 'DH group'), 'DH group')} \\",
        f"    --ipsec-encryption {esp} --ipsec-integrity {integrity} \\",
        f"    --pfs-group {sheet.only_one(groups, 'PFS group') if groups else 'None'} \\",
        f"    --sa-lifetime {limited(side.esp_lifetime, 300, 172_799, 'lifetime of ESP SAs', sheet)} \\",
        f"    --sa-max-size {kilobytes}",
    ]
