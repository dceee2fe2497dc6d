"""A child of a warm process: what a mutant does there, and what it leaves behind, ends with it."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

MEMORY = 4 << 30
"""Bytes: a mutant that never stops to collect meets this before the machine does."""
BODY = 1
"""CO_OPTIMIZED: the code of a function, not of a class or a module."""


def in_child(work: Callable[[], Any], output: Path, limit: float) -> Any:
    """What `work` returns in a fork of this process, as JSON.

    None beyond the limit, in seconds, or where an interval timer of the child ran out. A child that ends by
    itself gives `{"ended": how}`.
    """
    output.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _become(work, output)
    deadline = time.monotonic() + limit
    status = None
    while status is None and time.monotonic() < deadline:
        ended, code = os.waitpid(pid, os.WNOHANG)
        status = code if ended else None
        time.sleep(0.002)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if status is None:
        os.waitpid(pid, 0)
        return None
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
        return None
    return json.loads(output.read_text()) if output.exists() else {"ended": f"status {status}"}


def _become(work: Callable[[], Any], output: Path) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(nothing, target)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        found = work()
    except BaseException:
        found = {"ended": traceback.format_exc()[-500:]}
    try:
        partial = output.with_suffix(".partial")
        partial.write_text(json.dumps(found))
        partial.rename(output)
    finally:
        os._exit(0)


def functions_by_file() -> dict[str, list[FunctionType]]:
    """All functions that there are, by the file of their source."""
    found: dict[str, list[FunctionType]] = {}
    for one in gc.get_objects():
        if type(one) is FunctionType:
            found.setdefault(one.__code__.co_filename, []).append(one)
    return found


def exchange(functions: list[FunctionType], path: Path, before: str, after: str) -> bool:
    """Give the functions of an imported module their changed code; False where that cannot show the change.

    So it is for a constant, a default, a decorator or a class body: these have run at import.
    """
    old, new = (compile(source, str(path), "exec", dont_inherit=True) for source in (before, after))
    try:
        pairs = dict(_changed(old, new))
    except ValueError:
        return False
    live = [one for one in functions if one.__code__ in pairs]
    for function in live:
        function.__code__ = pairs[function.__code__]
    return bool(live)


def _changed(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """The functions with a change in themselves or in what they define, outermost first."""
    body = bool(old.co_flags & BODY)
    inner = [[one for one in code.co_consts if isinstance(one, CodeType)] for code in (old, new)]
    if not body and (_bare(old) != _bare(new) or len(inner[0]) != len(inner[1])):
        raise ValueError("a change outside functions")
    if old == new:
        return
    if body:
        if old.co_freevars != new.co_freevars:
            raise ValueError("other variables of an outer function")
        yield old, new
        if _bare(old) != _bare(new):
            return
    for pair in zip(*inner, strict=True):
        yield from _changed(*pair)


def _bare(code: CodeType) -> CodeType:
    constants = tuple(None if isinstance(one, CodeType) else one for one in code.co_consts)
    return code.replace(co_consts=constants)
