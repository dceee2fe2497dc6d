"""`vpnd`: the program. `vpnd run` is the daemon, `vpnd check` validates its configuration.

Each command imports what it needs when it runs: systemd runs all three at every start, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import resource
import signal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vpnd import __version__
from vpnd.config.paths import DEFAULT_CONFIG, DEFAULT_CONSOLE_STATE, DEFAULT_SOCKET, DEFAULT_STATE
from vpnd.control import commandline as typer
from vpnd.control import completion
from vpnd.control.commandline import Commands
from vpnd.control.session import print_what_fits
from vpnd.control.severity import ERROR, WARNING, complain

if TYPE_CHECKING:
    from vpnd.daemon.beginning import Beginning

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2

PR_SET_DUMPABLE = 4

OPEN_FILES = 8192
"""Ours: a descriptor for each tunnel's interface, and as many again."""

EPILOG = """Exit codes: 0 done; 1 it did not work, and the reason is printed; 2 usage or configuration.

Signals to `vpnd run`: SIGHUP applies changed files, all or nothing; SIGTERM closes every tunnel with DELETE.

Files: /etc/vpnd/vpnd.toml and /etc/vpnd/tunnels.d/*.toml hold the tunnels; /var/lib/vpnd/tunnels.d holds
those that `vpnctl add` made. `vpnctl` sees and steers the running daemon."""

app = Commands(
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


ConfigOption = Annotated[Path, typer.Option("--config", metavar="FILE", help="The configuration file.")]
SocketOption = Annotated[
    Path, typer.Option("--socket", metavar="PATH", help="Where the management API listens.")
]
StateOption = Annotated[
    Path, typer.Option("--state", metavar="DIR", help="Where tunnels made through the API are kept.")
]


def main() -> None:
    """The program's entry. Hardly anything of what is imported is garbage: nobody looks for it meanwhile."""
    gc.disable()
    print_what_fits()
    completion.prepare("vpnd")
    app(prog_name="vpnd")


def _version(asked: bool) -> None:
    if asked:
        from vpnd.datapath.engines import is_native_installed

        engine = "native" if is_native_installed() else "python"
        print(f"vpnd {__version__} (engine {engine})")
        raise SystemExit(0)


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A userspace IPsec tunnel daemon."""


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The configuration file.")] = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Validate the configuration and print every problem; exit code 2 on an error."""
    from vpnd.control import check as findings

    raise SystemExit(findings.check(file, as_json))


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    socket: SocketOption = DEFAULT_SOCKET,
    state: StateOption = DEFAULT_STATE,
    log_level: Annotated[
        Level,
        typer.Option(
            "--log-level", metavar="LEVEL", help="How much the log says: debug, info, warning or error."
        ),
    ] = Level.INFO,
) -> None:
    """Run the daemon in the foreground; logs go to stderr."""
    # By default it ends the process, which a service manager takes for a clean end; `hear_reloads` hears it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    _keep_memory_private()
    from vpnd.daemon.events import logs
    from vpnd.daemon.run import run as run_daemon

    beginning = _load(config, state)
    writer = logs.configure(log_level.value)
    try:
        code = asyncio.run(run_daemon(beginning, config, state, socket))
    finally:
        writer.close()
    raise SystemExit(code)


@app.command("init", asks=True)
def init_command(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Ask a few questions and write a first configuration, with its key beside it.

    Each answer is checked as `vpnd check` does. Nothing that exists is changed.
    """
    from vpnd.daemon.init import init

    init(config)


@app.command("console")
def console_command(
    token: Annotated[
        bool, typer.Option("--token", help="Print a new token to sign in with, in place of the last one.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="With --token: one that changes nothing.")
    ] = False,
    listen: Annotated[
        str,
        typer.Option("--listen", metavar="ADDRESS:PORT", help="Where; elsewhere than on loopback with TLS."),
    ] = "127.0.0.1:8642",
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="FILE", help="For TLS: the certificate chain, PEM."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="For TLS: the certificate's key, PEM.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="NAME", help="A name in the browser's address line; may be repeated."),
    ] = None,
    socket: SocketOption = DEFAULT_SOCKET,
    state: Annotated[
        Path, typer.Option("--state", metavar="DIR", help="Where the tokens are kept, as hashes.")
    ] = DEFAULT_CONSOLE_STATE,
) -> None:
    """Serve the web console, or print a token to sign in with.

    It needs the extra vpnd[console], and asks the daemon over its socket like vpnctl.
    """
    from vpnd.console import serve
    from vpnd.console.tokens import Role, TokensUnavailable

    try:
        if token:
            serve.print_token(state, Role.READ if read_only else Role.ADMIN)
        else:
            serve.serve(serve.Options(socket, listen, certificate, key, host or (), state))
    except serve.Unusable as error:
        complain(f"vpnd: {error}\n    {error.hint}")
        raise SystemExit(EXIT_CONFIGURATION) from None
    except TokensUnavailable as error:
        complain(f"vpnd: {error}")
        raise SystemExit(EXIT_FAILED) from None


@app.command("guard")
def guard_command(
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = DEFAULT_STATE,
    remove: Annotated[bool, typer.Option("--remove", help="Take the guard away.")] = False,
) -> None:
    """Set the routes, rules and filter that keep protected traffic in, before the network is up.

    Of a configuration with errors, that of the tunnels that can be read; exit code 2 then.
    """
    from vpnd.config.compile import compile_for_guard
    from vpnd.config.problems import counted
    from vpnd.daemon.guarding import set_guard

    loaded = None if remove else _read(config, state, offline=True).loaded
    tunnels = compile_for_guard(loaded) if loaded is not None else ()
    complete = loaded is None or loaded.ok
    failures = asyncio.run(set_guard(tunnels, remove, complete))
    if not complete:
        read = counted(len(tunnels), "tunnel")
        failures.append(f"the configuration has errors: guarded is what can be read, {read}")
    for text in failures:
        complain(f"vpnd: {text}")
    raise SystemExit((EXIT_FAILED if failures else 0) if complete else EXIT_CONFIGURATION)


def _load(config: Path, state: Path) -> Beginning:
    """What to start with, checked, or the program's end with every error."""
    beginning = _read(config, state)
    if not beginning.loaded.ok:
        raise SystemExit(EXIT_CONFIGURATION)
    return beginning


def _read(config: Path, state: Path, *, offline: bool = False) -> Beginning:
    """What to start with, checked, with every problem printed. `offline`: keys may be missing."""
    from vpnd.config.problems import Severity
    from vpnd.control import check as findings
    from vpnd.daemon.beginning import begin
    from vpnd.host.clock import SystemClock

    beginning = begin(config, state, SystemClock(), offline=offline)
    for problem in beginning.loaded.problems:
        severity = ERROR if problem.severity is Severity.ERROR else WARNING
        complain("\n".join(findings.lines([problem])), severity)
    return beginning


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
