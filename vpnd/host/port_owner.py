"""Which other program of this machine has a UDP port, where /proc shows it: root sees every one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
PORT, INODE = 1, 9
"""Columns of /proc/net/udp: `ADDRESS:PORT` in hexadecimal, and the inode of the socket."""


def port_owner(port: int, proc: Path = PROC) -> str | None:
    """`charon (pid 812)`; None where nothing has it, or where it is not ours to see."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port, proc)}
    if not sockets:
        return None
    for process in proc.iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid() and _has(process, sockets):
            with suppress(OSError):
                return f"{(process / 'comm').read_text(errors='replace').strip()} (pid {process.name})"
    return None


def _inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("udp", "udp6"):
        with suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if len(fields) > INODE and fields[PORT].endswith(f":{port:04X}"):
                    yield fields[INODE]


def _has(process: Path, sockets: set[str]) -> bool:
    """Whether one of its descriptors is one of these; False for a process that is gone, or another user's."""
    try:
        return any(os.readlink(one) in sockets for one in (process / "fd").iterdir())
    except OSError:
        return False
