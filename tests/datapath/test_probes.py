"""Health probes in the engine: answered at once, sent before all that waits, and everything else as ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest

from tests.datapath.test_engine import ALL, A, B, Sides, arrived, until
from tests.unit.datapath.parts import CBC, facing, udp_packet
from vpnd.datapath.interface import Acquire, Drop
from vpnd.wire.icmp import Echo

OURS, THEIRS = ip_address("169.254.128.1"), ip_address("169.254.128.2")
REQUEST = Echo(OURS, THEIRS, False, 7, 9, b"are you there?")


@pytest.fixture
async def probed(engine: str) -> AsyncIterator[Sides]:
    """Two engines, each told the other's probes; the SAs come in between."""
    both = Sides(engine, 4, True, ALL)
    both.a.engine.answer_probes("t", OURS, THEIRS)
    both.connect()
    both.b.engine.answer_probes("t", THEIRS, OURS)
    yield both
    both.a.close()
    both.b.close()


async def test_a_request_is_answered_without_the_kernel(probed: Sides) -> None:
    probed.a.engine.send_packet("t", REQUEST.encode())
    (reply,) = await arrived(probed.a, 1)
    assert Echo.decode(reply) == REQUEST.answer()
    assert probed.b.get() == []
    stats = probed.b.engine.stats(0x2002)
    assert stats is not None
    assert (stats.packets_in, stats.packets_out) == (1, 1)


async def test_the_answer_passes_an_interruption(probed: Sides) -> None:
    for side in (probed.a, probed.b):
        side.engine.interrupt("t", True, (OURS, THEIRS))
    probed.a.engine.send_packet("t", REQUEST.encode())
    (reply,) = await arrived(probed.a, 1)
    assert Echo.decode(reply) == REQUEST.answer()


async def test_a_later_sa_answers_as_well(probed: Sides) -> None:
    new = probed.child(CBC, 0x1005, 0x2006)
    probed.b.engine.install(facing(new))
    probed.a.engine.install(new)
    probed.a.engine.send_packet("t", REQUEST.encode())
    (reply,) = await arrived(probed.a, 1)
    assert Echo.decode(reply) == REQUEST.answer()


@pytest.mark.parametrize(
    "packet",
    [
        udp_packet(str(OURS), str(THEIRS)),
        udp_packet(A, B),
        Echo(ip_address(A), THEIRS, False, 7, 9).encode(),
        Echo(OURS, ip_address(B), False, 7, 9).encode(),
        Echo(OURS, THEIRS, True, 7, 9).encode(),
    ],
    ids=["no echo", "business", "from another", "to another", "a reply"],
)
async def test_all_else_goes_to_the_kernel(probed: Sides, packet: bytes) -> None:
    probed.a.put(packet)
    assert await arrived(probed.b, 1) == [packet]


async def test_a_request_that_is_damaged_is_dropped(probed: Sides) -> None:
    packet = bytearray(REQUEST.encode())
    packet[-1] ^= 1
    probed.a.engine.send_packet("t", bytes(packet))
    await until(lambda: probed.b.engine.drops("t")[Drop.MALFORMED] == 1)
    assert probed.b.get() == []


async def test_a_packet_without_an_sa_waits_as_any_other(engine: str) -> None:
    both = Sides(engine, 4, True, ALL)
    try:
        both.a.engine.send_packet("t", REQUEST.encode())
        await until(lambda: bool(both.a.notices))
        (notice,) = both.a.notices
        assert isinstance(notice, Acquire)
        both.connect()
        assert await arrived(both.b, 1) == [REQUEST.encode()]
    finally:
        both.a.close()
        both.b.close()
