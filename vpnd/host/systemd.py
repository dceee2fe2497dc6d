"""What the service manager is sent (sd_notify(3)); nothing where there is none."""

from __future__ import annotations

import os
import socket
import time


class Supervisor:
    """Datagrams to `$NOTIFY_SOCKET`. Never blocks and never raises: a daemon outlives its supervisor."""

    def __init__(self, address: str | None, watchdog_usec: int | None = None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._socket: socket.socket | None = None
        self.watchdog_interval = watchdog_usec / 2_000_000 if watchdog_usec else None
        """Seconds between two signs of life: half of what the manager allows; None: it asks for none."""
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
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={usec}", "STATUS=Applying the changed files")

    def stopping(self) -> None:
        """The end begins."""
        self._send("STOPPING=1", "STATUS=Closing the tunnels")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """The loop turns."""
        self._send("WATCHDOG=1")

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
