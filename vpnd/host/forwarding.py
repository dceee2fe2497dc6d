"""Whether this machine forwards what comes out of a tunnel: the kernel's switch, and a count of what goes on.

table inet vpnd-look, for some seconds
    prerouting    came out of the tunnel
    input         stays on this machine
    postrouting   goes on, after every rule that could have dropped it
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from struct import Struct

from vpnd.host.nftables import nft
from vpnd.host.rtnetlink import attributes_of, dump

FAMILY, TABLE = "inet", "vpnd-look"

RTM_NEWNETCONF, RTM_GETNETCONF = 80, 82
NETCONFA_IFINDEX, NETCONFA_FORWARDING = 1, 2
"""linux/netconf.h: the switches of each interface, also where /proc/sys is hidden."""
_NETCONFMSG = Struct("=Bxxx")
_INT = Struct("=i")


@dataclass(frozen=True, slots=True)
class Passed:
    """Packets that came out of a tunnel, that stayed on this machine, and that went on."""

    came: int
    stayed: int
    went_on: int


def forwards(index: int, version: int) -> bool:
    """Whether packets that come by the interface with this index are forwarded. Raises OSError."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    for message in dump(RTM_GETNETCONF, RTM_NEWNETCONF, _NETCONFMSG.pack(family)):
        found = attributes_of(message, _NETCONFMSG.size)
        if _int(found.get(NETCONFA_IFINDEX)) == index:
            return bool(_int(found.get(NETCONFA_FORWARDING)))
    return True


def begin_count(interface: str) -> None:
    """Count what comes out of this TUN from now on. Raises FilterFailed."""
    chains = "".join(
        f'chain {hook} {{ type filter hook {hook} priority {priority}; iifname "{interface}" counter; }}\n'
        for hook, priority in (("prerouting", -310), ("input", 500), ("postrouting", 500))
    )
    nft("-f", "-", rules=f"{_REMOVE}table {FAMILY} {TABLE} {{\n{chains}}}\n")


def end_count() -> Passed:
    """What was counted; the table goes. Raises FilterFailed."""
    text = nft("list", "table", FAMILY, TABLE)
    nft("-f", "-", rules=_REMOVE)
    counts = {name: int(count) for name, count in re.findall(_CHAIN, text)}
    return Passed(counts.get("prerouting", 0), counts.get("input", 0), counts.get("postrouting", 0))


_REMOVE = f"table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n"
_CHAIN = re.compile(r"chain (\w+) \{[^}]*?counter packets (\d+)")


def _int(value: bytes | None) -> int:
    return int(_INT.unpack(value)[0]) if value is not None and len(value) == _INT.size else 0
