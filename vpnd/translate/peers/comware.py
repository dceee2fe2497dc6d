"""H3C's Comware 7: keychain, profile, transform set; a tunnel interface or a policy with an access list."""

from __future__ import annotations

from itertools import product

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
    own_address,
    reachable,
    sm_note,
)
from vpnd.translate.sheet import PLACEHOLDER, Sheet, about, by_kind, key_line, only_ipv4
from vpnd.translate.side import Side

CBC = {
    "aes-128": "aes-cbc-128",
    "aes-192": "aes-cbc-192",
    "aes-256": "aes-cbc-256",
    "3des": "3des-cbc",
    "des": "des-cbc",
}
IKE1_ENCRYPTION = {**CBC, "sm4": "sm4-cbc"}
ESP_ENCRYPTION = {**CBC, "sm4": "sm4-cbc", "aes-128-gcm": "gcm-128", "aes-256-gcm": "gcm-256"}
ESP1_ENCRYPTION = {**CBC, "sm4": "sm4-cbc"}
INTEGRITY = {word: word for word in ("md5", "sha1", "sha256", "sha384", "sha512")}
IKE1_INTEGRITY = {**INTEGRITY, "sha1": "sha", "sm3": "sm3"}
ESP_INTEGRITY = {**INTEGRITY, "sm3": "sm3"}
GROUP = {number: f"group{number}" for number in (1, 2, 5, 14, 15, 16, 19, 20, 24)}


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    where = f"Enter system-view and paste it. Replace the key, and {OUTSIDE} by the interface's name."
    head = about(side, sheet, where)
    only_ipv4(side, sheet)
    full_icv(side, sheet)
    needs_route(side, sheet)
    sm_note(side, sheet)
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
        _policy(side, sheet, sets, ours)
    return head


def _identity(identity: Identity, mask: str = "") -> str:
    return f"fqdn {name_of(identity)}" if is_name(identity) else f"address {identity}{mask}"


def _ikev1(side: Side, sheet: Sheet, ours: str) -> None:
    name, first = side.name, side.number_up_to(60_000)
    lifetime = limited(side.ike_lifetime, 60, 604_800, "lifetime of the IKE SA", sheet)
    ciphers = sheet.words(IKE1_ENCRYPTION, side.ike.encryption, "encryption")
    hashes = sheet.words(IKE1_INTEGRITY, side.ike.integrity, "integrity")
    groups = sheet.words(GROUP, side.ike.groups, "DH group")
    numbers = []
    for index, ((_, cipher), (_, hashed), (_, group)) in enumerate(product(ciphers, hashes, groups)):
        numbers.append(str(first + index))
        sheet.lines(f"ike proposal {numbers[-1]}", " authentication-method pre-share")
        sheet.lines(f" encryption-algorithm {cipher}", f" authentication-algorithm {hashed}", f" dh {group}")
        sheet.lines(f" sa duration {lifetime}", " quit")
    sheet.lines(f"ike keychain {name}")
    sheet.lines(f" pre-shared-key address {ours} 255.255.255.255 key simple {PLACEHOLDER}", " quit")
    sheet.lines(f"ike profile {name}", f" keychain {name}", f" proposal {' '.join(numbers)}")
    if side.aggressive:
        sheet.why("Aggressive mode shows a hash of the key to anyone who asks: main mode or IKEv2 is better.")
        sheet.lines(" exchange-mode aggressive")
    sheet.lines(f" local-identity {_identity(side.local_id)}")
    sheet.lines(f" match remote identity {_identity(side.remote_id, ' 255.255.255.255')}")
    if side.dpd is not None:
        sheet.lines(f" dpd interval {max(10, side.dpd // 3)} retry 5 periodic")
    sheet.lines(" quit")


