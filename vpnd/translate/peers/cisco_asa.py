"""Cisco ASA: a virtual tunnel interface for a routed tunnel, a crypto map for rules."""

from __future__ import annotations

from itertools import product

from vpnd.translate.peers.routers import (
    OUTSIDE,
    cisco_rule,
    full_icv,
    inside_address,
    is_name,
    limited,
    masked,
    name_of,
    needs_route,
    no_esn,
    reachable,
)
from vpnd.translate.sheet import PLACEHOLDER, Sheet, about, by_kind, key_line, only_ipv4
from vpnd.translate.side import Side

CBC = {"aes-128": "aes", "aes-192": "aes-192", "aes-256": "aes-256", "3des": "3des", "des": "des"}
ENCRYPTION = {**CBC, "aes-128-gcm": "aes-gcm", "aes-256-gcm": "aes-gcm-256"}
INTEGRITY = {"md5": "md5", "sha1": "sha", "sha256": "sha256", "sha384": "sha384", "sha512": "sha512"}
ESP_INTEGRITY = {"md5": "md5", "sha1": "sha-1", "sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}
INTEGRITY1 = {"md5": "md5", "sha1": "sha"}
"""IKEv1 of the ASA never got SHA-2."""
GROUP = {number: str(number) for number in (1, 2, 5, 14, 15, 16, 19, 20, 21, 24)}
GROUP1 = {number: str(number) for number in (1, 2, 5, 14)}


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    where = (
        f"Paste it in configuration mode. Replace the key, and {OUTSIDE} by the interface's name (nameif)."
    )
    head = about(side, sheet, where)
    only_ipv4(side, sheet)
    no_esn(side, sheet)
    full_icv(side, sheet)
    needs_route(side, sheet)
    if side.legacy:
        sheet.note("ASA 9.15 and later have no DES, 3DES, MD5, and no DH group 1, 2, 5 or 24.")
    ours = reachable(side, sheet)
    _identities(side, sheet)
    if side.ikev2:
        _policies2(side, sheet)
    else:
        _policies1(side, sheet)
    proposals = _proposals2(side, sheet) if side.ikev2 else _proposals1(side, sheet)
    _group(side, sheet, ours)
    if side.routed:
        _interface(side, sheet, proposals, ours)
    else:
        _map(side, sheet, proposals, ours)
    return head


def _identities(side: Side, sheet: Sheet) -> None:
    if is_name(side.local_id):
        sheet.note(
            "The ASA says its own host name, for all tunnels alike: `hostname` and `domain-name` have to make"
            f" {name_of(side.local_id)}."
        )
        sheet.lines("crypto isakmp identity hostname")
    elif str(side.local_id) != str(side.local_address):
        sheet.note(f"The ASA says the address of {OUTSIDE}; this end expects {side.local_id}.")
    if is_name(side.remote_id):
        sheet.note(
            f"This end says {name_of(side.remote_id)}; the ASA finds the tunnel group by our address then."
        )


def _policies2(side: Side, sheet: Sheet) -> None:
    first = side.number_up_to(60_000)
    groups = " ".join(word for _, word in sheet.words(GROUP, side.ike.groups, "DH group"))
    lifetime = limited(side.ike_lifetime, 120, 2_147_483_647, "lifetime of the IKE SA", sheet)
    for index, (aead, part) in enumerate(by_kind(side.ike)):
        ciphers = " ".join(word for _, word in sheet.words(ENCRYPTION, part.encryption, "encryption"))
        hashes = " ".join(word for _, word in sheet.words(INTEGRITY, part.integrity, "integrity"))
        sheet.lines(f"crypto ikev2 policy {first + index}", f" encryption {ciphers}")
        sheet.lines(f" integrity {'null' if aead else hashes}", f" group {groups}", f" prf {hashes}")
        sheet.lines(f" lifetime seconds {lifetime}")
    sheet.lines(f"crypto ikev2 enable {OUTSIDE}")


def _policies1(side: Side, sheet: Sheet) -> None:
    first = side.number_up_to(60_000)
    ciphers = sheet.words(CBC, side.ike.encryption, "encryption")
    hashes = sheet.words(INTEGRITY1, side.ike.integrity, "integrity in IKEv1")
    groups = sheet.words(GROUP1, side.ike.groups, "DH group in IKEv1")
    lifetime = limited(side.ike_lifetime, 120, 2_147_483_647, "lifetime of the IKE SA", sheet)
    for index, ((_, cipher), (_, hashed), (_, group)) in enumerate(product(ciphers, hashes, groups)):
        sheet.lines(f"crypto ikev1 policy {first + index}", " authentication pre-share")
        sheet.lines(f" encryption {cipher}", f" hash {hashed}", f" group {group}", f" lifetime {lifetime}")
    sheet.lines(f"crypto ikev1 enable {OUTSIDE}")


def _proposals2(side: Side, sheet: Sheet) -> list[str]:
    names = []
    for aead, part in by_kind(side.esp):
        ciphers = " ".join(word for _, word in sheet.words(ENCRYPTION, part.encryption, "encryption"))
        hashes = " ".join(word for _, word in sheet.words(ESP_INTEGRITY, part.integrity, "integrity"))
        names.append(f"{side.name}-aead" if aead else side.name)
        sheet.lines(f"crypto ipsec ikev2 ipsec-proposal {names[-1]}", f" protocol esp encryption {ciphers}")
        sheet.lines(f" protocol esp integrity {'null' if aead else hashes}")
    return names


def _proposals1(side: Side, sheet: Sheet) -> list[str]:
    ciphers = sheet.words(CBC, side.esp.encryption, "encryption in IKEv1")
    hashes = sheet.words(INTEGRITY1, side.esp.integrity, "integrity in IKEv1")
    names: list[str] = []
    for (_, cipher), (_, hashed) in product(ciphers, hashes):
        names.append(side.name if not names else f"{side.name}-{len(names) + 1}")
        sheet.lines(f"crypto ipsec ikev1 transform-set {names[-1]} esp-{cipher} esp-{hashed}-hmac")
    return names


def _group(side: Side, sheet: Sheet, ours: str) -> None:
    sheet.why(key_line(side))
    sheet.lines(f"tunnel-group {ours} type ipsec-l2l", f"tunnel-group {ours} ipsec-attributes")
    if side.ikev2:
        sheet.lines(f" ikev2 remote-authentication pre-shared-key {PLACEHOLDER}")
        sheet.lines(f" ikev2 local-authentication pre-shared-key {PLACEHOLDER}")
    else:
        sheet.lines(f" ikev1 pre-shared-key {PLACEHOLDER}")
    if side.dpd is not None:
        sheet.lines(f" isakmp keepalive threshold {max(10, side.dpd // 3)} retry 2")


def _protection(side: Side, sheet: Sheet, start: str, proposals: list[str]) -> None:
    kind = "ikev2 ipsec-proposal" if side.ikev2 else "ikev1 transform-set"
    sheet.lines(f"{start}set {kind} {' '.join(proposals)}")
    groups = sheet.words(GROUP if side.ikev2 else GROUP1, side.esp.groups, "PFS group")
    if groups:
        sheet.lines(f"{start}set pfs group{sheet.only_one(groups, 'PFS group')}")
    lifetime = limited(side.esp_lifetime, 120, 214_783_647, "lifetime of ESP SAs", sheet)
    sheet.lines(f"{start}set security-association lifetime seconds {lifetime}")
    if side.kilobytes:
        kilobytes = limited(side.kilobytes, 10, 2_147_483_647, "KB of ESP SAs", sheet)
        sheet.lines(f"{start}set security-association lifetime kilobytes {kilobytes}")


def _interface(side: Side, sheet: Sheet, proposals: list[str], ours: str) -> None:
    if side.aggressive:
        sheet.cannot(
            'Cisco ASA begins aggressive mode for crypto maps only: set communication = "spd-policy"'
        )
    sheet.lines(f"crypto ipsec profile {side.name}")
    _protection(side, sheet, " ", proposals)
    sheet.lines(f"interface Tunnel{side.number_up_to(1024)}", f" nameif {side.name}")
    sheet.lines(f" ip address {inside_address(side)}", f" tunnel source interface {OUTSIDE}")
    sheet.lines(f" tunnel destination {ours}", " tunnel mode ipsec ipv4")
    sheet.lines(f" tunnel protection ipsec profile {side.name}")
    sheet.lines(f"route {side.name} {side.behind} MASK {side.health[1] if side.health else ours}")


def _map(side: Side, sheet: Sheet, proposals: list[str], ours: str) -> None:
    sheet.lines(
        *(f"access-list {side.name} extended {cisco_rule(traffic, masked)}" for traffic in side.traffic)
    )
    start = f"crypto map OUTSIDE-MAP {side.number_up_to(60_000)} "
    sheet.lines(f"{start}match address {side.name}", f"{start}set peer {ours}")
    _protection(side, sheet, start, proposals)
    if side.aggressive:
        sheet.why("Aggressive mode shows a hash of the key to anyone who asks: main mode or IKEv2 is better.")
        sheet.lines(f"{start}set ikev1 phase1-mode aggressive group{side.ike.groups[0]}")
    sheet.why("An interface has one crypto map: where it has one, give these entries its name.")
    sheet.lines(f"crypto map OUTSIDE-MAP interface {OUTSIDE}")
    sheet.why("Where the ASA translates addresses, exempt this traffic from it (nat ... no-proxy-arp).")
