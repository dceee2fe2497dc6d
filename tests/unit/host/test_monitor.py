"""Which of the kernel's notices matter."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Callable

import pytest

from tests.unit.daemon.pairs import JumpingLoop
from vpnd.host.monitor import (
    APART,
    GROUPS,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    Monitor,
    matters,
)
from vpnd.host.routes import MAIN_TABLE, PROTOCOL

LOCAL_TABLE = 255


def notice(kind: int, body: bytes = bytes(12)) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def route(protocol: int, table: int = MAIN_TABLE) -> bytes:
    return struct.pack("=BBBBBBBBI", 2, 24, 0, 0, table, protocol, 0, 1, 0)


class Ear(socket.socket):
    """What the monitor hears the kernel by; the test has its other end."""

    def bind(self, address: object) -> None:
        assert address == (0, GROUPS)


def started(on_change: Callable[[], None]) -> tuple[Monitor, socket.socket]:
    """A monitor, and what the kernel says its notices into."""
    kernel, heard = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.setblocking(False)
    ear = Ear(fileno=heard.detach())
    monitor = Monitor(asyncio.get_running_loop(), on_change)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", lambda *_: ear)
        monitor.start()
    return monitor, kernel


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (notice(RTM_NEWLINK), True),
        (notice(RTM_DELLINK), True),
        (notice(RTM_DELADDR), True),
        (notice(RTM_DELRULE), True),
        (notice(RTM_DELROUTE, route(PROTOCOL)), True),
        (notice(RTM_DELROUTE, route(16)), True),
        (notice(RTM_NEWROUTE, route(16)), True),
        (notice(RTM_NEWROUTE, route(PROTOCOL)), False),
        (notice(RTM_DELROUTE, route(2, LOCAL_TABLE)), False),
        (notice(RTM_NEWROUTE, route(16, 77)) * 500 + notice(RTM_DELROUTE, route(PROTOCOL)), True),
        (b"", False),
        (b"\0" * 64, False),
        (notice(RTM_DELROUTE)[:18], False),
        (notice(RTM_DELROUTE, route(16)[:5]), False),
    ],
)
def test_what_matters(data: bytes, expected: bool) -> None:
    assert matters(data) is expected


def test_a_repair_waits_for_the_changes_that_come_together() -> None:
    async def run() -> tuple[float, list[float]]:
        loop = asyncio.get_running_loop()
        fired: list[float] = []
        monitor, kernel = started(lambda: fired.append(loop.time()))
        for _ in range(3):
            last = loop.time()
            kernel.send(notice(RTM_NEWLINK))
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        monitor.close()
        kernel.close()
        return last, fired

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        last, (fired,) = runner.run(run())
    assert fired > last


def test_many_changes_are_one_repair_and_repairs_keep_apart() -> None:
    async def run() -> list[float]:
        loop = asyncio.get_running_loop()
        fired: list[float] = []
        monitor, kernel = started(lambda: fired.append(loop.time()))
        for _ in range(40):
            kernel.send(notice(RTM_NEWLINK))
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        monitor.close()
        kernel.close()
        return fired

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        fired = runner.run(run())
    assert 4 <= len(fired) <= 5
    assert all(later - earlier >= APART - 1e-6 for earlier, later in itertools.pairwise(fired))
