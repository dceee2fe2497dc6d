"""One daemon in a network namespace: two would take each other's routes for leftovers."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from vpnd.config.paths import DEFAULT_SOCKET
from vpnd.control.listening import make_directory

DIRECTORY = DEFAULT_SOCKET.parent
"""Only root and the daemon's user can write there, whatever socket the daemon uses."""
THIS_NAMESPACE = Path("/proc/self/ns/net")


class AnotherRuns(Exception):
    """Another vpnd runs in this network namespace, or that cannot be found out; the text says what to do."""


class Instance:
    """The lock of the one daemon; it ends with its process, also when that is killed (flock(2)).

    No other user can take it: the file is its owner's alone, in a directory that others cannot write.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def close(self) -> None:
        """Release the lock."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)


def acquire(directory: Path = DIRECTORY) -> Instance:
    """Take the lock of this network namespace; close it at the end. Raises AnotherRuns."""
    path = directory / f"only-{THIS_NAMESPACE.stat().st_ino}.lock"
    try:
        make_directory(directory)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise AnotherRuns(f"cannot open {path}, which keeps two vpnd apart: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last owner may have removed the file meanwhile, and a third process made it again.
        mine = path.stat().st_ino == os.fstat(descriptor).st_ino
    except OSError:
        mine = False
    if not mine:
        os.close(descriptor)
        raise AnotherRuns("another vpnd runs in this network namespace")
    return Instance(path, descriptor)
