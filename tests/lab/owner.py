"""Who made a namespace or a directory: the name carries its run, so that a later one knows what to remove."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

PREFIX = "vpnd-lab"
NAMESPACES = Path("/run/netns")
OWNED = re.compile(rf"^{PREFIX}-(?P<pid>\d+)-(?P<started>\d+)-")


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), field 22), or None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def own_prefix() -> str:
    """The beginning of every name that this process gives."""
    return f"{PREFIX}-{os.getpid()}-{start_time(os.getpid())}-"


def is_abandoned(name: str) -> bool:
    """Whether a name is one of ours and its run is over: no process with that id and that start time."""
    owned = OWNED.match(name)
    return owned is not None and start_time(int(owned["pid"])) != int(owned["started"])


def owned_namespaces() -> list[str]:
    """Every namespace that any run of the laboratory made."""
    if not NAMESPACES.is_dir():
        return []
    return sorted(path.name for path in NAMESPACES.iterdir() if OWNED.match(path.name))


def owned_directories() -> list[Path]:
    """Every directory that any run of the laboratory made."""
    return sorted(path for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*") if OWNED.match(path.name))


def delete_namespace(name: str) -> None:
    """End the processes in a namespace of ours and delete it; its interfaces and routes go with it."""
    listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
    for pid in listed.stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def reap() -> list[str]:
    """Remove what runs that are over left behind, and say what that was."""
    removed = []
    for name in filter(is_abandoned, owned_namespaces()):
        delete_namespace(name)
        removed.append(f"namespace {name}")
    for path in owned_directories():
        if is_abandoned(path.name):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(f"directory {path}")
    return removed
