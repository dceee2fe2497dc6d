"""Two engines on loopback sockets, with socket pairs in place of TUNs: what each of our engines does."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP

from tests.engines import maker
from tests.unit.datapath.parts import CBC, EVERYTHING, GCM, child, facing, tcp_packet, udp_packet
from tests.unit.datapath.test_coalesce import unjoined
from vpnd.datapath.interface import (
    Acquire,
    Drop,
    EngineOptions,
    Features,
    HardLimit,
    Notice,
    PolicyRow,
    SoftLimit,
    UnknownSpi,
)
from vpnd.datapath.sockets import IP_RECVTOS, IPV6_RECVTCLASS
from vpnd.model.child import ChildSa, Path
from vpnd.model.proposals import Suite

A, B = "10.1.0.1", "10.2.0.1"
LOOPBACK = {4: ("127.0.0.1", "127.0.0.2"), 6: ("::1", "::1")}
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
PATIENCE = 60.0
"""Seconds, for a machine that does other things as well."""


class Side:
    """One engine and the far end of its only TUN."""

    def __init__(
        self,
        engine: str,
        address: str,
        vnet_header: bool,
        features: Features,
        raw: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.address = ip_address(address)
        self.notices: list[Notice] = []
        self.ike: list[tuple[Path, bytes]] = []
        self.vnet_header = vnet_header
        self.engine = maker(engine)(
            loop or asyncio.get_running_loop(),
            [self.address],
            lambda path, data: self.ike.append((path, data)),
            self.notices.append,
            EngineOptions(port=0, raw=raw, vnet_header=vnet_header, features=features),
        )
        self.host, self.tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.host, self.tun):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.engine.add_tunnel("t", self.tun.fileno(), 1400)
        self.engine.replace_policies("t", (PolicyRow(0, EVERYTHING, EVERYTHING),))

    @property
    def port(self) -> int:
        return self.engine.port(self.address.version)

    def put(self, *packets: bytes) -> None:
        for packet in packets:
            self.host.send((bytes(10) if self.vnet_header else b"") + packet)

    def get(self) -> list[bytes]:
        """What came out, each write cut into packets as the kernel would."""
        packets: list[bytes] = []
        while True:
            try:
                write = self.host.recv(70000)
            except BlockingIOError:
                return packets
            packets += unjoined(write) if self.vnet_header else [write]

    def close(self) -> None:
        self.engine.close()
        self.host.close()
        self.tun.close()


class Sides:
    def __init__(
        self,
        engine: str,
        version: int,
        vnet_header: bool,
        features: Features,
        raw: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.raw = raw
        ends = LOOPBACK[version]
        self.a, self.b = (Side(engine, address, vnet_header, features, raw, loop) for address in ends)

    def child(self, suite: Suite = GCM, spi_in: int = 0x1001, spi_out: int = 0x2002) -> ChildSa:
        path = Path(self.a.address, self.a.port, self.b.address, self.b.port)
        return child(spi_in, spi_out, suite, path=path, udp=not self.raw)

    def connect(self, suite: Suite = GCM) -> None:
        sa = self.child(suite)
        self.a.engine.install(sa)
        self.b.engine.install(facing(sa))


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds, which on loopback is soon."""
    async with asyncio.timeout(PATIENCE):
        for _ in iter(condition, True):
            await asyncio.sleep(0)


async def arrived(side: Side, count: int) -> list[bytes]:
    packets: list[bytes] = []

    def enough() -> bool:
        packets.extend(side.get())
        return len(packets) >= count

    await until(enough)
    return packets


ALL = Features()
NONE = Features(udp_segment=False, udp_gro=False)


@pytest.fixture(params=[(4, True, ALL), (4, False, NONE), (6, True, ALL)], ids=["v4", "plain", "v6"])
async def sides(request: pytest.FixtureRequest, engine: str) -> AsyncIterator[Sides]:
    both = Sides(engine, *request.param)
    yield both
    both.a.close()
    both.b.close()


@pytest.fixture
async def pair(engine: str) -> AsyncIterator[Sides]:
    both = Sides(engine, 4, True, ALL)
    yield both
    both.a.close()
    both.b.close()


