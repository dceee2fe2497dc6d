"""The order of a start: the tunnels, the API, and the word to the service manager."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.unit.control.fakes import FakeOperations
from tests.unit.daemon.fakes import FakeClock
from vpnd import __version__
from vpnd.control.listening import ApiSocket
from vpnd.control.tokens import Tokens
from vpnd.daemon import run
from vpnd.daemon.events.journal import Journal
from vpnd.host.systemd import Supervisor
from vpnd.model.policy import GatewayPolicy, ListenAt
from vpnd.sdk.transport import AsyncTransport

SOON = 60
"""Seconds: the first test that imports the API waits for that, on a machine that does other things."""


class Manager(Supervisor):
    """A service manager that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(None)
        self.told: list[str] = []

    def ready(self, status: str) -> None:
        self.told.append(status)


class Start(run.Start):
    """A start whose tunnels are as slow as the test wants."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.manager = Manager()
        self.client = AsyncTransport(path)
        self.listening = ApiSocket(path)
        self.answering = asyncio.create_task(self.answer(FakeOperations(), self.listening))
        self.reporting = asyncio.create_task(self.report(self.manager, lambda: "2 of 2 tunnels up"))

    async def end(self) -> None:
        """Cancel what runs, wait for it, and close the socket, as `run.run` does."""
        for task in (self.answering, self.reporting):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.listening.close()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    found = Start(tmp_path / "vpnd.sock")
    yield found
    await found.end()


async def test_a_client_that_is_early_waits(start: Start) -> None:
    early = asyncio.create_task(start.client.get("/v1/status"))
    await asyncio.sleep(0)
    assert not start.api_answers.is_set()
    start.tunnels_run.set()
    assert (await asyncio.wait_for(early, SOON))["gateway"]["name"] == "hq"


async def test_the_manager_is_told_once_tunnels_and_api_are_there(start: Start) -> None:
    start.tunnels_run.set()
    await asyncio.sleep(0)
    assert start.manager.told == [], "the API does not answer yet"
    await asyncio.wait_for(start.reporting, SOON)
    assert start.manager.told == ["2 of 2 tunnels up"]
    assert start.api_answers.is_set()


async def test_the_api_answers_while_many_tunnels_start(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "HEAD_START", 0.01)
    assert await asyncio.wait_for(start.client.get("/v1/reload"), SOON)
    assert start.manager.told == [], "the tunnels have not started yet"


async def test_garbage_is_looked_for_among_what_comes_later(start: Start) -> None:
    """What the start has made stays: a full collection that went through it would hold the loop up."""
    gc.unfreeze()
    before = gc.get_threshold()
    try:
        start.tunnels_run.set()
        await asyncio.wait_for(start.reporting, SOON)
        assert gc.isenabled()
        assert gc.get_freeze_count() > len(gc.get_objects())
        assert gc.get_threshold() == (*before[:2], run.FULL_COLLECTION)
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


async def test_the_end_may_come_before_the_api(tmp_path: Path) -> None:
    start = Start(tmp_path / "vpnd.sock")
    await asyncio.sleep(0)
    await asyncio.wait_for(start.end(), SOON)
    assert not start.api_answers.is_set()


class Configured:
    """Of a service, what the ports look at."""

    loaded = None

    def __init__(self, at: ListenAt | None) -> None:
        self.policy = GatewayPolicy("hq", ip_address("192.0.2.1"), (), metrics=at)
        self.applied = asyncio.Event()
        self.journal = Journal(FakeClock())

    def texts(self) -> list[str]:
        return [event.text for event in self.journal.events.recent()]


async def test_metrics_are_served_where_the_configuration_says_at_each_moment() -> None:
    at = ListenAt(ip_address(f"127.78.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"), 9150)
    start, service = run.Start(), Configured(None)
    serving = start.serve_ports(FakeOperations(), service, Tokens())  # type: ignore[arg-type] # what is looked at
    exporting = asyncio.create_task(serving)
    start.api_answers.set()

    async def until(said: str) -> None:
        async with asyncio.timeout(SOON):
            while said not in service.texts():  # noqa: ASYNC110 (an event of another task)
                await asyncio.sleep(0.01)

    for metrics in (at, None):
        service.policy = replace(service.policy, metrics=metrics)
        service.applied.set()
        await until(f"metrics are served at {at}" if metrics else "metrics are not served on a port any more")
    exporting.cancel()
    with suppress(asyncio.CancelledError):
        await exporting


@pytest.mark.parametrize(("count", "said"), [(0, "no tunnel"), (1, "1 tunnel"), (2, "2 tunnels")])
def test_the_first_event_says_how_many_tunnels_there_are(count: int, said: str) -> None:
    assert run.greeting(count) == f"vpnd {__version__} starts with {said}"


@pytest.mark.slow
def test_a_reload_that_is_asked_for_during_the_start_does_not_end_it() -> None:
    """By default the signal would end the process, and systemd takes that for a clean end."""
    program = (
        "import os, signal\n"
        "from vpnd.daemon import main\n"
        "def load(*_):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    raise SystemExit(7)\n"
        "main._load = load\n"
        "main.app(['run'])\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 7


async def test_what_was_asked_for_during_the_start_is_done_then() -> None:
    asked = asyncio.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
        run.hear_reloads(asked.set)
        await asyncio.wait_for(asked.wait(), SOON)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
