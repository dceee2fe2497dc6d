"""Commands to charon over its vici socket: without the start of a program, they come at their moment."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

CMD_REQUEST, CMD_RESPONSE = 0, 1
KEY_VALUE = 3


class Vici:
    """One connection to charon (strongSwan's src/libcharon/plugins/vici/README.md)."""

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def begin(self, command: str, **values: str) -> None:
        """Send a command; `end` waits for its answer."""
        message = b"".join(
            struct.pack("!BB", KEY_VALUE, len(key))
            + key.encode()
            + struct.pack("!H", len(value))
            + value.encode()
            for key, value in values.items()
        )
        request = struct.pack("!BB", CMD_REQUEST, len(command)) + command.encode() + message
        self._socket.sendall(struct.pack("!I", len(request)) + request)

    def end(self) -> bytes:
        """The answer to the command. Raises RuntimeError unless charon says that it was done."""
        (length,) = struct.unpack("!I", self._read(4))
        answer = self._read(length)
        if answer[0] != CMD_RESPONSE or b"success\x00\x03yes" not in answer:
            raise RuntimeError(f"charon: {answer!r}")
        return answer

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            if not more:
                raise ConnectionError("charon has closed the connection")
            data += more
        return data