@pytest.mark.parametrize("suite", [GCM, CBC], ids=str)
async def test_packets_cross_both_ways(sides: Sides, suite: Suite) -> None:
    sides.connect(suite)
    there = [udp_packet(A, B, 200 + i) for i in range(10)] + [udp_packet(A, B, 1000)] * 50
    back = [udp_packet("fd00::2", "fd00::1", 300)] * 10
    sides.a.put(*there)
    sides.b.put(*back)
    assert await arrived(sides.b, len(there)) == there
    assert await arrived(sides.a, len(back)) == back
    stats = sides.a.engine.stats(0x1001)
    assert stats is not None
    assert (stats.packets_out, stats.packets_in) == (len(there), len(back))
    assert (stats.bytes_out, stats.bytes_in) == (sum(map(len, there)), sum(map(len, back)))
    assert stats.last_in > 0
    assert not any(sides.b.engine.drops("t").values())


async def test_a_tcp_stream_is_the_same_behind_the_joined_writes(sides: Sides) -> None:
    sides.connect()
    segments = [tcp_packet(A, B, 1 + i * 1300, bytes((i % 256,)) * 1300) for i in range(64)]
    sides.a.put(*segments)
    assert await arrived(sides.b, 64) == segments


@pytest.mark.parametrize("features", [Features(False, True), Features(True, False)])
async def test_one_side_without_segmentation_or_joining(engine: str, features: Features) -> None:
    both = Sides(engine, 4, True, features)
    both.connect()
    packets = [udp_packet(A, B, 900)] * 40
    both.a.put(*packets)
    assert await arrived(both.b, 40) == packets
    both.a.close()
    both.b.close()


@pytest.mark.root
@pytest.mark.xdist_group("raw sockets of one loopback")
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("suite", [GCM, CBC], ids=str)
async def test_raw_esp(engine: str, version: int, suite: Suite) -> None:
    """One after the other: a raw socket hears every ESP packet to its address, also another test's."""
    both = Sides(engine, version, True, ALL, raw=True)
    try:
        both.connect(suite)
        packets = [udp_packet(A, B, 200 + i) for i in range(10)] + [udp_packet(A, B, 1000)] * 50
        packets += [tcp_packet(A, B, 1 + i * 1300, bytes((i,)) * 1300) for i in range(30)]
        marked = bytes(IP(src=A, dst=B, tos=0xB8 | 2) / (b"x" * 100))
        both.a.put(*packets, marked)
        # Order is kept within a flow; joining may let another flow go first.
        assert sorted(await arrived(both.b, len(packets) + 1)) == sorted([*packets, marked])
        for side in (both.a, both.b):
            assert not any(side.engine.drops("t").values())
    finally:
        both.a.close()
        both.b.close()


@pytest.mark.parametrize("version", [4, 6])
async def test_the_outer_traffic_class_travels(engine: str, version: int) -> None:
    """It is that of the packet inside; congestion marked on the way shows in the packet that arrives."""
    both = Sides(engine, version, True, ALL)
    both.connect()
    packets = [bytes(IP(src=A, dst=B, tos=tos) / (b"x" * 100)) for tos in (0, 0xB8, 0xB8, 3, 1)]
    both.a.put(*packets)
    assert await arrived(both.b, 5) == packets
    # The same as another host sees it.
    level, option = (
        (socket.IPPROTO_IPV6, IPV6_RECVTCLASS) if version == 6 else (socket.IPPROTO_IP, IP_RECVTOS)
    )
    with socket.socket(AF[version], socket.SOCK_DGRAM) as far:
        far.bind((str(both.b.address), 0))
        far.setblocking(False)
        far.setsockopt(level, option, 1)
        sa = both.child()
        path = Path(both.a.address, both.a.port, both.b.address, far.getsockname()[1])
        both.a.engine.move(sa.spi_in, path)
        both.a.put(*packets)
        classes: list[int] = []
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()

        def receive() -> None:
            _, control, *_ = far.recvmsg(2048, 64)
            classes.append(next((value[0] for _, _, value in control), 0))
            if len(classes) == len(packets):
                heard.set()

        loop.add_reader(far.fileno(), receive)
        async with asyncio.timeout(PATIENCE):
            await heard.wait()
        loop.remove_reader(far.fileno())
    assert classes == [0, 0xB8, 0xB8, 3, 1]
    both.a.close()
    both.b.close()


async def test_what_cannot_be_sent_is_counted(pair: Sides) -> None:
    sa = child(path=Path(pair.a.address, pair.a.port, ip_address("203.0.113.5"), 4500))
    pair.a.engine.install(sa)
    pair.a.put(*[udp_packet(A, B, 900)] * 3)
    await until(lambda: pair.a.engine.drops("t")[Drop.SEND] == 3)
    # An SA to IPv6, for which there is no socket.
    pair.a.engine.move(sa.spi_in, Path(pair.a.address, 4500, ip_address("2001:db8::5"), 4500))
    pair.a.put(udp_packet(A, B, 900))
    await until(lambda: pair.a.engine.drops("t")[Drop.SEND] == 4)


