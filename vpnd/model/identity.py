"""Who a gateway says it is: an IP address or a fully qualified domain name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from vpnd.wire.iana import IdType, name_of

Address = IPv4Address | IPv6Address

_FAMILIES: dict[int, tuple[type[Address], int]] = {
    IdType.IPV4_ADDR: (IPv4Address, 4),
    IdType.IPV6_ADDR: (IPv6Address, 16),
}
"""Of an identity that is an address, with the bytes that it has."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The type and value of an Identification payload (RFC 7296 section 3.5, RFC 2407 section 4.6.2).

    `value` holds the bytes as they travel. Two FQDNs are equal without regard to case or a trailing dot;
    they are compared, never resolved.
    """

    type: int
    value: bytes

    @classmethod
    def of(cls, text: str) -> Identity:
        """The identity that a configuration word means: an IP address, a domain name, or `@TEXT`.

        `@TEXT` is the FQDN with exactly this text, whatever it looks like: `@203.0.113.1` is no address.
        Raises ValueError for anything else, so that no other notation becomes an FQDN in silence.
        """
        try:
            address = ip_address(text)
        except ValueError:
            pass
        else:
            if not address.is_unspecified and "%" not in text:
                return cls.of_address(address)
            raise ValueError(f"{text!r} is not the address of one machine")
        exact = text.startswith("@")
        name = text[1:] if exact else text
        if not (_EXACT if exact else _NAME).fullmatch(name) or (not exact and _looks_like_another(name)):
            raise ValueError(f"{text!r} is neither an IP address nor a domain name")
        return cls(IdType.FQDN, name.encode("ascii"))

    @classmethod
    def of_address(cls, address: Address) -> Identity:
        """The identity of a gateway that is known by its address."""
        kind = IdType.IPV4_ADDR if address.version == 4 else IdType.IPV6_ADDR
        return cls(kind, address.packed)

    def matches(self, other: Identity) -> bool:
        """Whether both name the same gateway: equal type, and equal value by that type's rules."""
        return self.key == other.key

    @property
    def key(self) -> tuple[int, bytes]:
        """What two identities have in common that match: for a dict of them."""
        if self.type in (IdType.FQDN, IdType.RFC822_ADDR):
            return self.type, self.value.lower().rstrip(b".")
        return self.type, self.value

    def __str__(self) -> str:
        """As `word` where there is one; else its text or bytes, escaped: no log line can be forged."""
        word = self.word
        if word is not None:
            return word
        if self.type in (IdType.FQDN, IdType.RFC822_ADDR) or self._is_text_of_key_id:
            return "".join(chr(b) if 0x20 < b < 0x7F else f"\\x{b:02x}" for b in self.value[:MAX_FQDN])
        return f"{name_of(IdType, self.type)}:{self.value[:64].hex()}"

    @property
    def _is_text_of_key_id(self) -> bool:
        """A key ID is any bytes (RFC 7296 section 3.5), and most often a short text."""
        return self.type == IdType.KEY_ID and re.fullmatch(rb"[!-~]{1,64}", self.value) is not None

    @property
    def word(self) -> str | None:
        """The configuration word of this identity, of which `of` makes it again; None: it has none."""
        family, length = _FAMILIES.get(self.type, (None, 0))
        if family is not None and len(self.value) == length:
            address = family(self.value)
            return None if address.is_unspecified else str(address)
        if self.type != IdType.FQDN or not self.value.isascii():
            return None
        name = self.value.decode("ascii")
        return next((word for word in (name, f"@{name}") if _means(word, self)), None)

    def describe(self) -> str:
        """Value and type, as a diagnosis shows them: `192.0.2.1 (IPV4_ADDR)`."""
        return f"{self} ({name_of(IdType, self.type)})"


def describe_some(identities: Iterable[Identity]) -> str:
    """Several identities as a diagnosis shows them: a few, and how many more there are."""
    texts = tuple(dict.fromkeys(identity.describe() for identity in identities))
    more = len(texts) - SHOWN
    return " or ".join(texts[:SHOWN]) + (f" or {more} more" if more > 0 else "")


def _means(word: str, identity: Identity) -> bool:
    try:
        return Identity.of(word) == identity
    except ValueError:
        return False


def _looks_like_another(name: str) -> bool:
    """Whether a bare word is rather a mistyped address, a range of them, or means everyone."""
    return re.fullmatch(r"[0-9.-]+", name) is not None or name.lower() == ANY


ANY = "any"
"""The word of a configuration for a peer of any address; as an identity it would be no one's."""

SHOWN = 4
"""Ours: of many identities that a peer can have, those that a diagnosis shows."""

MAX_FQDN = 255
"""Octets of a domain name (RFC 1035 section 2.3.4)."""

_NAME = re.compile(rf"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{{0,{MAX_FQDN - 1}}})")
"""A bare word that is taken for a domain name."""

_EXACT = re.compile(rf"(?![@#~\[])[!#-\[\]-~]{{1,{MAX_FQDN}}}")
"""What may follow `@`: printable, and nothing that a TOML string escapes.

Other daemons write other types by `@@`, `@#`, `@~` and `@[`.
"""
