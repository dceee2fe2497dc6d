"""A daemon on a real Unix socket, with tunnels of the test's choice."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.unit.control.fakes import FakeOperations
from vpnd.control import cli
from vpnd.control.api import create_app
from vpnd.control.commandline import Commands
from vpnd.control.listening import ApiSocket
from vpnd.control.server import ApiServer

ROOT = Path(__file__).parents[3]


@dataclass
class Daemon:
    """A daemon that answers, and what it is made of."""

    socket: Path
    operations: FakeOperations
    task: asyncio.Task[None]


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Daemon]:
    """A daemon that answers on `path` in the running loop, until the block ends."""
    operations = FakeOperations()
    server = ApiServer(create_app(operations), ApiSocket(path))
    task = asyncio.create_task(server.run())
    try:
        yield Daemon(path, operations, task)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Daemon]:
    """One for a whole file of tests: to stop one takes a fifth of a second."""
    async with running(tmp_path_factory.mktemp("daemon") / "vpnd.sock") as found:
        yield found


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Daemon:
    """The daemon of the file, as new."""
    shared_daemon.operations.begin_again()
    return shared_daemon


@dataclass
class Remote:
    """A daemon that answers in a thread, for the tests that run `vpnctl` as a process."""

    socket: Path
    operations: FakeOperations


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """One for a whole file of tests: a process that asks it takes half a second."""
    path = tmp_path_factory.mktemp("remote") / "vpnd.sock"
    ready = threading.Event()
    found: list[Remote] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def run() -> None:
        operations = FakeOperations()
        server = ApiServer(create_app(operations), ApiSocket(path))
        task = asyncio.create_task(server.run())
        stop.append((asyncio.get_running_loop(), task))
        found.append(Remote(path, operations))
        ready.set()
        with suppress(asyncio.CancelledError):
            await task

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(60)
    yield found[0]
    loop, task = stop[0]
    loop.call_soon_threadsafe(task.cancel)
    thread.join(60)


@dataclass(frozen=True)
class Finished:
    """What a program left: exit code and both outputs."""

    code: int
    out: str
    err: str


def vpnctl(*arguments: str, environment: dict[str, str] | None = None) -> Finished:
    """Run the program's commands in this process: a new one takes half a second to start."""
    return called(cli.app, "vpnctl", *arguments, environment=environment)


def called(
    app: Commands, program: str, *arguments: str, environment: dict[str, str] | None = None
) -> Finished:
    """Likewise, of this program."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for key, value in {"COLUMNS": "200", **(environment or {})}.items():
            patch.setenv(key, value)
        try:
            app(list(arguments), prog_name=program)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return Finished(code, out.getvalue(), err.getvalue())


def vpnctl_process(*arguments: str) -> Finished:
    """Run the real program."""
    program = "from vpnd.control.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)
