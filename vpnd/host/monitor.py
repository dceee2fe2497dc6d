"""Reports when others change what vpnd depends on: links, addresses, routes and rules.

A netlink socket that hears the kernel's notices and reads only what is needed to know whether one matters
(rtnetlink(7)); what has changed is then asked for. A router that learns a million routes costs one look at
a few bytes for each, and a repair every second meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from vpnd.host.routes import MAIN_TABLE, PROTOCOL

NLMSG_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""

RTM_NEWLINK, RTM_DELLINK = 16, 17
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTM_NEWROUTE, RTM_DELROUTE = 24, 25
RTM_DELRULE = 33

ROUTE_TABLE_AT = 4
ROUTE_PROTOCOL_AT = 5
"""Octets of `rtm_table` and `rtm_protocol` in struct rtmsg."""

GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000
"""RTMGRP_ LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, and RTNLGRP_IPV6_RULE."""

RECEIVE = 65536
RECEIVED_AT_ONCE = 64

SETTLE = 0.3
"""Ours: seconds to wait after a notice, since changes come in groups."""

APART = 1.0
"""Ours: seconds between two repairs, so that who removes our routes in a loop does not keep us busy."""


class Monitor:
    """Calls `on_change` when a repair may be due. Belongs to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]) -> None:
        self._loop = loop
        self._on_change = on_change
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last = loop.time() - APART

    def start(self) -> None:
        """Begin to listen. Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        listening = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        try:
            listening.bind((0, GROUPS))
        except OSError:
            listening.close()
            raise
        self._socket = listening
        self._loop.add_reader(listening.fileno(), self._on_readable)

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _on_readable(self) -> None:
        for _ in range(RECEIVED_AT_ONCE):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(RECEIVE)
            except BlockingIOError:
                return
            except OSError:
                # ENOBUFS: notices were lost, so anything may have changed.
                self._soon()
                return
            if matters(data):
                self._soon()

    def _soon(self) -> None:
        if self._timer is None:
            at = max(self._loop.time() + SETTLE, self._last + APART)
            self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._last = self._loop.time()
        self._on_change()


def matters(data: bytes) -> bool:
    """Whether notices of the kernel say that something of ours may be gone or changed."""
    at = 0
    while at + NLMSG_HEADER.size <= len(data):
        length, kind, *_ = NLMSG_HEADER.unpack_from(data, at)
        if length < NLMSG_HEADER.size:
            return False
        if kind in (RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR, RTM_DELRULE):
            return True
        if kind in (RTM_NEWROUTE, RTM_DELROUTE) and _route_matters(kind, data[at + NLMSG_HEADER.size :]):
            return True
        at += (length + 3) & ~3
    return False


def _route_matters(kind: int, message: bytes) -> bool:
    """A route of ours is gone, or one of the main table that others make: our inner side follows those."""
    if len(message) <= ROUTE_PROTOCOL_AT:
        return False
    if message[ROUTE_PROTOCOL_AT] == PROTOCOL:
        return kind == RTM_DELROUTE
    return message[ROUTE_TABLE_AT] == MAIN_TABLE
