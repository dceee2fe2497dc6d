"""Whether a file is still the one that was read: by what the kernel writes down of each change."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

Stamp = bytes
"""Of a file: no change of its content, its owner or its mode leaves it as it was."""

SETTLED = 2 * 10**9
"""Ours, in nanoseconds: longer than the step of any filesystem's times. Two changes within one step leave
the same times, so a file that has changed just now has no stamp yet."""


def stamp_of(status: os.stat_result) -> Stamp | None:
    """What `os.stat` said, before the file is read; None: it has to be read again the next time."""
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    if time.time_ns() - changed < SETTLED:
        return None
    which, when = (status.st_dev, status.st_ino, status.st_size), (status.st_mtime_ns, status.st_ctime_ns)
    return _FIELDS.pack(*which, *when, status.st_mode, status.st_uid)


_FIELDS = struct.Struct("=QQQqqII")
"""In one object: a daemon keeps two stamps for each tunnel."""


def stamp(path: Path | str) -> Stamp | None:
    """That of the file at this path; None also where there is none."""
    try:
        return stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None
