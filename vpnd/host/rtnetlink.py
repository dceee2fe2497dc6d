"""Links and routes of the kernel by the thousand, as messages of rtnetlink(7): listed, written, deleted.

pyroute2 makes objects of every attribute of every message, some 20 KB and 0.3 ms for a route, and waits for
the answer to each before it sends the next. A gateway of a thousand tunnels has thousands of routes, and
looks at them after every change: only what is needed is read, and one system call writes a run of routes.
What is seldom, pyroute2 writes and reads (`messages`); it is sent from here, since its own socket takes long
to import.

Each call has a socket of its own, in the network namespace of the thread that makes it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from struct import Struct

from vpnd.host.routes import PROTOCOL, Route
from vpnd.model.selectors import Network

NLMSG_HEADER = Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK = 0x001, 0x004
NLM_F_DUMP, NLM_F_DUMP_INTERRUPTED = 0x300, 0x010
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400

SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12
"""With it the kernel lists only what fits the request, here the routes of one protocol."""

RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFINFO = Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change."""
RTMSG = Struct("=BBBBBBBBI")
"""struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags."""

ATTRIBUTE = Struct("=HH")
ATTRIBUTE_TYPE = 0x3FFF
"""The two bits above it say how an attribute is encoded."""
IFLA_IFNAME, IFLA_GROUP, IFLA_EXT_MASK = 3, 27, 29
RTEXT_FILTER_SKIP_STATS = 8
RTA_DST, RTA_OIF, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 6, 7, 15

IFF_UP, IFF_RUNNING = 0x1, 0x40
RTN_UNICAST, RTN_BLACKHOLE, RTN_THROW = 1, 6, 9
RT_SCOPE_UNIVERSE, RT_SCOPE_NOWHERE = 0, 255
RT_TABLE_COMPAT = 252
LARGEST_SHORT_TABLE = 255

RECEIVE = 256 * 1024
"""Bytes: more than the 32 KB that the kernel puts into one datagram of a list."""
TRIES = 3
"""Ours: lists that a change interrupted may lack an entry and are asked for again, so many times."""

AT_ONCE = 128
"""Ours: routes in one send, whose answers fit the socket's buffer."""

ANSWER_WITHIN = 10.0
"""Ours: seconds; the kernel answers in the call that sends, or something is very wrong."""

_NUMBER, _ERROR = Struct("=I"), Struct("=i")


@dataclass(frozen=True, slots=True)
class Link:
    """One interface."""

    index: int
    name: str
    group: int
    up: bool
    running: bool
    """Up, and with a carrier."""


def links() -> list[Link]:
    """The interfaces of this network namespace. Raises OSError."""
    extra = ATTRIBUTE.pack(8, IFLA_EXT_MASK) + _NUMBER.pack(RTEXT_FILTER_SKIP_STATS)
    body = IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + extra
    return [_link(message) for message in dump(RTM_GETLINK, RTM_NEWLINK, body)]


def routes(family: int) -> list[Route]:
    """The routes of one family, in all tables, that carry vpnd's mark. Raises OSError."""
    body = RTMSG.pack(family, 0, 0, 0, 0, PROTOCOL, 0, 0, 0)
    found = (_route(message, family) for message in dump(RTM_GETROUTE, RTM_NEWROUTE, body))
    return [route for route in found if route is not None]


def destinations(family: int, table: int, link: int, protocol: int = 0) -> list[tuple[Network, int]]:
    """Where the unicast routes of a table go by this link alone, and the protocol that made each.

    `protocol`: only its routes; 0: those of all protocols. Raises OSError.
    """
    header = RTMSG.pack(family, 0, 0, 0, table, protocol, 0, RTN_UNICAST, 0)
    body = header + ATTRIBUTE.pack(8, RTA_OIF) + _NUMBER.pack(link)
    found: list[tuple[Network, int]] = []
    for message in dump(RTM_GETROUTE, RTM_NEWROUTE, body):
        _, length, _, _, _, by, _, kind, _ = RTMSG.unpack_from(message)
        attributes = attributes_of(message, RTMSG.size)
        fits = kind == RTN_UNICAST and protocol in (0, by) and _number(attributes, RTA_OIF) == link
        if fits and (_number(attributes, RTA_TABLE) or table) == table:
            found.append((_network(family, attributes.get(RTA_DST), length), by))
    return found


