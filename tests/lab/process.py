"""Commands that are run to their end, and children that live until they are stopped by their process id."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

PATIENCE = 60.0
"""Seconds that is waited for what must come: what comes early costs none of them, and a machine may be busy.

It is no bound on how long anything may take: the rows have the figures, and what is asserted is what decided.
"""
LATER, SELDOM = 0.1, 0.25
"""A look comes later by so much of what was waited already, by so many seconds at most."""
STOP_TIMEOUT = 30.0
"""Seconds a child has after SIGTERM before it is killed: vpnd says goodbye to its peers first."""
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class CommandFailed(RuntimeError):
    """A command that had to succeed did not; the text has its output."""


def run(
    command: Sequence[str], *, check: bool = True, timeout: float = 60, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and collect its output. Raises CommandFailed, unless `check` is off."""
    done = subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=timeout,
        check=False,
        env={**os.environ, **env} if env else None,
        start_new_session=True,
    )
    return finished(done, check)


def finished(done: subprocess.CompletedProcess[str], check: bool) -> subprocess.CompletedProcess[str]:
    """What a command has done. Raises CommandFailed if it failed, unless `check` is off."""
    if check and done.returncode != 0:
        raise CommandFailed(
            f"{' '.join(done.args)}: exit {done.returncode}\n{done.stdout}{done.stderr}".rstrip()
        )
    return done


def wait_until(
    condition: Callable[[], bool], what: str, timeout: float = PATIENCE, interval: float = 0.02
) -> None:
    """Poll until the condition holds. Raises TimeoutError, naming what was waited for.

    The longer it takes the less often it looks, for many of the conditions start a program.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > timeout:
            raise TimeoutError(f"waited {timeout} s for {what}")
        time.sleep(max(interval, min(waited * LATER, SELDOM)))


class Process(Protocol):
    """What a child needs of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def send_signal(self, number: signal.Signals) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Child:
    """A process in a session of its own, so that Ctrl-C at the terminal reaches us and not it.

    It dies with us even when we are killed (PR_SET_PDEATHSIG). `log` collects stdout and stderr.
    """

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.log = log
        with log.open("ab") as output:
            self._process = self._begin(output, env)

    def _begin(self, output: IO[bytes], env: Mapping[str, str] | None) -> Process:
        return subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **env} if env else None,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id; the commands in between (ip, setpriv, unshare, sh) replace themselves by exec."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._process.poll()

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout: float) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout)

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """SIGTERM, and SIGKILL when that does not end it; returns the exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL, as when the machine loses power."""
        self.signal(signal.SIGKILL)
        return self._process.wait(STOP_TIMEOUT)

    def cpu_seconds(self) -> float:
        """User and system time that it has used, with all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def resident_bytes(self) -> int:
        """Its resident set size."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_SIZE
