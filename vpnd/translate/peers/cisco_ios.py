"""Cisco IOS and IOS XE: a tunnel interface for a routed tunnel, a crypto map for rules."""

from __future__ import annotations

from itertools import product

from vpnd.model.identity import Identity
from vpnd.translate.peers.routers import (
    OUTSIDE,
    cisco_rule,
    full_icv,
    inside_address,
    is_name,
    limited,
    name_of,
    needs_route,
    no_esn,
    own_address,
    reachable,
    wildcard,
)
from vpnd.translate.sheet import PLACEHOLDER, Sheet, about, by_kind, key_line, only_ipv4
from vpnd.translate.side import Side

IKE2_ENCRYPTION = {
    "aes-128": "aes-cbc-128",
    "aes-192": "aes-cbc-192",
    "aes-256": "aes-cbc-256",
    "3des": "3des",
    "des": "des",
    "aes-128-gcm": "aes-gcm-128",
    "aes-256-gcm": "aes-gcm-256",
}
IKE1_ENCRYPTION = {
    "aes-128": "aes 128",
    "aes-192": "aes 192",
    "aes-256": "aes 256",
    "3des": "3des",
    "des": "des",
}
INTEGRITY2 = {word: word for word in ("md5", "sha1", "sha256", "sha384", "sha512")}
INTEGRITY1 = {**INTEGRITY2, "sha1": "sha"}
GROUP = {number: str(number) for number in (1, 2, 5, 14, 15, 16, 19, 20, 21, 24)}
ESP_ENCRYPTION = {
    "aes-128": "esp-aes 128",
    "aes-192": "esp-aes 192",
    "aes-256": "esp-aes 256",
    "3des": "esp-3des",
    "des": "esp-des",
    "aes-128-gcm": "esp-gcm 128",
    "aes-256-gcm": "esp-gcm 256",
}
ESP_INTEGRITY = {
    "md5": "esp-md5-hmac",
    "sha1": "esp-sha-hmac",
    "sha256": "esp-sha256-hmac",
    "sha384": "esp-sha384-hmac",
    "sha512": "esp-sha512-hmac",
}

FEWEST_KILOBYTES = 2560
MOST_KILOBYTES = 4_294_967_295
WINDOWS = (64, 128, 256, 512, 1024)
"""Packets of the replay window."""


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    head = about(
        side,
        sheet,
        f"Paste it in configuration mode. Replace the key, and {OUTSIDE} by the interface's name.",
    )
    only_ipv4(side, sheet)
    no_esn(side, sheet)
    full_icv(side, sheet)
    needs_route(side, sheet)
    if side.legacy:
        sheet.note("Recent IOS XE refuses weak algorithms, until `crypto engine compliance shield disable`.")
    ours = reachable(side, sheet)
    sheet.why(key_line(side))
    if side.ikev2:
        _ikev2(side, sheet, ours)
    else:
        _ikev1(side, sheet, ours)
    sets = _transform_sets(side, sheet)
    if side.routed:
        _interface(side, sheet, sets, ours)
    else:
        _map(side, sheet, sets, ours)
    return head


def _ikev2(side: Side, sheet: Sheet, ours: str) -> None:
    name = side.name
    groups = " ".join(word for _, word in sheet.words(GROUP, side.ike.groups, "DH group"))
    proposals = []
    for aead, part in by_kind(side.ike):
        ciphers = " ".join(word for _, word in sheet.words(IKE2_ENCRYPTION, part.encryption, "encryption"))
        hashes = " ".join(word for _, word in sheet.words(INTEGRITY2, part.integrity, "integrity"))
        if ciphers:
            proposals.append(f"{name}-aead" if aead else name)
            sheet.lines(f"crypto ikev2 proposal {proposals[-1]}", f" encryption {ciphers}")
            sheet.lines(f" prf {hashes}" if aead else f" integrity {hashes}", f" group {groups}")
    sheet.lines(f"crypto ikev2 policy {name}", f" match address local {own_address(side)}")
    sheet.lines(*(f" proposal {proposal}" for proposal in proposals))
    sheet.lines(f"crypto ikev2 keyring {name}", f" peer {name}", f"  address {ours}")
    sheet.lines(f"  pre-shared-key {PLACEHOLDER}")
    sheet.lines(
        f"crypto ikev2 profile {name}",
        f" match identity remote {_identity(side.remote_id, ' 255.255.255.255')}",
    )
    sheet.lines(f" identity local {_identity(side.local_id)}", " authentication remote pre-share")
    sheet.lines(" authentication local pre-share", f" keyring local {name}")
    sheet.lines(f" lifetime {limited(side.ike_lifetime, 120, 86400, 'lifetime of the IKE SA', sheet)}")
    if side.dpd is not None:
        sheet.lines(f" dpd {max(10, side.dpd // 3)} 3 periodic")


def _identity(identity: Identity, mask: str = "") -> str:
    return f"fqdn {name_of(identity)}" if is_name(identity) else f"address {identity}{mask}"


