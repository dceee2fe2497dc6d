"""What every command of `vpnctl` does: ask the daemon, print the answer, end with the right exit code."""

from __future__ import annotations

import io
import json as jsonlib
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from vpnd.control.severity import ERROR, mark

if TYPE_CHECKING:
    from rich.text import Text

    from vpnd.sdk.transport import AsyncTransport

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3

_USAGE_STATUSES = frozenset({400, 404, 405, 413, 422})
"""Answers that mean that the command or the configuration was wrong, not that something failed."""

T = TypeVar("T")


class Session:
    """What every command needs: where the daemon is, and how to print."""

    def __init__(self, socket: Path, json: bool) -> None:
        self.socket = socket
        self.json = json

    def ask(self, call: Callable[[AsyncTransport], Awaitable[T]]) -> T:
        """The answer to several requests; a refusal or an unreachable daemon ends the program."""
        import asyncio

        from vpnd.sdk.transport import AsyncTransport

        with self._or_end():
            return asyncio.run(_answer(call, AsyncTransport(self.socket)))

    def get(self, path: str, can_do_without: bool = False) -> dict[str, Any]:
        """The answer to one request, likewise; it needs no asyncio, and so half the time.

        With `can_do_without` an unreachable daemon raises DaemonUnreachable.
        """
        return self.call("GET", path, can_do_without=can_do_without)

    def post(self, path: str, body: Mapping[str, Any] | None = None, wait_s: float = 0) -> dict[str, Any]:
        """Likewise; `wait_s` is how many seconds the action itself may take."""
        return self.call("POST", path, body, wait_s)

    def delete(self, path: str) -> dict[str, Any]:
        """Likewise."""
        return self.call("DELETE", path)

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        wait_s: float = 0,
        can_do_without: bool = False,
    ) -> dict[str, Any]:
        """Any request, likewise."""
        from vpnd.sdk.transport import Transport

        with self._or_end(can_do_without):
            return Transport(self.socket).call(method, path, body, wait_s)

    @contextmanager
    def _or_end(self, can_do_without: bool = False) -> Iterator[None]:
        from vpnd.sdk.errors import DaemonUnreachable, Refused

        try:
            yield
        except Refused as refusal:
            code = EXIT_USAGE if refusal.status in _USAGE_STATUSES else EXIT_FAILED
            self.fail(dict(refusal.error), code)
        except DaemonUnreachable as unreachable:
            if can_do_without:
                raise
            error = {"code": "E-UNREACHABLE-DAEMON", "message": str(unreachable), "hint": unreachable.hint}
            self.fail(error, EXIT_UNREACHABLE)
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    def show(self, document: Any, lines: Callable[[int], Iterable[Text]]) -> None:
        """The document as JSON, or as lines made for the width of the terminal."""
        if self.json:
            write(jsonlib.dumps(document, indent=2, ensure_ascii=not _utf8()) + "\n")
        else:
            print_lines(lines)

    def note(self, text: str) -> None:
        """Something to read while the answer is not there yet."""
        if not self.json:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def fail(self, error: dict[str, Any], code: int) -> NoReturn:
        """Print the error, as JSON on standard output or as text on standard error, and exit."""
        if self.json:
            write(jsonlib.dumps({"error": error}, indent=2) + "\n")
        else:
            from vpnd.control import render

            print_lines(lambda width: render.error(error), stderr=True)
        raise SystemExit(code)


async def _answer(call: Callable[[AsyncTransport], Awaitable[T]], client: AsyncTransport) -> T:
    return await call(client)


def print_lines(lines: Callable[[int], Iterable[Text]], stderr: bool = False) -> None:
    """What is printed may be copied, and goes on in the next line as the terminal has it; errors by words."""
    from rich.console import Console

    before = mark(ERROR) if stderr else ""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    width = console.width if console.is_terminal else 80
    for line in lines(width):
        console.print(before, line, sep="", soft_wrap=not (stderr and console.is_terminal))


def print_what_fits() -> None:
    """Output that is not UTF-8 gets a `?` for each character that it cannot have, and not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
