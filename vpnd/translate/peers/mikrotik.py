"""MikroTik's RouterOS 7: policies, since it has no tunnel interface of IPsec."""

from __future__ import annotations

from vpnd.model.identity import Identity
from vpnd.translate.peers.routers import full_icv, is_name, name_of, no_esn, one_port, own_address, reachable
from vpnd.translate.sheet import PLACEHOLDER, Sheet, about, key_line
from vpnd.translate.side import AEAD, Side, Traffic

IKE_ENCRYPTION = {word: word for word in ("aes-128", "aes-192", "aes-256", "3des", "des")}
INTEGRITY = {word: word for word in ("md5", "sha1", "sha256", "sha384", "sha512")}
ESP_ENCRYPTION = {
    "aes-128": "aes-128-cbc",
    "aes-192": "aes-192-cbc",
    "aes-256": "aes-256-cbc",
    "3des": "3des",
    "des": "des",
    "aes-128-gcm": "aes-128-gcm",
    "aes-256-gcm": "aes-256-gcm",
}
ESP_INTEGRITY = {word: word for word in ("md5", "sha1", "sha256", "sha512")}
GROUP = {
    1: "modp768",
    2: "modp1024",
    5: "modp1536",
    14: "modp2048",
    15: "modp3072",
    16: "modp4096",
    19: "ecp256",
    20: "ecp384",
    21: "ecp521",
    31: "x25519",
}


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    head = about(side, sheet, "Paste it in a terminal. Replace the key.")
    no_esn(side, sheet)
    full_icv(side, sheet)
    one_port(side, sheet)
    if side.routed:
        sheet.cannot(
            "RouterOS has no interface for IPsec, and policies for all addresses would take all of its"
            ' traffic: use communication = "spd-policy" with rules'
        )
    sheet.note(
        "RouterOS translates addresses before IPsec: in /ip firewall nat a rule with action=accept for this"
        " traffic has to stand before the masquerading one."
    )
    if side.kilobytes:
        sheet.note("RouterOS has no lifetime in KB for ESP SAs; this end has one, and rekeys.")
    ours = reachable(side, sheet)
    _phase1(side, sheet, ours)
    _phase2(side, sheet)
    for traffic in side.traffic:
        sheet.lines(_policy(side, traffic))
    if side.health is not None:
        sheet.why("The health check of the other side pings this address.")
        sheet.lines(f"/ip address add address={side.health[0]}/32 interface=lo")
    return head


def _phase1(side: Side, sheet: Sheet, ours: str) -> None:
    ciphers = ",".join(
        word for _, word in sheet.words(IKE_ENCRYPTION, side.ike.encryption, "encryption in IKE")
    )
    hashed = sheet.only_one(sheet.words(INTEGRITY, side.ike.integrity, "integrity"), "hash")
    groups = ",".join(word for _, word in sheet.words(GROUP, side.ike.groups, "DH group"))
    dpd = "disable-dpd" if side.dpd is None else f"{max(10, side.dpd // 3)}s"
    mode = "ike2" if side.ikev2 else "aggressive" if side.aggressive else "main"
    if side.aggressive:
        sheet.why("Aggressive mode shows a hash of the key to anyone who asks: main mode or IKEv2 is better.")
    sheet.lines(
        f"/ip ipsec profile add name={side.name} enc-algorithm={ciphers} hash-algorithm={hashed}"
        f" dh-group={groups} lifetime={side.ike_lifetime}s dpd-interval={dpd} dpd-maximum-failures=3"
        " nat-traversal=yes"
    )
    bits = 128 if ":" in ours else 32
    address = "" if side.local_address is None else f" local-address={own_address(side)}"
    sheet.lines(
        f"/ip ipsec peer add name={side.name} address={ours}/{bits}{address} exchange-mode={mode}"
        f" profile={side.name}"
    )
    sheet.why(key_line(side))
    sheet.lines(
        f'/ip ipsec identity add peer={side.name} auth-method=pre-shared-key secret="{PLACEHOLDER}"'
        f" my-id={_identity(side.local_id)} remote-id={_identity(side.remote_id)}"
    )


def _identity(identity: Identity) -> str:
    return f"fqdn:{name_of(identity)}" if is_name(identity) else f"address:{identity}"


def _phase2(side: Side, sheet: Sheet) -> None:
    ciphers = sheet.words(ESP_ENCRYPTION, side.esp.encryption, "encryption")
    hashes = (
        sheet.words(ESP_INTEGRITY, side.esp.integrity, "integrity for ESP")
        if set(side.esp.encryption) - AEAD
        else []
    )
    found = ",".join(word for _, word in hashes) or "null"
    groups = sheet.words(GROUP, side.esp.groups, "PFS group")
    pfs = sheet.only_one(groups, "PFS group") if groups else "none"
    sheet.lines(
        f"/ip ipsec proposal add name={side.name} enc-algorithms={','.join(word for _, word in ciphers)}"
        f" auth-algorithms={found} pfs-group={pfs} lifetime={side.esp_lifetime}s"
    )


def _policy(side: Side, traffic: Traffic) -> str:
    words = [f"/ip ipsec policy add peer={side.name} tunnel=yes"]
    words += [f"src-address={traffic.local}", f"dst-address={traffic.remote}"]
    words += [f"protocol={traffic.protocol}"] if traffic.protocol else []
    words += [f"src-port={traffic.local_port}"] if traffic.local_port else []
    words += [f"dst-port={traffic.remote_port}"] if traffic.remote_port else []
    # Without `unique` several policies of one peer share one pair of SAs.
    return " ".join([*words, f"proposal={side.name}", "level=unique"])
