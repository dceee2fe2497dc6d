"""The sockets that carry ESP: UDP port 4500 and IP protocol 50, for IPv4 and IPv6.

A run of equal packets leaves with one `sendmsg` (UDP_SEGMENT: the kernel cuts it into datagrams) and arrives
with one `recvmsg` (UDP_GRO: the kernel joined datagrams of one flow). Where the kernel or the route cannot do
this, packets go one by one. Raw ESP has neither and always goes one by one.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import groupby
from operator import itemgetter

from vpnd.model.selectors import Address

ESP_PROTOCOL = 50

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
IP_TOS = 1
IP_MTU_DISCOVER = 10
IP_RECVERR = 11
IP_RECVTOS = 13
IP_MTU = 14
IPV6_MTU_DISCOVER = 23
IPV6_MTU = 24
IPV6_RECVERR = 25
IPV6_RECVTCLASS = 66
IPV6_TCLASS = 67
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SO_MARK = 36
MSG_ERRQUEUE = 0x2000
TUNGETIFF = 0x800454D2
IFF_VNET_HDR = 0x4000

PMTUDISC_DONT = 0
PMTUDISC_PROBE = 3

BUFFER = 8 << 20
"""Bytes of socket buffer: a burst at 2 Gbit/s of 30 ms, as long as another process may hold the core."""

MAXIMUM_SEGMENTS = 64
MAXIMUM_TRAIN = 65507
"""Segments and bytes of one send with UDP_SEGMENT: limits of the kernel and of a UDP datagram."""

BATCH = 64
BATCH_BYTES = 512 * 1024
"""Ours: receives at one wake-up, and the bytes that end it: the other descriptors shall have their turn."""

RAW_RECEIVE = 65535
RECEIVE = 65600
CONTROL = 64
"""Bytes for one receive: the largest train, and its control messages."""

_SEGMENT = struct.Struct("=H")
_INT = struct.Struct("=i")
_EXTENDED_ERROR = struct.Struct("=IBBBxII")

_SEGMENTATION_REFUSED = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT, errno.ENOTSUP})


@dataclass(frozen=True, slots=True)
class Features:
    """What the engine may use of the kernel; each is also given up when the kernel refuses it."""

    udp_segment: bool = True
    udp_gro: bool = True


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """`mark` is the firewall mark of what is sent (SO_MARK), 0 for none.

    `dont_fragment` sets DF on every outer IPv4 packet: then routers report a smaller path where the report
    arrives, and everything large is lost where it does not. Without it routers fragment, and the engine has
    one packet a minute ask for the report (`PROBE_INTERVAL`).
    """

    mark: int = 0
    dont_fragment: bool = False


@dataclass(frozen=True, slots=True)
class IcmpReport:
    """An ICMP error about a datagram that a socket sent: the MTU if it was too big, and its first bytes."""

    remote: Address
    mtu: int | None
    quote: bytes


Report = Callable[[IcmpReport], None]
Received = tuple[bytes, int, int, tuple[str, int]]
"""Data, the length of each segment in it but a shorter last one, the outer traffic class, the sender."""


class _EspSocket:
    """What UDP and raw sockets share: control messages, the error queue, one send with its second try."""

    def __init__(self, sock: socket.socket, address: Address, options: SocketOptions) -> None:
        self.socket = sock
        self.address = address
        self._six = address.version == 6
        sock.setblocking(False)
        for option, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER)
        if options.mark:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, options.mark)
        self._mark = options.mark
        self.always_df = options.dont_fragment
        self._discover(options.dont_fragment)
        if self._six:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)

    def _discover(self, on: bool) -> None:
        """Set DF on what is sent from now on, whatever MTU the kernel believes in; or have it fragmented."""
        value = PMTUDISC_PROBE if on else PMTUDISC_DONT
        if self._six:
            self.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, value)
        else:
            self.socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, value)

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def _traffic_class(self, value: int) -> tuple[int, int, bytes]:
        """The control message that sets the outer traffic class of one send."""
        if self._six:
            return socket.IPPROTO_IPV6, IPV6_TCLASS, _INT.pack(value)
        return socket.IPPROTO_IP, IP_TOS, _INT.pack(value)

    def _sent(
        self, buffers: Iterable[bytes], control: list[tuple[int, int, bytes]], to: tuple[str, int]
    ) -> int | None:
        """Send once; None if it went, else the error.

        An ICMP error about an earlier datagram is reported by whatever call comes next, which then did
        nothing; it is tried again.
        """
        try:
            self.socket.sendmsg(buffers, control, 0, to)
        except OSError as first:
            if first.errno in _REPORTED_LATE:
                try:
                    self.socket.sendmsg(buffers, control, 0, to)
                except OSError as second:
                    return second.errno or errno.EIO
                return None
            return first.errno or errno.EIO
        return None

    def send_df(self, packet: list[bytes], traffic_class: int, to: tuple[str, int]) -> int | None:
        """Send one packet that no router may fragment; None if it went, else the error."""
        self._discover(True)
        try:
            return self._sent(packet, [self._traffic_class(traffic_class)] if traffic_class else [], to)
        finally:
            self._discover(self.always_df)

    def drain_errors(self, report: Report) -> None:
        """Read the ICMP errors that arrived for what this socket sent (ip(7), IP_RECVERR)."""
        for _ in range(MAXIMUM_SEGMENTS):
            try:
                quote, control, _, address = self.socket.recvmsg(256, 256, MSG_ERRQUEUE)
            except OSError:
                return
            for _, kind, value in control:
                if kind in (IP_RECVERR, IPV6_RECVERR) and len(value) >= _EXTENDED_ERROR.size:
                    number, _, _, _, info, _ = _EXTENDED_ERROR.unpack_from(value)
                    mtu = info if number == errno.EMSGSIZE and info else None
                    report(IcmpReport(ip_address(address[0]), mtu, quote))

    def _drain_if_idle(self, batch: list[Received], report: Report) -> None:
        """Woken with nothing to receive: a send was told of the error that keeps the descriptor readable."""
        if not batch:
            self.drain_errors(report)

    def route_mtu(self, to: tuple[str, int]) -> int | None:
        """The MTU that the kernel knows for the route to an address, or None."""
        family = socket.AF_INET6 if self._six else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                if self._mark:
                    # Without it the answer may be of a tunnel that the address is in, not of the way outside.
                    probe.setsockopt(socket.SOL_SOCKET, SO_MARK, self._mark)
                probe.bind((str(self.address), 0))
                probe.connect((to[0], to[1] or 9))
                if self._six:
                    return probe.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
                return probe.getsockopt(socket.IPPROTO_IP, IP_MTU)
            except OSError:
                return None


_REPORTED_LATE = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EPROTO,
        errno.EOPNOTSUPP,
        errno.EHOSTDOWN,
    }
)


class UdpSocket(_EspSocket):
    """UDP port 4500 (RFC 3948). Raises OSError if the address or port cannot be bound."""

    def __init__(
        self,
        address: Address,
        port: int,
        options: SocketOptions | None = None,
        features: Features | None = None,
    ) -> None:
        features = features or Features()
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            super().__init__(sock, address, options or SocketOptions())
            if address.version == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if features.udp_gro:
                _try_option(sock, SOL_UDP, UDP_GRO, 1)
            sock.bind((str(address), port))
        except OSError:
            sock.close()
            raise
        self.port: int = sock.getsockname()[1]
        # Setting the option to 0 changes nothing and fails where the kernel does not know it.
        self.segments = features.udp_segment and _try_option(sock, SOL_UDP, UDP_SEGMENT, 0)
        self.joins = features.udp_gro

    def receive_batch(self, report: Report) -> list[Received]:
        """What has arrived, up to a batch; each is a datagram, or several that the kernel joined.

        ICMP errors about what was sent go to `report`.
        """
        batch: list[Received] = []
        try:
            room = BATCH_BYTES
            while room > 0 and len(batch) < BATCH:
                batch.append(received := self._receive())
                room -= len(received[0])
        except BlockingIOError:
            self._drain_if_idle(batch, report)
        except OSError:
            self.drain_errors(report)
        return batch

    def _receive(self) -> Received:
        data, control, _, sender = self.socket.recvmsg(RECEIVE, CONTROL)
        length, traffic_class = len(data), 0
        for level, kind, value in control:
            if kind == UDP_GRO and level == SOL_UDP:
                (length,) = _INT.unpack_from(value)
            elif kind in (IP_TOS, IPV6_TCLASS):
                traffic_class = value[0]
        # An IPv6 address comes with flow label and scope, which are no part of where packets are sent to.
        return data, length, traffic_class, sender[:2]

    def send_run(
        self, buffers: list[bytes], length: int, traffic_class: int, to: tuple[str, int]
    ) -> tuple[int, int | None]:
        """Send packets of two buffers each, all of `length` bytes but perhaps a shorter last one.

        Returns how many were not sent, and the error that says why.
        """
        control = [self._traffic_class(traffic_class)] if traffic_class else []
        step = 2 * segments_of(length)
        lost, why = 0, None
        for start in range(0, len(buffers), step):
            chunk = buffers[start : start + step] if len(buffers) > step else buffers
            if len(chunk) == 2:
                error = self._sent(chunk, control, to)
                if error is not None:
                    lost, why = lost + 1, error
            elif self.segments:
                segment = (SOL_UDP, UDP_SEGMENT, _SEGMENT.pack(length))
                error = self._sent(chunk, [*control, segment], to)
                if error in _SEGMENTATION_REFUSED:
                    # EIO: the route's device cannot checksum, now or later. The others concern this length.
                    self.segments = error != errno.EIO
                    failed, error = self._send_each(chunk, control, to)
                    lost, why = lost + failed, error or errno.EMSGSIZE
                elif error is not None:
                    lost, why = lost + len(chunk) // 2, error
            else:
                failed, error = self._send_each(chunk, control, to)
                lost, why = lost + failed, error or why
        return lost, why

    def _send_each(
        self, buffers: list[bytes], control: list[tuple[int, int, bytes]], to: tuple[str, int]
    ) -> tuple[int, int | None]:
        lost, why = 0, None
        for at in range(0, len(buffers), 2):
            error = self._sent(buffers[at : at + 2], control, to)
            if error is not None:
                lost, why = lost + 1, error
        return lost, why

    def send_one(self, parts: list[bytes], to: tuple[str, int]) -> None:
        """Send one datagram; an error is the peer's silence to its sender."""
        self._sent(parts, [], to)