async def test_waiting_packets_leave_when_the_sa_is_there(pair: Sides) -> None:
    packets = [udp_packet(A, B, 200 + i) for i in range(5)]
    pair.a.put(*packets)
    await until(lambda: bool(pair.a.notices))
    assert pair.a.notices == [Acquire("t", 0, ip_address(A), ip_address(B), 17)]
    sa = pair.child()
    pair.b.engine.install(facing(sa))
    pair.a.engine.install(sa, outbound=False)
    await asyncio.sleep(0.01)
    assert pair.b.get() == []
    pair.a.engine.use_outbound(sa.spi_in)
    assert await arrived(pair.b, 5) == packets


async def test_a_rekey_loses_nothing(pair: Sides) -> None:
    pair.connect()
    first, second = [udp_packet(A, B, 700)] * 20, [udp_packet(A, B, 701)] * 20
    pair.a.put(*first)
    new = pair.child(CBC, 0x1005, 0x2006)
    pair.b.engine.install(facing(new), outbound=False)
    pair.a.engine.install(new)
    pair.a.put(*second)
    assert sorted(await arrived(pair.b, 40)) == sorted(first + second)
    pair.a.engine.remove(0x1001)
    pair.b.engine.remove(0x2002)
    assert pair.a.engine.stats(0x1001) is None
    pair.a.put(*first)
    assert await arrived(pair.b, 20) == first
    pair.a.engine.remove(0x1001)
    pair.a.engine.use_outbound(0x1001)
    pair.a.engine.move(0x1001, new.path)


async def test_ike_messages_share_the_port(sides: Sides) -> None:
    path = Path(sides.a.address, sides.a.port, sides.b.address, sides.b.port)
    sides.a.engine.send_ike(path, b"an IKE message" * 200)
    await until(lambda: bool(sides.b.ike))
    back = Path(sides.b.address, sides.b.port, sides.a.address, sides.a.port)
    assert sides.b.ike == [(back, b"an IKE message" * 200)]
    # To a family without a socket nothing is sent, and nothing breaks.
    other = ip_address("192.0.2.1" if sides.a.address.version == 6 else "2001:db8::1")
    sides.a.engine.send_ike(Path(sides.a.address, 1, other, 1), b"x")


async def test_interruption_spares_the_probes(pair: Sides) -> None:
    pair.connect()
    business, probe = udp_packet(A, B), udp_packet("169.254.128.1", "169.254.128.2")
    pair.a.engine.interrupt("t", True, (ip_address("169.254.128.2"),))
    pair.a.put(business, probe)
    assert await arrived(pair.b, 1) == [probe]
    # An SA that is installed meanwhile is interrupted as well.
    pair.b.engine.interrupt("t", True)
    new = pair.child(CBC, 0x1005, 0x2006)
    pair.b.engine.install(facing(new))
    pair.a.engine.install(new)
    pair.a.put(probe)
    await until(lambda: pair.b.engine.drops("t")[Drop.POLICY] == 1)
    for side in (pair.a, pair.b):
        side.engine.interrupt("t", False)
    pair.a.put(business)
    assert await arrived(pair.b, 1) == [business]


async def test_a_smaller_path_makes_smaller_packets(pair: Sides) -> None:
    pair.connect()
    pair.a.engine.set_mtu("t", 1300)
    packet = tcp_packet(A, B, 1, b"x" * 1300)
    pair.a.put(packet)
    answer = await arrived(pair.a, 1)
    assert answer[0][20:22] == b"\x03\x04"
    limit = int.from_bytes(answer[0][26:28])
    assert 1200 < limit < 1300
    # Not less than every path carries.
    pair.a.engine.set_mtu("t", 68)
    pair.a.put(udp_packet(A, B, 500))
    assert await arrived(pair.b, 1) == [udp_packet(A, B, 500)]


async def test_configured_limits_hold_until_they_are_taken_away(pair: Sides) -> None:
    pair.connect()
    packet = tcp_packet(A, B, 1, b"x" * 1000)
    for mtu, mss, clamped in ((900, None, 860), (None, 700, 700)):
        pair.a.engine.set_limits("t", mtu, mss)
        pair.a.put(syn(1460))
        assert await arrived(pair.b, 1) == [syn(clamped)]
        pair.a.put(packet)
        if mtu is None:
            assert await arrived(pair.b, 1) == [packet]
        else:
            (told,) = await arrived(pair.a, 1)
            assert int.from_bytes(told[26:28]) == mtu
    pair.a.engine.set_limits("t", None, None)
    pair.a.put(packet)
    assert await arrived(pair.b, 1) == [packet]


