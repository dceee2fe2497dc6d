"""What tunnels protect is not taken from anywhere else: a filter for packets that arrive in clear.

Who is on the wire outside can send packets that claim to come from the other site, straight to an address
inside (CVE-2019-14899). One table of nftables drops them before they are routed:

    chain prerouting, hook prerouting, priority raw
        iifgroup TUNNELS                                                     accept
        esp, udp dport { 500, 4500 }         fib daddr . iif type local      accept
        saddr @remote daddr @local           fib saddr . iif oif missing     drop     mappings
        saddr @routes  fib daddr . iif type != local
                                             fib saddr . iif oif missing     drop     routes
        saddr REMOTE daddr LOCAL l4proto tcp th sport .. th dport ..         drop     mappings with a protocol
    chain postrouting, hook postrouting, priority filter
        oifgroup TUNNELS                                                     accept
        saddr LOCAL daddr REMOTE l4proto tcp, a fragment                     drop     mappings with ports
        saddr LOCAL daddr REMOTE l4proto tcp th dport 65535                  drop     ranges that end there

`missing` says that the answer would not leave by the interface by which the packet came: so the kernel's own
routes and rules decide, and what they say changes in one place. A packet from a network in `routes` to the
very address that the outer interface has is not an inner one; with a route to everything, all are from there.

A mapping of one protocol or some ports is written out: `fib` knows neither. The kernel's rules do not see
the ports of a fragment, so one that is forwarded would leave in clear: no fragment of that protocol leaves
between the two ranges, but in a tunnel (RFC 4301 section 7). Where connections are tracked the kernel joins
fragments before it routes them, and there are none. Nor can the kernel's rules name port 65535: where it
ends a range, what has it does not leave at all.

`nft` (nftables(8)) reads the rules from its input and replaces the table as a whole, in one transaction.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import collapse_addresses, ip_network
from typing import Any

from vpnd.model.selectors import ANY_PORT, Network, Ports, ports_text

FAMILY, TABLE = "inet", "vpnd"

PLACES = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where `nft` may be; what the environment says does not matter."""

ANSWER_WITHIN = 10.0
"""Ours: seconds; the kernel answers at once, but thousands of networks take a while to read."""

NEVER_INNER = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/127",
        "fe80::/10",
        "ff00::/8",
    )
)
"""Sources of DHCP, neighbour discovery and the like: no matter of routes, even of one to everything."""


LAST_PORT = 65535


class FilterFailed(OSError):
    """The kernel refused, or `nft` is not there; the text says which."""


@dataclass(frozen=True, slots=True)
class Narrow:
    """A mapping of one protocol, or some of its ports."""

    local: Network
    remote: Network
    protocol: int
    local_ports: Ports = ANY_PORT
    remote_ports: Ports = ANY_PORT

    @property
    def has_ports(self) -> bool:
        """Whether it is for some ports only."""
        return (self.local_ports, self.remote_ports) != (ANY_PORT, ANY_PORT)

    @property
    def key(self) -> tuple[int, str]:
        """What sorts them, so that the same ones make the same rules."""
        return (self.local.version, str(self))


@dataclass(frozen=True, slots=True)
class Shield:
    """What is protected: networks in `routes`, both sides of mappings, and mappings that are `narrow`.

    `group` is that of our TUNs.
    """

    group: int
    routes: frozenset[Network] = frozenset()
    local: frozenset[Network] = frozenset()
    remote: frozenset[Network] = frozenset()
    narrow: frozenset[Narrow] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.routes or self.local or self.narrow)


def install(shield: Shield) -> None:
    """Make the filter what it should be, in one step. Raises FilterFailed."""
    # A table that is not there cannot be deleted, and one that is there can be added again.
    replaced = f"table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n"
    nft("-f", "-", rules=replaced + (_rules(shield) if shield else ""))


def installed() -> bool:
    """Whether the filter is there. Raises FilterFailed."""
    return f"table {FAMILY} {TABLE}" in nft("list", "tables", FAMILY).splitlines()


