"""`vpnd`: the program. `vpnd run` is the daemon, `vpnd check` validates its configuration."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import resource
import signal
from collections.abc import Coroutine, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vpnd import __version__
from vpnd.config.compile import compile_gateway
from vpnd.config.load import DEFAULT_CONFIG, DEFAULT_STATE, Loaded, load
from vpnd.control import check as findings
from vpnd.control.api import create_app
from vpnd.control.operations import OperationError
from vpnd.control.server import DEFAULT_SOCKET, ApiServer, SocketUnavailable
from vpnd.control.session import print_what_fits
from vpnd.crypto.entropy import OsEntropy
from vpnd.daemon import logs
from vpnd.daemon.addresses import OnDatagram, OnUnreachable
from vpnd.daemon.box import BoxFailed, LinuxBox
from vpnd.daemon.clock import SystemClock
from vpnd.daemon.interfaces import inside
from vpnd.daemon.journal import Journal
from vpnd.daemon.monitor import Monitor
from vpnd.daemon.once import AnotherRuns, only_one_here
from vpnd.daemon.operator import Operator
from vpnd.daemon.routes import MARK, Wanted, guard, shield, spared, tables_of
from vpnd.daemon.service import Service
from vpnd.daemon.systemd import Supervisor
from vpnd.daemon.udp import IkeSocket
from vpnd.datapath.engine import EngineOptions, PythonEngine
from vpnd.datapath.sockets import SocketOptions
from vpnd.model.policy import TunnelPolicy
from vpnd.model.selectors import Address

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2

PR_SET_DUMPABLE = 4

OPEN_FILES = 8192
"""Ours: a descriptor for each tunnel's interface, and as many again."""

EPILOG = """Exit codes: 0 done; 1 it did not work, and the reason is printed; 2 usage or configuration.

Signals to `vpnd run`: SIGHUP applies changed files, all or nothing; SIGTERM closes every tunnel with DELETE.

Files: /etc/vpnd/vpnd.toml and /etc/vpnd/tunnels.d/*.toml hold the tunnels; /var/lib/vpnd/tunnels.d holds
those that `vpnctl add` made. `vpnctl` sees and steers the running daemon."""

app = typer.Typer(
    epilog=EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


class Level(StrEnum):
    """How much the log says."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


ConfigOption = Annotated[Path, typer.Option("--config", help="The configuration file.")]
SocketOption = Annotated[Path, typer.Option("--socket", help="Where the management API listens.")]
StateOption = Annotated[Path, typer.Option("--state", help="Where tunnels made through the API are kept.")]


def main() -> None:
    """The program's entry."""
    print_what_fits()
    app(prog_name="vpnd")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"vpnd {__version__} (engine python)")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A userspace IPsec tunnel daemon."""


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The configuration file.")] = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Validate the configuration and print every problem; exit code 2 on an error."""
    raise typer.Exit(findings.check(file, as_json))


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = DEFAULT_SOCKET,
    state: StateOption = DEFAULT_STATE,
    log_level: Annotated[Level, typer.Option("--log-level", help="How much the log says.")] = Level.INFO,
) -> None:
    """Run the daemon in the foreground; logs go to stderr."""
    _keep_memory_private()
    loaded = _load(config, state)
    writer = logs.configure(log_level.value)
    try:
        code = asyncio.run(_run(loaded, config, state, socket))
    finally:
        writer.close()
    raise typer.Exit(code)


@app.command("guard")
def guard_command(
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    remove: Annotated[bool, typer.Option("--remove", help="Take the guard away.")] = False,
) -> None:
    """Set the routes, rules and filter that keep protected traffic in, before the network is up."""
    tunnels = () if remove else compile_gateway(_load(config, state, offline=True)).tunnels
    failures = asyncio.run(_set_guard(tunnels, remove))
    for text in failures:
        typer.echo(f"vpnd: {text}", err=True)
    raise typer.Exit(EXIT_FAILED if failures else 0)


async def _set_guard(tunnels: Sequence[TunnelPolicy], remove: bool) -> list[str]:
    """Add the guard, or take it away; what a running daemon has besides it stays.

    Returns what could not be done, which keeps nothing else from being done: blackholes without a filter
    still keep everything in.
    """
    box = LinuxBox()
    failures: list[str] = []
    try:
        set_routes = partial(_set_routes, box, tunnels, remove, failures)
        for part in (set_routes, partial(box.shield, shield(tunnels))):
            try:
                await part()
            except BoxFailed as failure:
                failures.append(str(failure))
    finally:
        await box.close()
    return failures


