"""`vpnd run`: the daemon put together, until it has to stop.

The tunnels begin first. The API's socket is there from the first moment on, and its clients wait until what
answers them is imported, which takes about as long as everything before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vpnd import __version__
from vpnd.config.problems import counted
from vpnd.control.listening import ApiSocket, PortUnavailable, SocketUnavailable
from vpnd.control.operations import OperationError, Operations
from vpnd.control.severity import complain
from vpnd.control.tokens import Tokens
from vpnd.crypto.entropy import OsEntropy
from vpnd.daemon.beginning import Beginning
from vpnd.daemon.commits import Commits
from vpnd.daemon.events.journal import Journal
from vpnd.daemon.events.recorder import Recorder
from vpnd.daemon.kept_reasons import KeptReasons
from vpnd.daemon.known_keys import KnownKeys
from vpnd.daemon.operator import Operator
from vpnd.daemon.service import Service
from vpnd.daemon.upkeep.addresses import OnDatagram, OnUnreachable
from vpnd.datapath.engines import EngineUnavailable, choose
from vpnd.datapath.interface import EngineOptions, SocketOptions
from vpnd.host import single_instance
from vpnd.host.clock import SystemClock
from vpnd.host.host import LinuxHost
from vpnd.host.ike_socket import IkeSocket
from vpnd.host.monitor import Monitor
from vpnd.host.routes import MARK
from vpnd.host.single_instance import AnotherRuns
from vpnd.host.systemd import Supervisor
from vpnd.model.policy import EngineChoice, ListenAt
from vpnd.model.selectors import Address

if TYPE_CHECKING:
    from vpnd.control.server import ApiServer

EXIT_FAILED = 1

FULL_COLLECTION = 2
"""Ours: collections of the middle generation until the oldest is looked through as well, instead of ten. What
a flood of first messages begins lives just long enough to get there, and 10 MB of it waited."""

PORT_AGAIN = 30.0
"""Ours, in seconds: another program may leave a port meanwhile."""

ENGINE_OPTIONS = EngineOptions(sockets=SocketOptions(mark=MARK))

HEAD_START = 1.0
"""Ours, in seconds: what the tunnels have for themselves. Hundreds take longer, and an operator asks then."""


async def run(beginning: Beginning, config: Path, state: Path, socket: Path) -> int:
    """The daemon, until it has to stop. Returns the exit code."""
    loop = asyncio.get_running_loop()
    supervisor = Supervisor.from_environment()
    clock = SystemClock()
    journal = Journal(clock, recorder=Recorder(state, first=int(clock.wall().timestamp() * 1000)))
    host = LinuxHost()
    try:
        new_engine = choose(_engine_choice(beginning))
        alone = single_instance.acquire()
        listening = ApiSocket(socket)
    except (EngineUnavailable, AnotherRuns, SocketUnavailable) as failure:
        complain(f"vpnd: {failure}")
        await host.close()
        return EXIT_FAILED
    service = Service(
        clock=clock,
        entropy=OsEntropy(),
        host=host,
        make_engine=lambda on_ike, on_notice: new_engine(loop, (), on_ike, on_notice, ENGINE_OPTIONS),
        make_watch=lambda on_change: Monitor(loop, on_change),
        open_port=open_port,
        journal=journal,
        supervisor=supervisor,
    )
    operator = Operator(service, config, state, supervisor)
    known_keys = KnownKeys(state, service)
    known_keys.restore(beginning.loaded.configuration.tunnels)
    tokens = Tokens(state)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    reloads: set[asyncio.Task[None]] = set()
    hear_reloads(partial(_reload_soon, operator, reloads))
    journal.event(None, "starting", greeting(len(beginning.loaded.configuration.tunnels)))
    living_on = asyncio.create_task(show_life(supervisor))
    start = Start()
    answering = asyncio.create_task(start.answer(operator, listening, tokens))
    living = asyncio.create_task(_live(service, operator.commits, beginning, start.tunnels_run))
    telling = asyncio.create_task(start.report(supervisor, service.summary))
    keeping = asyncio.create_task(known_keys.keep())
    serving = asyncio.create_task(start.serve_ports(operator, service, tokens))
    reasons = KeptReasons(service, operator.why, state)
    explaining = asyncio.create_task(reasons.watch())
    try:
        await _first(stopping.wait(), answering, living)
    finally:
        supervisor.stopping()
        journal.event(None, "stopping", "closing the tunnels")
        for task in (answering, living, telling, keeping, serving, explaining):
            task.cancel()
        await _stop(operator, service, reasons)
        for task in (answering, keeping, serving):
            with contextlib.suppress(asyncio.CancelledError):
                await task
        listening.close()
        living_on.cancel()
        supervisor.close()
        alone.close()
    return 0 if stopping.is_set() else EXIT_FAILED


def _engine_choice(beginning: Beginning) -> EngineChoice:
    gateway = beginning.loaded.configuration.gateway
    return EngineChoice(gateway.engine) if gateway is not None else EngineChoice.AUTO


async def _stop(operator: Operator, service: Service, reasons: KeptReasons) -> None:
    """The tunnels' last words first: then they are taken down."""
    await reasons.keep()
    await operator.commits.close()
    await service.stop()


