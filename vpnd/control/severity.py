"""What a line on standard error is worth: systemd's journal reads that from its beginning (sd-daemon(3))."""

from __future__ import annotations

import os
import sys
from typing import TextIO

ERROR, WARNING, INFO, DEBUG = 3, 4, 6, 7
"""Those of syslog (RFC 5424 section 6.2.1)."""


def in_journal(stream: TextIO) -> bool:
    """Whether the journal reads this stream: systemd names its device and inode in $JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def mark(severity: int) -> str:
    """What a line of this severity begins with on standard error: nothing, unless the journal reads it."""
    return f"<{severity}>" if in_journal(sys.stderr) else ""


def complain(text: str, severity: int = ERROR) -> None:
    """Write these lines to standard error."""
    before = mark(severity)
    sys.stderr.write("".join(f"{before}{line}\n" for line in text.splitlines()))
    sys.stderr.flush()