def _ikev1(side: Side, sheet: Sheet, ours: str) -> None:
    name, first = side.name, side.number_up_to(9000)
    ciphers = sheet.words(IKE1_ENCRYPTION, side.ike.encryption, "encryption")
    hashes = sheet.words(INTEGRITY1, side.ike.integrity, "integrity")
    groups = sheet.words(GROUP, side.ike.groups, "DH group")
    lifetime = limited(side.ike_lifetime, 60, 86400, "lifetime of the IKE SA", sheet)
    for index, ((_, cipher), (_, hashed), (_, group)) in enumerate(product(ciphers, hashes, groups)):
        sheet.lines(f"crypto isakmp policy {first + index}", f" encryption {cipher}", f" hash {hashed}")
        sheet.lines(" authentication pre-share", f" group {group}", f" lifetime {lifetime}")
    sheet.lines(f"crypto keyring {name}", f" pre-shared-key address {ours} key {PLACEHOLDER}")
    sheet.lines(f"crypto isakmp profile {name}", f" keyring {name}")
    if is_name(side.local_id):
        sheet.note(
            f"IOS says its own host name in IKEv1: `hostname` and `ip domain name` have to make"
            f" {name_of(side.local_id)}."
        )
    sheet.lines(f" self-identity {'fqdn' if is_name(side.local_id) else 'address'}")
    match = (
        f"host {name_of(side.remote_id)}"
        if is_name(side.remote_id)
        else f"address {side.remote_id} 255.255.255.255"
    )
    sheet.lines(f" match identity {match}")
    if side.aggressive:
        sheet.why("Aggressive mode shows a hash of the key to anyone who asks: main mode or IKEv2 is better.")
        sheet.lines(" initiate mode aggressive")
    if side.dpd is not None:
        sheet.lines(f" keepalive {max(10, side.dpd // 3)} retry 3")


def _transform_sets(side: Side, sheet: Sheet) -> list[str]:
    sets: list[str] = []
    for aead, part in by_kind(side.esp):
        ciphers = [word for _, word in sheet.words(ESP_ENCRYPTION, part.encryption, "encryption")]
        hashes = [word for _, word in sheet.words(ESP_INTEGRITY, part.integrity, "integrity")]
        for cipher, hashed in product(ciphers, [""] if aead else hashes):
            sets.append(side.name if not sets else f"{side.name}-{len(sets) + 1}")
            sheet.lines(f"crypto ipsec transform-set {sets[-1]} {cipher} {hashed}", " mode tunnel")
    return sets


def _protection(side: Side, sheet: Sheet, sets: list[str]) -> None:
    """What a profile and a crypto map have in common."""
    sheet.lines(f" set transform-set {' '.join(sets)}")
    lifetime = limited(side.esp_lifetime, 120, 2_592_000, "lifetime of ESP SAs", sheet)
    sheet.lines(f" set security-association lifetime seconds {lifetime}")
    if side.kilobytes:
        kilobytes = limited(side.kilobytes, FEWEST_KILOBYTES, MOST_KILOBYTES, "KB of ESP SAs", sheet)
        sheet.lines(f" set security-association lifetime kilobytes {kilobytes}")
    window = max((size for size in WINDOWS if size <= side.replay_window), default=WINDOWS[0])
    sheet.lines(f" set security-association replay window-size {window}")
    groups = sheet.words(GROUP, side.esp.groups, "PFS group")
    if groups:
        sheet.lines(f" set pfs group{sheet.only_one(groups, 'PFS group')}")
    sheet.lines(f" set {'ikev2' if side.ikev2 else 'isakmp'}-profile {side.name}")


def _interface(side: Side, sheet: Sheet, sets: list[str], ours: str) -> None:
    number = side.number_up_to(10_000)
    sheet.lines(f"crypto ipsec profile {side.name}")
    _protection(side, sheet, sets)
    sheet.lines(f"interface Tunnel{number}", f" ip address {inside_address(side)}")
    sheet.lines(f" tunnel source {OUTSIDE}", " tunnel mode ipsec ipv4", f" tunnel destination {ours}")
    sheet.lines(f" tunnel protection ipsec profile {side.name}")
    sheet.lines(f"ip route {side.behind} MASK Tunnel{number}")


def _map(side: Side, sheet: Sheet, sets: list[str], ours: str) -> None:
    sheet.lines(f"ip access-list extended {side.name}")
    sheet.lines(*(f" {cisco_rule(traffic, wildcard)}" for traffic in side.traffic))
    sheet.lines(f"crypto map {side.name} 10 ipsec-isakmp", f" set peer {ours}")
    _protection(side, sheet, sets)
    sheet.lines(f" match address {side.name}")
    sheet.why("An interface has one crypto map: where it has one, give these entries its name.")
    sheet.lines(f"interface {OUTSIDE}", f" crypto map {side.name}")
