"""Huawei's VRP, of USG firewalls and AR routers."""

from __future__ import annotations

from vpnd.model.identity import Identity
from vpnd.translate.peers.routers import (
    OUTSIDE,
    acl,
    full_icv,
    inside_address,
    is_name,
    limited,
    name_of,
    needs_route,
    no_esn,
    own_address,
    reachable,
    sm_note,
)
from vpnd.translate.sheet import PLACEHOLDER, Sheet, about, key_line, only_ipv4
from vpnd.translate.side import AEAD, Side

ENCRYPTION = {word: word for word in ("aes-128", "aes-192", "aes-256", "3des", "des", "sm4")}
ESP_ENCRYPTION = {**ENCRYPTION, "aes-128-gcm": "aes-128-gcm-128", "aes-256-gcm": "aes-256-gcm-128"}
INTEGRITY = {
    "md5": "md5",
    "sha1": "sha1",
    "sha256": "sha2-256",
    "sha384": "sha2-384",
    "sha512": "sha2-512",
    "sm3": "sm3",
}
IKE2_INTEGRITY = {
    "md5": "hmac-md5-96",
    "sha1": "hmac-sha1-96",
    "sha256": "hmac-sha2-256",
    "sha384": "hmac-sha2-384",
    "sha512": "hmac-sha2-512",
}
PRF = {
    "md5": "hmac-md5",
    "sha1": "hmac-sha1",
    **{w: f"hmac-sha2-{w[3:]}" for w in ("sha256", "sha384", "sha512")},
}
GROUP = {number: f"group{number}" for number in (1, 2, 5, 14, 15, 16, 19, 20, 21, 24)}


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    where = f"Enter system-view and paste it. Replace the key, and {OUTSIDE} by the interface's name."
    head = about(side, sheet, where)
    only_ipv4(side, sheet)
    no_esn(side, sheet)
    full_icv(side, sheet)
    needs_route(side, sheet)
    sm_note(side, sheet)
    if side.legacy:
        sheet.note("Newer releases have weak algorithms in the component WEAKEA, which has to be installed.")
    if "sha256" in side.esp.integrity and not set(side.esp.encryption) <= AEAD:
        sheet.note("Old releases cut HMAC-SHA-256 to 96 bits: `ipsec sha2 compatible enable` mends it there.")
    ours = reachable(side, sheet)
    _ike_proposal(side, sheet)
    _peer(side, sheet, ours)
    _ipsec_proposal(side, sheet)
    if side.routed:
        _interface(side, sheet, ours)
    else:
        _policy(side, sheet)
    return head


def _ike_proposal(side: Side, sheet: Sheet) -> None:
    encryption = {**ENCRYPTION}
    if side.ikev2:
        del encryption["sm4"]
    ciphers = " ".join(word for _, word in sheet.words(encryption, side.ike.encryption, "encryption in IKE"))
    integrity = sheet.words(
        IKE2_INTEGRITY if side.ikev2 else INTEGRITY, side.ike.integrity, "integrity in IKE"
    )
    groups = " ".join(word for _, word in sheet.words(GROUP, side.ike.groups, "DH group"))
    hashes = " ".join(word for _, word in integrity)
    sheet.lines(f"ike proposal {side.number_up_to(100)}", f" encryption-algorithm {ciphers}", f" dh {groups}")
    sheet.lines(" authentication-method pre-share")
    if side.ikev2:
        sheet.lines(f" integrity-algorithm {hashes}")
        sheet.lines(f" prf {' '.join(PRF[word] for word, _ in integrity)}")
    else:
        sheet.lines(f" authentication-algorithm {hashes}")
    sheet.lines(
        f" sa duration {limited(side.ike_lifetime, 60, 604_800, 'lifetime of the IKE SA', sheet)}", " quit"
    )