def hear_reloads(reload: Callable[[], None]) -> None:
    """SIGHUP reloads from now on, also one that came during the start, for which `main` has held it back."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


async def show_life(supervisor: Supervisor) -> None:
    """Signs of life from the start to the end of the end, since either may be long; until it is cancelled."""
    while True:
        supervisor.alive()
        await asyncio.sleep(supervisor.interval)


def greeting(count: int) -> str:
    """The daemon's first event; `count` is that of its tunnels."""
    tunnels = counted(count, "tunnel") if count else "no tunnel"
    return f"vpnd {__version__} starts with {tunnels}"


def open_port(local: Address, on_datagram: OnDatagram, on_unreachable: OnUnreachable) -> IkeSocket:
    """The IKE port of a local address; what it sends has the mark that keeps it out of the tunnels."""
    return IkeSocket(local, MARK, on_datagram, on_unreachable)


def _reload_soon(operator: Operator, reloads: set[asyncio.Task[None]]) -> None:
    task = asyncio.get_running_loop().create_task(_reload(operator))
    reloads.add(task)
    task.add_done_callback(reloads.discard)


async def _reload(operator: Operator) -> None:
    # The journal has said what is wrong; a signal has nobody to answer to.
    with contextlib.suppress(OperationError):
        await operator.reload()


async def _live(service: Service, commits: Commits, beginning: Beginning, tunnels_run: asyncio.Event) -> None:
    """Start, and go on; ends with an error or not at all."""
    starting = asyncio.create_task(service.start(beginning.loaded))
    await commits.begin(beginning)
    await starting
    commits.watch()
    tunnels_run.set()
    await asyncio.Event().wait()


class Start:
    """The order of a start: the tunnels, then the API, then the word to the service manager."""

    def __init__(self) -> None:
        self.tunnels_run = asyncio.Event()
        """Set by what starts the tunnels, once each runs or is refused."""
        self.api_answers = asyncio.Event()

    async def answer(
        self, operations: Operations, listening: ApiSocket, tokens: Tokens | None = None
    ) -> None:
        """The API, as soon as the tunnels have started or had their time; ends only by an error."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.tunnels_run.wait(), HEAD_START)
        # In a thread, so that datagrams and timers go on meanwhile.
        server = await asyncio.to_thread(_api, operations, listening, tokens)
        # `main` has put it off; from here on the daemon makes garbage. What there is by now stays: to look
        # through all of it would hold the loop up for 50 ms at a time.
        gc.freeze()
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, FULL_COLLECTION)
        gc.enable()
        self.api_answers.set()
        await server.run()

    async def report(self, supervisor: Supervisor, summary: Callable[[], str]) -> None:
        """The service manager counts the start as complete when the tunnels run and the API answers."""
        await self.tunnels_run.wait()
        await self.api_answers.wait()
        supervisor.ready(summary())

    async def serve_ports(self, operations: Operations, service: Service, tokens: Tokens) -> None:
        """Metrics and the API on their TCP ports, also after a change; one that is taken is tried again."""
        await self.api_answers.wait()
        from vpnd.control.exporter import Exporter
        from vpnd.control.remote import Remote, Wanted

        exporter, remote = Exporter(operations), Remote(operations, tokens)
        if tokens.trouble is not None:
            service.journal.event(None, "tokens", f"no token is valid: {tokens.trouble}", "E-STATE")
        try:
            while True:
                service.applied.clear()
                metrics = service.policy.metrics
                api = Wanted.of(service.loaded.configuration) if service.loaded is not None else None
                await _serve(service.journal, "metrics", exporter.listen(metrics), metrics)
                await _serve(service.journal, "api", remote.listen(api), api.at if api is not None else None)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(service.applied.wait(), PORT_AGAIN)
        finally:
            await exporter.close()
            await remote.close()


async def _serve(
    journal: Journal, kind: str, listen: Coroutine[None, None, bool], at: ListenAt | None
) -> None:
    """Let a port be served, and say so where that is news."""
    what = _SERVED[kind]
    try:
        if await listen:
            where = f"served at {at}" if at is not None else "not served on a port any more"
            journal.event(None, kind, f"{what} {where}")
    except PortUnavailable as unavailable:
        journal.warn(None, str(unavailable))


_SERVED = {"metrics": "metrics are", "api": "the API is"}


def _api(operations: Operations, listening: ApiSocket, tokens: Tokens | None) -> ApiServer:
    """What answers; imported here because FastAPI and uvicorn are a third of what there is to import."""
    from vpnd.control.api import create_app
    from vpnd.control.server import ApiServer

    return ApiServer(create_app(operations, tokens), listening)


async def _first(waiting: Coroutine[None, None, object], *tasks: asyncio.Task[None]) -> None:
    """Wait for the first; an error of one of the tasks is raised."""
    signalled = asyncio.create_task(waiting)
    done, _ = await asyncio.wait({signalled, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    for task in done.intersection(tasks):
        task.result()
