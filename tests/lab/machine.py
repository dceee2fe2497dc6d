"""What a test asks of a Debian machine of its own, whether it is emulated or a container."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from subprocess import CompletedProcess
from typing import ClassVar

COMMAND_TIMEOUT = 600.0
"""Seconds for a command, unless it says that it needs more: a machine may be emulated, and its host busy."""
ECHO_WAIT = 30
"""Seconds for the answer to an echo of the machine, for the same reason."""


class Machine(ABC):
    """A Debian with addresses of its own, joined by a wire to a namespace of the laboratory."""

    emulated: ClassVar[bool]
    """Whether its processor is emulated, so that everything takes many times as long."""

    @abstractmethod
    def run(
        self, command: str, check: bool = True, timeout: float = COMMAND_TIMEOUT
    ) -> CompletedProcess[str]:
        """Run a shell command to its end, in `timeout` seconds.

        Raises RuntimeError where it fails and `check` is set, TimeoutError.
        """

    @abstractmethod
    def reboot(self) -> None:
        """Restart the whole system, and wait until it takes commands again. Raises TimeoutError.

        Its disk stays as it is; addresses are what it sets itself.
        """

    @abstractmethod
    def has_apparmor(self) -> bool:
        """Whether it can confine what runs there by AppArmor."""

    def set_addresses(self, address: str, inside: tuple[str, ...]) -> None:
        """`address` with its prefix length is that of the wire, `inside` lie on the loopback."""
        # A packet needs a route before the kernel asks whether a policy has it.
        self.run(f"ip address add {address} dev eth0; ip link set eth0 up; ip route add default dev eth0")
        for one in inside:
            self.run(f"ip address add {one} dev lo")

    def write(self, path: str, text: str) -> None:
        """Write a file there, for root only."""
        encoded = base64.b64encode(text.encode()).decode()
        self.run(f"umask 077; mkdir -p $(dirname {path}); base64 -d <<<{encoded} >{path}")

    def ping(self, source: str, target: str, count: int = 5) -> int:
        """How many of `count` echoes from an inside address of the machine are answered."""
        done = self.run(f"ping -n -q -c {count} -i 0.2 -W {ECHO_WAIT} -I {source} {target}", check=False)
        return int(done.stdout.split(" received")[0].rpartition(" ")[2])
