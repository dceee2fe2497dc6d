"""The IKE socket on loopback: messages both ways, and what ICMP says."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections import Counter
from contextlib import closing
from ipaddress import ip_address

import pytest
from asyncio_dgram.aio import DatagramStream

from vpnd.daemon.run import open_port
from vpnd.host import ike_socket
from vpnd.host.ike_socket import BATCH, IkeSocket, bound
from vpnd.host.routes import MARK
from vpnd.model.child import Path
from vpnd.model.unreachable import Unreachable

LOOPBACK = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}


def free_port(version: int) -> int:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((str(LOOPBACK[version]), 0))
        port: int = probe.getsockname()[1]
        return port


def bound_to(address: tuple[str, int]) -> socket.socket:
    """This process's socket that is bound to an address, once more."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                same = socket.socket(fileno=os.dup(descriptor))
                if same.getsockname() == address:
                    return same
                same.close()
    raise LookupError(f"nothing is bound to {address}")


class Ear:
    """A socket and what it heard."""

    def __init__(self, version: int) -> None:
        self.heard: list[tuple[Path, bytes]] = []
        self.unreachable: list[tuple[Path, Unreachable]] = []
        self.something = asyncio.Event()
        self.socket = IkeSocket(
            LOOPBACK[version], 0, self._hear, self._hear_unreachable, port=free_port(version)
        )

    def to(self, port: int) -> Path:
        return Path(self.socket.local, self.socket.port, self.socket.local, port)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.heard) + len(self.unreachable) < count:
                self.something.clear()
                await self.something.wait()

    def _hear(self, path: Path, data: bytes) -> None:
        self.heard.append((path, data))
        self.something.set()

    def _hear_unreachable(self, path: Path, reason: Unreachable) -> None:
        self.unreachable.append((path, reason))
        self.something.set()


@pytest.mark.parametrize("version", [4, 6])
async def test_messages_come_with_the_path_that_they_took(version: int) -> None:
    a, b = Ear(version), Ear(version)
    await a.socket.start()
    await b.socket.start()
    for number in range(200):
        a.socket.send(a.to(b.socket.port), number.to_bytes(2, "big"))
    await b.until(200)
    assert [data for _, data in b.heard] == [number.to_bytes(2, "big") for number in range(200)]
    assert {path for path, _ in b.heard} == {b.to(a.socket.port)}
    a.socket.close()
    b.socket.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("version", [4, 6])
async def test_a_closed_port_is_told_and_the_socket_goes_on(version: int) -> None:
    a, b = Ear(version), Ear(version)
    await a.socket.start()
    await b.socket.start()
    nobody = free_port(version)
    a.socket.send(a.to(nobody), b"anybody?")
    await a.until(1)
    assert a.unreachable[0] == (a.to(nobody), Unreachable.PORT)
    b.socket.send(b.to(a.socket.port), b"still there?")
    await a.until(2)
    assert a.heard == [(a.to(b.socket.port), b"still there?")]
    a.socket.close()
    b.socket.close()
    await asyncio.sleep(0)


@pytest.mark.root
async def test_what_the_daemon_sends_has_its_mark() -> None:
    """By it the rules know what is not to enter a tunnel: else a default route would take IKE with it."""
    port = free_port(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IkeSocket.__init__, "__defaults__", (port,))
        made = open_port(LOOPBACK[4], lambda *_: None, lambda *_: None)
    with bound_to((str(LOOPBACK[4]), port)) as same:
        assert same.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == MARK
    made.close()


async def test_a_port_in_use_is_an_error() -> None:
    a = Ear(4)
    with pytest.raises(OSError, match="in use"):
        IkeSocket(LOOPBACK[4], 0, lambda *_: None, lambda *_: None, port=a.socket.port)
    a.socket.close()


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENETUNREACH, Unreachable.HOST),
        (errno.EHOSTUNREACH, Unreachable.HOST),
        (errno.ENOBUFS, None),
        (errno.ENETDOWN, None),
        (errno.EINVAL, None),
        (errno.EAGAIN, None),
    ],
    ids=errno.errorcode.get,
)
async def test_what_the_kernel_does_not_send_is_lost_and_no_more(
    number: int, reason: Unreachable | None
) -> None:
    class Refusing(socket.socket):
        def sendto(self, *arguments: object) -> int:
            raise OSError(number, errno.errorcode[number])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", Refusing)
        a = Ear(4)
    a.socket.send(a.to(9), b"lost")
    assert a.unreachable == []  # not from within the call: one input, then drain
    await asyncio.sleep(0)
    assert a.unreachable == ([] if reason is None else [(a.to(9), reason)])
    a.socket.close()


@pytest.mark.parametrize(("local", "level", "option", "value"), [("127.0.0.1", 0, 10, 5), ("::1", 41, 23, 0)])
def test_no_forged_icmp_error_makes_its_messages_small(
    local: str, level: int, option: int, value: int
) -> None:
    """IPv4: what the kernel took from one has no say. IPv6: it is never less than every path carries."""
    with closing(bound(ip_address(local), 0, 0)) as made:
        assert made.getsockopt(level, option) == value


async def heard_by_round(count: int) -> tuple[list[bytes], list[int]]:
    """So many messages that wait when the loop comes to them, and in which of its rounds each was heard."""
    rounds = 0
    ear = Ear(4)
    heard_in: list[int] = []

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            heard_in.extend([rounds] * (len(ear.heard) - len(heard_in)))
            await asyncio.sleep(0)

    await ear.socket.start()
    with closing(ear.socket), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(count):
            sender.sendto(bytes([number]), (str(LOOPBACK[4]), ear.socket.port))
        counting = asyncio.create_task(count_rounds())
        await ear.until(count)
        await asyncio.sleep(0)
        counting.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    return [data for _, data in ear.heard], heard_in


async def test_what_is_heard_keeps_no_buffer_of_asyncio_from_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio cuts each datagram out of 256 KB: the endpoint keeps messages, and so gets a copy."""
    read: list[bytes] = []
    recv = DatagramStream.recv

    async def noting(stream: DatagramStream) -> tuple[bytes, object]:
        data, source = await recv(stream)
        read.append(data)
        return data, source

    monkeypatch.setattr(DatagramStream, "recv", noting)
    ear, other = Ear(4), Ear(4)
    await ear.socket.start()
    other.socket.send(other.to(ear.socket.port), b"a first message")
    await ear.until(1)
    ((_, heard),) = ear.heard
    assert [heard] == read
    assert heard is not read[0]
    ear.socket.close()
    other.socket.close()
    await asyncio.sleep(0)


async def test_what_waits_is_read_at_one_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ike_socket, "TURN", 60.0)
    heard, heard_in = await heard_by_round(BATCH + 10)
    assert set(heard) == {bytes([number]) for number in range(BATCH + 10)}
    assert max(Counter(heard_in).values()) <= BATCH + 2, "the other descriptors have their turn"
    assert len(set(heard_in)) < 5, "asyncio alone reads one for each round of the loop"


async def test_a_wake_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait, each much work: without time for a turn only what asyncio reads itself is heard."""
    monkeypatch.setattr(ike_socket, "TURN", 0.0)
    heard, heard_in = await heard_by_round(20)
    assert set(heard) == {bytes([number]) for number in range(20)}
    assert max(Counter(heard_in).values()) <= 2, "one that asyncio reads, and one of the round before"
