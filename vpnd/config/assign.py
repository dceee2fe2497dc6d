"""What vpnd chooses itself: health-check addresses and interface names. The same files, the same choice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from vpnd.config.schema import TunnelTable
from vpnd.config.values import MAX_INTERFACE_NAME
from vpnd.model.selectors import Address, Network

ASSIGNED_RANGE = IPv4Network("169.254.128.0/17")
"""Where assigned health-check addresses come from (specification: health check)."""

_BLOCK = 4
"""Each tunnel takes a block of four: .1 is ours, .2 the peer's."""


@dataclass(frozen=True, slots=True)
class HealthAddresses:
    """The two ends of a tunnel's health check, and which of them were assigned."""

    local: Address
    remote: Address
    local_assigned: bool
    remote_assigned: bool


def health_addresses(
    gateway: str, tunnels: Mapping[str, TunnelTable], ranges: Iterable[Network]
) -> dict[str, HealthAddresses]:
    """The health-check addresses of every tunnel that has the check on.

    An address that is not given comes from a hash of the gateway's and the tunnel's name, so it stays
    when other tunnels come and go, but for the rare tunnel whose block is taken by one that is written or
    that comes before it in the alphabet, or lies in one of `ranges`.
    """
    checked = {name: table for name, table in tunnels.items() if table.health_check.enabled}
    taken: set[Address] = set()
    for table in checked.values():
        taken |= {a for a in (table.health_check.local, table.health_check.remote) if a is not None}
    blocked: list[Network] = [
        r for r in ranges if r.prefixlen and r.version == 4 and r.overlaps(ASSIGNED_RANGE)
    ]
    found: dict[str, HealthAddresses] = {}
    for name in sorted(checked):
        check = checked[name].health_check
        local, remote = check.local, check.remote
        if local is None or remote is None:
            ours, theirs = _free_pair(f"{gateway}\0{name}", taken, blocked)
            local, remote = local or ours, remote or theirs
            taken |= {local, remote}
        found[name] = HealthAddresses(local, remote, check.local is None, check.remote is None)
    return found


def _free_pair(seed: str, taken: set[Address], blocked: list[Network]) -> tuple[IPv4Address, IPv4Address]:
    blocks = ASSIGNED_RANGE.num_addresses // _BLOCK
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big") % blocks
    for step in range(blocks):
        base = ASSIGNED_RANGE.network_address + (start + step) % blocks * _BLOCK
        pair = (base + 1, base + 2)
        if not any(address in taken or any(address in r for r in blocked) for address in pair):
            return pair
    raise ValueError(f"no address of {ASSIGNED_RANGE} is free for a health check")


def interface_names(tunnels: Mapping[str, TunnelTable]) -> dict[str, str]:
    """The interface of every tunnel: as written, else `vpn-` and its name, made fit and unique."""
    names = {name: table.interface for name, table in tunnels.items() if table.interface}
    used = set(names.values())
    for name in tunnels:
        if name not in names:
            names[name] = _free_interface(name, used)
            used.add(names[name])
    return {name: names[name] for name in tunnels}


def _free_interface(tunnel: str, used: set[str]) -> str:
    plain = "vpn-" + re.sub(r"[^A-Za-z0-9_.-]", "-", tunnel)
    if plain == f"vpn-{tunnel}" and len(plain) <= MAX_INTERFACE_NAME and plain not in used:
        return plain
    for attempt in range(0x10000):
        tail = hashlib.sha256(f"{tunnel}\0{attempt}".encode()).hexdigest()[:4]
        name = f"{plain[: MAX_INTERFACE_NAME - 5]}-{tail}"
        if name not in used:
            return name
    raise ValueError("no interface name is left")