def _ikev2(side: Side, sheet: Sheet, ours: str) -> None:
    name = side.name
    groups = " ".join(word for _, word in sheet.words(GROUP, side.ike.groups, "DH group"))
    ciphers = " ".join(word for _, word in sheet.words(CBC, side.ike.encryption, "encryption in IKEv2"))
    hashes = " ".join(word for _, word in sheet.words(INTEGRITY, side.ike.integrity, "integrity in IKEv2"))
    sheet.lines(f"ikev2 proposal {name}", f" encryption {ciphers}", f" integrity {hashes}", f" prf {hashes}")
    sheet.lines(f" dh {groups}", " quit")
    sheet.lines(
        f"ikev2 policy {name}", f" proposal {name}", f" match local address {own_address(side)}", " quit"
    )
    sheet.lines(f"ikev2 keychain {name}", f" peer {name}", f"  address {ours} 32")
    sheet.lines(f"  identity {_identity(side.remote_id)}", f"  pre-shared-key plaintext {PLACEHOLDER}")
    sheet.lines("  quit", " quit", f"ikev2 profile {name}", " authentication-method local pre-share")
    sheet.lines(" authentication-method remote pre-share", f" keychain {name}")
    sheet.lines(f" identity local {_identity(side.local_id)}")
    sheet.lines(f" match remote identity {_identity(side.remote_id, ' 32')}")
    lifetime = limited(side.ike_lifetime, 120, 86_400, "lifetime of the IKE SA", sheet)
    sheet.lines(f" sa duration {lifetime}")
    if side.dpd is not None:
        sheet.lines(f" dpd interval {max(10, side.dpd // 3)} periodic")
    sheet.lines(" quit")


def _transform_sets(side: Side, sheet: Sheet) -> list[str]:
    encryption = ESP_ENCRYPTION if side.ikev2 else ESP1_ENCRYPTION
    groups = sheet.words(GROUP, side.esp.groups, "PFS group")
    names: list[str] = []
    for aead, part in by_kind(side.esp):
        ciphers = [word for _, word in sheet.words(encryption, part.encryption, "encryption")]
        hashes = [word for _, word in sheet.words(ESP_INTEGRITY, part.integrity, "integrity")]
        for cipher, hashed in product(ciphers, [""] if aead else hashes):
            names.append(side.name if not names else f"{side.name}-{len(names) + 1}")
            sheet.lines(f"ipsec transform-set {names[-1]}", " encapsulation-mode tunnel")
            sheet.lines(f" esp encryption-algorithm {cipher}")
            sheet.lines(*([f" esp authentication-algorithm {hashed}"] if hashed else []))
            sheet.lines(*([f" pfs dh-{sheet.only_one(groups, 'PFS group')}"] if groups else []))
            sheet.lines(*([" esn enable"] if side.esn == "yes" else []), " quit")
    return names


def _protection(side: Side, sheet: Sheet, sets: list[str]) -> None:
    sheet.lines(
        f" transform-set {' '.join(sets)}", f" {'ikev2' if side.ikev2 else 'ike'}-profile {side.name}"
    )
    lifetime = limited(side.esp_lifetime, 180, 604_800, "lifetime of ESP SAs", sheet)
    sheet.lines(f" sa duration time-based {lifetime}")
    if side.kilobytes:
        kilobytes = limited(side.kilobytes, 2560, 4_294_967_295, "KB of ESP SAs", sheet)
        sheet.lines(f" sa duration traffic-based {kilobytes}")


def _interface(side: Side, sheet: Sheet, sets: list[str], ours: str) -> None:
    number = side.number_up_to(1023)
    sheet.lines(f"ipsec profile {side.name} isakmp")
    _protection(side, sheet, sets)
    sheet.lines(" quit", f"interface Tunnel{number} mode ipsec", f" ip address {inside_address(side)}")
    sheet.lines(f" source {own_address(side)}", f" destination {ours}")
    sheet.lines(f" tunnel protection ipsec profile {side.name}", " quit")
    sheet.lines(f"ip route-static {side.behind} MASK Tunnel{number}")


def _policy(side: Side, sheet: Sheet, sets: list[str], ours: str) -> None:
    number = 3000 + side.number_up_to(999)
    sheet.lines(f"acl advanced {number}", *acl(side), " quit")
    sheet.lines(f"ipsec policy {side.name} 10 isakmp")
    _protection(side, sheet, sets)
    sheet.lines(f" security acl {number}", f" local-address {own_address(side)}", f" remote-address {ours}")
    sheet.lines(" quit")
    sheet.why("An interface has one policy: where it has one, give this entry its name and a free number.")
    sheet.lines(f"interface {OUTSIDE}", f" ipsec apply policy {side.name}", " quit")
