"""FortiGate: `config vpn ipsec`, with the route and the two policies without which nothing passes."""

from __future__ import annotations

from itertools import product

from vpnd.config.values import PROTOCOLS
from vpnd.model.selectors import Network
from vpnd.translate.peers.routers import (
    OUTSIDE,
    full_icv,
    is_name,
    limited,
    masked,
    name_of,
    needs_route,
    no_esn,
    one_port,
    own_address,
    reachable,
)
from vpnd.translate.sheet import PLACEHOLDER, Sheet, about, by_kind, key_line
from vpnd.translate.side import Algorithms, Side, Traffic

CBC = {"aes-128": "aes128", "aes-192": "aes192", "aes-256": "aes256", "3des": "3des", "des": "des"}
AEAD = {"aes-128-gcm": "aes128gcm", "aes-256-gcm": "aes256gcm", "chacha20-poly1305": "chacha20poly1305"}
INTEGRITY = {word: word for word in ("md5", "sha1", "sha256", "sha384", "sha512")}
GROUP = {number: str(number) for number in (1, 2, 5, 14, 15, 16, 19, 20, 21, 31)}

MAX_NAME = 15
"""Characters of a tunnel, which is an interface as well."""


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    where = f"Paste it in the CLI. Replace the key, {OUTSIDE} and INSIDE-INTERFACE by the interfaces' names."
    head = about(side, sheet, where)
    no_esn(side, sheet)
    full_icv(side, sheet)
    one_port(side, sheet)
    needs_route(side, sheet)
    ours = reachable(side, sheet)
    name = _name(side)
    _phase1(side, sheet, name, ours)
    sheet.lines("config vpn ipsec phase2-interface")
    for index, traffic in enumerate(side.traffic):
        _phase2(side, sheet, name, index, traffic)
    sheet.lines("end")
    _interface(side, sheet, name)
    _routes(side, sheet, name)
    _policies(sheet, name)
    return head


def _name(side: Side) -> str:
    """Two long names that begin alike stay two."""
    if len(side.name) <= MAX_NAME:
        return side.name
    tail = f"{side.number_up_to(0xFFFF):04x}"
    return f"{side.name[: MAX_NAME - len(tail) - 1]}-{tail}"


def _phase1(side: Side, sheet: Sheet, name: str, ours: str) -> None:
    groups = [word for _, word in sheet.words(GROUP, side.ike.groups, "DH group")]
    family = "6" if side.remote_address is not None and side.remote_address.version == 6 else ""
    lines = [
        f'set interface "{OUTSIDE}"',
        f"set ike-version {2 if side.ikev2 else 1}",
        *([f"set ip-version {family}"] if family else []),
        f"set remote-gw{family} {ours}",
        f"set keylife {limited(side.ike_lifetime, 120, 172_800, 'lifetime of the IKE SA', sheet)}",
        f"set proposal {' '.join(_proposals(side.ike, side, sheet, prf=True))}",
        f"set dhgrp {' '.join(groups)}",
    ]
    if side.local_address is not None and side.local_address.version == 4:
        lines.append(f"set local-gw {own_address(side)}")
    if is_name(side.local_id):
        lines += [f'set localid "{name_of(side.local_id)}"', "set localid-type fqdn"]
    elif str(side.local_id) != str(side.local_address):
        lines += [f'set localid "{side.local_id}"', "set localid-type address"]
    named = is_name(side.remote_id) or str(side.remote_id) != ours
    peer = name_of(side.remote_id) if is_name(side.remote_id) else str(side.remote_id)
    lines += ["set peertype one", f'set peerid "{peer}"'] if named else ["set peertype any"]
    lines += ["set nattraversal forced"] if side.udp else []
    if side.dpd is not None:
        lines += ["set dpd on-idle", "set dpd-retrycount 3", f"set dpd-retryinterval {max(5, side.dpd // 3)}"]
    else:
        lines.append("set dpd disable")
    lines += ["set net-device disable", f'set psksecret "{PLACEHOLDER}"']
    sheet.lines("config vpn ipsec phase1-interface", f'    edit "{name}"')
    if side.aggressive:
        sheet.why("Aggressive mode shows a hash of the key to anyone who asks: main mode or IKEv2 is better.")
        lines.insert(2, "set mode aggressive")
    sheet.lines(*lines[:-1], indent=8)
    sheet.why(key_line(side), indent=8)
    sheet.lines(lines[-1], indent=8)
    sheet.lines("    next", "end")


