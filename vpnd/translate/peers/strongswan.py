"""strongSwan's `swanctl.conf`."""

from __future__ import annotations

from itertools import chain, product

from vpnd.model.identity import Identity
from vpnd.translate.sheet import PLACEHOLDER, Sheet, V, about, by_kind, health_note, key_line
from vpnd.translate.side import Algorithms, Side, Traffic
from vpnd.wire.iana import IdType

ENCRYPTION = {
    "aes-128": "aes128",
    "aes-192": "aes192",
    "aes-256": "aes256",
    "3des": "3des",
    "des": "des",
    "aes-128-gcm": "aes128gcm16",
    "aes-256-gcm": "aes256gcm16",
    "chacha20-poly1305": "chacha20poly1305",
}
INTEGRITY = {word: word for word in ("md5", "sha1", "sha256", "sha384", "sha512")}
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
    24: "modp2048s256",
    31: "x25519",
}

MOST_PROPOSALS = 64
"""Ours: IKEv1 has one algorithm of each kind in a proposal, so that lists multiply."""


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    where = "Put it into /etc/swanctl/conf.d, replace the key at its end.\nLoad it with: swanctl --load-all"
    head = about(side, sheet, where)
    _notes(side, sheet)
    sheet.lines("connections {", f"    {side.name} {{")
    _connection(side, sheet)
    sheet.lines("children {", indent=8)
    for index, traffic in enumerate(side.traffic):
        child = side.name if len(side.traffic) == 1 else f"{side.name}-{index + 1}"
        _child(child, traffic, side, sheet)
    sheet.lines("        }", "    }", "}", "", "secrets {", f"    ike-{side.name} {{")
    sheet.lines(f"id-1 = {_identity(side.remote_id)}", f"id-2 = {_identity(side.local_id)}", indent=8)
    sheet.why(f"In double quotes. {key_line(side)}", indent=8)
    sheet.lines(f'secret = "{PLACEHOLDER}"', indent=8)
    sheet.lines("    }", "}")
    return head


def _notes(side: Side, sheet: Sheet) -> None:
    if side.aggressive:
        sheet.note("strongSwan refuses aggressive mode with a key, unless /etc/strongswan.conf has")
        sheet.note("    charon { i_dont_care_about_security_and_use_aggressive_mode_psk = yes }")
        sheet.note("since anyone who asks gets a hash of the key to try guesses on. IKEv2 is better.")
    if side.legacy:
        sheet.note("If strongSwan does not know an algorithm, it lacks the plugins des, md5, hmac or gmp.")
    if side.routed:
        interface = _interface(side)
        sheet.note(
            "The SAs cover all addresses, so an interface and routes decide what goes into the tunnel:"
        )
        sheet.note(f"    ip link add {interface} type xfrm if_id {side.number}")
        sheet.note(f"    ip link set {interface} up")
        sheet.note(f"    ip route add {side.behind} dev {interface}")
    device = _interface(side) if side.routed else "lo"
    health_note(side, sheet, f"ip address add {{local}} peer {{remote}} dev {device}")


def _connection(side: Side, sheet: Sheet) -> None:
    sheet.lines(
        f"version = {2 if side.ikev2 else 1}",
        f"local_addrs = {side.local_address or '%any'}",
        f"remote_addrs = {_own_addresses(side)}",
        f"proposals = {_proposals(side.ike, side, sheet, prf=True)}",
        f"{'rekey_time' if side.ikev2 else 'reauth_time'} = {side.ike_lifetime}s",
        f"keyingtries = {0 if side.begins else 1}",
        "mobike = no",
        *(["aggressive = yes"] if side.aggressive else []),
        *(["encap = yes"] if side.udp else []),
        indent=8,
    )
    if side.dpd is not None:
        sheet.lines(f"dpd_delay = {max(10, side.dpd // 3)}s", indent=8)
        sheet.lines(*([] if side.ikev2 else [f"dpd_timeout = {side.dpd}s"]), indent=8)
    for end, identity in (("local", side.local_id), ("remote", side.remote_id)):
        sheet.lines(f"{end} {{", "    auth = psk", f"    id = {_identity(identity)}", "}", indent=8)


def _child(name: str, traffic: Traffic, side: Side, sheet: Sheet) -> None:
    sheet.lines(f"{name} {{", indent=12)
    sheet.lines(
        f"local_ts = {_selector(traffic, 'local')}",
        f"remote_ts = {_selector(traffic, 'remote')}",
        f"esp_proposals = {_proposals(side.esp, side, sheet, prf=False)}",
        f"rekey_time = {side.esp_lifetime}s",
        *([f"rekey_bytes = {side.kilobytes * 1024}"] if side.kilobytes else []),
        f"replay_window = {side.replay_window}",
        *(["sha256_96 = yes"] if side.sha256_96 else []),
        "mode = tunnel",
        "dpd_action = restart",
        indent=16,
    )
    if side.routed:
        sheet.lines(f"if_id_in = {side.number}", f"if_id_out = {side.number}", indent=16)
    if side.begins or not side.routed:
        # A trap for all addresses would cut the peer off.
        sheet.lines(f"start_action = {'start' if side.begins else 'trap'}", indent=16)
    sheet.lines("}", indent=12)


def _interface(side: Side) -> str:
    return f"ipsec{side.number}"


def _selector(traffic: Traffic, end: str) -> str:
    """`10.1.0.0/24[tcp/443]`, as strongSwan writes it too."""
    network, port = getattr(traffic, end), getattr(traffic, f"{end}_port")
    words = "/".join(part for part in (traffic.protocol, port) if part)
    return f"{network}[{words}]" if words else str(network)


def _proposals(algorithms: Algorithms, side: Side, sheet: Sheet, *, prf: bool) -> str:
    """Our words as strongSwan's: ciphers with and without their own integrity in separate proposals."""
    groups = _strings(sheet, GROUP, algorithms.groups, "DH group")
    found: list[tuple[list[str], ...]] = []
    for aead, part in by_kind(algorithms):
        ciphers = _strings(sheet, ENCRYPTION, part.encryption, "encryption")
        hashes = _strings(sheet, INTEGRITY, part.integrity, "integrity")
        if aead:
            hashes = [f"prf{word}" for word in hashes] if prf else []
        found.append((ciphers, hashes, groups))
    # Linux has extended sequence numbers where the proposal asks for them: `auto` is content without.
    numbers = ["esn"] if not prf and side.esn == "yes" else []
    if side.ikev2:
        return ", ".join("-".join([*chain(*kinds), *numbers]) for kinds in found if kinds[0])
    every = ["-".join(filter(None, one)) for kinds in found for one in product(*(k or [""] for k in kinds))]
    if len(every) > MOST_PROPOSALS:
        sheet.note(f"Of {len(every)} combinations of algorithms the first {MOST_PROPOSALS} are written.")
    return ", ".join(one for one in every[:MOST_PROPOSALS])


def _strings(sheet: Sheet, table: dict[V, str], wanted: tuple[V, ...], what: str) -> list[str]:
    return [word for _, word in sheet.words(table, wanted, what)]


def _identity(identity: Identity) -> str:
    """An address as it is; a name with `@`, so that it is not resolved; another text with its type."""
    if identity.type != IdType.FQDN:
        return str(identity)
    name = identity.value.decode("ascii")
    return f'"fqdn:{name}"' if str(identity).startswith("@") else f"@{name}"


def _own_addresses(side: Side) -> str:
    """Where the peer begins, and from where it accepts us: anywhere, if our address may change."""
    if not side.remote_moves:
        return str(side.remote_address)
    return "%any" if side.remote_address is None else f"{side.remote_address}, %any"