def _rules(shield: Shield) -> str:
    """The table in the language of nft(8)."""
    sets = "".join(
        _set(f"{name}{version}", version, getattr(shield, name))
        for version in (4, 6)
        for name in ("routes", "local", "remote")
    )
    drops = "".join(_drops(version) for version in (4, 6))
    narrow = sorted(shield.narrow, key=lambda mapping: mapping.key)
    drops += "".join(map(_narrow_drop, narrow))
    unseen = "".join(dict.fromkeys(_fragment_drop(m) for m in narrow if m.has_ports))
    unseen += "".join(map(_last_port_drops, narrow))
    leaving = f"""chain postrouting {{
type filter hook postrouting priority filter; policy accept;
meta oifgroup {shield.group} accept
{unseen}}}
"""
    return f"""table {FAMILY} {TABLE} {{
{sets}chain prerouting {{
type filter hook prerouting priority raw; policy accept;
meta iifgroup {shield.group} accept
meta l4proto esp fib daddr . iif type local accept
udp dport {{ 500, 4500 }} fib daddr . iif type local accept
{drops}}}
{leaving if unseen else ""}}}
"""


def _drops(version: int) -> str:
    ip = "ip" if version == 4 else "ip6"
    missing = "fib saddr . iif oif missing drop"
    return (
        f"{ip} saddr @remote{version} {ip} daddr @local{version} {missing}\n"
        f"{ip} saddr @routes{version} fib daddr . iif type != local {missing}\n"
    )


def _narrow_drop(mapping: Narrow) -> str:
    """What must not arrive in clear: from the peer's side to ours."""
    ip = "ip" if mapping.local.version == 4 else "ip6"
    ports = ""
    for word, named in (("sport", mapping.remote_ports), ("dport", mapping.local_ports)):
        ports += f" th {word} {ports_text(named)}" if named != ANY_PORT else ""
    addresses = f"{ip} saddr {mapping.remote} {ip} daddr {mapping.local}"
    return f"{addresses} meta l4proto {mapping.protocol}{ports} drop\n"


def _fragment_drop(mapping: Narrow) -> str:
    """What must not leave in clear: a fragment, whose ports the kernel's rules do not see."""
    ip = "ip" if mapping.local.version == 4 else "ip6"
    fragment = "ip frag-off & 0x3fff != 0" if mapping.local.version == 4 else "exthdr frag exists"
    addresses = f"{ip} saddr {mapping.local} {ip} daddr {mapping.remote}"
    return f"{addresses} meta l4proto {mapping.protocol} {fragment} drop\n"


def _last_port_drops(mapping: Narrow) -> str:
    """What must not leave in clear: port 65535 of a range, which the kernel's rules cannot name."""
    ip = "ip" if mapping.local.version == 4 else "ip6"
    addresses = f"{ip} saddr {mapping.local} {ip} daddr {mapping.remote} meta l4proto {mapping.protocol}"
    sides = (("sport", mapping.local_ports), ("dport", mapping.remote_ports))
    lines = ""
    for index, (word, ports) in enumerate(sides):
        if ports == ANY_PORT or ports[1] != LAST_PORT:
            continue
        other, named = sides[1 - index]
        beside = f" th {other} {ports_text(named)}" if named != ANY_PORT else ""
        lines += f"{addresses} th {word} {LAST_PORT}{beside} drop\n"
    return lines


def _set(name: str, version: int, networks: Iterable[Network]) -> str:
    """A set of this name with the networks of one family."""
    elements = ", ".join(map(str, _inner(version, networks)))
    listed = f"elements = {{ {elements} }}\n" if elements else ""
    return f"set {name} {{\ntype ipv{version}_addr\nflags interval\n{listed}}}\n"


def _inner(version: int, networks: Iterable[Network]) -> list[Network]:
    """The networks of one family without what is never an inner address, in order and without overlap."""
    found: list[Any] = [network for network in networks if network.version == version]
    for hole in (network for network in NEVER_INNER if network.version == version):
        found = [part for network in found for part in _without(network, hole)]
    return sorted(collapse_addresses(found))


def _without(network: Any, hole: Any) -> list[Any]:
    """`network` but for `hole`; both are of one family."""
    if network.subnet_of(hole):
        return []
    return list(network.address_exclude(hole)) if hole.subnet_of(network) else [network]


def nft(*arguments: str, rules: str = "") -> str:
    """What `nft` prints. Raises FilterFailed."""
    program = shutil.which("nft", path=PLACES)
    if program is None:
        raise FilterFailed("nftables: the program nft is missing (Debian's package nftables)")
    try:
        done = subprocess.run(  # noqa: S603  # no shell, and nothing in it but our words and networks
            [program, *arguments],
            input=rules,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=ANSWER_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FilterFailed(f"nftables: {error}") from error
    if done.returncode:
        raise FilterFailed(f"nftables: {done.stderr.strip().partition(chr(10))[0]}")
    return done.stdout
