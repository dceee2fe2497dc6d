"""A tunnel as the other side's operator has to configure it: every value is mirrored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from vpnd.config.values import AUTO
from vpnd.model.identity import ANY, Identity
from vpnd.model.numbers import Numbers
from vpnd.model.selectors import Address, Network

AEAD = frozenset({"aes-128-gcm", "aes-256-gcm", "chacha20-poly1305"})
"""Ciphers with an integrity of their own."""

LEGACY = frozenset({"des", "3des", "md5", 1, 2, 5, 24})
"""Algorithms that products drop, or want a switch for."""


class NotPossible(Exception):
    """The peer's product cannot do what our tunnel is configured for. The text says what."""


@dataclass(frozen=True, slots=True)
class Algorithms:
    """Our words for what protects one kind of SA, the preferred first; no group: no key exchange."""

    encryption: tuple[str, ...]
    integrity: tuple[str, ...]
    groups: tuple[int, ...]

    @property
    def legacy(self) -> tuple[str, ...]:
        """Those that are weak."""
        words = (*self.encryption, *self.integrity, *self.groups)
        return tuple(dict.fromkeys(str(word) for word in words if word in LEGACY))


@dataclass(frozen=True, slots=True)
class Traffic:
    """One mapping; `local` is the peer's range. A port is `443` or `1024-65535`; None: any."""

    local: Network
    remote: Network
    protocol: str | None = None
    local_port: str | None = None
    remote_port: str | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """The tunnel from the peer's side: `local` is the peer, `remote` this gateway.

    `local_address` is None for a peer of any address, or one that is known by name (`local_name`).
    `remote_address` is None while our address is not known; it may change if `remote_moves`.
    `routes` are the peer's ranges that we send into a tunnel that is `routed`. With `begins` the peer has to
    begin, since this gateway does not. Lifetimes are in seconds, `kilobytes` in KB (0: no limit), `dpd` is
    the timeout in seconds (None: off). `health` is the address that the peer has to answer at, and ours.
    """

    tunnel: str
    gateway: str
    fingerprint: str
    ikev2: bool
    aggressive: bool
    ike: Algorithms
    esp: Algorithms
    ike_lifetime: int
    esp_lifetime: int
    kilobytes: int
    local_id: Identity
    remote_id: Identity
    local_address: Address | None
    local_name: str | None
    remote_address: Address | None
    remote_moves: bool
    routed: bool
    routes: tuple[Network, ...]
    traffic: tuple[Traffic, ...]
    begins: bool
    dpd: int | None
    udp: bool
    esn: str
    replay_window: int
    sha256_96: bool
    health: tuple[Address, Address] | None
    numbers: Numbers
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The tunnel's name in characters that every product takes."""
        return _plain(self.tunnel)

    @property
    def behind(self) -> str:
        """What stands for the networks of this end, which only its operator knows."""
        return f"NETWORK-BEHIND-{_plain(self.gateway)}"

    @property
    def number(self) -> int:
        """What stands for this tunnel where a product wants a number: its own, and always the same.

        From 1 to 2,147,483,647, made of the names of gateway and tunnel.
        """
        digest = sha256(f"{self.gateway}\0{self.tunnel}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % 0x7FFF_FFFF + 1

    def number_up_to(self, largest: int) -> int:
        """As `number`, from 1 to `largest`. Two tunnels may have the same where that is small."""
        return (self.number - 1) % largest + 1

    @property
    def ipv6(self) -> bool:
        """Whether an outer or an inner address is IPv6."""
        outer = (self.local_address, self.remote_address)
        inner = [end for one in self.traffic for end in (one.local, one.remote)]
        return any(one is not None and one.version == 6 for one in (*outer, *inner, *self.routes))

    @property
    def legacy(self) -> tuple[str, ...]:
        """The weak algorithms of the tunnel."""
        return tuple(dict.fromkeys((*self.ike.legacy, *self.esp.legacy)))


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)


def side_of(tunnel: Mapping[str, Any]) -> Side:
    """The other side of a tunnel, as `GET /v1/tunnels/NAME` answers it.

    Raises NotPossible while our identity is not known.
    """
    configuration = tunnel["configuration"]
    ike, ipsec, dpd = (configuration[table] for table in ("ike", "ipsec", "dpd"))
    if ike["local_id"] is None:
        text = 'gateway.address is "auto" and there is no default route, so our identity is not known: set'
        raise NotPossible(f"{text} ike.local_id")
    peer, ours = configuration["customer_gateway"]["address"], tunnel["local_address"]
    ikev2 = ike["version"] == "ikev2"
    pfs = () if ipsec["pfs"] == "disable" else tuple(ipsec["pfs"])
    check = configuration["health_check"]
    routed = configuration["communication"] == "destination-route"
    return Side(
        tunnel=tunnel["name"],
        gateway=tunnel["gateway"],
        fingerprint=tunnel["psk_fingerprint"],
        ikev2=ikev2,
        aggressive=not ikev2 and ike["negotiation_mode"] == "aggressive",
        ike=Algorithms(tuple(ike["encryption"]), tuple(ike["integrity"]), tuple(ike["dh_group"])),
        esp=Algorithms(tuple(ipsec["encryption"]), tuple(ipsec["integrity"]), pfs),
        ike_lifetime=ike["lifetime"],
        esp_lifetime=ipsec["lifetime"],
        kilobytes=ipsec["lifetime_kb"],
        local_id=Identity.of(ike["remote_id"]),
        remote_id=Identity.of(ike["local_id"]),
        local_address=_address(peer),
        local_name=peer if peer != ANY and _address(peer) is None else None,
        remote_address=None if ours == AUTO else ip_address(ours),
        remote_moves=bool(tunnel.get("address_followed")),
        routed=routed,
        routes=tuple(ip_network(route) for route in configuration["routes"]) if routed else (),
        traffic=tuple(_traffic(mapping) for mapping in tunnel["mappings"]),
        begins=configuration["negotiation"] == "passive",
        dpd=dpd["timeout"] if dpd["enabled"] else None,
        udp=ipsec["encapsulation"] == "udp",
        esn=ipsec["esn"] if ikev2 else "no",
        replay_window=ipsec["replay_window"],
        sha256_96=ipsec["sha256_96"],
        health=(ip_address(check["remote"]), ip_address(check["local"])) if check["enabled"] else None,
        numbers=Numbers(**configuration.get("sm_numbers", {})),
        settings=configuration,
    )


def _traffic(mapping: Mapping[str, Any]) -> Traffic:
    return Traffic(
        local=ip_network(mapping["remote"]),
        remote=ip_network(mapping["local"]),
        protocol=mapping.get("protocol"),
        local_port=mapping.get("remote_port"),
        remote_port=mapping.get("local_port"),
    )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The peer's own address; a name may mean any that it has."""
    try:
        return ip_address(text)
    except ValueError:
        return None