class RawSocket(_EspSocket):
    """IP protocol 50 (RFC 4303). Raises OSError: EPERM without CAP_NET_RAW, or an address of no interface."""

    def __init__(self, address: Address, options: SocketOptions | None = None) -> None:
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_RAW, ESP_PROTOCOL)
        try:
            super().__init__(sock, address, options or SocketOptions())
            sock.bind((str(address), 0))
        except OSError:
            sock.close()
            raise
        self.port = 0

    def receive_batch(self, report: Report) -> list[Received]:
        """What has arrived, up to a batch, joined as the kernel joins UDP: opening a run is much cheaper.

        ICMP errors about what was sent go to `report`.
        """
        packets: list[Received] = []
        receive = self._receive_ipv6 if self._six else self._receive_ipv4
        try:
            for _ in range(BATCH):
                packets.append(receive())
        except BlockingIOError:
            self._drain_if_idle(packets, report)
        except OSError:
            self.drain_errors(report)
        # The rest of a packet's tuple tells whether it is like the one before.
        return [
            (b"".join([packet[0] for packet in alike]), *rest)
            for rest, alike in groupby(packets, key=itemgetter(1, 2, 3))
        ]

    def _receive_ipv4(self) -> Received:
        data, sender = self.socket.recvfrom(RAW_RECEIVE)
        # IPv4 raw sockets give the IP header as well (raw(7)).
        header = (data[0] & 0x0F) * 4
        return data[header:], len(data) - header, data[1], (sender[0], 0)

    def _receive_ipv6(self) -> Received:
        data, control, _, sender = self.socket.recvmsg(RAW_RECEIVE, CONTROL)
        traffic_class = next((value[0] for _, kind, value in control if kind == IPV6_TCLASS), 0)
        return data, len(data), traffic_class, (sender[0], 0)

    def send_run(
        self, buffers: list[bytes], length: int, traffic_class: int, to: tuple[str, int]
    ) -> tuple[int, int | None]:
        """Send packets of two buffers each. Returns how many were not sent, and the error that says why."""
        control = [self._traffic_class(traffic_class)] if traffic_class else []
        lost, why = 0, None
        for at in range(0, len(buffers), 2):
            error = self._sent(buffers[at : at + 2], control, to)
            if error is not None:
                lost, why = lost + 1, error
        return lost, why


def segments_of(length: int) -> int:
    """How many packets of `length` bytes leave with one send."""
    return max(min(MAXIMUM_SEGMENTS, MAXIMUM_TRAIN // length), 1)


def _try_option(sock: socket.socket, level: int, option: int, value: int) -> bool:
    """Set an option that the kernel may not know; whether it does."""
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def has_vnet_header(fd: int) -> bool:
    """Whether a TUN descriptor has a virtio_net_hdr before each packet; False for what is no TUN."""
    request = bytearray(40)
    try:
        fcntl.ioctl(fd, TUNGETIFF, request)
    except OSError:
        return False
    return bool(struct.unpack_from("=H", request, 16)[0] & IFF_VNET_HDR)


def is_local_address(packed: bytes) -> bool:
    """Whether an IPv4 or IPv6 address belongs to this host: a socket can be bound to it."""
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((socket.inet_ntop(family, packed), 0))
        except OSError:
            return False
    return True
