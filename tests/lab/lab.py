"""`Lab`: the one owner of everything that a run makes."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import ClassVar, Self

from tests.lab import owner
from tests.lab.forked import Forked
from tests.lab.process import Child, run

CLONE_NEWNET = 0x40000000
LOG_LINES = 80
"""Of each process, in the report of a failure."""
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One network namespace: a machine of its own, as far as the network goes."""

    def __init__(self, lab: Lab, label: str) -> None:
        self.lab = lab
        self.label = label
        self.name = f"{lab.directory.name}-{label}"
        run(["ip", "netns", "add", self.name])
        # An address is ready at once: nobody else is on these wires.
        for scope in ("all", "default"):
            self.sysctl(f"net.ipv6.conf.{scope}.accept_dad", "0")
        self.ip("link", "set", "lo", "up")

    def run(self, *command: str, check: bool = True, timeout: float = 60) -> CompletedProcess[str]:
        """Run a command in here to its end."""
        return run(["ip", "netns", "exec", self.name, *command], check=check, timeout=timeout)

    def ip(self, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        """`ip` in here."""
        return run(["ip", "-n", self.name, *arguments], check=check)

    def sysctl(self, key: str, value: str) -> None:
        """Set a kernel parameter of this namespace."""
        self.run("sysctl", "-q", "-w", f"{key}={value}")

    def spawn(self, *command: str, log: str, env: Mapping[str, str] | None = None) -> Child:
        """Start a process in here that lives until it is stopped, or until the laboratory closes."""
        guarded = ["ip", "netns", "exec", self.name, "setpriv", "--pdeathsig", "KILL", "--", *command]
        child = Child(guarded, self.lab.directory / log, env)
        self.lab.own(child)
        return child

    def fork(self, *command: str, log: str) -> Child:
        """The same for the `main` of a module, forked from a process that has imported vpnd."""
        child = Forked(command, self.lab.directory / log, owner.NAMESPACES / self.name)
        self.lab.own(child)
        return child

    def add_address(self, address: str, device: str = "lo") -> None:
        """Give an interface an address; `address` with its prefix length."""
        flags = ["nodad"] if ":" in address else []
        self.ip("address", "add", address, "dev", device, *flags)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in the namespace for the length of the block; sockets made in it stay there."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(owner.NAMESPACES / self.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(there)
            os.close(home)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this namespace, held by this process."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    def left_behind(self) -> dict[str, list[str]]:
        """Interfaces, routes and rules beyond those that `Lab` made: what a daemon must take away again."""
        links = [line.split(":")[1].split("@")[0].strip() for line in self._lines("-o", "link", "show")]
        return {
            "interfaces": [name for name in links if name != "lo" and not name.startswith(("eth", "lan"))],
            "routes": [
                line
                for family in ("-4", "-6")
                for line in self._lines(family, "route", "show", "table", "all")
                if not any(word in line for word in (" dev eth", " dev lan", " dev lo "))
            ],
            "rules": [
                line
                for family in ("-4", "-6")
                for line in self._lines(family, "rule", "show")
                if line.split(":")[0] not in ("0", "32766", "32767")
            ],
        }

    def _lines(self, *arguments: str) -> list[str]:
        return self.ip(*arguments).stdout.splitlines()


class Lab:
    """Owns namespaces, processes and one directory; `with Lab() as lab:` removes them all at the end."""

    forks: ClassVar[bool] = False
    """Whether vpnd is a fork (`tests.lab.forked`) where no command is named, as in tests, or the program."""
    engine: ClassVar[str] = "auto"
    """Which engine each vpnd has where nothing else is asked for (`gateway.engine`)."""
    living: ClassVar[list[Lab]] = []
    """Those that are not closed."""
    last_words: ClassVar[list[tuple[str, str]]] = []
    """What there was in one that an error has closed: titles and texts, until the report of it takes them."""

    def __init__(self) -> None:
        owner.reap()
        self._states: list[tuple[str, Callable[[], str]]] = []
        Lab.living.append(self)
        self.directory = Path(tempfile.mkdtemp(prefix=owner.own_prefix()))
        self._namespaces: list[Namespace] = []
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            Lab.last_words += self.findings()
        self.close()

    def namespace(self, label: str) -> Namespace:
        """A new namespace, named after the directory, and so after the run that made it."""
        namespace = Namespace(self, label)
        self._namespaces.append(namespace)
        return namespace

    def own(self, child: Child) -> None:
        """Stop this child when the laboratory closes, before the namespaces go."""
        self._children.append(child)

    def own_state(self, title: str, state: Callable[[], str]) -> None:
        """How to ask a gateway for its state, for the report of a failure."""
        self._states.append((title, state))

    def findings(self) -> list[tuple[str, str]]:
        """The state of each gateway and the end of each log, for the report of a failure."""
        found = []
        for title, state in self._states:
            try:
                found.append((title, state()))
            except Exception as error:  # a gateway that cannot answer is a finding as well
                found.append((title, f"{type(error).__name__}: {error}"))
        for child in self._children:
            ended = "" if child.exit_code is None else f", ended with {child.exit_code}"
            lines = child.output().splitlines()[-LOG_LINES:]
            found.append((f"{child.log.relative_to(self.directory)}{ended}", "\n".join(lines)))
        return found

    def link(self, a: Namespace, b: Namespace, device_a: str = "eth0", device_b: str = "eth0") -> None:
        """A wire between two namespaces."""
        a.ip("link", "add", device_a, "type", "veth", "peer", "name", device_b, "netns", b.name)
        a.ip("link", "set", device_a, "up")
        b.ip("link", "set", device_b, "up")

    def close(self) -> None:
        """Stop the children, newest first, and delete the rest. A second Ctrl-C does not cut this short."""
        if self in Lab.living:
            Lab.living.remove(self)
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        try:
            while self._children:
                self._children.pop().stop()
            while self._namespaces:
                owner.delete_namespace(self._namespaces.pop().name)
            shutil.rmtree(self.directory, ignore_errors=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def interruptible() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP end this process through every `finally`.

    A shell starts its background jobs with SIGINT ignored, and what they start inherits that.
    """

    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    """Write a file with exactly this mode, its directories included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    return path


def stop_all(children: Sequence[Child]) -> list[int]:
    """Stop several children together and return their exit codes."""
    for child in children:
        child.signal(signal.SIGTERM)
    return [child.stop() for child in children]
