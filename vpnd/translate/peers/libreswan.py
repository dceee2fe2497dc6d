"""libreswan's `ipsec.conf`, with the line for `ipsec.secrets`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from vpnd.model.identity import Identity
from vpnd.translate.sheet import PLACEHOLDER, Sheet, about, by_kind, health_note, key_line
from vpnd.translate.side import AEAD, Algorithms, Side, Traffic
from vpnd.wire.iana import IdType

IKE_ENCRYPTION = {
    "aes-128": "aes128",
    "aes-192": "aes192",
    "aes-256": "aes256",
    "3des": "3des",
    "aes-128-gcm": "aes_gcm128",
    "aes-256-gcm": "aes_gcm256",
    "chacha20-poly1305": "chacha20_poly1305",
}
CBC = {word: name for word, name in IKE_ENCRYPTION.items() if word not in AEAD}
ESP1 = {word: name for word, name in IKE_ENCRYPTION.items() if word != "chacha20-poly1305"}
INTEGRITY = {"md5": "md5", "sha1": "sha1", "sha256": "sha2_256", "sha384": "sha2_384", "sha512": "sha2_512"}
GROUP = {5: "dh5", **{number: f"dh{number}" for number in (14, 15, 16, 19, 20, 21, 31)}}
"""Groups 1, 2 and 24 are left out of its builds."""

MAX_LIFETIME = 86400
"""Seconds: libreswan takes no more."""

ESN = {"auto": "either", "yes": "yes", "no": "no"}


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    head = about(
        side,
        sheet,
        f"Put it into /etc/ipsec.d/{side.name}.conf; the key goes into /etc/ipsec.d/{side.name}.secrets,"
        " with mode 0600.\nLoad it with: ipsec auto --replace NAME for each conn, and ipsec secrets",
    )
    _notes(side, sheet)
    sheet.why(f"In /etc/ipsec.d/{side.name}.secrets this line. {key_line(side)}")
    sheet.why(f'    {_identity(side.local_id)} {_identity(side.remote_id)} : PSK "{PLACEHOLDER}"')
    many = len(side.traffic) > 1
    sheet.lines("")
    for index, traffic in enumerate(side.traffic):
        sheet.lines(f"conn {side.name}-{index + 1}" if many else f"conn {side.name}")
        _connection(side, sheet)
        _selectors(traffic, sheet)
        sheet.lines(f"auto={'start' if side.begins else 'add' if side.routed else 'ondemand'}", indent=4)
        sheet.lines("")
    return head


def _notes(side: Side, sheet: Sheet) -> None:
    if not side.ikev2:
        sheet.note("From libreswan 5.0 on IKEv1 is refused unless `config setup` has ikev1-policy=accept.")
    if side.aggressive and len(side.ike.groups) > 1:
        sheet.note("In aggressive mode there is one DH group: the first is written.")
    if side.ike_lifetime > MAX_LIFETIME or side.esp_lifetime > MAX_LIFETIME:
        sheet.note("libreswan's lifetimes end at 24 hours, and 24 hours is written; the ends need not agree.")
    if side.routed:
        sheet.note(
            "The SAs cover all addresses, so an interface and routes decide what goes into the tunnel:"
        )
        sheet.note(f"    ip route add {side.behind} dev ipsec{side.number}")
    health_note(side, sheet, f"ip address add {{local}} dev {f'ipsec{side.number}' if side.routed else 'lo'}")
    if any("-" in (port or "") for one in side.traffic for port in (one.local_port, one.remote_port)):
        sheet.cannot("libreswan has one port in a selector, no range: name single ports in [[tunnels.X.spd]]")


def _connection(side: Side, sheet: Sheet) -> None:
    ours = "%any" if side.remote_address is None else str(side.remote_address)
    theirs = "%defaultroute" if side.local_address is None else str(side.local_address)
    groups = side.ike.groups[:1] if side.aggressive else side.ike.groups
    ike = Algorithms(side.ike.encryption, side.ike.integrity, groups)
    sheet.lines(
        "type=tunnel",
        "authby=secret",
        f"ikev2={'yes' if side.ikev2 else 'no'}",
        *(["aggressive=yes"] if side.aggressive else []),
        f"left={theirs}",
        f"leftid={_identity(side.local_id)}",
        f"right={ours}",
        f"rightid={_identity(side.remote_id)}",
        f"ike={_proposals(ike, IKE_ENCRYPTION if side.ikev2 else CBC, side, sheet)}",
        f"esp={_proposals(side.esp, IKE_ENCRYPTION if side.ikev2 else ESP1, side, sheet)}",
        f"pfs={'yes' if side.esp.groups else 'no'}",
        f"ikelifetime={min(side.ike_lifetime, MAX_LIFETIME)}s",
        f"salifetime={min(side.esp_lifetime, MAX_LIFETIME)}s",
        *([f"ipsec-max-bytes={side.kilobytes}KiB"] if side.kilobytes else []),
        f"replay-window={side.replay_window}",
        *(["sha2-truncbug=yes"] if side.sha256_96 else []),
        f"encapsulation={'yes' if side.udp else 'auto'}",
        *([f"esn={ESN[side.esn]}"] if side.ikev2 else []),
        "mobike=no",
        *(["keyingtries=%forever"] if side.begins else []),
        *_dpd(side),
        *([f"ipsec-interface={side.number}"] if side.routed else []),
        indent=4,
    )


def _dpd(side: Side) -> list[str]:
    if side.dpd is None:
        return []
    return [f"dpddelay={max(10, side.dpd // 3)}s", f"dpdtimeout={side.dpd}s", "dpdaction=restart"]


def _selectors(traffic: Traffic, sheet: Sheet) -> None:
    sheet.lines(f"leftsubnet={traffic.local}", f"rightsubnet={traffic.remote}", indent=4)
    if traffic.protocol:
        for end, port in (("left", traffic.local_port), ("right", traffic.remote_port)):
            sheet.lines(f"{end}protoport={traffic.protocol}/{port or '%any'}", indent=4)


def _proposals(algorithms: Algorithms, ciphers: dict[str, str], side: Side, sheet: Sheet) -> str:
    """`aes128+aes256-sha2_256;dh14+dh19`: in IKEv2 a plus joins what may stand in one place."""
    groups = [word for _, word in sheet.words(GROUP, algorithms.groups, "DH group")]
    found = []
    for aead, part in by_kind(algorithms):
        encryption = [word for _, word in sheet.words(ciphers, part.encryption, "encryption")]
        hashes = [word for _, word in sheet.words(INTEGRITY, part.integrity, "integrity")]
        # With an AEAD cipher the hash is the PRF, which ESP has not.
        kinds = [encryption, [] if aead and algorithms is side.esp else hashes, groups]
        if not encryption:
            continue
        if side.ikev2:
            found.append(_joined(["+".join(kind) for kind in kinds]))
        else:
            found += [_joined(one) for one in product(*(kind or [""] for kind in kinds))]
    return ",".join(found)


def _joined(words: Iterable[str]) -> str:
    encryption, integrity, group = words
    return encryption + (f"-{integrity}" if integrity else "") + (f";{group}" if group else "")


def _identity(identity: Identity) -> str:
    return f"@{identity.value.decode('ascii')}" if identity.type == IdType.FQDN else str(identity)
