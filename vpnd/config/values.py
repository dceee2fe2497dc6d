"""The kinds of value that a configuration has, each checked by itself, and the types made of them.

What is wrong with a value is said with the codes that the check prints, by `fault`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from vpnd.config import identities
from vpnd.config.problems import did_you_mean, quoted
from vpnd.crypto.suites import ENCRYPTIONS, GROUPS, INTEGRITIES
from vpnd.datapath.replay import MAXIMUM_WINDOW, MINIMUM_WINDOW
from vpnd.model.identity import ANY, Identity
from vpnd.model.policy import ListenAt
from vpnd.model.selectors import Address, Network, ports_text, protocol_text
from vpnd.model.text import is_like_a_moment
from vpnd.wire.iana import IpProtocol

MAX_TUNNEL_NAME = 60
"""Characters of a tunnel's name (specification: tunnel name)."""

AUTO = "auto"
"""The word for the gateway's address where the default route decides it."""

MAX_DESCRIPTION = 200
"""Ours: characters of a tunnel's description, which stays one line of a page."""

UNIT = "x-unit"
"""In the schema of a number: what it counts."""

MAX_PORT = 65535

MAX_INTERFACE_NAME = 15
"""Octets of a network interface's name on Linux (IFNAMSIZ less the zero)."""

MIN_LIFETIME = 10
"""Ours, in seconds: less than this, and rekeying never ends."""

MAX_LIFETIME = 31_536_000
"""Ours, in seconds: a year."""


def fault(code: str, message: str, hint: str) -> PydanticCustomError:
    """An error of one value, under the code that the check prints."""
    context = {"message": message, "hint": hint}
    return PydanticCustomError(code, "{message}", context)


def _one_of(words: Iterable[str], what: str) -> Callable[[object], object]:
    known = tuple(words)

    def check(value: object) -> object:
        if value in known:
            return value
        close = did_you_mean(value, known) if isinstance(value, str) else None
        listed = "one of: " + ", ".join(known)
        raise fault("E-VALUE", f"{quoted(value)} is not {what}", f"{close} {listed}" if close else listed)

    return check


