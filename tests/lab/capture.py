"""What is on a wire: tcpdump into a file, and whether anything there should not be."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.lab.lab import Namespace
from tests.lab.process import wait_until

DRAIN = 0.2
"""Seconds for the last packets on their way into the file."""


class Capture:
    """tcpdump on one interface for the length of a `with` block; afterwards `path` holds the pcap."""

    def __init__(self, namespace: Namespace, device: str = "eth0", expression: str = "") -> None:
        self._namespace = namespace
        self._command = ["tcpdump", "-i", device, "-n", "-U", "-s", "0", "-B", "65536", "-Z", "root"]
        # Without it the kernel holds packets back for a second, and at the end tcpdump never sees them.
        self._command.append("--immediate-mode")
        self._expression = expression
        number = len(list(namespace.lab.directory.glob("*.pcap")))
        self.path = namespace.lab.directory / f"{namespace.label}-{device}-{number}.pcap"

    def __enter__(self) -> Path:
        command = [*self._command, "-w", str(self.path)]
        if self._expression:
            command.append(self._expression)
        self._child = self._namespace.spawn(*command, log=f"{self.path.name}.log")
        wait_until(lambda: "listening on" in self._child.output(), "tcpdump to listen")
        return self.path

    def __exit__(self, *exception: object) -> None:
        time.sleep(DRAIN)
        self._child.signal(signal.SIGINT)
        self._child.wait(10)
