"""The API's Unix socket, from the first moment of the daemon on: clients wait there until the server answers.

Who may open the socket may use it: its mode is 0660, its group `vpnd` where that exists.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Protocol

from vpnd.control.places import UNKNOWN_USER
from vpnd.model.policy import ListenAt

SOCKET_GROUP = "vpnd"
SOCKET_MODE = 0o660

BACKLOG = 128
"""Ours: clients that wait to be accepted."""


class Listening(Protocol):
    """What a server answers on."""

    socket: socket.socket

    def close(self) -> None:
        """Listen no more."""


class SocketUnavailable(Exception):
    """The socket cannot be opened: another daemon has it, or the path cannot be used. The text says why."""


class ApiSocket:
    """A socket that listens on `path` as soon as it is made. Raises SocketUnavailable."""

    def __init__(self, path: Path) -> None:
        self.socket = _listen(path)
        self._path = path
        self._inode = path.stat().st_ino

    def close(self) -> None:
        """Listen no more, and remove the socket unless a successor has put its own there."""
        self.socket.close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


class PortUnavailable(Exception):
    """The port cannot be opened; the text says why."""


class Port:
    """A TCP port that listens as soon as it is made; `what` is served there. Raises PortUnavailable."""

    def __init__(self, at: ListenAt, what: str) -> None:
        family = socket.AF_INET6 if at.address.version == 6 else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # The address may come later, as that of an interface that is not up yet (ip(7)).
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            self.socket.bind((str(at.address), at.port))
            self.socket.listen(BACKLOG)
        except OSError as error:
            self.socket.close()
            raise PortUnavailable(f"{what} cannot be served at {at}: {error.strerror or error}") from None

    def close(self) -> None:
        """Listen no more."""
        self.socket.close()


_IP_FREEBIND = 15
"""linux/in.h; it is for IPv6 sockets too. Python's socket module has no name for it."""


def user_of(connection: socket.socket) -> int:
    """The user on the other end of a connection (SO_PEERCRED, unix(7))."""
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return UNKNOWN_USER
    user: int = _CREDENTIALS.unpack(credentials)[1]
    return user


_CREDENTIALS = struct.Struct("iII")
"""struct ucred: process, user, group. A user of another user namespace without a mapping is 65534."""


def _listen(path: Path) -> socket.socket:
    """The listening socket, with its mode and group from the first moment on."""
    _clear_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        make_directory(path.parent)
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        _give_to_group(path)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise SocketUnavailable(f"cannot listen on {path}: {error.strerror or error}") from None
    return listening


def make_directory(directory: Path) -> None:
    """A directory of our own is one that the socket's group can pass, whatever the umask."""
    if not directory.exists():
        directory.mkdir(parents=True)
        directory.chmod(0o755)


def _clear_stale(path: Path) -> None:
    """Remove what a daemon that was killed left behind; refuse if one still answers there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketUnavailable(f"cannot listen on {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise SocketUnavailable(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                raise SocketUnavailable(f"cannot listen on {path}: {error.strerror}") from None
    raise SocketUnavailable(f"another vpnd answers on {path}")


def _give_to_group(path: Path) -> None:
    """To the group `vpnd`, if it exists and we may; otherwise it stays with ours."""
    try:
        group = grp.getgrnam(SOCKET_GROUP).gr_gid
    except KeyError:
        return
    with contextlib.suppress(PermissionError):
        os.chown(path, -1, group)
