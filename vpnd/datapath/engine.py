"""The engine in Python: batches between TUN descriptors and ESP sockets, on one event loop.

The loop only says that a descriptor is readable; then up to a batch is read at once and handled at once, and
the notices that it caused are given out at its end.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import repeat

from vpnd.crypto.entropy import Entropy, OsEntropy
from vpnd.datapath.core import Core
from vpnd.datapath.interface import (
    PROBE_INTERVAL,
    PROBED_LENGTH,
    Drop,
    EngineOptions,
    IkeUnreached,
    OnIke,
    OnNotice,
    PolicyRow,
    SaStats,
    Tap,
    TunLost,
)
from vpnd.datapath.sad import SaPair
from vpnd.datapath.sockets import (
    IcmpReport,
    RawSocket,
    UdpSocket,
    ask_for_single_packets,
    has_vnet_header,
    is_local_address,
    segments_of,
    takes_joined_udp,
)
from vpnd.datapath.tunnels import Tunnel
from vpnd.model.child import ChildSa, Path
from vpnd.model.selectors import Address
from vpnd.model.unreachable import Unreachable
from vpnd.wire.udpencap import KEEPALIVE, NON_ESP_MARKER

TRAINS = 2
"""Ours: what is read from a TUN at one wake-up is at most as many packets as leave with so many sends.

