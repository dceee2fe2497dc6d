"""The IKE sockets: UDP port 500, one for each local address. Port 4500 is the engine's.

asyncio-dgram reads. asyncio reads one datagram for each round of the loop, so that a flood would fill the
kernel's buffer and a peer's message wait behind it: at each wake the reader takes what else is there, up to a
batch or a few milliseconds of work. Sending goes straight to the socket, which never blocks: what the kernel
does not take is a lost datagram, and IKE sends again.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

import asyncio_dgram

from vpnd.model.child import Path
from vpnd.model.policy import IKE_PORT
from vpnd.model.selectors import Address
from vpnd.model.unreachable import Unreachable

BATCH = 64
TURN = 0.002
"""Ours: messages that are read at one wake, and the seconds of work with them that end it: then the other
descriptors have their turn."""
LARGEST = 65_535
"""Bytes of a datagram."""
RECEIVE_BUFFER = 4 * 1024 * 1024
"""Ours, in bytes: some 3,000 IKE messages that wait while a batch of packets or handshakes is worked on."""

IP_MTU_DISCOVER, IP_PMTUDISC_OMIT = 10, 5
"""Without DF, and whatever the kernel took from an ICMP error, which anyone can send (ip(7))."""
IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT, IPV6_RECVERR = 23, 0, 25
"""In fragments of what the kernel believes the path to carry, which is never less than 1280 bytes."""
IP_RECVERR = 11
SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6 = 2, 3

_EXTENDED_ERROR = struct.Struct("=IBBBBII")
"""struct sock_extended_err of linux/errqueue.h: errno, origin, type, code, pad, info, data."""

_UNSENT = {
    errno.ECONNREFUSED: Unreachable.PORT,
    errno.EHOSTUNREACH: Unreachable.HOST,
    errno.ENETUNREACH: Unreachable.HOST,
    errno.EACCES: Unreachable.FORBIDDEN_HERE,
    errno.EPERM: Unreachable.FORBIDDEN_HERE,
}
"""What it means that the kernel has not sent: EPERM is a rule of netfilter, EACCES a route `prohibit`."""

OnDatagram = Callable[[Path, bytes], None]
OnUnreachable = Callable[[Path, Unreachable], None]


class IkeSocket:
    """One bound UDP socket. `on_datagram(path, data)` for each message, `on_unreachable` for ICMP errors."""

    def __init__(
        self,
        local: Address,
        mark: int,
        on_datagram: OnDatagram,
        on_unreachable: OnUnreachable,
        port: int = IKE_PORT,
    ) -> None:
        self.local = local
        self.port = port
        self._on_datagram = on_datagram
        self._on_unreachable = on_unreachable
        self._socket = bound(local, port, mark)
        self._beside: socket.socket | None = None
        """The same socket, for what asyncio-dgram does not read: the rest of a batch, and the error queue."""
        self._reader: asyncio.Task[None] | None = None
        self._buffer = memoryview(bytearray(LARGEST))

    async def start(self) -> None:
        """Begin to receive."""
        self._beside = self._socket.dup()
        # The error queue keeps a descriptor readable until it is emptied.
        asyncio.get_running_loop().add_reader(self._beside.fileno(), self._drain_errors)
        stream = await asyncio_dgram.from_socket(self._socket)
        self._reader = asyncio.create_task(self._read(stream), name=f"ike {self.local}")

    def send(self, path: Path, data: bytes) -> None:
        """Send one message along `path`. An error that the kernel reports at once is an `on_unreachable`."""
        try:
            self._socket.sendto(data, (str(path.remote), path.remote_port))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            reason = _UNSENT.get(error.errno or 0)
            if reason is not None:
                # Not from within the caller's input: one input, then drain.
                asyncio.get_running_loop().call_soon(self._on_unreachable, path, reason)

    def close(self) -> None:
        """Stop receiving and close the socket."""
        if self._beside is not None:
            asyncio.get_running_loop().remove_reader(self._beside.fileno())
            self._beside.close()
            self._beside = None
        if self._reader is not None:
            self._reader.cancel()
        else:
            self._socket.close()

    async def _read(self, stream: asyncio_dgram.aio.DatagramStream) -> None:
        try:
            while True:
                try:
                    data, source = await stream.recv()
                except OSError:
                    # An ICMP error that came as the result of a read; the error queue has the details.
                    continue
                # A copy: asyncio cuts its own out of 256 KB, and what is kept of it keeps the rest from use.
                self._on_datagram(self._path(source), bytes(memoryview(data)))
                self._read_batch()
        except asyncio_dgram.TransportClosed:
            return
        finally:
            stream.close()

    def _read_batch(self) -> None:
        """What else has arrived by now, while the turn lasts."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + TURN
        for _ in range(BATCH):
            if self._beside is None or loop.time() >= ends:
                return
            try:
                size, source = self._beside.recvfrom_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error, as above
            self._on_datagram(self._path(source), bytes(self._buffer[:size]))

    def _path(self, source: Any) -> Path:
        return Path(self.local, self.port, _address(source[0]), source[1])

    def _drain_errors(self) -> None:
        if self._beside is None:
            return
        while True:
            try:
                _, controls, _, source = self._beside.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return
            for level, kind, value in controls:
                if (level, kind) in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
                    self._report(value, source)

    def _report(self, value: bytes, source: Any) -> None:
        if len(value) < _EXTENDED_ERROR.size:
            return
        _, origin, kind, code, *_ = _EXTENDED_ERROR.unpack_from(value)
        if origin not in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6):
            return
        reason = Unreachable.of_icmp(self.local.version, kind, code)
        if reason is not None:
            self._on_unreachable(self._path(source), reason)


@lru_cache(maxsize=1024)  # to read the text takes longer than to receive the datagram
def _address(text: str) -> Address:
    """The address of a sender, without the interface that stands behind one of the link."""
    return ip_address(text.partition("%")[0])


def bound(local: Address, port: int, mark: int) -> socket.socket:
    """A socket that asks for ICMP errors, may be fragmented on the way, and carries vpnd's mark.

    Raises OSError.
    """
    family = socket.AF_INET if local.version == 4 else socket.AF_INET6
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET:
            made.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        _try_mark(made, mark)
        made.bind((str(local), port))
    except OSError:
        made.close()
        raise
    return made


def _try_mark(made: socket.socket, mark: int) -> None:
    """The mark matters to a default route through a tunnel only; without the right to set it, do without."""
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    except PermissionError:
        return
