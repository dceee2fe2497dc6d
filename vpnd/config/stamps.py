"""Whether a file is still the one that was read: by what the kernel writes down of each change."""

from __future__ import annotations

import os
import stat
import struct
import time
from pathlib import Path

Stamp = bytes
"""Of a regular file: no write to it, no change of its owner or its mode leaves it as it was (inode(7))."""

SETTLED = 2 * 10**9
"""Ours, in nanoseconds: longer than the step of any filesystem's times. Two changes within one step leave
the same times, so a file that has changed just now has no stamp yet."""

_FIELDS = struct.Struct("=QQQQQII")
"""In one object: a daemon keeps two stamps for each tunnel."""

_BITS = 0xFFFF_FFFF_FFFF_FFFF
"""Of a time: in nanoseconds some filesystems' years take more."""


def stamp_of(status: os.stat_result) -> Stamp | None:
    """What `os.stat` said, before the file is read; None: it has to be read again the next time."""
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    if not stat.S_ISREG(status.st_mode) or time.time_ns() - changed < SETTLED:
        return None
    which = (status.st_dev, status.st_ino, status.st_size)
    when = (status.st_mtime_ns & _BITS, status.st_ctime_ns & _BITS)
    return _FIELDS.pack(*which, *when, status.st_mode, status.st_uid)


def stamp(path: Path | str) -> Stamp | None:
    """That of the file at this path; None also where there is none."""
    try:
        return stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None