More would make the other descriptors wait; a number that is no multiple of a send's would leave with a
remainder, and all that is done for each train here and at the peer would be done for few packets.
"""

TUN_MARGIN = 256
"""Bytes by which a read may exceed the MTU of the TUN, which an administrator can raise."""
LARGE_READ = 9216
"""Bytes of a read where jumbo frames are; reads cost the same up to here."""

PROBED_PATHS = 1024
"""Ours: addresses of which it is remembered when a packet with DF was sent last."""

LOCAL_ADDRESSES = 1024
LOCAL_ADDRESS_TIME = 10.0
"""How many addresses are remembered as this host's or another's, and for how many seconds."""

_NO_HOST = (bytes((240, 0, 0, 1)), bytes((1, 0)) + bytes(13) + b"\1")
"""Addresses that no host has (RFC 1112 section 4, RFC 6666): bound all the same, `bind` tells nothing."""


class PythonEngine:
    """An `Engine` (see `vpnd.datapath.interface`) on an asyncio event loop, which must be the caller's.

    Listens on `local_addresses`, at most one of each family. Raises OSError if a socket cannot be opened:
    EADDRINUSE, EADDRNOTAVAIL, EPERM.
    """

    name = "python"
    segments = 44

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        local_addresses: Sequence[Address],
        on_ike: OnIke,
        on_notice: OnNotice,
        options: EngineOptions | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        self._loop = loop
        self._on_ike = on_ike
        self._on_notice = on_notice
        self._options = options or EngineOptions()
        self._core = Core(entropy or OsEntropy(), self._transmit, self._take_ike)
        self._tunnels = self._core.tunnels
        self._notices = self._core.notices
        self._tapped = False
        """Whether any tunnel is captured."""
        self._probe_at: dict[str, float] = {}
        self._local: dict[bytes, bool] = {}
        self._local_until = 0.0
        self._udp: dict[int, UdpSocket] = {}
        self._raw: dict[int, RawSocket] = {}
        try:
            for address in local_addresses:
                self.listen(address)
        except OSError:
            self.close()
            raise

    def listen(self, address: Address) -> None:
        version = address.version
        before = self._udp.get(version)
        if before is not None and before.address == address:
            return
        opened = self._open(address)
        for sock in (before, self._raw.pop(version, None)):
            if sock is not None:
                self._loop.remove_reader(sock.fileno())
                sock.close()
        for sock in opened:
            self._loop.add_reader(sock.fileno(), self._on_readable, sock)
            if isinstance(sock, UdpSocket):
                self._udp[version] = sock
            else:
                self._raw[version] = sock
        self._core.own = frozenset(udp.address for udp in self._udp.values())

    def _open(self, address: Address) -> list[UdpSocket | RawSocket]:
        """Every socket of an address, or an error and none: what was listened on is still there then."""
        options = self._options
        udp = UdpSocket(address, options.port, options.sockets, options.features)
        try:
            return [udp, RawSocket(address, options.sockets)] if options.raw else [udp]
        except OSError:
            udp.close()
            raise

    def port(self, version: int) -> int:
        """The UDP port that ESP and IKE share, for IPv4 or IPv6; of use where the options said 0."""
        return self._udp[version].port

    # --------------------------------------------------------------------------- tunnels

    def add_tunnel(self, tunnel: str, tun_fd: int, mtu: int) -> None:
        os.set_blocking(tun_fd, False)
        vnet_header = self._options.vnet_header
        if vnet_header is None:
            vnet_header = has_vnet_header(tun_fd)
        if vnet_header:
            ask_for_single_packets(tun_fd)
        added = Tunnel(tunnel, tun_fd, mtu, vnet_header, os.writev, self._is_local)
        # Reads stay one packet each: the kernel cuts quicker than Python.
        added.coalescer.joins_udp = vnet_header and takes_joined_udp(tun_fd)
        self._core.add_tunnel(added)
        size = max(LARGE_READ, mtu + TUN_MARGIN)
        self._loop.add_reader(tun_fd, self._on_tun, added, size)

    def remove_tunnel(self, tunnel: str) -> None:
        removed = self._core.remove_tunnel(tunnel)
        if removed is not None:
            self._loop.remove_reader(removed.fd)

    def set_mtu(self, tunnel: str, path_mtu: int) -> None:
        self._core.set_mtu(tunnel, path_mtu)

    def set_limits(self, tunnel: str, mtu: int | None, mss: int | None) -> None:
        self._core.set_limits(tunnel, mtu, mss)

    def replace_policies(self, tunnel: str, rows: tuple[PolicyRow, ...]) -> None:
        self._core.replace_policies(tunnel, rows)

    def interrupt(self, tunnel: str, interrupted: bool, keep: tuple[Address, ...] = ()) -> None:
        self._core.interrupt(tunnel, interrupted, keep)

    def answer_probes(self, tunnel: str, local: Address, remote: Address) -> None:
        self._core.answer_probes(tunnel, local, remote)

    def send_packet(self, tunnel: str, packet: bytes) -> None:
        self._core.send_packet(self._loop.time(), self._tunnels[tunnel], packet)
        self._tell_later()

    # ------------------------------------------------------------------------------- SAs

    def install(self, child: ChildSa, outbound: bool = True) -> None:
        self._core.install(self._loop.time(), child, outbound)
        self._tell_later()

    def use_outbound(self, spi_in: int) -> None:
        self._core.use_outbound(self._loop.time(), spi_in)
        self._tell_later()

    def limit(self, spi_in: int, kilobytes: int) -> None:
        self._core.limit(spi_in, kilobytes)
        self._tell_later()

    def remove(self, spi_in: int) -> None:
        self._core.remove(spi_in)

    def move(self, spi_in: int, path: Path) -> None:
        self._core.move(spi_in, path)

    def tap(self, tunnel: str, tap: Tap | None) -> None:
        if (found := self._tunnels.get(tunnel)) is not None:
            found.tap = tap
        self._tapped = any(one.tap is not None for one in self._tunnels.values())

    def stats(self, spi_in: int) -> SaStats | None:
        return self._core.stats(spi_in)

    def take_heard(self) -> dict[str, float]:
        return self._core.take_heard()

    def take_sent(self) -> dict[str, float]:
        return self._core.take_sent()

    def drops(self, tunnel: str | None = None) -> dict[Drop, int]:
        return self._core.drops(tunnel)

    # --------------------------------------------------------------------------- readers

    def _on_tun(self, tunnel: Tunnel, size: int) -> None:
        """Read a batch of packets, seal and send them."""
        packets: list[bytes] = []
        try:
            # A loop in C: what was read before the exception that ends it is in the list.
            packets.extend(map(os.read, repeat(tunnel.fd, tunnel.batch), repeat(size)))
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose_tun(tunnel, error)
        if packets:
            if tunnel.tap is not None:
                tunnel.tap.inner(True, [packet[tunnel.headroom :] for packet in packets])
            self._core.outbound.send(self._loop.time(), tunnel, packets)
            self._tell()

    def _lose_tun(self, tunnel: Tunnel, error: OSError) -> None:
        """The interface was deleted (EBADFD) or is down (EIO): do not spin on its descriptor."""
        if error.errno in (errno.EBADFD, errno.EBADF, errno.ENODEV):
            self._loop.remove_reader(tunnel.fd)
            self._notices.append(TunLost(tunnel.name))
            self._tell()

    def _on_readable(self, sock: UdpSocket | RawSocket) -> None:
        """Receive a batch of datagrams, each perhaps of many ESP packets; open and deliver them."""
        now, local, port = self._loop.time(), sock.address, sock.port
        for data, length, traffic_class, sender in sock.receive_batch(self._on_icmp):
            self._core.inbound.receive(now, data, length, traffic_class, sender, local, port)
        self._core.inbound.flush()
        self._tell()

    # --------------------------------------------------------------------------- sending

    def _transmit(self, pair: SaPair, buffers: list[bytes], length: int, traffic_class: int) -> int:
        """Send ESP packets along an SA's path; returns how many were lost."""
        sockets: dict[int, UdpSocket] | dict[int, RawSocket] = self._udp if pair.child.udp else self._raw
        sock = sockets.get(pair.version)
        if sock is None:
            return len(buffers) // 2
        if self._tapped:
            self._show(pair, buffers)
        if len(buffers) > 2:
            self._tunnels[pair.child.tunnel].batch = TRAINS * segments_of(length)
        if length >= PROBED_LENGTH and pair.version == 4 and self._is_probe_due(pair.address[0]):
            why = sock.send_df(buffers[:2], traffic_class, pair.address)
            if why is None:
                buffers = buffers[2:]
            self._learn(sock, pair, why)
        if pair.version == 6 and length > pair.room:
            lost, why = sock.send_in_fragments(buffers, traffic_class, pair.address)
        else:
            lost, why = sock.send_run(buffers, length, traffic_class, pair.address)
        self._learn(sock, pair, why)
        return lost

    def _show(self, pair: SaPair, buffers: list[bytes]) -> None:
        """Let who captures the tunnel hear the ESP packets that are sent."""
        tap = self._tunnels[pair.child.tunnel].tap
        if tap is not None:
            packets = [head + rest for head, rest in zip(buffers[::2], buffers[1::2], strict=True)]
            tap.outer(True, pair.path, pair.child.udp, packets)

    def _is_probe_due(self, remote: str) -> bool:
        """Whether the next large packet to an address should ask whether the path carries it.

        With DF on every packet, paths whose ICMP is filtered would lose all that is large; without any, a
        smaller path would make routers fragment without end. So one packet a minute risks being lost.
        """
        now = self._loop.time()
        if now < self._probe_at.get(remote, now):
            return False
        if len(self._probe_at) >= PROBED_PATHS:
            self._probe_at.clear()
        self._probe_at[remote] = now + PROBE_INTERVAL
        return True

    def _learn(self, sock: UdpSocket | RawSocket, pair: SaPair, why: int | None) -> None:
        """Take from a failed send what it says about the path."""
        if why is None:
            return
        sock.drain_errors(self._on_icmp)
        if why == errno.EMSGSIZE:
            # A train tells only that something is too small; the next large packet asks what.
            self._probe_at.pop(pair.address[0], None)

    def send_ike(self, path: Path, data: bytes) -> None:
        sock = self._udp.get(path.remote.version)
        if sock is not None:
            error = sock.send_one([NON_ESP_MARKER, data], (str(path.remote), path.remote_port))
            if error in (errno.EPERM, errno.EACCES):
                self._notices.append(IkeUnreached(path, Unreachable.FORBIDDEN_HERE))
                self._tell_later()

    def send_keepalive(self, path: Path) -> None:
        sock = self._udp.get(path.remote.version)
        if sock is not None:
            sock.send_one([KEEPALIVE], (str(path.remote), path.remote_port))

    def _take_ike(self, local: Address, port: int, sender: tuple[str, int], data: bytes) -> None:
        self._on_ike(Path(local, port, ip_address(sender[0]), sender[1]), data)

    # --------------------------------------------------------------------------- notices

    def _on_icmp(self, report: IcmpReport) -> None:
        if report.mtu is None:
            self._tell_unreached(report)
        else:
            quote = None if report.local else report.quote
            self._core.believe(self._loop.time(), report.remote, report.port, report.mtu, quote)

    def _tell_unreached(self, report: IcmpReport) -> None:
        """Of IKE's messages, which begin with the marker: for ESP, silence is found out another way."""
        sock = self._udp.get(report.remote.version)
        if sock is not None and report.reason is not None and report.quote.startswith(NON_ESP_MARKER):
            path = Path(sock.address, sock.port, report.remote, report.port)
            self._notices.append(IkeUnreached(path, report.reason))

    def _tell(self) -> None:
        """Give out the notices. A callback may call the engine, which may add further ones."""
        notices = self._notices
        while notices:
            self._on_notice(notices.pop(0))

    def _tell_later(self) -> None:
        """Give out the notices when the caller, who is in a call of ours, has returned."""
        if self._notices:
            self._loop.call_soon(self._tell)

    def _is_local(self, packed: bytes) -> bool:
        """Whether an address is this host's; remembered for a short time, since it costs system calls."""
        now = self._loop.time()
        if now >= self._local_until or len(self._local) >= LOCAL_ADDRESSES:
            self._local.clear()
            self._local_until = now + LOCAL_ADDRESS_TIME
        known = self._local.get(packed)
        if known is None:
            nobody = next(address for address in _NO_HOST if len(address) == len(packed))
            known = is_local_address(packed) and not is_local_address(nobody)
            self._local[packed] = known
        return known

    def close(self) -> None:
        for tunnel in list(self._tunnels):
            self.remove_tunnel(tunnel)
        for sock in (*self._udp.values(), *self._raw.values()):
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._udp.clear()
        self._raw.clear()
