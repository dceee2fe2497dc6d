"""The other side's configuration, made from ours: what to put on the peer so that the two fit.

The pre-shared key is never in it: a line shows where it goes, and the fingerprint to compare it by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Any

from vpnd.config.values import AUTO
from vpnd.model.identity import Identity
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
INTERFACE_ID = 42
"""The number that ties a route-based child to its XFRM interface; any will do."""

_AEAD = frozenset({"aes-128-gcm", "aes-256-gcm", "chacha20-poly1305"})
_LEGACY = frozenset({"des", "3des", "md5", 1, 2, 5, 24})


class NotPossible(Exception):
    """The peer's software cannot do what our tunnel is configured for. The text says what."""


def strongswan(tunnel: Mapping[str, Any]) -> str:
    """A `swanctl.conf` for the peer of `tunnel`, which is what `GET /v1/tunnels/NAME` answers.

    Raises NotPossible for an algorithm that strongSwan lacks (SM4, SM3), and without our identity.
    """
    configuration = tunnel["configuration"]
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in tunnel["name"])
    ike = configuration["ike"]
    if ike["local_id"] is None:
        text = 'gateway.address is "auto" and there is no default route, so our identity is not known: set'
        raise NotPossible(f"{text} ike.local_id")
    lines = [*_preface(tunnel), "", "connections {", f"    {name} {{"]
    lines += _connection(tunnel, ike, configuration)
    lines += ["        children {"]
    for index, mapping in enumerate(tunnel["mappings"]):
        child = name if len(tunnel["mappings"]) == 1 else f"{name}-{index + 1}"
        lines += _child(child, mapping, configuration)
    lines += ["        }", "    }", "}", ""]
    lines += _secret(tunnel, name)
    return "\n".join(lines) + "\n"


def _preface(tunnel: Mapping[str, Any]) -> list[str]:
    ike, ipsec = tunnel["configuration"]["ike"], tunnel["configuration"]["ipsec"]
    lines = [
        f"# The other side of the tunnel {tunnel['name']!r} of the gateway {tunnel['gateway']!r}.",
        "# Put it into /etc/swanctl/conf.d, replace the key at its end.",
        "# Load it with: swanctl --load-all",
    ]
    if ike["version"] == "ikev1" and ike["negotiation_mode"] == "aggressive":
        lines += [
            "#",
            "# strongSwan refuses aggressive mode with a key, unless /etc/strongswan.conf has",
            "#     charon { i_dont_care_about_security_and_use_aggressive_mode_psk = yes }",
            "# since anyone who asks gets a hash of the key to try guesses on. Main mode or IKEv2 is better.",
        ]
    legacy = [
        str(word)
        for words in (
            ike["encryption"],
            ike["integrity"],
            ike["dh_group"],
            ipsec["encryption"],
            ipsec["integrity"],
        )
        for word in words
        if word in _LEGACY
    ]
    if legacy:
        lines += [
            "#",
            f"# Weak algorithms are in use: {', '.join(dict.fromkeys(legacy))}.",
            "# If strongSwan does not know them, it lacks the plugins des, md5, hmac or gmp.",
        ]
    return [*lines, *_network(tunnel)]


def _connection(
    tunnel: Mapping[str, Any], ike: Mapping[str, Any], configuration: Mapping[str, Any]
) -> list[str]:
    peer = configuration["customer_gateway"]["address"]
    lines = [
        f"version = {1 if ike['version'] == 'ikev1' else 2}",
        f"local_addrs = {_address(peer)}",
        f"remote_addrs = {_own_addresses(tunnel)}",
        f"proposals = {_proposals(ike['encryption'], ike['integrity'], ike['dh_group'], prf=True)}",
        f"{'rekey_time' if ike['version'] == 'ikev2' else 'reauth_time'} = {ike['lifetime']}s",
        f"keyingtries = {0 if configuration['negotiation'] == 'passive' else 1}",
        "mobike = no",
    ]
    if ike["version"] == "ikev1" and ike["negotiation_mode"] == "aggressive":
        lines.append("aggressive = yes")
    if configuration["ipsec"]["encapsulation"] == "udp":
        lines.append("encap = yes")
    if configuration["dpd"]["enabled"]:
        timeout = configuration["dpd"]["timeout"]
        lines.append(f"dpd_delay = {max(10, timeout // 3)}s")
        lines += [f"dpd_timeout = {timeout}s"] if ike["version"] == "ikev1" else []
    ends = (("local", ike["remote_id"]), ("remote", ike["local_id"]))
    return [
        *(f"        {line}" for line in lines),
        *(
            f"        {line}"
            for end, identity in ends
            for line in (f"{end} {{", "    auth = psk", f"    id = {_identity(identity)}", "}")
        ),
    ]