def _group(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value in GROUPS:
        return value
    listed = "one of: " + ", ".join(str(number) for number in sorted(GROUPS))
    digits = (
        re.fullmatch(r"(?i)(?:dh|dh-group|group|modp)?[- _]?(\d+)", value) if isinstance(value, str) else None
    )
    if digits and int(digits[1]) in GROUPS:
        raise fault("E-VALUE", f"{quoted(value)} is not a DH group", f"write {digits[1]}, without quotes")
    raise fault("E-VALUE", f"{quoted(value)} is not a DH group that vpnd has", listed)


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _not_repeated(values: list[Any]) -> list[Any]:
    if not values:
        raise fault("E-VALUE", "the list is empty", "name at least one value")
    for value in values:
        if values.count(value) > 1:
            raise fault(
                "E-VALUE", f"{quoted(value)} is listed twice", "name each value once, the preferred first"
            )
    return values


_MEANT_DISABLE = ("off", "none", "no", "disabled", "false", "", 0)
"""What others write where this file has "disable"; 0 stands for false as well."""


def _moment(value: object) -> object:
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        # At the first and the last day there may be no such moment in UTC.
        with contextlib.suppress(OverflowError):
            return moment.astimezone(UTC)
    hint = "write it with its time zone, such as 2026-12-31T00:00:00Z"
    # It stands beside the keys: what is no moment is not repeated, however short.
    shown = quoted(value) if is_like_a_moment(str(value)) else "the value"
    raise fault("E-VALUE", f"{shown} is not a moment", hint)


def _pfs(value: object) -> object:
    if value == "disable" or value == ["disable"]:
        return []
    if value in _MEANT_DISABLE:
        raise fault("E-VALUE", f"{quoted(value)} is not a PFS group", 'write "disable" for no PFS')
    groups = _as_list(value)
    if isinstance(groups, list) and "disable" in groups:
        raise fault("E-VALUE", '"disable" stands alone', "PFS is either off, or one of the listed groups")
    return [_group(group) for group in groups] if isinstance(groups, list) else groups


def _address(value: object) -> object:
    if isinstance(value, Address):
        return value
    try:
        address = ip_address(value if isinstance(value, str) else "")
    except ValueError:
        raise fault("E-ADDRESS", f"{quoted(value)} is not an IP address", 'such as "192.0.2.1"') from None
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise fault("E-ADDRESS", f"{address} is not the address of one machine", "name a unicast address")
    return address


def _address_or_auto(value: object) -> object:
    if value is None or value == AUTO:
        return None
    close = str(value).lower() in (AUTO, ANY, "dhcp", "%defaultroute", "%any", "0.0.0.0", "::")  # noqa: S104 (compared and never bound)
    if isinstance(value, str) and close:
        hint = f'write "{AUTO}" for the address of the default route\'s interface'
        raise fault("E-ADDRESS", f"{quoted(value)} is not the address of one machine", hint)
    return _address(value)


def address_or_name(value: object) -> object:
    if not isinstance(value, str):
        raise fault("E-TYPE", f"{quoted(value)} is not text", "write an IP address or FQDN in quotes")
    if value.lower() == ANY:
        return ANY
    if value in ("*", "0.0.0.0", "::") or value.lower() in ("%any", "%any4", "%any6", "%defaultroute"):  # noqa: S104 (compared and never bound)
        hint = f'write "{ANY}" for a peer that begins from wherever it is'
        raise fault("E-ADDRESS", f"{quoted(value)} is not the address of one machine", hint)
    try:
        ip_address(value)
    except ValueError:
        if not is_domain_name(value):
            hint = 'such as "198.51.100.1" or "gw.example.com"'
            raise fault(
                "E-ADDRESS", f"{quoted(value)} is neither an IP address nor a domain name", hint
            ) from None
        return value.rstrip(".")
    return str(_address(value))


def _listen_at(value: object) -> object:
    """`192.0.2.1:9150`, `[2001:db8::1]:9150`."""
    if isinstance(value, ListenAt):
        return value
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    hint = 'such as "127.0.0.1:9150" or "[::1]:9150"'
    try:
        address = ip_address(bare)
    except ValueError:
        raise fault("E-ADDRESS", f"{quoted(value)} is not an IP address and a port", hint) from None
    if (address.version == 6) != (host != bare) or address.is_multicast:
        raise fault("E-ADDRESS", f"{quoted(value)} is not an IP address and a port", hint)
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= MAX_PORT):
        raise fault("E-RANGE", f"{quoted(port)} is not a TCP port: 1 to {MAX_PORT}", hint)
    return ListenAt(address, int(port))


def _identity(value: object) -> object:
    if not isinstance(value, str):
        raise fault("E-TYPE", f"{quoted(value)} is not text", "write an IP address or FQDN in quotes")
    try:
        Identity.of(value)
    except ValueError:
        message, hint = identities.explain(value)
        raise fault("E-ID", message, hint) from None
    return value


def _network(value: object) -> object:
    if isinstance(value, Network):
        return value
    if not isinstance(value, str):
        raise fault("E-TYPE", f"{quoted(value)} is not text", 'write a CIDR block in quotes: "10.2.0.0/16"')
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise fault("E-PREFIX", f"{quoted(value)} is not a CIDR block", 'such as "10.2.0.0/16"') from None
    if "/" in value and ip_address(value.split("/")[0]) != network.network_address:
        raise fault("E-PREFIX", f"{value} has bits set behind its prefix length", f'write "{network}"')
    reason = reserved(network)
    if reason:
        raise fault("E-PREFIX", f"{network} {reason}", "remove it; a default route is 0.0.0.0/0 as a whole")
    return network


_RESERVED: tuple[tuple[Network, str], ...] = (
    (IPv4Network("0.0.0.0/8"), "is, or contains, the 0-network 0.0.0.0/8"),
    (IPv4Network("127.0.0.0/8"), "is, or contains, the loopback range 127.0.0.0/8"),
    (IPv4Network("224.0.0.0/4"), "is, or contains, the multicast range 224.0.0.0/4"),
    (IPv4Network("255.255.255.255/32"), "is, or contains, the broadcast address 255.255.255.255"),
    (IPv6Network("::/128"), "is, or contains, the unspecified address ::"),
    (IPv6Network("::1/128"), "is, or contains, the loopback address ::1"),
    (IPv6Network("ff00::/8"), "is, or contains, the multicast range ff00::/8"),
)


