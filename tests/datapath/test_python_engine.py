"""The engine in Python where a test stands in for the kernel: refused sends, errors that come late."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from typing import Any, ClassVar

import pytest

from tests.datapath.test_engine import AF, ALL, A, B, Sides, arrived, until
from tests.engines import PYTHON
from tests.unit.datapath.parts import udp_packet
from vpnd.datapath import engine as engine_module
from vpnd.datapath import sockets
from vpnd.datapath.engine import PythonEngine
from vpnd.datapath.interface import (
    Drop,
    EngineOptions,
    Features,
    IkeUnreached,
    SocketOptions,
    TunLost,
)
from vpnd.datapath.sockets import IcmpReport, RawSocket, Received, Report, UdpSocket
from vpnd.model.child import Path
from vpnd.model.selectors import Address
from vpnd.model.unreachable import Unreachable
from vpnd.wire.udpencap import KEEPALIVE, NON_ESP_MARKER

Control = tuple[int, int, bytes]


class Watched(UdpSocket):
    """The engine's UDP socket, and what a test reports by it."""

    opened: ClassVar[list[Watched]] = []

    def __init__(
        self, address: Address, port: int, options: SocketOptions | None, features: Features | None
    ) -> None:
        super().__init__(address, port, options, features)
        self.opened.append(self)
        self.reports: list[IcmpReport] = []
        """What the error queue holds besides."""

    def receive_batch(self, report: Report) -> list[Received]:
        batch = super().receive_batch(report)
        while self.reports:
            report(self.reports.pop(0))
        return batch

    async def learn(self, *reports: IcmpReport) -> None:
        """These are in the error queue when a datagram comes, and have been read."""
        self.reports += reports
        with socket.socket(AF[self.address.version], socket.SOCK_DGRAM) as anyone:
            anyone.sendto(KEEPALIVE, (str(self.address), self.port))
        await until(lambda: not self.reports)


class Kernel:
    """A socket's place in the kernel, where a test answers some of the calls."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def sendmsg(self, buffers: Any, control: Sequence[Control] = (), *rest: Any) -> int:
        return self._real.sendmsg(buffers, control, *rest)

    def recvmsg(self, *arguments: int) -> Any:
        return self._real.recvmsg(*arguments)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self._real.setsockopt(level, option, value)


@pytest.fixture
async def pair(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sides]:
    monkeypatch.setattr(engine_module, "UdpSocket", Watched)
    Watched.opened.clear()
    both = Sides(PYTHON, 4, True, ALL)
    yield both
    both.a.close()
    both.b.close()


@pytest.fixture
def udp(pair: Sides) -> Watched:
    """The first one's socket."""
    return Watched.opened[0]


