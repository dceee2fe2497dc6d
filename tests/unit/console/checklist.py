"""Every row of the specification's tables and every limit, for the forms and for Chromium alike.

`sweep` gives a tunnel in which every value differs from the default of its profile where it can, and all
sweeps together have every choice of every field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vpnd.console import drafts
from vpnd.console.fields import CIPHERS, FIELDS, GROUP_NUMBERS, HASHES, STEPS, Kind, Step
from vpnd.crypto.suites import ENCRYPTIONS, INTEGRITIES

KEY = "pKz8wTq2mB5vX9cL4nR7jH3gpKz8wTq2"
SWEEPS = len(GROUP_NUMBERS) + 1
"""As many as the field with most choices has: PFS, with none."""

ROWS: dict[str, tuple[str, ...]] = {
    "Tunnel name": ("name",),
    "Customer gateway": ("customer_gateway", "customer_gateway.name"),
    "Customer gateway IP": ("customer_gateway.address",),
    "Pre-shared key": ("key", "key_again"),
    "Negotiation type": ("negotiation",),
    "Communication mode": ("communication",),
    "Destination route": ("routes",),
    "SPD policy": ("spd.0.local", "spd.0.remote"),
    "Enable DPD": ("dpd.enabled",),
    "DPD timeout period": ("dpd.timeout",),
    "DPD timeout action": ("dpd.action",),
    "Enable health check": ("health_check.enabled",),
    "VPN gateway IP for health check": ("health_check.local",),
    "Customer gateway IP for health check": ("health_check.remote",),
    "IKE: Version": ("ike.version",),
    "IKE: Encryption algorithm": ("ike.encryption",),
    "IKE: Verification algorithm": ("ike.integrity",),
    "IKE: Negotiation mode": ("ike.negotiation_mode",),
    "IKE: Local ID": ("ike.local_id",),
    "IKE: Customer ID": ("ike.remote_id",),
    "IKE: DH group": ("ike.dh_group",),
    "IKE: IKE SA lifetime": ("ike.lifetime",),
    "IPsec: Encryption algorithm": ("ipsec.encryption",),
    "IPsec: Verification algorithm": ("ipsec.integrity",),
    "IPsec: PFS": ("ipsec.pfs",),
    "IPsec: IPsec SA lifetime (s)": ("ipsec.lifetime",),
    "IPsec: IPsec SA lifetime (KB)": ("ipsec.lifetime_kb",),
}
"""The rows of the specification's tables by the fields that ask for them."""

SHOWN: dict[str, str] = {
    "Region": "basic",
    "VPN gateway type": "basic",
    "VPC": "basic",
    "VPN gateway": "basic",
    "Identity verification": "ike",
    "Encapsulation mode": "ipsec",
    "Security protocol": "ipsec",
}
"""Those that have one value, or that of the gateway: shown in this step."""

WORDS: dict[str, tuple[str, ...]] = {
    "ike.version": ("ikev1", "ikev2"),
    "ike.encryption": ("aes-128", "aes-192", "aes-256", "3des", "des", "sm4"),
    "ike.integrity": ("md5", "sha1", "sha256", "sha384", "sha512", "sm3"),
    "ike.negotiation_mode": ("main", "aggressive"),
    "ike.dh_group": ("1", "2", "5", "14", "24"),
    "ipsec.encryption": ("aes-128", "aes-192", "aes-256", "3des", "des", "sm4"),
    "ipsec.integrity": ("md5", "sha1", "sha256", "sha384", "sha512", "sm3"),
    "ipsec.pfs": ("1", "2", "5", "14", "24"),
    "negotiation": ("traffic-triggered", "active", "passive"),
    "communication": ("destination-route", "spd-policy"),
    "dpd.action": ("disconnect", "retry"),
}
"""The choices that the specification names."""