def reserved(network: Network) -> str | None:
    """Why no tunnel can carry `network` (specification: ranges), or None. A whole default route is fine."""
    if network.prefixlen == 0:
        return None
    for block, reason in _RESERVED:
        if network.version == block.version and network.overlaps(block):
            return reason
    return None


def is_domain_name(text: str) -> bool:
    """Whether `text` could be resolved: labels of letters, digits and hyphens, not all of them numbers."""
    labels = text.rstrip(".").split(".")
    if len(text) > 253 or not all(re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", label) for label in labels):
        return False
    return not re.fullmatch(r"[0-9]+", labels[-1])


def interface_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", value) or value in (".", "..", "lo", "all", "default"):
        hint = f"at most {MAX_INTERFACE_NAME} characters: letters, digits, '-', '_', '.'"
        raise fault("E-INTERFACE", f"{quoted(value)} cannot name a network interface", hint)
    return value


def label(value: str) -> str:
    return one_line(value, "label")


def one_line(value: str, what: str = "description") -> str:
    if len(value) > MAX_DESCRIPTION:
        message = f"the {what} has {len(value)} characters; at most {MAX_DESCRIPTION} are allowed"
        raise fault("E-RANGE", message, "shorten it")
    if not value.isprintable():
        hint = "one line of printable text"
        raise fault("E-VALUE", f"{quoted(value)} has a line break or another control character", hint)
    return value


def check_name(name: str) -> str | None:
    """What is wrong with a tunnel's name, or None."""
    if not name:
        return "the name is empty"
    if len(name) > MAX_TUNNEL_NAME:
        return f"the name has {len(name)} characters; at most {MAX_TUNNEL_NAME} are allowed"
    if not name.isprintable() or "/" in name or name != name.strip() or name.startswith((".", "-")):
        return (
            f'the name {quoted(name)} has a "/", a control character, or begins or ends with what it may not'
        )
    return None


def _one_or_list(shape: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [shape, {"type": "array", "items": shape}]}


def _words(known: Iterable[str]) -> dict[str, Any]:
    return _one_or_list({"type": "string", "enum": list(known)})


_NUMBER_OR_LIST = _one_or_list({"type": "integer", "enum": sorted(GROUPS)})
_PFS_VALUE = {"anyOf": [{"const": "disable"}, *_NUMBER_OR_LIST["anyOf"]]}

EncryptionWords = Annotated[
    list[Annotated[str, BeforeValidator(_one_of(ENCRYPTIONS, "an encryption algorithm"))]],
    BeforeValidator(_as_list),
    AfterValidator(_not_repeated),
    WithJsonSchema(_words(ENCRYPTIONS)),
    Field(description="Algorithms, the preferred first."),
]
IntegrityWords = Annotated[
    list[Annotated[str, BeforeValidator(_one_of(INTEGRITIES, "an integrity algorithm"))]],
    BeforeValidator(_as_list),
    AfterValidator(_not_repeated),
    WithJsonSchema(_words(INTEGRITIES)),
    Field(description="Algorithms, the preferred first; ignored beside an AEAD cipher."),
]
GroupNumbers = Annotated[
    list[Annotated[int, BeforeValidator(_group)]],
    BeforeValidator(_as_list),
    AfterValidator(_not_repeated),
    WithJsonSchema(_NUMBER_OR_LIST),
]
MomentValue = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""A moment with its time zone, in TOML without quotes; JSON has only text (RFC 3339)."""

PfsGroups = Annotated[list[int], BeforeValidator(_pfs), WithJsonSchema(_PFS_VALUE)]
ListenValue = Annotated[ListenAt, BeforeValidator(_listen_at), WithJsonSchema({"type": "string"})]
AddressValue = Annotated[Address, BeforeValidator(_address), WithJsonSchema({"type": "string"})]
OwnAddressValue = Annotated[
    Address | None, BeforeValidator(_address_or_auto), WithJsonSchema({"type": "string"})
]
"""None: `auto`."""
NetworkValue = Annotated[Network, BeforeValidator(_network), WithJsonSchema({"type": "string"})]
IdentityText = Annotated[str, BeforeValidator(_identity)]
Lifetime = Annotated[int, Field(ge=MIN_LIFETIME, le=MAX_LIFETIME, json_schema_extra={UNIT: "seconds"})]
RekeyMargin = Annotated[
    int,
    Field(
        ge=1,
        le=50,
        description="When an SA is replaced: so much of its lifetime, or of its KB, before the end.",
        json_schema_extra={UNIT: "percent"},
    ),
]
RekeyFuzz = Annotated[
    int,
    Field(
        ge=0,
        le=500,
        description="How much earlier that may be by chance, in percent of the margin.",
        json_schema_extra={UNIT: "percent"},
    ),
]


def _not_off(value: object) -> object:
    """RFC 4303 section 3.4.3 lets the receiver switch the window off; vpnd never does."""
    if value == 0 and not isinstance(value, bool):
        hint = f"write {MAXIMUM_WINDOW} for packets that come far out of order"
        message = "replay_window is 0, which would take a recorded packet any number of times"
        raise fault("E-RANGE", message, hint)
    return value


ReplayWindow = Annotated[
    int,
    BeforeValidator(_not_off),
    Field(
        ge=MINIMUM_WINDOW,
        le=MAXIMUM_WINDOW,
        description="By how many one may come late (RFC 4303 section 3.4.3).",
        json_schema_extra={UNIT: "packets", "minimum": MINIMUM_WINDOW, "maximum": MAXIMUM_WINDOW},
    ),
]


PROTOCOLS = {
    protocol_text(number): int(number)
    for number in IpProtocol
    if number not in (IpProtocol.ANY, IpProtocol.IPV4, IpProtocol.IPV6)
}
"""Words for IP protocols; any other is written as its number."""

LARGEST_PROTOCOL = 255
LARGEST_PORT = 65535


def _protocol(value: object) -> object:
    """A word, or a number as text without one."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_PROTOCOL:
        return protocol_text(value)
    if isinstance(value, str) and value.isdecimal() and 1 <= int(value) <= LARGEST_PROTOCOL:
        return protocol_text(int(value))
    if value == "ipv6-icmp":
        return protocol_text(IpProtocol.ICMPV6)
    if isinstance(value, str) and value in PROTOCOLS:
        return value
    close = did_you_mean(value, PROTOCOLS) if isinstance(value, str) else None
    listed = f"one of: {', '.join(PROTOCOLS)}; or a number from 1 to {LARGEST_PROTOCOL}; left out: any"
    message = f"{quoted(value)} is not an IP protocol"
    raise fault("E-VALUE", message, f"{close} {listed}" if close else listed)


def _ports(value: object) -> object:
    """`443` or `1024-65535`, as text."""
    ends: list[int] = []
    if isinstance(value, int) and not isinstance(value, bool):
        ends = [value]
    elif isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?", value):
        ends = [int(end) for end in value.split("-")]
    if not ends or not 1 <= ends[0] <= ends[-1] <= LARGEST_PORT:
        hint = f'a number from 1 to {LARGEST_PORT}, or a range such as "1024-{LARGEST_PORT}"'
        raise fault("E-VALUE", f"{quoted(value)} is neither a port nor a range of ports", hint)
    return ports_text((ends[0], ends[-1]))


def _number_or_text(unit: str, largest: int) -> WithJsonSchema:
    number = {"type": "integer", "minimum": 1, "maximum": largest}
    return WithJsonSchema({"anyOf": [number, {"type": "string"}], UNIT: unit})


ProtocolWord = Annotated[
    str,
    BeforeValidator(_protocol),
    _number_or_text("IP protocol", LARGEST_PROTOCOL),
]
PortsText = Annotated[
    str,
    BeforeValidator(_ports),
    _number_or_text("port", LARGEST_PORT),
]


def word(what: str, *words: str) -> Any:
    """A validator for a key that takes one of a few words."""
    return BeforeValidator(_one_of(words, what))


def one_of_numbers(numbers: tuple[int, ...]) -> AfterValidator:
    """A validator for a key that takes one of a few numbers."""

    def check(value: int) -> int:
        if value not in numbers:
            raise fault(
                "E-VALUE", f"{value} is none of the lengths", "one of: " + ", ".join(map(str, numbers))
            )
        return value

    return AfterValidator(check)
