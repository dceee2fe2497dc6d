"""Who a gateway says it is: an IP address or a fully qualified domain name."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address

from vpnd.wire.iana import IdType, name_of

Address = IPv4Address | IPv6Address


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
        """The identity that a configuration word means: an address if it reads as one, else an FQDN.

        Raises ValueError for an empty word, or for one that is neither.
        """
        try:
            return cls.of_address(ip_address(text))
        except (AddressValueError, ValueError):
            pass
        name = text.removeprefix("@")
        if not name or not name.isascii() or any(c.isspace() for c in name) or len(name) > MAX_FQDN:
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
        """The configuration word; bytes of a peer are escaped, so that no log line can be forged."""
        if self.type == IdType.IPV4_ADDR and len(self.value) == 4:
            return str(IPv4Address(self.value))
        if self.type == IdType.IPV6_ADDR and len(self.value) == 16:
            return str(IPv6Address(self.value))
        if self.type in (IdType.FQDN, IdType.RFC822_ADDR):
            return "".join(chr(b) if 0x20 < b < 0x7F else f"\\x{b:02x}" for b in self.value[:MAX_FQDN])
        return f"{name_of(IdType, self.type)}:{self.value[:64].hex()}"

    def describe(self) -> str:
        """Value and type, as a diagnosis shows them: `192.0.2.1 (IPV4_ADDR)`."""
        return f"{self} ({name_of(IdType, self.type)})"


MAX_FQDN = 255
"""Octets of a domain name (RFC 1035 section 2.3.4)."""
