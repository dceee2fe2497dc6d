"""The native engine in the loop's thread: within one turn of the loop it goes on with what is ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.datapath.test_engine import ALL, A, B, Sides
from tests.engines import NATIVE
from tests.unit.datapath.parts import udp_packet


class Readers:
    """A loop that runs nothing by itself: `serve` is one turn for one descriptor."""

    time = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._calls: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = []

    def add_reader(self, descriptor: int, call: Callable[..., None], *arguments: Any) -> None:
        self._calls.append((descriptor, call, arguments))

    def remove_reader(self, descriptor: int) -> None:
        self._calls = [one for one in self._calls if one[0] != descriptor]

    def serve(self, descriptor: int) -> None:
        """Its reader is called."""
        (turn,) = ((call, arguments) for one, call, arguments in self._calls if one == descriptor)
        turn[0](*turn[1])


@pytest.mark.parametrize("raw", [False, True], ids=["udp", "raw"])
def test_one_turn_serves_the_sockets_and_the_tun(raw: bool) -> None:
    """A packet came, and the host has answered: both go on by one call."""
    loop = Readers()
    both = Sides(NATIVE, 4, True, ALL, raw, cast(asyncio.AbstractEventLoop, loop))
    a, b = both.a, both.b
    both.connect()
    to_a, to_b = [udp_packet(B, A, size) for size in (100, 200)], udp_packet(A, B, 300)
    b.put(to_a[0])
    loop.serve(b.tun.fileno())
    a.put(to_b)
    b.put(to_a[1])
    # What is ready at `a` first is its TUN; the packet for it came in before.
    loop.serve(a.tun.fileno())
    assert a.get() == to_a[:1]
    loop.serve(b.tun.fileno())
    assert b.get() == [to_b]
    loop.serve(a.tun.fileno())
    assert a.get() == to_a[1:]
    a.close()
    b.close()
