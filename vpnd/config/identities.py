"""Identities as a configuration writes them, and what to write where other daemons' notations stand.

An identity is an IP address, a domain name, or `@TEXT` for an FQDN whose text looks like something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network

from vpnd.config.problems import MAX_SHOWN, quoted
from vpnd.model.identity import ANY, MAX_FQDN, Identity
from vpnd.model.text import cut, may_be_a_key, printable

HAS = "an identity is an IP address, a domain name, or @TEXT for an FQDN with exactly this text"

_OTHER_TYPES = {
    "rfc822": "an e-mail address (ID_RFC822_ADDR)",
    "email": "an e-mail address (ID_RFC822_ADDR)",
    "userfqdn": "an e-mail address (ID_USER_FQDN)",
    "user_fqdn": "an e-mail address (ID_USER_FQDN)",
    "keyid": "a key ID (ID_KEY_ID)",
    "key_id": "a key ID (ID_KEY_ID)",
    "asn1dn": "a distinguished name (ID_DER_ASN1_DN)",
    "asn1gn": "a general name (ID_DER_ASN1_GN)",
    "dn": "a distinguished name (ID_DER_ASN1_DN)",
    "uri": "a URI, which only certificates have",
    "xmppaddr": "an XMPP address, which only certificates have",
    "ipv4net": "a network, not one machine",
    "ipv6net": "a network, not one machine",
    "ipv4range": "a range of addresses, not one machine",
    "ipv6range": "a range of addresses, not one machine",
}
"""Prefixes of strongSwan and libreswan for types that vpnd does not have."""

_SAME_TYPES = ("fqdn", "dns", "ipv4", "ipv6", "ip", "address", "hostname")
"""Prefixes of others for what vpnd writes without one."""

_MARKS = {
    "@@": "an e-mail address (ID_RFC822_ADDR)",
    "@#": "a key ID (ID_KEY_ID)",
    "@[": "a key ID (ID_KEY_ID)",
    "@~": "a distinguished name (ID_DER_ASN1_DN)",
}


_EVERYONE = (ANY, "any4", "any6", "group", "opportunistic")


def explain(text: str) -> tuple[str, str]:
    """What is wrong with `text`, which is no identity, and what to write instead."""
    if _may_be_a_key(text):
        return f"{quoted(text)} is neither an IP address nor a domain name", HAS
    shown = f'"{printable(cut(text, MAX_SHOWN))}"'
    for found in (_nobody(text), _other_type(text), _prefixed(text), _address(text)):
        if found is not None:
            return f"{shown} is {found[0]}", found[1]
    if len(text.removeprefix("@")) > MAX_FQDN:
        return f"{shown} is neither an IP address nor a domain name", f"at most {MAX_FQDN} characters"
    return f"{shown} is neither an IP address nor a domain name", _as_fqdn(text) or HAS


_LIKE_ONE = re.compile(r"@|\[|\{?[A-Za-z0-9]{1,8}\}?\s*[:=]|[^\s@]+@[^\s@]+")
"""How the identities of others begin that vpnd has another word for, or none."""


def _may_be_a_key(text: str) -> bool:
    if text.startswith("plain:"):
        return True
    return len(text) >= SHORTEST_KEY and not _LIKE_ONE.match(text) and may_be_a_key(text)


SHORTEST_KEY = 10
"""Ours: characters below which a refused identity is repeated."""


def _nobody(text: str) -> tuple[str, str] | None:
    """Words for everyone, or for an identity that is found out later."""
    everyone = "no one's identity"
    each = (
        "write the one that the peer says it is; also a peer of any address"
        f' (customer_gateways.X.address = "{ANY}") has one'
    )
    if text.lower().removeprefix("%") in _EVERYONE or _is(_unspecified, text):
        return everyone, each
    if "*" in text and not text.startswith("@"):
        return "a pattern, not one identity", each
    if text.startswith("%"):
        return everyone, HAS
    return None


def _other_type(text: str) -> tuple[str, str] | None:
    """A type that is not spoken, by its mark, by its prefix or by its look."""
    kind = _MARKS.get(text[:2])
    prefix, colon, _ = text.partition(":")
    if kind is None and colon:
        kind = _OTHER_TYPES.get(prefix.strip().lower())
        if kind is None and re.fullmatch(r"\{[0-9]+\}", prefix):
            kind = "a type by its number"
    if kind is not None:
        return _unknown(kind)
    if text.startswith("@"):
        return None
    if "=" in text:
        return _unknown("a distinguished name (ID_DER_ASN1_DN)", text)
    if re.fullmatch(r"[^\s@/]+@[^\s@/]+", text):
        return _unknown("an e-mail address (ID_RFC822_ADDR)", text)
    return None


def _unknown(kind: str, text: str = "") -> tuple[str, str]:
    change = "vpnd does not speak this type: use an IP address or an FQDN, here and at the peer"
    also = _as_fqdn(text) if text else None
    return kind, f"{change}; {also}" if also else change


def _prefixed(text: str) -> tuple[str, str] | None:
    """`fqdn:gw` and the like: what follows is the word."""
    prefix, colon, rest = text.partition(":")
    if not colon or prefix.strip().lower() not in _SAME_TYPES or _is(ip_address, text):
        return None
    rest = rest.strip().removeprefix("@")
    if prefix.strip().lower() in ("fqdn", "dns", "hostname"):
        rest = rest if _is(Identity.of, rest) and not _is(ip_address, rest) else f"@{rest}"
    return "written with a prefix", f'write "{rest}"' if _is(Identity.of, rest) else HAS


def _address(text: str) -> tuple[str, str] | None:
    """Something of addresses that is not the address of one machine."""
    bare = text.removeprefix("[").partition("]")[0] if text.startswith("[") else text
    host = bare.rpartition(":")[0] if bare.count(":") == 1 else bare.partition("%")[0]
    if _is(ip_address, host) and host != text:
        return "an address with something added", f'write "{host}"' if _is(Identity.of, host) else HAS
    if "/" in text and _is(lambda word: ip_network(word, strict=False), text):
        return "a network, not one machine", f'write the address alone, such as "{ip_interface(text).ip}"'
    first, dash, last = text.partition("-")
    if dash and _is(ip_address, first.strip()) and _is(ip_address, last.strip()):
        return "a range of addresses, not one machine", f'write the address alone, such as "{first.strip()}"'
    if re.fullmatch(r"[0-9.]+", text):
        return "not an IP address", f'correct the address, or write "@{text}" for an FQDN with this text'
    return None


def _as_fqdn(text: str) -> str | None:
    """How to write an FQDN with this text, if there is one."""
    if text.startswith("@") or not _is(Identity.of, f"@{text}"):
        return None
    return f'if the peer sends this text as an FQDN, write "@{text}"'


def _unspecified(text: str) -> None:
    """Raises ValueError unless `text` is the address that stands for every one."""
    if not ip_address(text).is_unspecified:
        raise ValueError(text)


def _is(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True
