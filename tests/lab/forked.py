"""`vpnd run` as a fork of a process that has imported it already.

A start of the program is a second of processor time, nearly all of it for imports, and a run of the tests
has more than a hundred. The fork calls `vpnd.daemon.main.main` with the same arguments, in its network
namespace and a session of its own. Tests of the start itself, `make demo` and `make bench` start the program.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.lab import counting
from tests.lab.process import Child

IMPORTED = [
    "tests.lab.counted",
    "pydantic.v1",  # by FastAPI, at its first route
    "vpnd.config.load",
    "vpnd.control.api",
    "vpnd.control.check",
    "vpnd.control.server",
    "vpnd.daemon.events.logs",
    "vpnd.daemon.main",
    "vpnd.daemon.run",
]
"""What `vpnd run` imports sooner or later."""
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(IMPORTED)


class Forked(Child):
    """The `main` of a module in a network namespace, by its path; it dies with us, as every child does."""

    def __init__(self, command: Sequence[str], log: Path, namespace: Path) -> None:
        """`command` is the name of the module, and what follows in `sys.argv`."""
        self._namespace = namespace
        super().__init__(command, log)

    def _begin(self, output: IO[bytes], env: Mapping[str, str] | None) -> _Process:
        return _Process(self.command, self.log, self._namespace)


class _Process:
    """A forked process, with those methods of `subprocess.Popen` that a child needs."""

    def __init__(self, command: list[str], log: Path, namespace: Path) -> None:
        arguments = (command, log, namespace, dict(os.environ), os.getcwd())
        self._process = _context.Process(target=_become, args=arguments, daemon=True)
        self._process.start()
        if self._process.pid is None:
            raise RuntimeError("a process that was started has no process id")
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("vpnd", timeout or 0)
        return code


def _become(
    command: list[str], log: Path, namespace: Path, environment: dict[str, str], directory: str
) -> None:
    """In the forked process: what `ip netns exec` and `setpriv` do for a program, and then `main`."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    if libc.setns(there, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    for descriptor in (output, nothing, there):
        os.close(descriptor)
    sys.argv = command
    try:
        importlib.import_module(command[0]).main()
    finally:
        counting.save()