def ask(request: int, answer: int, body: bytes) -> bytes:
    """The one message that the kernel answers with, without its header. Raises OSError."""
    with _connected() as asking:
        asking.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        asking.send(NLMSG_HEADER.pack(NLMSG_HEADER.size + len(body), request, NLM_F_REQUEST, 1, 0) + body)
        while True:
            for number, _, message in _messages(asking.recv(RECEIVE)):
                if number == NLMSG_ERROR:
                    raise _refused(message)
                if number == answer:
                    return message


def change(kind: int, flags: int, body: bytes) -> None:
    """One change, done when this returns. Raises OSError."""
    with _connected() as to:
        length = NLMSG_HEADER.size + len(body)
        to.send(NLMSG_HEADER.pack(length, kind, NLM_F_REQUEST | NLM_F_ACK | flags, 1, 0) + body)
        for number, _, message in _messages(to.recv(RECEIVE)):
            if number == NLMSG_ERROR and _ERROR.unpack_from(message)[0]:
                raise _refused(message)


def _connected() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    connected = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    connected.bind((0, 0))
    connected.settimeout(ANSWER_WITHIN)
    return connected


def _refused(message: bytes) -> OSError:
    code = -int(_ERROR.unpack_from(message)[0])
    return OSError(code, os.strerror(code))


def dump(request: int, answer: int, body: bytes) -> list[bytes]:
    """The messages of a list, without their headers."""
    for attempt in range(TRIES):
        messages, interrupted = _dump_once(request, answer, body)
        if not interrupted or attempt == TRIES - 1:
            break
    return messages


