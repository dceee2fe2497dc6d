"""Whether a file is still the one that was read: by what the kernel writes down of each change."""

from __future__ import annotations

import os
import time
from pathlib import Path

Stamp = tuple[int, ...]
"""Of a file: no change of its content, its owner or its mode leaves it as it was."""

SETTLED = 2 * 10**9
"""Ours, in nanoseconds: longer than the step of any filesystem's times. Two changes within one step leave
the same times, so a file that has changed just now has no stamp yet."""


def stamp_of(status: os.stat_result) -> Stamp | None:
    """What `os.stat` said, before the file is read; None: it has to be read again the next time."""
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    if time.time_ns() - changed < SETTLED:
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
        status.st_uid,
    )


def stamp(path: Path | str) -> Stamp | None:
    """That of the file at this path; None also where there is none."""
    try:
        return stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None
