"""Who is served first: sessions at once, then first messages in turns of their addresses."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from vpnd.daemon import intake
from vpnd.daemon.intake import WAITING_IN_ALL, WAITING_OF_ADDRESS, Intake
from vpnd.daemon.loop_lag import BOUNDS, LoopLag
from vpnd.model.child import Path

HERE = ip_address("192.0.2.2")
KNOWN, FIRST = b"known", b"first"


def path(number: int) -> Path:
    return Path(HERE, 500, ip_address(f"192.0.2.{number}"), 500)


class Served:
    """An intake, and what it has served, in order."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self.dropped = 0
        self.intake = Intake(lambda _, data: not data.startswith(KNOWN), self._serve, self._drop)

    def take(self, number: int, data: bytes) -> None:
        self.intake.take(path(number), data)

    def _serve(self, path: Path, data: bytes) -> None:
        self.messages.append((int(path.remote) & 0xFF, data))

    def _drop(self) -> None:
        self.dropped += 1

    async def all(self) -> None:
        while len(self.intake):  # noqa: ASYNC110 (nothing tells of the end)
            await asyncio.sleep(0)


async def test_sessions_come_before_first_messages() -> None:
    served = Served()
    for _ in range(10):
        served.take(1, FIRST)
        served.take(1, KNOWN)
    assert served.messages == [(1, KNOWN)] * 10
    await served.all()
    assert served.messages[10:] == [(1, FIRST)] * 10


async def test_addresses_have_their_turns() -> None:
    """A flood with one address is no queue for another."""
    served = Served()
    for number in range(20):
        served.take(1, FIRST + bytes((number,)))
    served.take(3, FIRST)
    served.take(4, FIRST)
    await served.all()
    assert [number for number, _ in served.messages[:4]] == [1, 3, 4, 1]
    assert [data[-1] for number, data in served.messages if number == 1] == list(range(20))


async def test_the_oldest_of_too_many_is_dropped() -> None:
    served = Served()
    for number in range(WAITING_OF_ADDRESS + 7):
        served.take(1, FIRST + number.to_bytes(2, "big"))
    assert (len(served.intake), served.dropped) == (WAITING_OF_ADDRESS, 7)
    await served.all()
    assert served.messages[0] == (1, FIRST + b"\0\7")


async def test_in_all_the_longest_queue_gives_way() -> None:
    served = Served()
    addresses = WAITING_IN_ALL // WAITING_OF_ADDRESS
    for number in range(1, addresses + 1):
        for _ in range(WAITING_OF_ADDRESS):
            served.take(number, FIRST)
    served.take(200, FIRST)
    assert (len(served.intake), served.dropped) == (WAITING_IN_ALL, 1)
    await served.all()
    assert served.messages.count((200, FIRST)) == 1
    assert served.messages.count((1, FIRST)) == WAITING_OF_ADDRESS - 1


async def test_the_loop_has_its_turn_between_first_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait: with no time for a turn, one message is served in each round of the loop."""
    monkeypatch.setattr(intake, "TURN", 0.0)
    served = Served()
    for _ in range(5):
        served.take(1, FIRST)
    for rounds in range(1, 6):
        await asyncio.sleep(0)
        assert len(served.messages) == rounds


async def test_nothing_is_served_after_the_end() -> None:
    served = Served()
    served.take(1, FIRST)
    served.intake.close()
    await asyncio.sleep(0)
    assert (served.messages, len(served.intake)) == ([], 0)


def test_delays_are_counted_by_their_length() -> None:
    lag = LoopLag()
    for seconds in (-0.001, 0.0005, BOUNDS[0], 0.015, 5.0):
        lag.count(seconds)
    histogram = lag.histogram()
    assert histogram.counts[0] == 3
    assert histogram.counts[BOUNDS.index(0.02)] == 1
    assert histogram.counts[-1] == 1
    assert histogram.total == pytest.approx(5.0165)
