"""`vpnctl pcap`: the stream of a capture, into a new file or to standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from rich.text import Text

from vpnd.control.render import clean
from vpnd.control.session import EXIT_FAILED, Session
from vpnd.sdk.transport import tunnel_path

if TYPE_CHECKING:
    from vpnd.sdk.transport import AsyncTransport

STANDARD_OUTPUT = "-"


def run(session: Session, name: str, file: str, wanted: Mapping[str, Any]) -> None:
    """Capture until it is over, or Ctrl-C; what has come by then is a whole file. Ends with an error."""
    written = 0

    async def read(client: AsyncTransport) -> None:
        nonlocal written
        async with aclosing(client.stream("POST", tunnel_path(name, "capture"), wanted)) as pieces:
            first = await anext(pieces)  # Refused before any file is made.
            with _open(session, file) as out:
                session.note(f"capturing {clean(name)}; Ctrl-C ends it")
                written += _write(out, first)
                async for piece in pieces:
                    written += _write(out, piece)

    try:
        session.ask(read)
    except BrokenPipeError:
        sys.stderr.close()
        return
    except OSError as error:
        _fail(session, f"{file} cannot be written: {error.strerror}", None)
    except SystemExit as ended:
        if ended.code != 130:
            raise
    if file == STANDARD_OUTPUT:
        return
    document = {"tunnel": name, "file": file, "bytes": written}
    session.show(document, lambda width: [Text(f"{clean(file)} is written, {written} bytes")])


def _write(out: BinaryIO, piece: bytes) -> int:
    out.write(piece)
    out.flush()
    return len(piece)


def _open(session: Session, file: str) -> BinaryIO:
    """A file that was not there, which only its owner reads; or standard output, unless it is a terminal."""
    if file == STANDARD_OUTPUT:
        if session.json or sys.stdout.isatty():
            _fail(session, "packets are nothing for this output", "name a file, or pipe it into wireshark")
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        _fail(session, f"{file} exists, and is not written over", "name another file", "E-EXISTS")
    return os.fdopen(descriptor, "wb")


def _fail(session: Session, message: str, hint: str | None, code: str = "E-PCAP") -> NoReturn:
    session.fail({"code": code, "message": message, "hint": hint}, EXIT_FAILED)
