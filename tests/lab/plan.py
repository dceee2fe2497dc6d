"""What two gateways are told about one tunnel, and what each says it agreed on, in vpnd's words for both."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from subprocess import CompletedProcess
from typing import Protocol

NO_DPD = 3600
"""Seconds of silence before a peer is dead, the most: no test waits for that, so nothing is rescued by it."""
PSK = "mxLvUuPzRrOTgIwHLdJ3V7pmcyQb4+wWtYg0wXJqk5M="
AEAD = frozenset({"aes-128-gcm", "aes-256-gcm", "chacha20-poly1305"})


@dataclass(frozen=True)
class Suite:
    """Algorithms by vpnd's words. With an AEAD cipher `integrity` is only the PRF of IKE."""

    encryption: str = "aes-128"
    integrity: str = "sha256"
    dh_group: int = 14

    def __str__(self) -> str:
        return f"{self.encryption} {self.integrity} {self.dh_group}"


@dataclass(frozen=True)
class End:
    """One gateway as a tunnel sees it: outer address, IKE identity, and the address inside.

    A peer whose identity is empty has none at vpnd: it is known by its address, which may be a name.
    """

    label: str
    address: str
    identity: str
    inside: str
    networks: tuple[str, ...]


A = End("a", "192.0.2.1", "192.0.2.1", "10.1.0.1", ("10.1.0.0/24",))
B = End("b", "192.0.2.2", "192.0.2.2", "10.2.0.1", ("10.2.0.0/24",))
A6 = End("a", "2001:db8::1", "2001:db8::1", "fd01::1", ("fd01::/64",))
B6 = End("b", "2001:db8::2", "2001:db8::2", "fd02::1", ("fd02::/64",))


@dataclass(frozen=True)
class HealthCheck:
    """A tunnel's health check as one end sees it."""

    local: str
    remote: str
    interval_ms: int = 1000
    timeout_ms: int = 150
    failures: int = 3
    recoveries: int = 3

    def mirrored(self) -> HealthCheck:
        """As the other end sees it."""
        return replace(self, local=self.remote, remote=self.local)


@dataclass(frozen=True)
class SpdRule:
    """One rule of spd-policy mode: each local network with each remote one is a mapping."""

    local: tuple[str, ...]
    remote: tuple[str, ...]
    lines: tuple[str, ...] = ()
    """Further lines at vpnd: its protocol and ports."""


@dataclass(frozen=True)
class Plan:
    """One tunnel, whole, the same for both ends; `local` and `remote` are this end's view of it.

    `routed` is a destination-route tunnel (one mapping of everything), else every local network with every
    remote one is a mapping; with `rules`, those of each rule are. `mode` is of IKEv1; `pfs` is a group, 0 for
    none; `sm_numbers` are those of SM4 and SM3 by name. `raw` lets ESP travel as IP protocol 50
    where the peer can do that.

    The last five are of strongSwan alone: `one_child` puts all networks into one child, `start_action` and
    `close_action` are what it does with a child that is loaded or that we delete, `fragmentation` and
    `childless` are its own.
    """

    name: str = "t1"
    local: End = A
    remote: End = B
    ike: Suite = field(default_factory=Suite)
    esp: Suite = field(default_factory=Suite)
    psk: str = PSK
    routed: bool = False
    negotiation: str = "passive"
    encapsulation: str = "udp"
    dpd_timeout: int = 30
    dpd_action: str = "retry"
    lifetime: int = 3600
    ike_lifetime: int = 86400
    lifetime_kb: int = 1843200
    interface: str = "vpn-lab"
    version: str = "ikev2"
    mode: str = "main"
    pfs: int = 0
    sm_numbers: tuple[tuple[str, int], ...] = ()
    priority: int = 0
    health: HealthCheck | None = None
    rules: tuple[SpdRule, ...] = ()
    lines: tuple[str, ...] = ()
    esp_lines: tuple[str, ...] = ()
    """Further lines at vpnd: of the tunnel's table, and of its `ipsec`."""
    one_child: bool = False
    start_action: str = "none"
    close_action: str = "none"
    fragmentation: str = "yes"
    childless: str = "allow"

    def other(self) -> Plan:
        """The same tunnel as the other end sees it."""
        health = self.health.mirrored() if self.health is not None else None
        rules = tuple(SpdRule(rule.remote, rule.local) for rule in self.rules)
        return replace(self, local=self.remote, remote=self.local, health=health, rules=rules)

    def change(self, **values: object) -> Plan:
        """The same tunnel but for these values."""
        return replace(self, **values)  # type: ignore[arg-type]  # names and types are checked by the dataclass

    @property
    def spd(self) -> tuple[SpdRule, ...]:
        """The rules of a tunnel that is not `routed`."""
        return self.rules or (SpdRule(self.local.networks, self.remote.networks),)

    @property
    def mappings(self) -> list[tuple[str, str]]:
        """Local and remote network of each mapping, in the order written."""
        return [(local, remote) for rule in self.spd for local in rule.local for remote in rule.remote]

    @property
    def esp_integrity(self) -> str | None:
        """None for an AEAD cipher, which has its integrity built in."""
        return None if self.esp.encryption in AEAD else self.esp.integrity


@dataclass(frozen=True)
class Agreed:
    """One child SA with its IKE SA, as one end reports it; `pfs`: the group of its own key exchange, or 0."""

    version: str
    ike: Suite
    esp_encryption: str
    esp_integrity: str | None
    spi_in: int
    spi_out: int
    local: str
    remote: str
    udp: bool
    pfs: int = 0

    def mirrored(self) -> Agreed:
        """What the other end must report."""
        return replace(self, spi_in=self.spi_out, spi_out=self.spi_in, local=self.remote, remote=self.local)


class Gateway(Protocol):
    """What the laboratory asks of either implementation: which of them is at an end is a parameter."""

    kind: str

    @property
    def pid(self) -> int:
        """The daemon's process id."""

    def add(self, plan: Plan) -> None:
        """Learn a tunnel, or change it; `plan.local` is this end."""

    def remove(self, name: str) -> None:
        """Forget a tunnel and delete its SAs."""

    def up(self, name: str, timeout: float = 10) -> CompletedProcess[str]:
        """Negotiate and wait; exit code 0 when the tunnel is up."""

    def agreed(self, name: str) -> list[Agreed]:
        """Its child SAs that carry traffic."""

    def cpu_seconds(self) -> float:
        """CPU time of the daemon since it started."""

    def resident_bytes(self) -> int:
        """Memory of the daemon."""

    def stop(self) -> int:
        """End it with SIGTERM; returns the exit code."""


def is_address(identity: str) -> bool:
    """Whether an identity is an IP address, else it is a name."""
    return ":" in identity or re.fullmatch(r"[\d.]+", identity) is not None
