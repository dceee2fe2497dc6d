"""The sockets that carry ESP: UDP port 4500 and IP protocol 50, for IPv4 and IPv6.

A run of equal packets leaves with one `sendmsg` (UDP_SEGMENT: the kernel cuts it into datagrams) and arrives
with one `recvmsg` (UDP_GRO: the kernel joined datagrams of one flow). Where the kernel or the route cannot do
this, packets go one by one. Raw ESP has neither and always goes one by one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import groupby
from operator import itemgetter

from vpnd.datapath.interface import Features, SocketOptions
from vpnd.model.selectors import Address
from vpnd.model.unreachable import Unreachable

ESP_PROTOCOL = 50

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
IP_TOS = 1
IP_MTU_DISCOVER = 10
IP_RECVERR = 11
IP_RECVTOS = 13
IPV6_MTU_DISCOVER = 23
IPV6_RECVERR = 25
IPV6_RECVTCLASS = 66
IPV6_TCLASS = 67
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SO_MARK = 36
MSG_ERRQUEUE = 0x2000
TUNGETIFF = 0x800454D2
TUNSETOFFLOAD = 0x400454D0
TUN_F_CSUM = 0x01
TUN_F_USO = 0x20 | 0x40
IFF_VNET_HDR = 0x4000

PMTUDISC_DONT = 0
PMTUDISC_PROBE = 3
PMTUDISC_OMIT = 5
"""PROBE and OMIT do not believe what the kernel took from an ICMP error, which anyone can send (ip(7)): PROBE
sends what the interface carries, with DF; OMIT without DF, and in fragments what the interface cannot carry.
DONT sends in fragments of what the kernel believes in, which for IPv6 is never less than 1280 bytes."""
EE_ORIGIN_LOCAL = 1
"""`ee_origin` of what the kernel itself says about a send, not an ICMP error (linux/errqueue.h)."""

LEAST_IPV6_MTU = 1280
"""Every IPv6 path carries this (RFC 8200 section 5)."""
IPV6_AND_UDP = 48

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
class IcmpReport:
    """An error about a datagram that a socket sent: the MTU if it was too big, and its first bytes.

    `port` is the UDP port that it was sent to, 0 for raw ESP. `local`: the kernel says so of this machine's
    own interface, with no quote; all else came as ICMP and may be forged. `reason`: why it has not arrived.
    """

    remote: Address
    mtu: int | None
    quote: bytes
    port: int = 0
    local: bool = False
    reason: Unreachable | None = None


Report = Callable[[IcmpReport], None]
Received = tuple[bytes, int, int, tuple[str, int]]
"""Data, the length of each segment in it but a shorter last one, the outer traffic class, the sender."""


class _EspSocket:
    """What UDP and raw sockets share: control messages, the error queue, one send with its second try.

    What the kernel takes from ICMP errors has no say in how large packets are; the engine reads them itself.
    IPv4 goes without DF, so that routers fragment it; the engine has one packet a minute ask for the report
    of a smaller path (`PROBE_INTERVAL`). IPv6 routers do not fragment: what is too long for the path goes in
    fragments from here.
    """

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
        self._told = False
        # For IPv6 UDP the kernel passes on no report with OMIT.
        self._usual = PMTUDISC_PROBE if self._six else PMTUDISC_OMIT
        self._discover(self._usual)
        if self._six:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)

    def _discover(self, value: int) -> None:
        """How what is sent from now on finds its way through a small path."""
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
        error = self._try(buffers, control, to)
        if error in _REPORTED_LATE:
            self._told = True
            error = self._try(buffers, control, to)
        if error == errno.EMSGSIZE and self._six:
            # The interface does not carry it; the report, of which there is one, says what it does.
            error = self._try_in_fragments(buffers, control, to)
        return error

    def _try(
        self, buffers: Iterable[bytes], control: list[tuple[int, int, bytes]], to: tuple[str, int]
    ) -> int | None:
        try:
            self.socket.sendmsg(buffers, control, 0, to)
        except OSError as error:
            return error.errno or errno.EIO
        return None

    def _try_in_fragments(
        self, buffers: Iterable[bytes], control: list[tuple[int, int, bytes]], to: tuple[str, int]
    ) -> int | None:
        """Send an IPv6 packet in fragments that the path carries; None if it went, else the error."""
        self._discover(PMTUDISC_DONT)
        try:
            return self._try(buffers, control, to)
        finally:
            self._discover(self._usual)

    def send_in_fragments(
        self, buffers: list[bytes], traffic_class: int, to: tuple[str, int]
    ) -> tuple[int, int | None]:
        """Send IPv6 packets of two buffers each that are too long for the path, one by one.

        Returns how many were not sent, and the error that says why.
        """
        control = [self._traffic_class(traffic_class)] if traffic_class else []
        errors = [
            self._try_in_fragments(buffers[at : at + 2], control, to) for at in range(0, len(buffers), 2)
        ]
        failed = [error for error in errors if error is not None]
        return len(failed), failed[-1] if failed else None

    def send_df(self, packet: list[bytes], traffic_class: int, to: tuple[str, int]) -> int | None:
        """Send one packet that no router may fragment; None if it went, else the error."""
        self._discover(PMTUDISC_PROBE)
        try:
            return self._sent(packet, [self._traffic_class(traffic_class)] if traffic_class else [], to)
        finally:
            self._discover(self._usual)

    def drain_errors(self, report: Report) -> None:
        """Read the errors that arrived for what this socket sent (ip(7), IP_RECVERR)."""
        self._told = False
        for _ in range(MAXIMUM_SEGMENTS):
            try:
                quote, control, _, address = self.socket.recvmsg(256, 256, MSG_ERRQUEUE)
            except OSError:
                return
            for _, kind, value in control:
                if kind in (IP_RECVERR, IPV6_RECVERR) and len(value) >= _EXTENDED_ERROR.size:
                    number, origin, icmp, code, info, _ = _EXTENDED_ERROR.unpack_from(value)
                    mtu = info if number == errno.EMSGSIZE and info else None
                    local = origin == EE_ORIGIN_LOCAL
                    reason = None if local else Unreachable.of_icmp(self.address.version, icmp, code)
                    report(IcmpReport(ip_address(address[0]), mtu, quote, address[1], local, reason))

    def _drain_if_told(self, batch: list[Received], report: Report) -> None:
        """A send was told of an error, of which the queue says more and keeps the descriptor readable."""
        if self._told or not batch:
            self.drain_errors(report)


_REPORTED_LATE = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EPROTO,
        errno.EOPNOTSUPP,
        errno.EHOSTDOWN,
        errno.EMSGSIZE,
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
            self._drain_if_told(batch, report)
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

    def send_one(self, parts: list[bytes], to: tuple[str, int]) -> int | None:
        """Send one datagram; None if it went, else the error, which is the peer's silence to its sender."""
        if self._six and sum(map(len, parts)) > LEAST_IPV6_MTU - IPV6_AND_UDP:
            # A message of IKE must arrive, whatever is known of the path.
            return self._try_in_fragments(parts, [], to)
        return self._sent(parts, [], to)


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
            self._drain_if_told(packets, report)
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


def takes_joined_udp(fd: int) -> bool:
    """Whether this TUN takes UDP datagrams that were joined: where the kernel hands over such, too (6.2)."""
    try:
        fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO)
        fcntl.ioctl(fd, TUNSETOFFLOAD, 0)
    except OSError:
        return False
    return True


def ask_for_single_packets(fd: int) -> None:
    """Have the kernel cut what is large, and make all checksums, before a TUN is read."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, TUNSETOFFLOAD, 0)


def is_local_address(packed: bytes) -> bool:
    """Whether an IPv4 or IPv6 address belongs to this host: a socket can be bound to it."""
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((socket.inet_ntop(family, packed), 0))
        except OSError:
            return False
    return True