def _phase2(side: Side, sheet: Sheet, name: str, index: int, traffic: Traffic) -> None:
    groups = [word for _, word in sheet.words(GROUP, side.esp.groups, "PFS group")]
    lifetime = limited(side.esp_lifetime, 120, 172_800, "lifetime of ESP SAs", sheet)
    lines = [
        f'set phase1name "{name}"',
        f"set proposal {' '.join(_proposals(side.esp, side, sheet, prf=False))}",
        *(["set pfs enable", f"set dhgrp {' '.join(groups)}"] if groups else ["set pfs disable"]),
        f"set keylife-type {'both' if side.kilobytes else 'seconds'}",
        f"set keylifeseconds {lifetime}",
    ]
    if side.kilobytes:
        lines.append(f"set keylifekbs {limited(side.kilobytes, 5120, 4_294_967_295, 'KB of ESP SAs', sheet)}")
    lines += ["set auto-negotiate enable"] if side.begins else []
    lines += [*_range("src", traffic.local), *_range("dst", traffic.remote)]
    if traffic.protocol:
        number = PROTOCOLS.get(traffic.protocol) or traffic.protocol
        lines.append(f"set protocol {number}")
        lines += [f"set src-port {traffic.local_port}"] if traffic.local_port else []
        lines += [f"set dst-port {traffic.remote_port}"] if traffic.remote_port else []
    sheet.lines(f'edit "{name}-{index + 1}"', indent=4)
    sheet.lines(*lines, indent=8)
    sheet.lines("next", indent=4)


def _range(end: str, network: Network) -> list[str]:
    if network.version == 6:
        return [f"set {end}-addr-type subnet6", f"set {end}-subnet6 {network}"]
    return [f"set {end}-addr-type subnet", f"set {end}-subnet {masked(network)}"]


def _proposals(algorithms: Algorithms, side: Side, sheet: Sheet, *, prf: bool) -> list[str]:
    ciphers = {**CBC, **AEAD} if side.ikev2 or not prf else CBC
    if not side.ikev2 and not prf:
        ciphers = {word: name for word, name in ciphers.items() if word != "chacha20-poly1305"}
    found = []
    for aead, part in by_kind(algorithms):
        encryption = [word for _, word in sheet.words(ciphers, part.encryption, "encryption")]
        hashes = [word for _, word in sheet.words(INTEGRITY, part.integrity, "integrity")]
        if not aead:
            found += [f"{cipher}-{hashed}" for cipher, hashed in product(encryption, hashes)]
        elif prf:
            found += [f"{cipher}-prf{hashed}" for cipher, hashed in product(encryption, hashes)]
        else:
            found += encryption
    return found


def _interface(side: Side, sheet: Sheet, name: str) -> None:
    if side.health is None:
        return
    local, remote = side.health
    sheet.why("The health check of the other side pings this address through the tunnel.")
    sheet.lines("config system interface", f'    edit "{name}"', f"        set ip {local} 255.255.255.255")
    sheet.lines(f"        set remote-ip {remote} 255.255.255.255", "        set allowaccess ping")
    sheet.lines("    next", "end")


def _routes(side: Side, sheet: Sheet, name: str) -> None:
    ranges = dict.fromkeys(traffic.remote for traffic in side.traffic)
    for version, tree in ((4, "static"), (6, "static6")):
        found = [masked(one) if version == 4 else str(one) for one in ranges if one.version == version]
        if side.routed and found:
            found = [f"{side.behind} MASK"]
        for network in found:
            sheet.lines(f"config router {tree}", "    edit 0", f"        set dst {network}")
            sheet.lines(f'        set device "{name}"', "    next", "end")


def _policies(sheet: Sheet, name: str) -> None:
    sheet.why("Without a policy in each direction FortiOS does not even bring the tunnel up. Narrow them.")
    sheet.lines("config firewall policy")
    for source, destination in ((name, "INSIDE-INTERFACE"), ("INSIDE-INTERFACE", name)):
        sheet.lines("    edit 0", f'        set srcintf "{source}"', f'        set dstintf "{destination}"')
        sheet.lines('        set srcaddr "all"', '        set dstaddr "all"', "        set action accept")
        sheet.lines('        set schedule "always"', '        set service "ALL"', "    next")
    sheet.lines("end")
