"""What tunnels protect is not taken from anywhere else: a filter for packets that arrive in clear.

Who is on the wire outside can send packets that claim to come from the other site, straight to an address
inside (CVE-2019-14899). One table of nftables drops them before they are routed:

    chain prerouting, hook prerouting, priority raw
        iifgroup TUNNELS                                                     accept
        esp, udp dport 500, udp dport 4500   fib daddr . iif type local      accept
        saddr @remote daddr @local           fib saddr . iif oif missing     drop     mappings
        saddr @routes  fib daddr . iif type != local
                                             fib saddr . iif oif missing     drop     routes

`missing` says that the answer would not leave by the interface by which the packet came: so the kernel's own
routes and rules decide, and what they say changes in one place. A packet from a network in `routes` to the
very address that the outer interface has is not an inner one; with a route to everything, all are from there.

The table is replaced as a whole, in one transaction (nf_tables, Linux include/uapi/linux/netfilter).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import collapse_addresses, ip_network
from typing import Any

from vpnd.model.selectors import Network

TABLE = "vpnd"
CHAIN = "prerouting"

NETLINK_NETFILTER = 12
SUBSYSTEM = 10
NFPROTO_INET = 1
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM = 0, 1, 2, 3, 6, 9, 12
REQUEST, ACK, CREATE, APPEND = 0x1, 0x4, 0x400, 0x800
NESTED = 0x8000
NLMSG_ERROR = 2

PRIORITY_RAW = -300
SET_INTERVAL, INTERVAL_END = 0x4, 0x1
KEY_TYPES = {4: 7, 6: 8}
"""What `nft list` takes the keys of a set for: ipv4_addr, ipv6_addr."""

META_NFPROTO, META_L4PROTO, META_IIFGROUP = 15, 16, 21
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
EQUAL, NOT_EQUAL = 0, 1
FIB_OIF, FIB_ADDRTYPE = 1, 3
FIB_SADDR, FIB_DADDR, FIB_IIF, FIB_PRESENT = 0x1, 0x2, 0x8, 0x20
RTN_LOCAL = 2
UDP, ESP = 17, 50
IKE_PORTS = (500, 4500)
REGISTER = 1
NFPROTO = {4: 2, 6: 10}
ADDRESSES = {4: (12, 16, 4), 6: (8, 24, 16)}
"""Octets of the source and of the destination in an IP header, and how many they are."""

ELEMENTS_AT_ONCE = 500
"""Ours: intervals in one message, whose attributes hold 64 KiB at most."""

ANSWER_WITHIN = 2.0
"""Ours: seconds; the kernel answers in the call, or not at all."""

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


class Verdict(IntEnum):
    """What becomes of a packet."""

    DROP = 0
    ACCEPT = 1


class FilterFailed(OSError):
    """The kernel refused, or has no nftables."""


@dataclass(frozen=True, slots=True)
class Shield:
    """What is protected: networks in `routes`, and both sides of mappings; `group` is that of our TUNs."""

    group: int
    routes: frozenset[Network] = frozenset()
    local: frozenset[Network] = frozenset()
    remote: frozenset[Network] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.routes or self.local)


def install(shield: Shield) -> None:
    """Make the filter what it should be, in one step. Raises FilterFailed."""
    messages = list(_messages(shield)) if shield else []
    # A table that is not there cannot be deleted, and one that is there can be made again.
    _transact([_table(NEWTABLE), _table(DELTABLE), *messages])


def installed() -> bool:
    """Whether the filter is there. Raises FilterFailed."""
    try:
        _transact([_table(GETTABLE)], batch=False)
    except FilterFailed as failure:
        if failure.errno == errno.ENOENT:
            return False
        raise
    return True


# --------------------------------------------------------------------------------------- the rules


def _messages(shield: Shield) -> Iterator[bytes]:
    yield _table(NEWTABLE)
    hook = _nest(4, _u32(1, 0), _u32(2, PRIORITY_RAW & 0xFFFFFFFF))
    names = (_text(1, TABLE), _text(3, CHAIN))
    yield _message(NEWCHAIN, CREATE, *names, hook, _u32(5, Verdict.ACCEPT), _text(7, "filter"))
    for version in (4, 6):
        for name in ("routes", "local", "remote"):
            yield from _set(f"{name}{version}", version, getattr(shield, name))
    yield _rule(Verdict.ACCEPT, _meta(META_IIFGROUP), _compare(struct.pack("=I", shield.group)))
    to_us = (_fib(FIB_DADDR | FIB_IIF, FIB_ADDRTYPE), _compare(struct.pack("=I", RTN_LOCAL)))
    yield _rule(Verdict.ACCEPT, _meta(META_L4PROTO), _compare(bytes([ESP])), *to_us)
    for port in IKE_PORTS:
        udp = (_meta(META_L4PROTO), _compare(bytes([UDP])))
        to_port = (_payload(TRANSPORT_HEADER, 2, 2), _compare(port.to_bytes(2, "big")))
        yield _rule(Verdict.ACCEPT, *udp, *to_port, *to_us)
    for version in (4, 6):
        yield from _drops(version)


def _drops(version: int) -> Iterator[bytes]:
    source, destination, size = ADDRESSES[version]
    family = (_meta(META_NFPROTO), _compare(bytes([NFPROTO[version]])))
    missing = (_fib(FIB_SADDR | FIB_IIF | FIB_PRESENT, FIB_OIF), _compare(bytes(4)))
    not_to_us = (
        _fib(FIB_DADDR | FIB_IIF, FIB_ADDRTYPE),
        _compare(struct.pack("=I", RTN_LOCAL), NOT_EQUAL),
    )
    of_mappings = (
        _payload(NETWORK_HEADER, source, size),
        _lookup(f"remote{version}"),
        _payload(NETWORK_HEADER, destination, size),
        _lookup(f"local{version}"),
    )
    yield _rule(Verdict.DROP, *family, *of_mappings, *missing)
    of_routes = (_payload(NETWORK_HEADER, source, size), _lookup(f"routes{version}"))
    yield _rule(Verdict.DROP, *family, *of_routes, *not_to_us, *missing)


def _set(name: str, version: int, networks: Iterable[Network]) -> Iterator[bytes]:
    """A set of this name with the networks of one family."""
    identity = (_text(1, TABLE), _text(2, name))
    key = (_u32(4, KEY_TYPES[version]), _u32(5, ADDRESSES[version][2]))
    yield _message(NEWSET, CREATE, *identity, _u32(3, SET_INTERVAL), *key, _u32(10, 1))
    intervals = list(_intervals(version, networks))
    for at in range(0, len(intervals), ELEMENTS_AT_ONCE):
        elements = b"".join(intervals[at : at + ELEMENTS_AT_ONCE])
        yield _message(NEWSETELEM, CREATE, *identity, _attribute(3 | NESTED, elements))


def _intervals(version: int, networks: Iterable[Network]) -> Iterator[bytes]:
    for network in _inner(version, networks):
        size = network.max_prefixlen // 8
        first = int(network.network_address)
        behind = first + network.num_addresses
        yield _nest(1, _nest(1, _attribute(1, first.to_bytes(size, "big"))))
        yield _nest(1, _nest(1, _attribute(1, behind.to_bytes(size, "big"))), _u32(3, INTERVAL_END))


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


# ---------------------------------------------------------------------------------- the expressions


def _rule(verdict: Verdict, *expressions: bytes) -> bytes:
    last = _nest(2, _nest(2, _u32(1, verdict)))
    parts = (*expressions, _expression("immediate", _u32(1, 0), last))
    return _message(
        NEWRULE, CREATE | APPEND, _text(1, TABLE), _text(2, CHAIN), _attribute(4 | NESTED, b"".join(parts))
    )


def _expression(name: str, *attributes: bytes) -> bytes:
    return _nest(1, _text(1, name), _nest(2, *attributes))


def _meta(key: int) -> bytes:
    return _expression("meta", _u32(1, REGISTER), _u32(2, key))


def _payload(base: int, offset: int, size: int) -> bytes:
    return _expression("payload", _u32(1, REGISTER), _u32(2, base), _u32(3, offset), _u32(4, size))


def _compare(value: bytes, operator: int = EQUAL) -> bytes:
    return _expression("cmp", _u32(1, REGISTER), _u32(2, operator), _nest(3, _attribute(1, value)))


def _lookup(name: str) -> bytes:
    return _expression("lookup", _text(1, name), _u32(2, REGISTER))


def _fib(flags: int, result: int) -> bytes:
    return _expression("fib", _u32(1, REGISTER), _u32(2, result), _u32(3, flags))


# ------------------------------------------------------------------------------------- the messages


def _table(operation: int) -> bytes:
    return _message(operation, CREATE if operation == NEWTABLE else 0, _text(1, TABLE))


def _message(operation: int, flags: int, *attributes: bytes) -> bytes:
    return _framed(SUBSYSTEM << 8 | operation, flags, NFPROTO_INET, 0, b"".join(attributes))


def _framed(kind: int, flags: int, family: int, resource: int, body: bytes) -> bytes:
    """struct nlmsghdr without its sequence number, and struct nfgenmsg."""
    head = struct.pack("=IHHII", 20 + len(body), kind, REQUEST | flags, 0, 0)
    return head + struct.pack(">BBH", family, 0, resource) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nest(kind: int, *attributes: bytes) -> bytes:
    return _attribute(kind | NESTED, b"".join(attributes))


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(4, "big"))


def _transact(messages: list[bytes], batch: bool = True) -> None:
    """Send messages as one transaction and wait for its outcome. Raises FilterFailed."""
    last = len(messages)
    framed = [_numbered(message, number + 1) for number, message in enumerate(messages)]
    (flags,) = struct.unpack_from("=H", framed[-1], 6)
    framed[-1] = framed[-1][:6] + struct.pack("=H", flags | ACK) + framed[-1][8:]
    if batch:
        framed.insert(0, _framed(BATCH_BEGIN, 0, 0, SUBSYSTEM, b""))
        framed.append(_framed(BATCH_END, 0, 0, SUBSYSTEM, b""))
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
            netlink.settimeout(ANSWER_WITHIN)
            netlink.sendto(b"".join(framed), (0, 0))
            while not _answered(netlink.recv(1 << 16), last):
                pass
    except FilterFailed:
        raise
    except OSError as error:
        raise FilterFailed(error.errno, f"nftables: {error.strerror or error}") from error


def _numbered(message: bytes, number: int) -> bytes:
    return message[:8] + struct.pack("=I", number) + message[12:]


def _answered(data: bytes, last: int) -> bool:
    """Whether the outcome of the last message is among these. Raises FilterFailed for any that failed."""
    at = 0
    while at + 20 <= len(data):
        length, kind, _, number = struct.unpack_from("=IHHI", data, at)
        if kind == NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", data, at + 16)
            if code:
                raise FilterFailed(-code, f"nftables: {os.strerror(-code)}")
            if number == last:
                return True
        at += (max(length, 16) + 3) & ~3
    return False
