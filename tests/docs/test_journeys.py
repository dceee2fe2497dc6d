"""The journeys of the README, measured: each function on the way, and how many calls are in each other.

`sys.setprofile` sees each call. When the function at the end of a journey is called, the frames of vpnd that
it is in are the journey; each row of the README's table has to be among them, in its order, and the number of
calls that the README gives has to be theirs.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import FrameType

import pytest

from tests.architecture.code import ROOT
from tests.datapath.test_engine import ALL, A, B, Sides, arrived
from tests.engines import PYTHON
from tests.unit.daemon.pairs import PROVED, Pair, with_pair
from tests.unit.datapath.parts import udp_packet
from tests.unit.host.test_ike_socket import free_port
from vpnd.host.ike_socket import IkeSocket

VPND = f"{ROOT / 'vpnd'}/"
RESPOND = "vpnd/ike/v2/exchanges/informational.py respond"
RETRANSMIT = "vpnd/ike/v2/life.py retransmit"
SEND = "vpnd/daemon/upkeep/addresses.py Addresses.send"
LOOK = "vpnd/daemon/gateway.py Gateway._look_at_traffic"
TUNNELS = "vpnd/tunnel/tunnels.py Tunnels.handle_timeout"
SELECTION = "vpnd/tunnel/route_selection.py RouteSelection.handle_timeout"
APPLY = "vpnd/daemon/gateway.py Gateway.apply"


class Journey(list[str]):
    """`path function` of each call below, the outermost first."""

    def __str__(self) -> str:
        return "\n".join(f"{number:3} {one}" for number, one in enumerate(self, 1))


@contextmanager
def to(*ends: str) -> Iterator[dict[str, Journey]]:
    """By each of these functions (`path function`): the way to its first call."""
    names = {end.rpartition(".")[2].rpartition(" ")[2] for end in ends}
    found: dict[str, Journey] = {}

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name in names:
            end = place(frame)
            if end in ends and end not in found:
                found[end] = way(frame)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(before)


def place(frame: FrameType) -> str | None:
    """`path function` of a call, None for one that is not vpnd's."""
    name = frame.f_code.co_filename
    return f"{Path(name).relative_to(ROOT)} {frame.f_code.co_qualname}" if name.startswith(VPND) else None


def way(frame: FrameType | None) -> Journey:
    """The calls of vpnd that this one is in."""
    found = Journey()
    while frame is not None:
        if (here := place(frame)) is not None:
            found.append(here)
        frame = frame.f_back
    found.reverse()
    return found


def told(title: str) -> tuple[list[str], list[int]]:
    """What the README has below a title: the functions of the table, and the numbers of calls."""
    text = (ROOT / "README.md").read_text()
    section = re.split(r"\n\*\*|\n#", text[text.index(f"**{title}**") + 2 :])[0]
    named = [
        f"{path} {function}" for path, function in re.findall(r"`(vpnd/[\w/]+\.py)` `([\w.]+)`", section)
    ]
    return named, [int(number) for number in re.findall(r"(\d+) calls", section)]


def compare(title: str, *ways: Journey, counted: Sequence[Journey] | None = None) -> None:
    """The README's rows are on these ways, in their order, and its numbers are the lengths of `counted`."""
    named, numbers = told(title)
    measured = "\n\n".join(map(str, ways))
    assert numbers == [len(one) for one in (ways if counted is None else counted)], measured
    steps = iter([step for one in ways for step in one])
    assert [name for name in named if name not in steps] == [], measured


@pytest.fixture
async def sides() -> AsyncIterator[Sides]:
    made = Sides(PYTHON, 4, vnet_header=False, features=ALL)
    made.connect()
    yield made
    made.a.close()
    made.b.close()


async def from_the_socket() -> Journey:
    """The way from a readable socket of IKE to who takes the message."""
    taken: list[Journey] = []
    here, port = ip_address("127.0.0.1"), free_port(4)
    read = IkeSocket(
        here, 0, lambda *_: taken.append(way(inspect.currentframe())), lambda *_: None, port=port
    )
    await read.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"IKE", (str(here), port))
        async with asyncio.timeout(60):
            while not taken:  # noqa: ASYNC110 (loopback: it is soon)
                await asyncio.sleep(0)
    read.close()
    return taken[0]


async def up(pair: Pair) -> None:
    """Both ends are up, and nothing is under way any more."""
    pair.configure({"t": ""}, {"t": 'negotiation = "passive"'})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    await asyncio.sleep(PROVED)


def test_an_ike_datagram_comes_in(tmp_path: Path) -> None:
    found: dict[str, Journey] = {}

    @with_pair
    async def journey(pair: Pair) -> None:
        await up(pair)
        with pair.hq.service.gateway.input("a command", "t") as now:
            pair.hq.service.gateway.endpoint.probe(now, "t")
        with to(RESPOND, SEND) as ways:
            await pair.until(lambda: SEND in ways)
        found.update(ways)

    journey(tmp_path=tmp_path)
    read = asyncio.run(from_the_socket())
    there = Journey([*read, *found[RESPOND]])
    sent = found[SEND]
    begins = next(index for index, one in enumerate(sent) if one.endswith(" Gateway.input"))
    back = Journey([*sent[begins:], "vpnd/host/ike_socket.py IkeSocket.send"])
    assert sent[:begins] == there[len(read) : len(read) + begins]
    compare("An IKE datagram comes in", there, back)


def test_time_passes(tmp_path: Path) -> None:
    found: dict[str, Journey] = {}
    ends = (LOOK, RETRANSMIT, TUNNELS, SELECTION)

    @with_pair
    async def journey(pair: Pair) -> None:
        await up(pair)
        pair.wire.cut = True
        with to(*ends) as ways:
            await pair.until(lambda: RETRANSMIT in ways)
        with to(APPLY) as last:
            await pair.until(lambda: bool(last))
        found.update(ways | last)

    journey(tmp_path=tmp_path)
    ways = [found[end] for end in (*ends, APPLY)]
    compare("Time passes", *ways, counted=ways[1:2])


async def test_a_packet_goes_out(sides: Sides) -> None:
    ends = (
        "vpnd/datapath/outbound.py Outbound._choose",
        "vpnd/datapath/esp.py _AeadSealer.seal",
        "vpnd/datapath/sockets.py UdpSocket.send_run",
    )
    with to(*ends) as found:
        sides.a.put(udp_packet(A, B))
        await arrived(sides.b, 1)
    ways = [found[end] for end in ends]
    compare("A packet goes out", *ways, counted=ways[-1:])


async def test_a_packet_comes_in(sides: Sides) -> None:
    ends = (
        "vpnd/datapath/esp.py _AeadOpener.open",
        "vpnd/datapath/inbound.py Inbound._admit",
        "vpnd/datapath/coalesce.py Coalescer.write_plain",
    )
    with to(*ends) as found:
        sides.a.put(udp_packet(A, B))
        await arrived(sides.b, 1)
    ways = [found[end] for end in ends]
    compare("A packet comes in", *ways, counted=ways[-1:])