def _dump_once(request: int, answer: int, body: bytes) -> tuple[list[bytes], bool]:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    found: list[bytes] = []
    interrupted = False
    with socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE) as asking:
        asking.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        asking.bind((0, 0))
        length = NLMSG_HEADER.size + len(body)
        asking.send(NLMSG_HEADER.pack(length, request, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + body)
        while True:
            for number, flags, message in _messages(asking.recv(RECEIVE)):
                interrupted |= bool(flags & NLM_F_DUMP_INTERRUPTED)
                if number == NLMSG_DONE:
                    return found, interrupted
                if number == NLMSG_ERROR:
                    raise _refused(message)
                if number == answer:
                    found.append(message)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each message in a datagram."""
    at = 0
    while at + NLMSG_HEADER.size <= len(data):
        length, kind, flags, *_ = NLMSG_HEADER.unpack_from(data, at)
        if length < NLMSG_HEADER.size:
            return
        yield kind, flags, data[at + NLMSG_HEADER.size : at + length]
        at += length + 3 & ~3


def attributes_of(message: bytes, at: int) -> dict[int, bytes]:
    """The attributes from `at` on."""
    found = {}
    while at + ATTRIBUTE.size <= len(message):
        length, kind = ATTRIBUTE.unpack_from(message, at)
        if length < ATTRIBUTE.size:
            break
        found[kind & ATTRIBUTE_TYPE] = message[at + ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found


def _link(message: bytes) -> Link:
    _, _, index, flags, _ = IFINFO.unpack_from(message)
    found = attributes_of(message, IFINFO.size)
    name = found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
    return Link(index, name, _number(found, IFLA_GROUP), bool(flags & IFF_UP), bool(flags & IFF_RUNNING))


def _route(message: bytes, family: int) -> Route | None:
    """A route of ours; None for one of another protocol, which a kernel before 4.20 lists as well."""
    _, length, _, _, table, protocol, _, kind, _ = RTMSG.unpack_from(message)
    if protocol != PROTOCOL or kind not in (RTN_UNICAST, RTN_BLACKHOLE, RTN_THROW):
        return None
    found = attributes_of(message, RTMSG.size)
    device = None
    if kind == RTN_UNICAST:
        try:
            device = socket.if_indextoname(_number(found, RTA_OIF))
        except OSError:
            device = "?"
    source = found.get(RTA_PREFSRC)
    return Route(
        destination=_network(family, found.get(RTA_DST), length),
        table=_number(found, RTA_TABLE) or table,
        device=device,
        metric=_number(found, RTA_PRIORITY),
        source=ip_address(source) if source else None,
        thrown=kind == RTN_THROW,
    )


def _network(family: int, packed: bytes | None, length: int) -> Network:
    if family == socket.AF_INET:
        return IPv4Network((packed or bytes(4), length))
    return IPv6Network((packed or bytes(16), length))


def _number(attributes: dict[int, bytes], kind: int) -> int:
    value = attributes.get(kind)
    return int(_NUMBER.unpack(value)[0]) if value is not None and len(value) == _NUMBER.size else 0


# ----------------------------------------------------------------------------------- writing


def write(routes: Iterable[Route]) -> list[tuple[Route, int]]:
    """Make these routes in their order, each in place of one with the same key.

    Returns those that the kernel refused, with the error's number. Raises OSError.
    """
    return _change(list(routes), RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE)


def delete(routes: Iterable[Route]) -> list[tuple[Route, int]]:
    """Take these routes away in their order; returns as `write` does. Raises OSError."""
    return _change(list(routes), RTM_DELROUTE, 0)


def _change(routes: Sequence[Route], kind: int, flags: int) -> list[tuple[Route, int]]:
    refused: list[tuple[Route, int]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as to:
        to.bind((0, 0))
        to.settimeout(ANSWER_WITHIN)
        for at in range(0, len(routes), AT_ONCE):
            refused += _send(to, routes[at : at + AT_ONCE], kind, flags)
    return refused


def _send(to: socket.socket, routes: Sequence[Route], kind: int, flags: int) -> list[tuple[Route, int]]:
    refused: list[tuple[Route, int]] = []
    messages = []
    for number, route in enumerate(routes):
        try:
            body = _body(route, kind)
        except OSError:
            # Its interface has gone meanwhile.
            refused.append((route, errno.ENODEV))
            continue
        length = NLMSG_HEADER.size + len(body)
        messages.append(NLMSG_HEADER.pack(length, kind, NLM_F_REQUEST | NLM_F_ACK | flags, number, 0) + body)
    to.send(b"".join(messages))
    waiting = len(messages)
    while waiting > 0:
        for number, code in _answers(to.recv(RECEIVE)):
            waiting -= 1
            if code:
                refused.append((routes[number], code))
    return refused


def _body(route: Route, kind: int) -> bytes:
    """struct rtmsg and its attributes, each a multiple of four octets long. Raises OSError: no interface."""
    network = route.destination
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    table = route.table if route.table <= LARGEST_SHORT_TABLE else RT_TABLE_COMPAT
    attributes = _attribute(RTA_DST, network.network_address.packed)
    attributes += _attribute(RTA_TABLE, _NUMBER.pack(route.table))
    attributes += _attribute(RTA_PRIORITY, _NUMBER.pack(route.metric))
    # Not of scope link, as ip(8) makes them: with a route to everything any gateway that an administrator
    # names would be a neighbour in the tunnel.
    scope = RT_SCOPE_UNIVERSE if kind == RTM_NEWROUTE else RT_SCOPE_NOWHERE
    if route.device is None:
        action = RTN_THROW if route.thrown else RTN_BLACKHOLE
    else:
        action = RTN_UNICAST
        attributes += _attribute(RTA_OIF, _NUMBER.pack(_index(route, kind)))
        if route.source is not None:
            attributes += _attribute(RTA_PREFSRC, route.source.packed)
    return RTMSG.pack(family, network.prefixlen, 0, 0, table, PROTOCOL, scope, action, 0) + attributes


def _index(route: Route, kind: int) -> int:
    try:
        return socket.if_nametoindex(route.device or "")
    except OSError:
        if kind == RTM_DELROUTE:
            # 0 is any interface: the key says which route it is.
            return 0
        raise


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value


def _answers(data: bytes) -> Iterator[tuple[int, int]]:
    """Sequence number and error, 0 for none, of each answer in a datagram."""
    at = 0
    while at + NLMSG_HEADER.size <= len(data):
        length, kind, _, number, _ = NLMSG_HEADER.unpack_from(data, at)
        if length < NLMSG_HEADER.size:
            return
        if kind == NLMSG_ERROR:
            yield number, -int(_ERROR.unpack_from(data, at + NLMSG_HEADER.size)[0])
        at += length + 3 & ~3