def sweep(number: int) -> dict[str, Any]:
    """The values of tunnel `number`, by field: text, a list where there may be several, True or False."""
    ike, esp, hashed = _nth(CIPHERS, number), _nth(CIPHERS, number + 4), _nth(HASHES, number)
    fits = ENCRYPTIONS[ike].ikev1_phase1 is not None and ENCRYPTIONS[esp].ikev1_esp is not None
    version = "ikev1" if fits and INTEGRITIES[hashed].ikev1_hash is not None else "ikev2"
    routed = number % 2 == 0
    values: dict[str, Any] = {
        "name": f"sweep {number:02} " + "n" * 51,
        "customer_gateway": "+",
        "customer_gateway.name": f"office {number}" if number % 4 == 1 else "",
        "customer_gateway.address": f"198.51.100.{number + 1}" if number % 3 else f"gw{number}.example",
        "key": KEY,
        "key_again": KEY,
        "description": f"tunnel {number}",
        "profile": "tencent-cloud" if number % 5 == 4 else "default",
        "negotiation": _nth(("passive", "traffic-triggered", "active"), number),
        "communication": "destination-route" if routed else "spd-policy",
        "priority": str(number + 1),
        "dpd.enabled": number % 4 != 3,
        "dpd.timeout": str(31 + number),
        "dpd.action": _nth(("disconnect", "retry", "disconnect"), number),
        "health_check.enabled": routed,
        "health_check.local": f"169.254.200.{2 * number + 1}",
        "health_check.remote": f"169.254.200.{2 * number + 2}",
        "ike.version": version,
        "ike.negotiation_mode": _nth(("aggressive", "aggressive", "main"), number),
        "ike.encryption": [ike],
        "ike.integrity": [hashed],
        "ike.dh_group": [_nth(GROUP_NUMBERS, number)],
        "ike.local_id": _nth(("hq.example", "192.0.2.77"), number),
        "ike.remote_id": _nth((f"203.0.113.{number + 1}", f"branch{number}.example"), number),
        "ike.lifetime": str(3600 + number),
        "ipsec.encryption": [esp],
        "ipsec.integrity": [_nth(HASHES, number + 1)],
        "ipsec.pfs": [GROUP_NUMBERS[number]] if number < len(GROUP_NUMBERS) else [],
        "ipsec.lifetime": str(1800 + number),
        "ipsec.lifetime_kb": str(900_000 + number),
        "ipsec.encapsulation": _nth(("udp", "auto"), number),
    }
    if routed:
        values["routes"] = f"10.{number}.0.0/16\n10.{100 + number}.0.0/16"
    else:
        values["spd.0.local"] = f"10.{number}.0.0/24\n10.{number}.1.0/24"
        values["spd.0.remote"] = f"172.16.{number}.0/25\n172.16.{number}.128/25"
    return {key: value for key, value in values.items() if _is_asked_for(key, values)}


def _nth(choices: tuple[str, ...], number: int) -> str:
    return choices[number % len(choices)]


def _is_asked_for(key: str, values: Mapping[str, Any]) -> bool:
    when = FIELDS[key].when if key in FIELDS else None
    return when is None or drafts.text_of(values[when[0]]) == when[1]


