"""Routes are written to the kernel many at a time: one system call for a run of them (rtnetlink(7)).

pyroute2 waits for the answer to each before it sends the next, which takes a gateway of a thousand tunnels
seconds after each start.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct

from vpnd.daemon.dump import (
    ATTRIBUTE,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    NLMSG_HEADER,
    RECEIVE,
    RTA_DST,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTM_NEWROUTE,
    RTMSG,
    RTN_BLACKHOLE,
    RTN_THROW,
    RTN_UNICAST,
)
from vpnd.daemon.routes import PROTOCOL, Route

RTM_DELROUTE = 25
NLM_F_ACK, NLM_F_REPLACE, NLM_F_CREATE = 0x004, 0x100, 0x400
RT_SCOPE_UNIVERSE, RT_SCOPE_NOWHERE = 0, 255
RT_TABLE_COMPAT = 252
LARGEST_SHORT_TABLE = 255

AT_ONCE = 128
"""Ours: routes in one send, whose answers fit the socket's buffer."""

ANSWER_WITHIN = 10.0
"""Ours: seconds; the kernel answers in the call that sends, or something is very wrong."""

_NUMBER, _ERROR = Struct("=I"), Struct("=i")


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
    # Not of scope link, as ip(8) makes them: with a route to everything each gateway that somebody names
    # would be a neighbour in the tunnel.
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
