"""Words of strongSwan and libreswan for algorithms, times and selectors, in vpnd's."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import TypeVar

from vpnd.config.values import PROTOCOLS
from vpnd.model.identity import Identity
from vpnd.translate.imports.model import Algorithms, Place, Remarks, Rule

ENCRYPTION = {
    "aes": "aes-128",
    "aes128": "aes-128",
    "aes192": "aes-192",
    "aes256": "aes-256",
    "aes_cbc": "aes-128",
    "aes_cbc128": "aes-128",
    "aes_cbc256": "aes-256",
    "rijndael": "aes-128",
    "3des": "3des",
    "des": "des",
    "aes128gcm16": "aes-128-gcm",
    "aes128gcm128": "aes-128-gcm",
    "aes128gcm": "aes-128-gcm",
    "aes256gcm16": "aes-256-gcm",
    "aes256gcm128": "aes-256-gcm",
    "aes256gcm": "aes-256-gcm",
    "aes_gcm": "aes-128-gcm",
    "aes_gcm128": "aes-128-gcm",
    "aes_gcm256": "aes-256-gcm",
    "aes_gcm_c": "aes-128-gcm",
    "aes_gcm_c_128": "aes-128-gcm",
    "aes_gcm_c_256": "aes-256-gcm",
    "aes_gcm_16_128": "aes-128-gcm",
    "aes_gcm_16_256": "aes-256-gcm",
    "chacha20poly1305": "chacha20-poly1305",
    "chacha20_poly1305": "chacha20-poly1305",
    "sm4": "sm4",
    "sm4cbc": "sm4",
}
INTEGRITY = {
    "md5": "md5",
    "sha": "sha1",
    "sha1": "sha1",
    "sha2": "sha256",
    "sha256": "sha256",
    "sha2_256": "sha256",
    "sha384": "sha384",
    "sha2_384": "sha384",
    "sha512": "sha512",
    "sha2_512": "sha512",
    "sm3": "sm3",
}
GROUPS = {
    "modp768": 1,
    "modp1024": 2,
    "modp1536": 5,
    "modp2048": 14,
    "modp3072": 15,
    "modp4096": 16,
    "ecp256": 19,
    "ecp384": 20,
    "ecp521": 21,
    "modp2048s256": 24,
    "curve25519": 31,
    "x25519": 31,
    **{f"dh{number}": number for number in (1, 2, 5, 14, 15, 16, 19, 20, 21, 24, 31)},
}
PSEUDO_RANDOM = {f"prf{word}": meaning for word, meaning in INTEGRITY.items()}

USUAL_IKE = Algorithms(
    ["aes-128", "aes-192", "aes-256"], ["sha256", "sha384", "sha512", "sha1"], [14, 15, 16, 19, 20, 21, 31]
)
USUAL_ESP = Algorithms(["aes-128", "aes-192", "aes-256"], ["sha256", "sha384", "sha512", "sha1"], [])
"""What stands for a proposal that a file leaves to its daemon."""

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def proposals(text: str, place: Place, remarks: Remarks, *, esp: bool) -> Algorithms:
    """Every algorithm of a list of proposals. What vpnd lacks is left out, with a remark."""
    found = Algorithms()
    lacking: list[str] = []
    for token in re.split(r"[-,+;\s]+", text.strip().strip('"').rstrip("!")):
        word = token.lower().rstrip("!")
        if not word or word in ("null", "none", "noesn", "esn", "default"):
            _special(word, found, esp=esp)
        elif word in ENCRYPTION:
            _once(found.encryption, ENCRYPTION[word])
        elif word in INTEGRITY:
            _once(found.integrity, INTEGRITY[word])
        elif word in PSEUDO_RANDOM and not esp:
            _once(found.integrity, PSEUDO_RANDOM[word])
        elif word in GROUPS:
            _once(found.groups, GROUPS[word])
        else:
            lacking.append(token)
    if lacking:
        words = ", ".join(lacking)
        remarks.add(place, text, f"vpnd has no {words}: left out; the peer must accept what is left")
    return found


def _special(word: str, found: Algorithms, *, esp: bool) -> None:
    if word == "default":
        usual = USUAL_ESP if esp else USUAL_IKE
        found.encryption += [one for one in usual.encryption if one not in found.encryption]
        found.integrity += [one for one in usual.integrity if one not in found.integrity]
        found.groups += [one for one in usual.groups if one not in found.groups]
    elif word in ("esn", "noesn"):
        found.esn.add(word == "esn")


T = TypeVar("T", str, int)


def _once(into: list[T], value: T) -> None:
    if value not in into:
        into.append(value)


def seconds(text: str) -> int | None:
    """`3600`, `60m`, `1h 30m`; None for what is no time."""
    total, rest = 0, text.strip().lower()
    parts = re.findall(r"(\d+)\s*([smhdw]?)\s*", rest)
    if not parts or re.sub(r"(\d+)\s*([smhdw]?)\s*", "", rest):
        return None
    for number, unit in parts:
        if len(number) > 12:
            return None
        total += int(number) * UNITS[unit]
    return total


def yes(text: str) -> bool | None:
    """A truth value; None for another word."""
    word = text.strip().lower()
    if word in ("yes", "true", "1", "enabled", "on", "force", "insist", "always"):
        return True
    return False if word in ("no", "false", "0", "disabled", "off", "never") else None


def identity(text: str) -> str | None:
    """vpnd's word for an identity; None for a type that it has not."""
    word = text.strip().strip('"')
    for prefix in ("fqdn:", "dns:", "ipv4:", "ipv6:"):
        if word.lower().startswith(prefix):
            word = word[len(prefix) :]
            word = f"@{word}" if prefix in ("fqdn:", "dns:") and _is_odd(word) else word
            break
    try:
        found = Identity.of(word)
    except ValueError:
        return None
    if word.startswith("@") and not _is_odd(word[1:]):
        return word[1:]
    return str(found)


def _is_odd(word: str) -> bool:
    """Whether a name without `@` would be another identity, or none."""
    try:
        return Identity.of(word) != Identity.of(f"@{word}")
    except ValueError:
        return True


def network(text: str) -> str | None:
    """A CIDR block; None for anything else, such as a range."""
    try:
        return str(ip_network(text.strip(), strict=False))
    except ValueError:
        return None


def protocol(text: str) -> str | None:
    """vpnd's word for a protocol; None for one that it does not know."""
    word = text.strip().lower()
    word = {"ipv6-icmp": "icmpv6", "icmp6": "icmpv6", "icmpv6": "icmpv6"}.get(word, word)
    if word in PROTOCOLS or (re.fullmatch(r"[0-9]{1,3}", word) and 1 <= int(word) <= 255):
        return word
    return None


def port(text: str) -> str | None:
    """A port or a range of ports; None for another word."""
    return text.strip() if re.fullmatch(r"\d{1,5}(-\d{1,5})?", text.strip()) else None


def pairs(rules: list[Rule]) -> list[Rule]:
    """Rules of one protocol and the same ports joined, so that the file stays short."""
    joined: dict[tuple[tuple[str, ...], str | None, str | None, str | None], dict[str, None]] = {}
    for rule in rules:
        alike = (tuple(rule.local), rule.protocol, rule.local_port, rule.remote_port)
        joined.setdefault(alike, {}).update(dict.fromkeys(rule.remote))
    return [
        Rule(list(local), list(remote), protocol, local_port, remote_port)
        for (local, protocol, local_port, remote_port), remote in joined.items()
    ]