def _peer(side: Side, sheet: Sheet, ours: str) -> None:
    sheet.lines(f"ike peer {side.name}", f" undo version {1 if side.ikev2 else 2}")
    if side.aggressive:
        sheet.why("Aggressive mode shows a hash of the key to anyone who asks: main mode or IKEv2 is better.")
        sheet.lines(" exchange-mode aggressive")
    sheet.why(key_line(side))
    sheet.lines(f" pre-shared-key cipher {PLACEHOLDER}", f" ike-proposal {side.number_up_to(100)}")
    sheet.lines(*_identity("local", side.local_id), *_identity("remote", side.remote_id))
    sheet.lines(f" remote-address {ours}")
    if side.dpd is not None:
        sheet.lines(" dpd type periodic", f" dpd idle-time {max(10, side.dpd // 3)}")
    sheet.lines(" quit")


def _identity(end: str, identity: Identity) -> list[str]:
    kind, text = ("fqdn", name_of(identity)) if is_name(identity) else ("ip", str(identity))
    return [f" {end}-id-type {kind}", f" {end}-id {text}"]


def _ipsec_proposal(side: Side, sheet: Sheet) -> None:
    ciphers = sheet.words(ESP_ENCRYPTION, side.esp.encryption, "encryption")
    if len({word in AEAD for word, _ in ciphers}) > 1:
        kept = [pair for pair in ciphers if (pair[0] in AEAD) is (ciphers[0][0] in AEAD)]
        sheet.note(
            "Ciphers with and without an integrity of their own do not go together: one kind is written."
        )
        ciphers = kept
    hashes = " ".join(word for _, word in sheet.words(INTEGRITY, side.esp.integrity, "integrity"))
    sheet.lines(f"ipsec proposal {side.name}", " encapsulation-mode tunnel", " transform esp")
    sheet.lines(f" esp encryption-algorithm {' '.join(word for _, word in ciphers)}")
    if ciphers and ciphers[0][0] not in AEAD:
        sheet.lines(f" esp authentication-algorithm {hashes}")
    sheet.lines(" quit")


def _protection(side: Side, sheet: Sheet) -> None:
    groups = sheet.words(GROUP, side.esp.groups, "PFS group")
    sheet.lines(f" ike-peer {side.name}", f" proposal {side.name}")
    sheet.lines(*([f" pfs dh-{sheet.only_one(groups, 'PFS group')}"] if groups else []))
    lifetime = limited(side.esp_lifetime, 30, 604_800, "lifetime of ESP SAs", sheet)
    sheet.lines(f" sa duration time-based {lifetime}")
    if side.kilobytes:
        kilobytes = limited(side.kilobytes, 256, 200_000_000, "KB of ESP SAs", sheet)
        sheet.lines(f" sa duration traffic-based {kilobytes}")


def _interface(side: Side, sheet: Sheet, ours: str) -> None:
    number = side.number_up_to(1023)
    sheet.lines(f"ipsec profile {side.name}")
    _protection(side, sheet)
    sheet.lines(" quit", f"interface Tunnel{number}", f" ip address {inside_address(side)}")
    sheet.lines(" tunnel-protocol ipsec", f" source {own_address(side)}", f" destination {ours}")
    sheet.lines(f" ipsec profile {side.name}", " quit")
    sheet.why("On a firewall the interface has to be in a zone, and security policies have to permit it.")
    sheet.lines(f"ip route-static {side.behind} MASK Tunnel{number}")


def _policy(side: Side, sheet: Sheet) -> None:
    number = 3000 + side.number_up_to(999)
    sheet.lines(f"acl number {number}", *acl(side), " quit")
    sheet.lines(f"ipsec policy {side.name} 10 isakmp", f" security acl {number}")
    _protection(side, sheet)
    sheet.lines(*([" sa trigger-mode auto"] if side.begins else []), " quit")
    sheet.why("An interface has one policy: where it has one, give this entry its name and a free number.")
    sheet.lines(f"interface {OUTSIDE}", f" ipsec policy {side.name}", " quit")
