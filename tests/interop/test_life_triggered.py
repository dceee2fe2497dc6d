"""A tunnel that waits for traffic: the packets that wake it are not lost on the way."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.interop.conftest import Opposite
from tests.lab.plan import A, B, Plan
from tests.lab.process import PATIENCE, wait_until
from tests.lab.traffic import ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

NAME = "t1"
WAITING_PACKETS = 16
PORT = 7200
TIMES = 3


@pytest.fixture(params=["ikev1", "ikev2"])
def idle(request: pytest.FixtureRequest, opposite: Opposite) -> Iterator[Vpnd]:
    """A tunnel that is configured at both ends and waits."""
    ours, peer = opposite.ours, opposite.peer
    assert isinstance(ours, Vpnd)
    plan = Plan(name=NAME, version=request.param, negotiation="traffic-triggered")
    peer.add(plan.other())
    ours.add(plan)
    try:
        ours.wait_state(NAME, "waiting")
        yield ours
    finally:
        ours.remove(NAME)
        peer.remove(NAME)


def put_to_sleep(ours: Vpnd, opposite: Opposite) -> None:
    """The peer closes the tunnel: it waits for traffic again."""
    opposite.peer.swanctl("--terminate", "--ike", NAME, "--timeout", "3", check=False)
    ours.wait_state(NAME, "waiting")
    wait_until(lambda: not opposite.peer.sas(), "strongSwan to have no SA left")


def test_the_first_ping_is_answered(idle: Vpnd, opposite: Opposite, row: TellRow) -> None:
    answered = 0
    first: list[float] = []
    for _ in range(TIMES):
        result = ping(opposite.wire.a.host, A.inside, B.inside, count=1)
        answered += result.received
        first += result.round_trips_ms
        put_to_sleep(idle, opposite)
    version = idle.get(f"/v1/tunnels/{NAME}")["configuration"]["ike"]["version"]
    row(
        "traffic-triggered against strongSwan",
        version=version,
        sent=f"{TIMES} times one ping",
        arrived=f"{answered} answered",
        **{"longest ms": f"{max(first, default=0):.0f}"},
    )
    assert answered == TIMES


def test_all_that_waits_arrives(idle: Vpnd, opposite: Opposite, row: TellRow) -> None:
    arrived: list[int] = []
    for _ in range(TIMES):
        arrived.append(_burst(opposite))
        put_to_sleep(idle, opposite)
    version = idle.get(f"/v1/tunnels/{NAME}")["configuration"]["ike"]["version"]
    row(
        "traffic-triggered against strongSwan",
        version=version,
        sent=f"{TIMES} times {WAITING_PACKETS} packets",
        arrived=" ".join(map(str, arrived)),
    )
    assert arrived == [WAITING_PACKETS] * TIMES


def _burst(opposite: Opposite) -> int:
    """Send packets at once into the sleeping tunnel; returns how many arrive."""
    wire = opposite.wire
    with (
        wire.b.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        wire.a.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((B.inside, PORT))
        receiver.settimeout(PATIENCE)
        sender.bind((A.inside, 0))
        for number in range(WAITING_PACKETS):
            sender.sendto(bytes((number,)), (B.inside, PORT))
        arrived: set[int] = set()
        try:
            while len(arrived) < WAITING_PACKETS:
                arrived.add(receiver.recv(64)[0])
        except TimeoutError:
            pass
        return len(arrived)
