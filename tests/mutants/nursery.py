"""A process that has imported all but vpnd and its tests: a run of pytest is a fork of it and begins at once.

It reads one job a line: the arguments of pytest, where its output goes, and its limit in seconds. It answers
each with a line: the exit code, or null beyond the limit.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress

import pytest

IMPORTED = (
    "aiohttp", "asyncio_dgram", "cryptography.hazmat.primitives.ciphers.aead", "fastapi",
    "hypothesis.strategies", "prometheus_client", "pydantic", "pyroute2",
    "rich.console", "scapy.all", "structlog", "tomllib", "typer", "uvicorn",
)  # fmt: skip


def main() -> None:
    """Serve until the input ends."""
    for name in IMPORTED:
        with suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(_run(job["arguments"], job["output"], job["limit"])), flush=True)


def _run(arguments: list[str], output: str, limit: float) -> int | None:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
            os.dup2(source, target)
        code = 3
        try:
            code = int(pytest.main(arguments))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return _ended(pid, limit)


def _ended(pid: int, limit: float) -> int | None:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    main()