async def _set_routes(
    box: LinuxBox, tunnels: Sequence[TunnelPolicy], remove: bool, failures: list[str]
) -> None:
    """The guard's blackholes and rules. Raises BoxFailed."""
    present = await box.present()
    if remove:
        wanted = Wanted(frozenset(route for route in present.routes if route.device is not None))
    else:
        wanted = present | guard(tunnels, tables_of(tunnel.name for tunnel in tunnels))
        try:
            wanted |= spared(tunnels, await inside(box, tunnels))
        except BoxFailed as failure:
            failures.append(str(failure))
    failures += await box.reconcile(wanted)


def _load(config: Path, state: Path, *, offline: bool = False) -> Loaded:
    """The checked configuration, or the program's end with every error. `offline`: keys may be missing."""
    loaded = load(config, state, offline=offline)
    for line in findings.lines(loaded.problems):
        typer.echo(line, err=True)
    if not loaded.ok:
        raise typer.Exit(EXIT_CONFIGURATION)
    return loaded


async def _run(loaded: Loaded, config: Path, state: Path, socket: Path) -> int:
    """The daemon, until it is told to stop. Returns the exit code."""
    loop = asyncio.get_running_loop()
    supervisor = Supervisor.from_environment()
    clock = SystemClock()
    journal = Journal(clock)
    box = LinuxBox()
    options = EngineOptions(sockets=SocketOptions(mark=MARK))
    service = Service(
        clock=clock,
        entropy=OsEntropy(),
        box=box,
        make_engine=lambda on_ike, on_notice: PythonEngine(loop, (), on_ike, on_notice, options),
        make_watch=lambda on_change: Monitor(loop, on_change),
        open_port=_open_port,
        journal=journal,
        supervisor=supervisor,
    )
    operator = Operator(service, config, state, supervisor)
    server = ApiServer(create_app(operator), socket)
    try:
        alone = only_one_here()
        server.open()
    except (AnotherRuns, SocketUnavailable) as failure:
        typer.echo(f"vpnd: {failure}", err=True)
        await box.close()
        return EXIT_FAILED
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    reloads: set[asyncio.Task[None]] = set()
    loop.add_signal_handler(signal.SIGHUP, partial(_reload_soon, operator, reloads))
    journal.event(
        None, "starting", f"vpnd {__version__} starts with {len(loaded.configuration.tunnels)} tunnels"
    )
    living = asyncio.create_task(_live(service, loaded, supervisor))
    answering = asyncio.create_task(server.run())
    try:
        await _first(stopping.wait(), answering, living)
    finally:
        supervisor.stopping()
        journal.event(None, "stopping", "closing the tunnels")
        answering.cancel()
        living.cancel()
        await service.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await answering
        supervisor.close()
        alone.close()
    return 0 if stopping.is_set() else EXIT_FAILED


def _open_port(local: Address, on_datagram: OnDatagram, on_unreachable: OnUnreachable) -> IkeSocket:
    return IkeSocket(local, MARK, on_datagram, on_unreachable)


def _reload_soon(operator: Operator, reloads: set[asyncio.Task[None]]) -> None:
    task = asyncio.get_running_loop().create_task(_reload(operator))
    reloads.add(task)
    task.add_done_callback(reloads.discard)


async def _reload(operator: Operator) -> None:
    # The journal has said what is wrong; a signal has nobody to answer to.
    with contextlib.suppress(OperationError):
        await operator.reload()


async def _live(service: Service, loaded: Loaded, supervisor: Supervisor) -> None:
    """Start, while the API answers already, and go on; ends with an error or not at all."""
    await service.start(loaded)
    supervisor.ready(service.summary())
    await asyncio.Event().wait()


async def _first(waiting: Coroutine[None, None, object], *tasks: asyncio.Task[None]) -> None:
    """Wait for the first; an error of one of the tasks is raised."""
    signalled = asyncio.create_task(waiting)
    done, _ = await asyncio.wait({signalled, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    for task in done.intersection(tasks):
        task.result()


def _keep_memory_private() -> None:
    """No core dump and no debugger of the same user: keys are in this process's memory."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(OPEN_FILES, hard)), hard))


if __name__ == "__main__":
    main()
