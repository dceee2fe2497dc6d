"""Names are looked up in threads that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from vpnd.host import resolver
from vpnd.host.resolver import NotResolved, Resolver
from vpnd.model.selectors import parse_address

STUCK = 300.0
"""Seconds that name servers which do not answer hold a look-up up: longer than any test waits."""
BRIEFLY = 0.2
"""Seconds until a look-up that nobody answers is given up."""
PATIENTLY = 60.0
"""The same where an answer is due, however busy the machine is."""
AGAIN = 100
"""Look-ups until an answer that the name servers have by now must be there."""


class NameServers:
    """Stands for the C library: answers `known`, and is silent for `STUCK` seconds about all else."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.held: set[str] = set()
        """The names whose question is out without an answer."""
        self.end = threading.Event()

    def getaddrinfo(self, name: str, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(name)
        if name not in self.known:
            self.held.add(name)
            self.end.wait(STUCK)
            self.held.discard(name)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(0, 0, 0, "", (address, 0)) for address in self.known[name]]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServers]:
    servers = NameServers()
    monkeypatch.setattr(socket, "getaddrinfo", servers.getaddrinfo)
    monkeypatch.setattr(resolver, "LOOKUP_LIMIT", BRIEFLY)
    yield servers
    servers.end.set()
    # The next test counts the threads.
    for thread in threading.enumerate():
        if thread.name.startswith("resolve "):
            thread.join(PATIENTLY)


@pytest.fixture
def patient(servers: NameServers, monkeypatch: pytest.MonkeyPatch) -> NameServers:
    """The same for a test in which an answer must come in time."""
    monkeypatch.setattr(resolver, "LOOKUP_LIMIT", PATIENTLY)
    return servers


async def held(name: str, servers: NameServers) -> None:
    """Wait until the name servers have the question."""
    while name not in servers.held:  # noqa: ASYNC110 (a thread gets there)
        await asyncio.sleep(0.001)


def threads(begin: str) -> int:
    """How many there are whose names begin so."""
    return sum(thread.name.startswith(begin) for thread in threading.enumerate())


def test_addresses_of_the_wanted_version_come_first(patient: NameServers) -> None:
    patient.known["both.example"] = ["2001:db8::1", "192.0.2.1", "2001:db8::1", "192.0.2.2"]
    found = asyncio.run(Resolver().addresses_of("both.example", 4))
    assert found == tuple(map(parse_address, ("192.0.2.1", "192.0.2.2", "2001:db8::1")))


def test_silent_name_servers_hold_up_neither_other_names_nor_the_end(
    servers: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.known["good.example"] = ["192.0.2.7"]

    async def several() -> tuple[Any, Any, Any]:
        names = Resolver()
        stuck = [asyncio.create_task(names.addresses_of("stuck.example", 4)) for _ in range(2)]
        await held("stuck.example", servers)
        monkeypatch.setattr(resolver, "LOOKUP_LIMIT", PATIENTLY)
        good = await names.addresses_of("good.example", 4)
        first, second = await asyncio.gather(*stuck, return_exceptions=True)
        return first, second, good

    first, second, good = asyncio.run(several())
    assert servers.held == {"stuck.example"}, "the end has waited for the name servers"
    assert isinstance(first, NotResolved)
    assert isinstance(second, NotResolved)
    assert "no answer from the name servers" in str(first.diagnosis)
    assert good == (parse_address("192.0.2.7"),)
    assert servers.asked.count("stuck.example") == 1


def test_no_more_threads_than_there_is_room_for(servers: NameServers) -> None:
    names = Resolver()

    async def many() -> int:
        wanted = [f"stuck{number}.example" for number in range(3 * resolver.AT_ONCE)]
        await asyncio.gather(*(names.addresses_of(n, 4) for n in wanted), return_exceptions=True)
        return threads("resolve stuck")

    assert asyncio.run(many()) == resolver.AT_ONCE


def test_a_name_that_failed_is_asked_for_again(servers: NameServers, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Resolver()

    async def twice() -> object:
        with pytest.raises(NotResolved):
            await names.addresses_of("late.example", 4)
        servers.end.set()
        servers.known["late.example"] = ["192.0.2.9"]
        while threads("resolve late.example"):  # noqa: ASYNC110 (a thread ends)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)  # the loop has its answer
        monkeypatch.setattr(resolver, "LOOKUP_LIMIT", PATIENTLY)
        return await names.addresses_of("late.example", 4)

    assert asyncio.run(twice()) == (parse_address("192.0.2.9"),)


def test_name_servers_that_answer_again_are_not_waited_for_by_an_old_question(servers: NameServers) -> None:
    async def ask_twice() -> object:
        names = Resolver()
        with pytest.raises(NotResolved):
            await names.addresses_of("late.example", 4)
        await held("late.example", servers)
        servers.known["late.example"] = ["192.0.2.8"]
        # The old question may be a moment too young yet, and a busy machine gives a thread no time at once.
        for _ in range(AGAIN):
            with contextlib.suppress(NotResolved):
                return await names.addresses_of("late.example", 4)
        pytest.fail("it is not asked again")

    assert asyncio.run(ask_twice()) == (parse_address("192.0.2.8"),)
    assert servers.held == {"late.example"}, "the old question has been waited for"
    assert servers.asked[:2] == ["late.example"] * 2


def test_no_more_threads_is_the_failure_of_one_look_up(
    patient: NameServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.known["good.example"] = ["192.0.2.7"]
    names = Resolver()

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def often() -> tuple[Any, ...]:
        with monkeypatch.context() as limited:
            limited.setattr(threading.Thread, "start", refused)
            for _ in range(2 * resolver.AT_ONCE):
                with pytest.raises(NotResolved) as failure:
                    await names.addresses_of("good.example", 4)
                assert "thread" in str(failure.value.diagnosis)
        return await names.addresses_of("good.example", 4)

    assert asyncio.run(often()) == (parse_address("192.0.2.7"),)
