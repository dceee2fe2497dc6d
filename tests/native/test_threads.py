"""The native engine with a thread for each direction: what crosses it, and how it ends; no daemon has it."""

from __future__ import annotations

import asyncio
import socket
import threading
from ipaddress import ip_address
from pathlib import Path as File

import pytest

from tests.datapath.test_engine import (  # noqa: F401 (collected here)
    A,
    B,
    Sides,
    arrived,
    pair,
    sides,
    test_a_tcp_stream_is_the_same_behind_the_joined_writes,
    test_an_address_that_is_taken_is_an_error_and_leaves_nothing_open,
    test_ike_messages_share_the_port,
    test_one_side_without_segmentation_or_joining,
    test_packets_cross_both_ways,
    test_raw_esp,
    test_tunnels_come_and_go,
    until,
)
from tests.engines import THREADS, maker
from tests.unit.datapath.parts import facing, udp_packet
from vpnd.datapath.interface import Acquire, EngineOptions, PeerSends


@pytest.fixture
def engine() -> str:
    return THREADS


def names() -> set[str]:
    return {file.read_text().strip() for file in File("/proc/self/task").glob("*/comm")}


async def test_the_threads_end_with_the_engine(engine: str) -> None:
    made = maker(engine)(
        asyncio.get_running_loop(), [], lambda path, data: None, lambda notice: None, EngineOptions()
    )
    # A thread names itself when it begins, and its entry goes a moment after it has ended.
    await until(lambda: {"vpnd-in", "vpnd-out"} <= names())
    made.close()
    await until(lambda: not {"vpnd-in", "vpnd-out"} & names())


async def test_callbacks_come_in_the_thread_of_the_loop(engine: str) -> None:
    told: list[int] = []
    made = maker(engine)(
        asyncio.get_running_loop(),
        [ip_address("127.0.0.1")],
        lambda path, data: told.append(threading.get_ident()),
        lambda notice: told.append(threading.get_ident()),
        EngineOptions(port=0, raw=False),
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for message in (bytes(4) + b"an IKE message", b"no SA has this SPI"):
            stranger.sendto(message, ("127.0.0.1", made.port(4)))
        await until(lambda: len(told) == 2)
    made.close()
    assert set(told) == {threading.get_ident()}


async def test_a_packet_waits_and_the_peer_is_heard(pair: Sides) -> None:  # noqa: F811 (the fixture)
    sa = pair.child()
    pair.a.put(udp_packet(A, B))
    await until(lambda: any(isinstance(notice, Acquire) for notice in pair.a.notices))
    pair.b.engine.install(facing(sa), outbound=False)
    pair.a.engine.install(sa)
    assert await arrived(pair.b, 1) == [udp_packet(A, B)]
    await until(lambda: PeerSends("t", 0x2002) in pair.b.notices)
