"""WireGuard in userspace as a pair of gateways: wireguard-go, and the fork of it that Tailscale uses."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from subprocess import CompletedProcess

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from rich.console import Console

from tests.lab.lab import Namespace
from tests.lab.plan import End, Plan
from tests.lab.process import wait_until

MODULES = {
    "wireguard-go": "golang.zx2c4.com/wireguard@v0.0.0-20260522210424-ecfc5a8d5446",
    "tailscale": "github.com/tailscale/wireguard-go@v0.0.0-20250716170648-1d0488a3d7da",
}
"""What `go install` builds, by stack."""
DIRECTORY = Path(__file__).resolve().parent.parent / "build" / "go"
BUILD_TIMEOUT = 600
PORT = 51820
DEVICE = "wg0"


def build(console: Console) -> dict[str, Path]:
    """The programs, built where they are missing; those that cannot be are named in a line, and left out."""
    found = {}
    for name, module in MODULES.items():
        place = DIRECTORY / module.rpartition("@")[2]
        program = place / module.partition("@")[0].rpartition("/")[2]
        if not program.exists() and (problem := _install(console, module, place)):
            console.print(f"{name}: not measured, {problem}")
            continue
        found[name] = program
    return found


def _install(console: Console, module: str, place: Path) -> str | None:
    """Why it cannot be built, or None if it is."""
    go = shutil.which("go")
    if go is None:
        return "there is no Go toolchain"
    paths = {"GOBIN": place, "GOPATH": DIRECTORY, "GOCACHE": DIRECTORY / "cache"}
    environment = {
        **os.environ,
        **{name: str(path) for name, path in paths.items()},
        "GOFLAGS": "-modcacherw",
    }
    with console.status(f"Building {module}"):
        try:
            done = subprocess.run(
                [go, "install", module],
                capture_output=True, text=True, env=environment, timeout=BUILD_TIMEOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"`go install {module}` took more than {BUILD_TIMEOUT} s"
    if done.returncode != 0:
        return f"`go install {module}`: {(done.stderr.strip().splitlines() or ['it failed'])[-1]}"
    return None


def _key(end: End) -> X25519PrivateKey:
    """A key that both ends can work out: this is a measurement."""
    return X25519PrivateKey.from_private_bytes(hashlib.sha256(end.identity.encode()).digest())


class WireGuard:
    """One process with its device, which has what a plan says of addresses and networks."""

    kind = "wireguard"

    def __init__(self, namespace: Namespace, program: Path) -> None:
        self._namespace = namespace
        # Its socket has a fixed place.
        self._child = namespace.spawn(
            "unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs /run && exec {program} -f {DEVICE}",
            log=f"wireguard-{namespace.label}",
        )  # fmt: skip
        self.pid = self._child.pid
        self._socket = Path(f"/proc/{self.pid}/root/run/wireguard/{DEVICE}.sock")
        wait_until(self._socket.exists, f"the socket of {program.name}")
        namespace.ip("link", "set", DEVICE, "up")

    def add(self, plan: Plan) -> None:
        """Have this tunnel and no other."""
        self._tell(
            f"private_key={_key(plan.local).private_bytes_raw().hex()}",
            f"listen_port={PORT}",
            "replace_peers=true",
            f"public_key={_key(plan.remote).public_key().public_bytes_raw().hex()}",
            f"endpoint={plan.remote.address}:{PORT}",
            *(f"allowed_ip={network}" for network in plan.remote.networks),
        )
        for network in plan.remote.networks:
            self._namespace.ip("route", "replace", network, "dev", DEVICE, "src", plan.local.inside)

    def remove(self, _name: str) -> None:
        """Forget the tunnel."""
        self._tell("replace_peers=true")

    def up(self, name: str, timeout: float = 10) -> CompletedProcess[str]:
        """Nothing: the first packet makes the handshake."""
        return CompletedProcess(["up", name], 0, "", "")

    def cpu_seconds(self) -> float:
        """CPU time of the process."""
        return self._child.cpu_seconds()

    def _tell(self, *lines: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
            there.connect(str(self._socket))
            there.sendall("\n".join(("set=1", *lines, "", "")).encode())
            answer = there.makefile().readline()
        if answer.strip() != "errno=0":
            raise RuntimeError(f"{DEVICE} at {self._namespace.label} refuses its tunnel: {answer.strip()}")
