"""What a check says, and what it may look at."""

from __future__ import annotations

import ctypes
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from vpnd.control.doctor import asking

Json = Mapping[str, Any]

PLACES = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs may be; what the environment says does not matter."""

ANSWER_WITHIN = 10.0
"""Ours: seconds for one program."""

TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronized."""


class Verdict(StrEnum):
    """How a check went."""

    GOOD = "good"
    NOTE = "note"
    """To look at, or to compare with the other side."""
    BAD = "bad"
    UNKNOWN = "unknown"
    """It could not be found out; the text says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what it was, its verdict, what was found, and what to do next."""

    check: str
    verdict: Verdict
    text: str
    next: str | None = None

    def document(self) -> dict[str, Any]:
        """As --json prints it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Subject:
    """What the daemon says of one tunnel: itself, its keys, its trace, and every other one."""

    tunnel: Json
    keys: Json
    trace: Sequence[Json]
    others: Sequence[Json]

    @property
    def peer(self) -> str | None:
        """The peer's address, once it is known."""
        address = self.tunnel["peer"]["address"]
        return str(address) if address else None

    @property
    def is_up(self) -> bool:
        """Whether it has an IKE SA."""
        return self.tunnel["ike"] is not None

    def total(self, key: str) -> int:
        """The sum over the mappings, of `packets_in` for example."""
        return sum(int(mapping[key]) for mapping in self.tunnel["mappings"])


class Machine(Protocol):
    """This machine, as checks look at it."""

    def run(self, *command: str) -> str | None:
        """What a program prints; None where there is none, or where it failed."""

    def read(self, path: str) -> str | None:
        """The text of a file; None where it cannot be read."""

    def resolve(self, name: str) -> list[str]:
        """The addresses of a name. Raises OSError."""

    def ask(self, address: str, port: int) -> str | None:
        """Send an IKE message that asks for nothing: None if it is answered, else what happened."""

    def synchronized(self) -> bool | None:
        """Whether the clock is; None where the kernel does not say."""

    def now(self) -> float:
        """Seconds since 1970, by the clock."""


class ThisMachine:
    """The one that vpnctl runs on."""

    def run(self, *command: str) -> str | None:
        """What a program prints; None where there is none, or where it failed."""
        program = shutil.which(command[0], path=PLACES)
        if program is None:
            return None
        try:
            done = subprocess.run(  # noqa: S603  # no shell; the words are ours, and addresses
                [program, *command[1:]],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="backslashreplace",
                timeout=ANSWER_WITHIN,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    def read(self, path: str) -> str | None:
        """The text of a file; None where it cannot be read."""
        try:
            return Path(path).read_text(errors="backslashreplace").strip()
        except OSError:
            return None

    def resolve(self, name: str) -> list[str]:
        """The addresses of a name. Raises OSError."""
        found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def ask(self, address: str, port: int) -> str | None:
        """Send an IKE message that asks for nothing: None if it is answered, else what happened."""
        return asking.ask(address, port)

    def synchronized(self) -> bool | None:
        """Whether the clock is, by adjtimex(2), which reads with an empty request."""
        try:
            state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024)))
        except (OSError, AttributeError):
            return None
        return state != TIME_ERROR if state >= 0 else None

    def now(self) -> float:
        """Seconds since 1970, by the clock."""
        return time.time()


def as_json(text: str | None) -> list[Json]:
    """What a program says with `-json`; nothing where it says nothing."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
