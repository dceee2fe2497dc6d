"""The API's Unix socket, from the first moment of the daemon on: clients wait there until the server answers.

Root, the daemon's own user and members of the socket's group (`vpnd` where that exists) may do everything;
members of `vpnd-read`, and others whom an operator lets open the socket, may look. Its mode is 0660.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
import struct
from functools import cache
from pathlib import Path
from typing import Protocol

from vpnd.control.places import ROOT, UNKNOWN_USER
from vpnd.control.schema import Role
from vpnd.model.policy import ListenAt

SOCKET_GROUP = "vpnd"
READ_GROUP = "vpnd-read"
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
    return _credentials(connection)[0]


def role_of(connection: socket.socket) -> Role:
    """What the process on the other end of a Unix socket may do: it may look, if nothing proves more."""
    user, group = _credentials(connection)
    if user in (ROOT, os.geteuid()):
        return "admin"
    with contextlib.suppress(OSError):
        admins = os.stat(connection.getsockname()).st_gid
        if admins != group_of(READ_GROUP) and admins in {group, *_supplementary(connection)}:
            return "admin"
    return "read"


def _credentials(connection: socket.socket) -> tuple[int, int]:
    """User and group of the process on the other end."""
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return UNKNOWN_USER, UNKNOWN_USER
    _, user, group = _CREDENTIALS.unpack(credentials)
    return user, group


def _supplementary(connection: socket.socket) -> tuple[int, ...]:
    """The process's other groups, as when it connected. Raises OSError, also for more than 256."""
    found = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_OPTION)
    return struct.unpack(f"{len(found) // 4}I", found)


_CREDENTIALS = struct.Struct("iII")
"""struct ucred: process, user, group. A user of another user namespace without a mapping is 65534."""

_SO_PEERGROUPS = 59
"""asm-generic/socket.h, since Linux 4.13; Python's socket module has no name for it."""

_MAX_OPTION = 1024
"""Bytes of a socket option that Python reads."""


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
        _give_to_groups(path)
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


def _give_to_groups(path: Path) -> None:
    """To the group `vpnd`, and by an access list to `vpnd-read`, where they exist and we may."""
    admins, readers = group_of(SOCKET_GROUP), group_of(READ_GROUP)
    if admins is not None:
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, admins)
    if readers is not None:
        # Some file systems have no such lists: then readers are refused, and nothing else changes.
        with contextlib.suppress(OSError):
            os.setxattr(path, "system.posix_acl_access", access_list(readers))


@cache
def group_of(name: str) -> int | None:
    """Its number, as it was when it was first asked for: a directory of users may be slow."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def access_list(group: int) -> bytes:
    """Mode 0660, and the same for one more group, as the kernel has it (acl(5), linux/posix_acl_xattr.h)."""
    owner, owning_group, named_group, mask, others, nobody = 0x01, 0x04, 0x08, 0x10, 0x20, 0xFFFFFFFF
    may, none = 0o6, 0o0
    entries = (
        (owner, may, nobody),
        (owning_group, may, nobody),
        (named_group, may, group),
        (mask, may, nobody),
        (others, none, nobody),
    )
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
