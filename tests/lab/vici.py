"""charon's vici socket: commands that come at their moment, and what it tells of its own accord."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from select import select
from types import TracebackType
from typing import Any, Self

CMD_REQUEST, CMD_RESPONSE = 0, 1
EVENT_REGISTER, EVENT_CONFIRM, EVENT = 3, 5, 7
SECTION_START, SECTION_END, KEY_VALUE, LIST_START, LIST_ITEM, LIST_END = range(1, 7)


class Vici:
    """One connection to charon (strongSwan's src/libcharon/plugins/vici/README.md)."""

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

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
        self._send(CMD_REQUEST, command, message)

    def end(self) -> bytes:
        """The answer to the command. Raises RuntimeError unless charon says that it was done."""
        answer = self._packet()
        if answer[0] != CMD_RESPONSE or b"success\x00\x03yes" not in answer:
            raise RuntimeError(f"charon: {answer!r}")
        return answer

    def established(self, name: str) -> list[int]:
        """The unique ids of the established IKE SAs of a connection, the oldest first."""
        self.listen("list-sa")
        self.begin("list-sas", ike=name)
        found: list[int] = []
        while (packet := self._packet())[0] == EVENT:
            for sa in _sections(packet[2 + packet[1] :]).values():
                if sa["state"] == "ESTABLISHED":
                    found.append(int(sa["uniqueid"]))
        return sorted(found)

    def listen(self, event: str) -> None:
        """Have charon tell of each such event from now on. Raises RuntimeError if it knows none."""
        self._send(EVENT_REGISTER, event)
        answer = self._packet()
        if answer[0] != EVENT_CONFIRM:
            raise RuntimeError(f"charon: {answer!r}")

    def heard(self) -> Iterator[dict[str, Any]]:
        """What charon has told of since, oldest first, each event as the sections of its message."""
        while select([self._socket], [], [], 0)[0]:
            packet = self._packet()
            if packet[0] != EVENT:
                raise RuntimeError(f"charon: {packet!r}")
            yield _sections(packet[2 + packet[1] :])

    def _send(self, kind: int, name: str, message: bytes = b"") -> None:
        packet = struct.pack("!BB", kind, len(name)) + name.encode() + message
        self._socket.sendall(struct.pack("!I", len(packet)) + packet)

    def _packet(self) -> bytes:
        (length,) = struct.unpack("!I", self._read(4))
        return self._read(length)

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            if not more:
                raise ConnectionError("charon has closed the connection")
            data += more
        return data


def _sections(message: bytes) -> dict[str, Any]:
    """The message as dictionaries, lists and texts."""
    sections: list[dict[str, Any]] = [{}]
    listed: list[str] = []
    rest = BytesIO(message)

    def text(size: int) -> str:
        return rest.read(int.from_bytes(rest.read(size), "big")).decode()

    while element := rest.read(1):
        kind = element[0]
        if kind == SECTION_START:
            sections.append(sections[-1].setdefault(text(1), {}))
        elif kind == SECTION_END:
            sections.pop()
        elif kind == KEY_VALUE:
            key = text(1)
            sections[-1][key] = text(2)
        elif kind == LIST_START:
            listed = sections[-1].setdefault(text(1), [])
        elif kind == LIST_ITEM:
            listed.append(text(2))
        elif kind != LIST_END:
            raise RuntimeError(f"charon: an element of type {kind}")
    return sections[0]