@pytest.mark.parametrize("number", ["EIO", "EMSGSIZE", "EINVAL"])
async def test_a_kernel_that_refuses_to_segment_gets_the_packets_one_by_one(
    pair: Sides, udp: Watched, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    pair.connect()
    refused: list[int] = []
    probed: list[int] = []

    class Refusing(Kernel):
        def sendmsg(self, buffers: Any, control: Sequence[Control] = (), *rest: Any) -> int:
            if any(kind == sockets.UDP_SEGMENT for _, kind, _ in control):
                refused.append(1)
                raise OSError(getattr(errno, number), "no segments here")
            return super().sendmsg(buffers, control, *rest)

        def setsockopt(self, level: int, option: int, value: int) -> None:
            if (option, value) == (sockets.IP_MTU_DISCOVER, sockets.PMTUDISC_PROBE):
                probed.append(1)
            super().setsockopt(level, option, value)

    monkeypatch.setattr(udp, "socket", Refusing(udp.socket))
    packets, large = [udp_packet(A, B, 900)] * 40, udp_packet(A, B, 1200)
    pair.a.put(large)
    assert await arrived(pair.b, 1) == [large]
    assert len(probed) == 1
    pair.a.put(*packets)
    assert await arrived(pair.b, 40) == packets
    # Without checksums on the route's device it is given up for good, for a length it is tried again.
    assert udp.segments is (number != "EIO")
    assert pair.a.engine.drops("t")[Drop.SEND] == 0
    pair.a.put(*packets)
    assert await arrived(pair.b, 40) == packets
    assert (len(refused) == 1) is (number == "EIO")
    # What the interface carries is asked with the next large packet, which is due at once.
    pair.a.put(large)
    assert await arrived(pair.b, 1) == [large]
    pair.a.put(large)
    assert await arrived(pair.b, 1) == [large]
    assert len(probed) == 2


async def test_a_message_of_ike_that_did_not_arrive_is_told_and_no_packet_of_esp(
    pair: Sides, udp: Watched
) -> None:
    """Silence of ESP is found out another way, and anyone can send such an error."""
    pair.connect()
    remote, port, prohibited = pair.b.address, pair.b.port, Unreachable.PROHIBITED
    esp = (0x2002).to_bytes(4) + bytes(4)
    await udp.learn(IcmpReport(remote, None, esp, port, reason=prohibited))
    assert pair.a.notices == []
    message = NON_ESP_MARKER + bytes(28)
    await udp.learn(IcmpReport(remote, None, message, port, reason=prohibited))
    assert pair.a.notices == [IkeUnreached(Path(pair.a.address, pair.a.port, remote, port), prohibited)]


async def test_a_message_of_ike_that_a_rule_here_forbids_is_told(
    pair: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UdpSocket, "send_one", lambda *_: errno.EPERM)
    path = Path(pair.a.address, pair.a.port, pair.b.address, pair.b.port)
    pair.a.engine.send_ike(path, bytes(28))
    assert pair.a.notices == [], "not from within the call: one input, then drain"
    await until(lambda: bool(pair.a.notices))
    assert pair.a.notices == [IkeUnreached(path, Unreachable.FORBIDDEN_HERE)]


async def test_a_report_that_a_send_is_told_of_loses_no_packet(
    pair: Sides, udp: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports "too big" at the next call, as it reports a closed port."""
    pair.connect()
    told: list[int] = []
    queue: list[int] = []

    class TellsOnce(Kernel):
        """On it every send after a pause reports an earlier one's error."""

        def sendmsg(self, *arguments: Any) -> int:
            if len(told) % 2 == 0:
                told.append(1)
                raise OSError(errno.EMSGSIZE, "told late")
            told.append(0)
            return super().sendmsg(*arguments)

        def recvmsg(self, *arguments: int) -> Any:
            queue.append(arguments[2:] == (sockets.MSG_ERRQUEUE,))
            return super().recvmsg(*arguments)

    monkeypatch.setattr(udp, "socket", TellsOnce(udp.socket))
    pair.a.put(udp_packet(A, B))
    assert await arrived(pair.b, 1) == [udp_packet(A, B)]
    assert told == [1, 0]
    assert not any(queue)
    await udp.learn(IcmpReport(pair.b.address, None, b""))
    assert any(queue), "the queue, which says more, is not read"


async def test_icmp_errors_that_a_send_has_heard_of_do_not_keep_the_loop_awake(
    pair: Sides, udp: Watched
) -> None:
    """The error queue makes the descriptor readable until it is empty, whichever socket the kernel named."""
    sending = udp
    asyncio.get_running_loop().remove_reader(sending.fileno())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind((str(pair.b.address), 0))
        nobody = (str(pair.b.address), closed.getsockname()[1])
    sending.send_one([b"hello"], nobody)
    # This send returns the error, so that no receive does.
    sending.send_one([b"hello"], (str(pair.b.address), pair.b.port))
    heard: list[IcmpReport] = []
    assert sending.receive_batch(heard.append) == []
    assert [report.remote for report in heard] == [pair.b.address]
    with select.epoll() as polled:
        polled.register(sending.fileno(), select.EPOLLIN)
        assert polled.poll(0) == []


async def test_a_tun_that_is_gone_is_told_and_not_read(pair: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(fd: int, size: int) -> bytes:
        raise OSError(errno.EBADFD, "File descriptor in bad state")

    pair.a.put(udp_packet(A, B))
    monkeypatch.setattr(os, "read", gone)
    await until(lambda: bool(pair.a.notices))
    monkeypatch.undo()
    assert pair.a.notices == [TunLost("t")]
    await asyncio.sleep(0.01)
    assert pair.a.notices == [TunLost("t")]


async def test_an_address_is_not_half_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the socket of protocol 50 is refused once, the next try is a try of both."""

    def refused(address: Address, options: SocketOptions) -> RawSocket:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    address = ip_address("127.0.0.1")
    options = EngineOptions(port=0)
    engine = PythonEngine(
        asyncio.get_running_loop(), (), lambda path, data: None, lambda notice: None, options
    )
    monkeypatch.setattr(engine_module, "RawSocket", refused)
    for _ in range(2):
        with pytest.raises(PermissionError):
            engine.listen(address)
    opened: list[RawSocket] = []

    def granted(address: Address, options: SocketOptions) -> RawSocket:
        opened.append(RawSocket(address, options))
        return opened[-1]

    monkeypatch.setattr(engine_module, "RawSocket", granted)
    engine.listen(address)
    assert [raw.address for raw in opened] == [address]
    engine.close()


def test_which_addresses_are_ours() -> None:
    assert sockets.is_local_address(bytes((127, 0, 0, 1)))
    assert sockets.is_local_address(bytes(15) + b"\1")
    assert not sockets.is_local_address(bytes((203, 0, 113, 77)))
    assert not sockets.is_local_address(bytes((240, 0, 0, 1)))
