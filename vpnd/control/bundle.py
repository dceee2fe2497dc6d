"""`vpnctl trace --bundle FILE`: one file for support, after it was shown what it holds."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COMMANDS: Mapping[str, Sequence[str]] = {
    "here/addresses.txt": ("ip", "-details", "-statistics", "address"),
    "here/routes.txt": ("ip", "route", "show", "table", "all"),
    "here/routes6.txt": ("ip", "-6", "route", "show", "table", "all"),
    "here/rules.txt": ("ip", "rule"),
    "here/rules6.txt": ("ip", "-6", "rule"),
    "here/nftables.txt": ("nft", "list", "ruleset"),
    "here/xfrm.txt": ("ip", "xfrm", "policy"),
}
"""What vpnctl reads itself, with the rights of who runs it. `ip xfrm state` would show others' keys."""

FILES = ("/proc/net/snmp", "/proc/net/netstat", "/proc/net/softnet_stat", "/proc/sys/net/ipv4/ip_forward")
"""Counters and switches of this machine's network."""

LONGEST = 4 * 1024 * 1024
"""Ours: bytes that are taken of one command's output."""

ANSWER_WITHIN = 10.0
"""Ours: seconds for one command."""

PLACES = "/usr/sbin:/usr/bin:/sbin:/bin"


class Unusable(Exception):
    """The file cannot be written: code, message, hint."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def require_new(file: Path) -> None:
    """Raises Unusable for a file that exists, before anything is asked."""
    if os.path.lexists(file):
        raise Unusable("E-EXISTS", f"{file} exists, and is not written over", "name another file")


def gather(document: Mapping[str, Any]) -> dict[str, str]:
    """The daemon's texts, and those of this machine, by their places in the bundle."""
    texts = {str(file["name"]): str(file["text"]) for file in document["files"]}
    for name, command in COMMANDS.items():
        texts[name] = _output(command)
    for path in FILES:
        texts[f"here/{path.removeprefix('/').replace('/', '_')}.txt"] = _content(Path(path))
    return texts


def contents(texts: Mapping[str, str], left_out: Sequence[str]) -> list[str]:
    """What the bundle holds, one line a file, the tunnels in one line each."""
    lines = ["it holds, as text and without a key:"]
    tunnels: dict[str, int] = {}
    for name, text in texts.items():
        first, _, rest = name.partition("/")
        if first == "tunnels":
            tunnel = rest.rpartition("/")[0]
            tunnels[tunnel] = tunnels.get(tunnel, 0) + len(text)
        else:
            lines.append(f"  {_size(len(text)):>7}  {name}")
    for tunnel, size in tunnels.items():
        lines.append(f"  {_size(size):>7}  tunnels/{tunnel}: show, values, why, trace")
    if left_out:
        lines.append(
            f"  no room for {len(left_out)} tunnels: name those that matter, vpnctl trace NAME --bundle"
        )
    return [*lines, "  it has addresses, names, routes and firewall rules of this machine: look at it first"]


def write(file: Path, texts: Mapping[str, str]) -> None:
    """A tar.gz that only its owner reads, and a new one in any case. Raises Unusable."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        require_new(file)
        raise Unusable("E-EXISTS", f"{file} exists, and is not written over", "name another file") from None
    except OSError as error:
        raise Unusable("E-BUNDLE", f"{file} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as out, tarfile.open(fileobj=out, mode="w:gz") as archive:
            now = int(time.time())
            for name, text in texts.items():
                content = text.encode("utf-8", "backslashreplace")
                entry = tarfile.TarInfo(f"vpnd-bundle/{name}")
                entry.size, entry.mtime, entry.mode = len(content), now, 0o600
                archive.addfile(entry, io.BytesIO(content))
    except OSError as error:
        file.unlink(missing_ok=True)
        raise Unusable("E-BUNDLE", f"{file} cannot be written: {error.strerror}") from None


def _output(command: Sequence[str]) -> str:
    program = shutil.which(command[0], path=PLACES)
    shown = " ".join(command)
    if program is None:
        return f"# {shown}: there is no such program\n"
    try:
        done = subprocess.run(  # noqa: S603  # no shell, and nothing in it but our words
            [program, *command[1:]],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=ANSWER_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"# {shown}: {type(error).__name__}\n"
    failed = f"# ended with {done.returncode}\n" if done.returncode else ""
    text = (done.stdout + done.stderr)[:LONGEST].decode("utf-8", "backslashreplace")
    return f"# {shown}\n{failed}{text}"


def _content(path: Path) -> str:
    try:
        return path.read_text("utf-8", "backslashreplace")
    except OSError as error:
        return f"# {path}: {error.strerror}\n"


def _size(count: int) -> str:
    return f"{count} B" if count < 1024 else f"{count / 1024:.0f} KB"
