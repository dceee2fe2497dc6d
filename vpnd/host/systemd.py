"""What the service manager is sent (sd_notify(3)); nothing where there is none."""

from __future__ import annotations

import os
import socket
import time

EXTENSION = 120
"""Ours, in seconds: how long the manager shall go on waiting for a start, a reload or a stop that goes on."""

SIGN_OF_LIFE = 15.0
"""Ours, in seconds: between two signs of life where the manager has no watchdog; far below `EXTENSION`."""


class Supervisor:
    """Datagrams to `$NOTIFY_SOCKET`. Never blocks and never raises: a daemon outlives its supervisor."""

    def __init__(self, address: str | None, watchdog_usec: int | None = None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._socket: socket.socket | None = None
        self.interval = min(watchdog_usec / 2_000_000 if watchdog_usec else SIGN_OF_LIFE, SIGN_OF_LIFE)
        """Seconds between two signs of life: at most half of what the manager's watchdog allows."""
        self._awaited = True
        """Whether the manager waits for the end of something: the start comes first."""
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls) -> Supervisor:
        """As systemd started this process; the variables are taken out, so that no child repeats them."""
        address = os.environ.pop("NOTIFY_SOCKET", None)
        usec, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        return cls(address, int(usec) if usec.isdigit() and ours else None)

    def ready(self, status: str) -> None:
        """The start, or a reload, is complete."""
        self._awaited = False
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._awaited = True
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={usec}", "STATUS=Applying the changed files")

    def stopping(self) -> None:
        """The end begins."""
        self._awaited = True
        self._send("STOPPING=1", "STATUS=Closing the tunnels")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """The loop turns; what the manager waits for may take longer than it allows, but is not stuck."""
        more = (f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000}",) if self._awaited else ()
        self._send("WATCHDOG=1", *more)

    def close(self) -> None:
        """Nothing more is said."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is None or self._address is None:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:
            # The manager is away or its buffer is full; it will hear the next line.
            return