def of_step(step: Step, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values of one step, in the order in which they are asked for."""
    mine = {one.key for one in step.fields}
    for key, value in values.items():
        where = step.name if key in mine else "communication" if key.startswith("spd.") else "basic"
        if where == step.name and (key in mine or key not in FIELDS):
            yield key, value


def kind_of(key: str) -> Kind:
    """How a field is asked for."""
    if key in FIELDS:
        return FIELDS[key].kind
    return Kind.LINES if key.startswith("spd.") else Kind.CHOICE if key == "customer_gateway" else Kind.TEXT


def form_of(step: Step, values: Mapping[str, Any]) -> dict[str, Any]:
    """A step as a browser sends it: no box that is not checked."""
    form = {}
    for key, value in of_step(step, values):
        if value is not False and value != []:
            form[key] = "yes" if value is True else value
    return form


def kept(configuration: Mapping[str, Any], key: str) -> Any:
    """What a tunnel's configuration has for a field, as `sweep` has it."""
    if key == "customer_gateway.address":
        return configuration["customer_gateway"]["address"]
    if key.startswith("spd."):
        return "\n".join(configuration["spd"][0][key.rpartition(".")[2]])
    found = drafts.look(configuration, key)
    if isinstance(found, bool):
        return found
    if kind_of(key) is Kind.SEVERAL:
        return drafts.words_of(found)
    return drafts.text_of(found)


@dataclass(frozen=True)
class Limit:
    """Values that a step refuses, at `field`, with `code` and a message that has these words."""

    step: str
    values: dict[str, Any]
    field: str
    code: str
    words: str

    def __str__(self) -> str:
        return f"{self.field} {self.code} {self.words}"[:60]


def _ranges(first: int, count: int) -> str:
    return "\n".join(f"10.{first}.{number}.0/24" for number in range(count))


_HEALTH = {"health_check.enabled": True, "health_check.local": "", "health_check.remote": ""}

LIMITS = (
    Limit("basic", {"name": ""}, "name", "E-NAME", "empty"),
    Limit("basic", {"name": "a/b"}, "name", "E-NAME", '"a/b"'),
    Limit("basic", {"name": "x" * 61}, "name", "E-NAME", "at most 60"),
    Limit("basic", {"name": "branch-a"}, "name", "E-DUPLICATE", "a tunnel of this name"),
    Limit("basic", {"customer_gateway.name": "a/b"}, "customer_gateway.name", "E-NAME", '"a/b"'),
    Limit("basic", {"customer_gateway.name": "branch"}, "customer_gateway.name", "E-DUPLICATE", "choose it"),
    Limit("basic", {"customer_gateway.address": ""}, "customer_gateway", "E-ADDRESS", "neither"),
    Limit("basic", {"customer_gateway.address": "1.2.3"}, "customer_gateway", "E-ADDRESS", "neither"),
    Limit("basic", {"customer_gateway.address": "224.0.0.1"}, "customer_gateway", "E-ADDRESS", "one machine"),
    Limit(
        "basic", {"customer_gateway.address": "192.0.2.1"}, "customer_gateway", "E-ADDRESS", "this gateway"
    ),
    Limit("basic", {"customer_gateway.address": "2001:db8::9"}, "customer_gateway", "E-ADDRESS", "two kinds"),
    Limit("basic", {"customer_gateway.address": "any"}, "negotiation", "E-ANY", "has to begin"),
    Limit("basic", {"key": KEY, "key_again": "other"}, "pre_shared_key", "E-PSK", "differ"),
    Limit("basic", {"key": "", "key_again": ""}, "pre_shared_key", "E-PSK", "needed"),
    Limit("basic", {"description": "x" * 201}, "description", "E-RANGE", "at most 200"),
    Limit("basic", {"priority": "many"}, "priority", "E-TYPE", "priority"),
    Limit("basic", {"priority": "65536"}, "priority", "E-RANGE", "65535"),
    Limit("advanced", {"dpd.timeout": "9"}, "dpd.timeout", "E-RANGE", "10 to 3600"),
    Limit("advanced", {"dpd.timeout": "3601"}, "dpd.timeout", "E-RANGE", "10 to 3600"),
    Limit("advanced", {"dpd.timeout": "soon"}, "dpd.timeout", "E-TYPE", "dpd.timeout"),
    Limit(
        "advanced",
        {**_HEALTH, "health_check.local": "127.0.0.1"},
        "health_check.local",
        "E-HEALTH-ADDRESS",
        "loopback",
    ),
    Limit(
        "advanced",
        {**_HEALTH, "health_check.local": "224.0.0.9"},
        "health_check.local",
        "E-ADDRESS",
        "one machine",
    ),
    Limit(
        "advanced",
        {**_HEALTH, "health_check.remote": "255.255.255.255"},
        "health_check.remote",
        "E-ADDRESS",
        "one machine",
    ),
    Limit(
        "advanced",
        {**_HEALTH, "health_check.remote": "nearby"},
        "health_check.remote",
        "E-ADDRESS",
        "IP address",
    ),
    Limit(
        "advanced",
        {**_HEALTH, "health_check.local": "169.254.200.1", "health_check.remote": "169.254.200.1"},
        "health_check.remote",
        "E-HEALTH-ADDRESS",
        "both ends",
    ),
    Limit(
        "advanced",
        {**_HEALTH, "health_check.local": "10.0.0.9"},
        "health_check.local",
        "E-HEALTH-ADDRESS",
        "10.0.0.0/24",
    ),
    Limit("communication", {"spd.0.remote": ""}, "spd.0.remote", "E-VALUE", "remote"),
    Limit("communication", {"spd.0.remote": "192.168.0.0/33"}, "spd.0.remote", "E-PREFIX", "CIDR"),
    Limit("communication", {"spd.0.remote": "192.168.0.1/24"}, "spd.0.remote", "E-PREFIX", "bits set"),
    Limit("communication", {"spd.0.local": "127.0.0.0/8"}, "spd.0.local", "E-PREFIX", "loopback"),
    Limit("communication", {"spd.0.local": "224.0.0.0/8"}, "spd.0.local", "E-PREFIX", "multicast"),
    Limit("communication", {"spd.0.remote": "fd00::/64"}, "spd.0.remote", "E-FAMILY", "IPv4 and IPv6"),
    Limit(
        "communication",
        {"spd.0.remote": "192.168.0.0/24\n192.168.0.128/25"},
        "spd.0.remote",
        "E-OVERLAP",
        "both ranges intersect",
    ),
    Limit("communication", {"spd.0.remote": _ranges(8, 201)}, "spd.0.remote", "E-LIMIT", "at most 200"),
    Limit(
        "communication",
        {"spd.0.local": _ranges(1, 15), "spd.0.remote": _ranges(9, 14)},
        "spd.0.remote",
        "E-LIMIT",
        "at most 200",
    ),
    Limit("ike", {"ike.encryption": []}, "ike.encryption", "E-VALUE", "empty"),
    Limit("ike", {"ike.encryption": ["aes-128-gcm"]}, "ike.encryption", "E-AEAD", "AEAD"),
    Limit("ike", {"ike.integrity": []}, "ike.integrity", "E-VALUE", "empty"),
    Limit("ike", {"ike.dh_group": []}, "ike.dh_group", "E-VALUE", "empty"),
    Limit("ike", {"ike.local_id": "a b"}, "ike.local_id", "E-ID", "a b"),
    Limit("ike", {"ike.remote_id": "me@example"}, "ike.remote_id", "E-ID", "me@example"),
    Limit("ike", {"ike.lifetime": "9"}, "ike.lifetime", "E-RANGE", "10 to 31536000"),
    Limit("ike", {"ike.lifetime": "31536001"}, "ike.lifetime", "E-RANGE", "10 to 31536000"),
    Limit("ipsec", {"ipsec.encryption": []}, "ipsec.encryption", "E-VALUE", "empty"),
    Limit("ipsec", {"ipsec.encryption": ["chacha20-poly1305"]}, "ipsec.encryption", "E-AEAD", "IKEv1"),
    Limit("ipsec", {"ipsec.integrity": []}, "ipsec.integrity", "E-VALUE", "empty"),
    Limit("ipsec", {"ipsec.lifetime": "9"}, "ipsec.lifetime", "E-RANGE", "10 to 31536000"),
    Limit("ipsec", {"ipsec.lifetime": "1 h"}, "ipsec.lifetime", "E-TYPE", "ipsec.lifetime"),
    Limit("ipsec", {"ipsec.lifetime_kb": "-1"}, "ipsec.lifetime_kb", "E-TYPE", "ipsec.lifetime_kb"),
    Limit("ipsec", {"ipsec.lifetime_kb": "1099511627777"}, "ipsec.lifetime_kb", "E-RANGE", "1099511627776"),
)
"""Each with the other values of `BASE`, an SPD tunnel of IKEv1."""

BASE: dict[str, Any] = {
    "name": "limits",
    "customer_gateway": "+",
    "customer_gateway.name": "",
    "customer_gateway.address": "203.0.113.9",
    "key": KEY,
    "key_again": KEY,
    "description": "",
    "profile": "default",
    "negotiation": "active",
    "communication": "spd-policy",
    "priority": "0",
    "dpd.enabled": True,
    "dpd.timeout": "30",
    "dpd.action": "retry",
    "health_check.enabled": False,
    "spd.0.local": "10.0.0.0/24",
    "spd.0.remote": "192.168.0.0/24",
    "ike.version": "ikev1",
    "ike.negotiation_mode": "main",
    "ike.encryption": ["aes-128"],
    "ike.integrity": ["sha256"],
    "ike.dh_group": ["14"],
    "ike.local_id": "",
    "ike.remote_id": "",
    "ike.lifetime": "86400",
    "ipsec.encryption": ["aes-128"],
    "ipsec.integrity": ["sha256"],
    "ipsec.pfs": [],
    "ipsec.lifetime": "3600",
    "ipsec.lifetime_kb": "1843200",
    "ipsec.encapsulation": "auto",
}

STEP = {step.name: step for step in STEPS}
