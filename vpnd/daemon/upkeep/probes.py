"""The health checks' echo requests as packets, and the replies to them as the kernel hands them out.

A request is given to the engine, past the queue of the tunnel's TUN: under more load than the tunnel carries
it would stand there longer than its timeout, and the check would find fault with what only is busy. A reply
is told with the interface by which it came: one raw socket of each family hears those of all tunnels, and
nothing that comes from elsewhere passes for an answer.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv6Address

from vpnd.tunnel.path_size import SendProbe
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import IpProtocol
from vpnd.wire.icmp import ECHO_REPLY, ECHO_REPLY_V6, ICMP_HEADER_LENGTH, Echo
from vpnd.wire.ip import IPV4_HEADER_LENGTH, IPV6_HEADER_LENGTH, encode_packet

# Linux, include/uapi: these constants are not in Python's socket module.
IP_PKTINFO = 8
SOL_RAW = 255
ICMP_FILTER = 1
ICMPV6_FILTER = 1

RECEIVED_AT_ONCE = 64
"""Ours: replies read at one wake-up, so that a flood of them does not hold the loop."""

LARGEST_REPLY = 2048
RECEIVE_BUFFER = 1 << 20
"""Bytes: a thousand tunnels answer within a moment."""

DATA = b"vpnd health check".ljust(56, b".")
"""Ours: as long as the data of ping, so that middleboxes see what they know."""

OnReply = Callable[[str, Echo], None]
"""Called with the interface by which a reply came, and the reply."""


def request(probe: SendProbe) -> bytes:
    """The IP packet of one probe."""
    data = DATA
    if probe.size is not None:
        headers = ICMP_HEADER_LENGTH + (
            IPV4_HEADER_LENGTH if probe.source.version == 4 else IPV6_HEADER_LENGTH
        )
        data = DATA.ljust(probe.size - headers, b".")
    return Echo(probe.source, probe.destination, False, probe.identifier, probe.sequence, data).encode()


class ReplyListener:
    """Tells echo replies. Belongs to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_reply: OnReply) -> None:
        self._loop = loop
        self._on_reply = on_reply
        self._sockets: dict[int, socket.socket] = {}

    def listen(self, version: int) -> None:
        """Hear replies of this family, 4 or 6, from now on. Raises OSError: EPERM."""
        if version not in self._sockets:
            sock = _echo_socket(version)
            self._sockets[version] = sock
            self._loop.add_reader(sock.fileno(), self._on_readable, sock, version)

    def close(self) -> None:
        """Stop."""
        for sock in self._sockets.values():
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()

    def _on_readable(self, sock: socket.socket, version: int) -> None:
        for _ in range(RECEIVED_AT_ONCE):
            try:
                data, ancillary, _, sender = sock.recvmsg(LARGEST_REPLY, 128)
            except BlockingIOError:
                return
            except OSError:
                # An error that a request has met on its way; the request is lost, and counted as such.
                continue
            if version == 6:
                data = _with_header(data, ancillary, sender[0])
            try:
                interface = socket.if_indextoname(_interface_index(ancillary))
                echo = Echo.decode(data)
            except (OSError, DecodeError):
                continue
            if echo is not None and echo.reply:
                self._on_reply(interface, echo)


def _echo_socket(version: int) -> socket.socket:
    """A raw socket that hears echo replies only, and by which interface they came. Raises OSError: EPERM."""
    if version == 4:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        sock.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("@I", 0xFFFFFFFF & ~(1 << ECHO_REPLY)))
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    else:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        blocked = [0xFFFFFFFF] * 8
        blocked[ECHO_REPLY_V6 >> 5] &= ~(1 << (ECHO_REPLY_V6 & 31))
        sock.setsockopt(socket.IPPROTO_ICMPV6, ICMPV6_FILTER, struct.pack("@8I", *blocked))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.setblocking(False)
    return sock


def _interface_index(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The interface by which a packet came. Raises OSError if the kernel does not say."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            return int(struct.unpack_from("@i", data)[0])
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return int(struct.unpack_from("@16xi", data)[0])
    raise OSError(errno.ENODEV, "the kernel does not say by which interface a packet came")


def _with_header(message: bytes, ancillary: list[tuple[int, int, bytes]], sender: str) -> bytes:
    """An ICMPv6 message with the IPv6 header that the kernel has taken off."""
    source = IPv6Address(sender.partition("%")[0])
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return encode_packet(source, IPv6Address(data[:16]), IpProtocol.ICMPV6, message)
    return b""