def _child(name: str, mapping: Mapping[str, Any], configuration: Mapping[str, Any]) -> list[str]:
    ipsec = configuration["ipsec"]
    groups = [] if ipsec["pfs"] == "disable" else ipsec["pfs"]
    esn = ipsec["esn"] == "yes"
    lines = [
        f"local_ts = {_selector(mapping, 'remote')}",
        f"remote_ts = {_selector(mapping, 'local')}",
        f"esp_proposals = {_proposals(ipsec['encryption'], ipsec['integrity'], groups, prf=False, esn=esn)}",
        f"rekey_time = {ipsec['lifetime']}s",
        *([f"rekey_bytes = {ipsec['lifetime_kb'] * 1024}"] if ipsec["lifetime_kb"] else []),
        f"replay_window = {ipsec['replay_window']}",
        *(["sha256_96 = yes"] if ipsec["sha256_96"] else []),
        "mode = tunnel",
        "dpd_action = restart",
    ]
    passive = configuration["negotiation"] == "passive"
    if configuration["communication"] == "destination-route":
        lines += [f"if_id_in = {INTERFACE_ID}", f"if_id_out = {INTERFACE_ID}"]
        lines += ["start_action = start"] if passive else []
    else:
        lines.append(f"start_action = {'start' if passive else 'trap'}")
    return [f"            {name} {{", *(f"                {line}" for line in lines), "            }"]


def _selector(mapping: Mapping[str, Any], end: str) -> str:
    """`10.1.0.0/24[tcp/443]`, as strongSwan writes it too."""
    narrowed = "/".join(part for part in (mapping.get("protocol"), mapping.get(f"{end}_port")) if part)
    network = str(ip_network(mapping[end]))
    return f"{network}[{narrowed}]" if narrowed else network


def _network(tunnel: Mapping[str, Any]) -> list[str]:
    """What the peer's machine needs beside IKE, as comments."""
    configuration = tunnel["configuration"]
    lines: list[str] = []
    if configuration["communication"] == "destination-route":
        lines += [
            "#",
            "# The SAs cover all addresses, so an interface and routes decide what goes into the tunnel:",
            f"#     ip link add ipsec{INTERFACE_ID} type xfrm if_id {INTERFACE_ID}",
            f"#     ip link set ipsec{INTERFACE_ID} up",
            f"#     ip route add NETWORK-BEHIND-{tunnel['gateway']} dev ipsec{INTERFACE_ID}",
        ]
    check = configuration["health_check"]
    if check["enabled"]:
        device = f"ipsec{INTERFACE_ID}" if configuration["communication"] == "destination-route" else "lo"
        lines += [
            "#",
            "# The health check pings the peer inside the tunnel; there it must have this address:",
            f"#     ip address add {check['remote']} peer {check['local']} dev {device}",
        ]
    return lines


def _secret(tunnel: Mapping[str, Any], name: str) -> list[str]:
    ike = tunnel["configuration"]["ike"]
    return [
        "secrets {",
        f"    ike-{name} {{",
        f"        id-1 = {_identity(ike['local_id'])}",
        f"        id-2 = {_identity(ike['remote_id'])}",
        "        # The key of both sides, in double quotes. Its fingerprint at this end:",
        f"        # {tunnel['psk_fingerprint']} (vpnctl psk fingerprint)",
        '        secret = "PUT-THE-PRE-SHARED-KEY-HERE"',
        "    }",
        "}",
    ]


def _proposals(
    encryption: list[str], integrity: list[str], groups: list[int], *, prf: bool, esn: bool = False
) -> str:
    """Our words as strongSwan's: ciphers with and without their own integrity in separate proposals."""
    tail = [_word(GROUP, group, "DH group") for group in groups] + (["esn"] if esn else [])
    found: list[str] = []
    for aead in dict.fromkeys(word in _AEAD for word in encryption):
        ciphers = [_word(ENCRYPTION, word, "encryption") for word in encryption if (word in _AEAD) is aead]
        hashes = [_word(INTEGRITY, word, "integrity") for word in integrity]
        if aead:
            hashes = [f"prf{word}" for word in hashes] if prf else []
        found.append("-".join([*ciphers, *hashes, *tail]))
    return ", ".join(found)


def _word(table: Mapping[Any, str], word: Any, what: str) -> str:
    if word not in table:
        raise NotPossible(f"strongSwan has no {what} {word}: choose one that both have")
    return table[word]


def _identity(text: str) -> str:
    """An address as it is; a name with `@`, so that it is not resolved; another text with its type."""
    identity = Identity.of(text)
    if identity.type != IdType.FQDN:
        return str(identity)
    name = identity.value.decode("ascii")
    return f'"fqdn:{name}"' if str(identity).startswith("@") else f"@{name}"


def _own_addresses(tunnel: Mapping[str, Any]) -> str:
    """Where the peer begins, and from where it accepts us: anywhere, if our address may change."""
    address: str = tunnel["local_address"]
    if not tunnel.get("address_followed"):
        return address
    return "%any" if address == AUTO else f"{address}, %any"


def _address(text: str) -> str:
    """The peer's own address; behind a NAT it is not the one that we see, so a name means any."""
    try:
        return str(ip_network(text).network_address)
    except ValueError:
        return "%any"


KINDS: dict[str, Callable[[Mapping[str, Any]], str]] = {"strongswan": strongswan}
"""What `--for` takes."""
