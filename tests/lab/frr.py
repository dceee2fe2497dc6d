"""FRR's zebra and bgpd (Debian's `frr`) in a namespace, with files and sockets of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.lab.lab import Namespace, write
from tests.lab.process import run, wait_until

DAEMONS = Path("/usr/lib/frr")
USER = "frr"
HOLD = 9
"""Seconds of silence after which bgpd gives a session up: three of its keepalives."""

CONFIGURATION = """
hostname {label}
router bgp {number}
 bgp router-id {local}
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor {remote} remote-as {remote_number}
 neighbor {remote} timers {keepalive} {hold}
 neighbor {remote} timers connect 1
 address-family ipv4 unicast
  network {network}
 exit-address-family
"""


def is_installed() -> bool:
    """Whether this machine has them: `apt-get install frr`, with no daemon started."""
    return (DAEMONS / "bgpd").exists() and shutil.which("vtysh") is not None


class Frr:
    """One router that speaks BGP with one neighbour on an interface, and announces one network to it."""

    def __init__(
        self, namespace: Namespace, local: str, remote: str, numbers: tuple[int, int], network: str
    ) -> None:
        self.namespace, self.remote = namespace, remote
        self.directory = namespace.lab.directory / f"frr-{namespace.label}"
        self.directory.mkdir()
        # The daemons leave root behind, and the laboratory's directory is root's alone.
        for directory in (self.directory, *self.directory.parents[:1]):
            directory.chmod(0o755)
        shutil.chown(self.directory, USER, USER)
        text = CONFIGURATION.format(
            label=namespace.label,
            number=numbers[0],
            remote_number=numbers[1],
            local=local,
            remote=remote,
            keepalive=HOLD // 3,
            hold=HOLD,
            network=network,
        )
        for daemon in ("zebra", "bgpd"):
            own = text if daemon == "bgpd" else f"hostname {namespace.label}\n"
            path = write(self.directory / f"{daemon}.conf", own, mode=0o640)
            shutil.chown(path, USER, USER)
            options = ["-f", str(path), "-i", str(self.directory / f"{daemon}.pid")]
            options += ["-z", str(self.directory / "zserv.api"), "--vty_socket", str(self.directory)]
            options += ["-u", USER, "-g", USER, "-P", "0", "--log", "stdout"]
            if daemon == "bgpd":
                options += ["-p", "179", "-l", local]
            namespace.spawn(str(DAEMONS / daemon), *options, log=f"frr-{namespace.label}/{daemon}.log")
            wait_until(lambda name=daemon: (self.directory / f"{name}.vty").exists(), f"{daemon} to listen")  # type: ignore[misc]  # a default binds the value of this turn

    def ask(self, command: str) -> Any:
        """What `show COMMAND json` says."""
        arguments = ["vtysh", "--vty_socket", str(self.directory), "-d", "bgpd", "-c", f"show {command} json"]
        return json.loads(run(arguments).stdout)

    def neighbour(self) -> dict[str, Any]:
        """The session with the neighbour, as bgpd counts it."""
        found: dict[str, Any] = self.ask(f"bgp neighbors {self.remote}")[self.remote]
        return found
