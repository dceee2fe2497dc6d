"""A Debian with a whole systemd under systemd-nspawn: a machine, but for the kernel, which is this box's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Self

from tests.lab import owner
from tests.lab.lab import Namespace
from tests.lab.machine import COMMAND_TIMEOUT, Machine
from tests.lab.process import STOP_TIMEOUT, Child, finished, wait_until

PLACE = Path("build/container")
BUILDER = Path("tests/lab/container.sh")
BOOT_TIMEOUT = 600.0
"""Seconds for all units of a start; it takes 5 on a quiet machine."""
WIRE = "eth0"
INSIDE = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
"""The environment of a command in there: nothing of ours."""
SETTINGS = {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
"""Of /proc/sys only what belongs to its network: the rest is this box's."""


def build() -> None:
    """Make the Debian that is copied, unless it is there. Raises subprocess.CalledProcessError."""
    subprocess.run(["bash", str(BUILDER)], check=True)


class Container(Machine):
    """One machine, joined to a namespace by a wire of its own: `eth0` at both ends.

    Each start has the Debian as it was built. Between two starts the wire's end lies in a namespace of the
    laboratory; at each start systemd-nspawn makes a new network and takes it there.
    """

    emulated = False

    def __init__(self, namespace: Namespace, address: str, inside: tuple[str, ...], files: Path) -> None:
        """Boot it. `files`: a directory whose content it has in /mnt."""
        build()
        lab = namespace.lab
        self._root = lab.directory / f"root-{namespace.label}"
        subprocess.run(["cp", "-a", "--reflink=auto", str(PLACE / "root"), str(self._root)], check=True)
        self._outside = lab.namespace(f"{namespace.label}-container")
        lab.link(namespace, self._outside)
        self._files = files
        self._boot()
        self.set_addresses(address, inside)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it as a machine that loses its power; the laboratory has its files."""
        self._child.stop()
        shutil.rmtree(self._root)

    def _boot(self) -> None:
        # Not by `ip netns exec`, whose own /sys has no control groups. Where /sys cannot be written there is
        # no udev: nothing waits for what it says of the wire.
        there = ["nsenter", f"--net={owner.NAMESPACES / self._outside.name}"]
        apart = ["unshare", "--mount", "sh", "-ec", 'mount -o remount,bind,ro /sys; exec "$@"', "sh"]
        guarded = ["setpriv", "--pdeathsig", "KILL", "--"]
        self._child = Child(
            [
                *there, *apart, *guarded, "systemd-nspawn", "--quiet", "--boot", "--console=pipe",
                "--directory", str(self._root), f"--network-interface={WIRE}",
                "--bind=/dev/net/tun", f"--bind-ro={self._files.absolute()}:/mnt",
                # What systemd needs to keep a unit from devices.
                "--system-call-filter=bpf",
                # There need be no systemd on this box that has a list of machines.
                "--register=no", "--keep-unit",
            ],
            self._root.parent / "container.log",
            SETTINGS,
        )  # fmt: skip
        self._outside.lab.own(self._child)
        wait_until(self._is_started, "the container to start", BOOT_TIMEOUT, interval=0.2)

    def _is_started(self) -> bool:
        """Whether each unit of its start is up, or has failed."""
        if self._child.exit_code is not None:
            raise RuntimeError(f"the container did not start:\n{self._child.output()}")
        if not self._init():
            return False
        state = self.run("systemctl is-system-running 2>/dev/null", check=False).stdout.strip()
        return state in ("running", "degraded")

    def _init(self) -> str:
        """The process id here of the first process there, empty before it is one."""
        children = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return child
        return ""

    def run(
        self, command: str, check: bool = True, timeout: float = COMMAND_TIMEOUT
    ) -> CompletedProcess[str]:
        try:
            done = subprocess.run(
                ["nsenter", "--all", f"--target={self._init()}", "/bin/bash", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                env=INSIDE,
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{command}: {error.output!r}") from None
        return finished(done, check)

    def reboot(self) -> None:
        self.run("systemctl --no-block reboot")
        self._child.wait(STOP_TIMEOUT + BOOT_TIMEOUT)
        self._boot()

    def has_apparmor(self) -> bool:
        return self.run("aa-enabled --quiet", check=False).returncode == 0