def syn(mss: int) -> bytes:
    """A SYN with this MSS as its only option."""
    return tcp_packet(A, B, 1, flags=2, options=bytes((2, 4)) + mss.to_bytes(2))


async def test_garbage_is_counted_and_told_once(pair: Sides) -> None:
    pair.connect()
    dice = random.Random(300)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for number in range(300):
            stranger.sendto(dice.randbytes(number % 70) or b"\xff", (str(pair.b.address), pair.b.port))
        stranger.sendto(b"\xff", (str(pair.b.address), pair.b.port))
        stranger.sendto(
            (0x2002).to_bytes(4) + bytes(3) + b"\7" + bytes(60), (str(pair.b.address), pair.b.port)
        )
        await until(lambda: pair.b.engine.drops("t")[Drop.INTEGRITY] == 1)
    counted = pair.b.engine.drops()
    assert counted[Drop.NO_SA] + counted[Drop.MALFORMED] > 290
    assert [type(notice) for notice in pair.b.notices] == [UnknownSpi]
    pair.a.put(udp_packet(A, B))
    assert await arrived(pair.b, 1) == [udp_packet(A, B)]


async def test_a_closed_port_does_not_stop_the_traffic(pair: Sides) -> None:
    """The kernel reports the ICMP error at the next call, which must not be taken for that call's failure."""
    pair.connect()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind((str(pair.b.address), 0))
        port = closed.getsockname()[1]
    closed_path = Path(pair.a.address, pair.a.port, pair.b.address, port)
    for _ in range(5):
        pair.a.engine.send_ike(closed_path, b"hello")
        pair.a.put(udp_packet(A, B))
        assert await arrived(pair.b, 1) == [udp_packet(A, B)]
    assert pair.a.engine.drops("t")[Drop.SEND] == 0


async def test_the_peer_that_stays_where_it_is_has_not_moved(sides: Sides) -> None:
    sides.connect()
    for _ in range(3):
        sides.a.put(udp_packet(A, B))
        await arrived(sides.b, 1)
    assert sides.b.notices == []


async def test_tunnels_come_and_go(pair: Sides) -> None:
    pair.connect()
    with pytest.raises(ValueError, match="known"):
        pair.a.engine.add_tunnel("t", pair.a.tun.fileno(), 1400)
    with pytest.raises(ValueError, match="00001001"):
        pair.a.engine.install(pair.child())
    pair.a.engine.remove_tunnel("t")
    pair.a.engine.remove_tunnel("t")
    assert pair.a.engine.stats(0x1001) is None
    pair.a.engine.add_tunnel("t", pair.a.tun.fileno(), 1400)
    pair.a.engine.replace_policies("t", (PolicyRow(0, EVERYTHING, EVERYTHING),))
    pair.a.engine.install(pair.child())
    pair.b.engine.remove(0x2002)
    pair.b.engine.install(facing(pair.child()))
    pair.a.put(udp_packet(A, B))
    assert await arrived(pair.b, 1) == [udp_packet(A, B)]


async def test_an_address_that_is_taken_is_an_error_and_leaves_nothing_open(engine: str, pair: Sides) -> None:
    loop = asyncio.get_running_loop()
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="in use"):
        maker(engine)(
            loop,
            [pair.a.address],
            lambda path, data: None,
            lambda notice: None,
            EngineOptions(port=pair.a.port, raw=False),
        )
    assert set(os.listdir("/proc/self/fd")) <= before


async def test_an_address_that_cannot_be_had_leaves_the_one_that_is_used(pair: Sides) -> None:
    pair.connect()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="assign"):
        pair.a.engine.listen(ip_address("203.0.113.77"))
    assert len(os.listdir("/proc/self/fd")) == before
    pair.a.put(udp_packet(A, B))
    assert await arrived(pair.b, 1) == [udp_packet(A, B)]


async def test_a_lowered_limit_is_told_and_kept(pair: Sides) -> None:
    pair.connect()
    pair.a.put(*[udp_packet(A, B, 1000)] * 10)
    assert len(await arrived(pair.b, 10)) == 10
    pair.a.engine.limit(0x1001, 10)
    pair.a.engine.limit(0x9999, 10)
    await until(lambda: pair.a.notices == [SoftLimit("t", 0x1001)])
    pair.a.put(udp_packet(A, B, 1000))
    await until(lambda: HardLimit("t", 0x1001) in pair.a.notices)
    assert pair.a.engine.drops("t")[Drop.LIFETIME] == 1
