"""`make demo`: two gateways, a tunnel between them, real traffic through it, and nothing left afterwards."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from tests.lab.capture import Capture
from tests.lab.demo_failover import failover
from tests.lab.lab import Lab, interruptible
from tests.lab.owner import is_abandoned, own_prefix, owned_directories, owned_namespaces
from tests.lab.plan import A, B, Gateway, Plan
from tests.lab.strongswan import CHARON
from tests.lab.telling import console, show, step, vpnctl
from tests.lab.topology import Wire, start, two_gateways
from tests.lab.traffic import Transfer, require_ping, transfer
from tests.lab.vpnd import Vpnd

PICTURE = """
   10.1.0.1  hq ({ours})                    branch ({peer})  10.2.0.1
             192.0.2.1 ------------------------- 192.0.2.2
"""
PLAN = Plan(name="branch", routed=True, negotiation="active")
TRANSFER_SIZE = 128 << 20
INTERRUPTED = 130


def main() -> None:
    """Run one scenario; exit code 0 when everything in it was seen to work."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--peer", choices=("vpnd", "strongswan"), default="vpnd")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="tunnel")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("The demo makes network namespaces: run `sudo make demo`.")
    if arguments.peer == "strongswan" and not (os.path.exists(CHARON) and shutil.which("swanctl")):
        sys.exit("strongSwan is not installed: run `sudo make setup`.")
    interruptible()
    began = time.monotonic()
    try:
        with Lab() as lab:
            SCENARIOS[arguments.scenario](lab, arguments.peer)
            step("Closing the tunnel and removing everything")
    except KeyboardInterrupt:
        console.print("\nInterrupted. Everything that the demo had made is removed.")
        sys.exit(INTERRUPTED)
    finally:
        require_nothing_left()
    console.print(
        f"\n[bold green]Done[/] in {time.monotonic() - began:.0f} s; "
        "no namespace, interface, route, rule or process is left."
    )


def tunnel(lab: Lab, peer: str) -> None:
    """A tunnel comes up, says how, carries pings and a transfer, and hides them on the wire."""
    console.print(Text(PICTURE.format(ours="vpnd", peer="vpnd" if peer == "vpnd" else "strongSwan")))
    step("Making two network namespaces with a wire between them")
    wire = two_gateways(lab)
    step("Starting the gateways")
    hq = Vpnd(wire.a.gateway, A.address, name="hq")
    branch = start(peer, wire.b.gateway, B.address)
    branch.add(PLAN.other().change(negotiation="passive"))
    hq.add(PLAN)

    step("Bringing the tunnel up")
    vpnctl(hq, PLAN.name, "up", PLAN.name)
    step("How the two agreed")
    vpnctl(hq, PLAN.name, "trace", PLAN.name)
    if branch.kind == "strongswan":
        step("What strongSwan says")
        show("swanctl --list-sas", branch.swanctl("--list-sas").stdout)  # type: ignore[attr-defined]  # a peer of the kind strongSwan

    step("Through the tunnel: ping, and a transfer by TCP")
    ping = require_ping(wire.a.host, A.inside, B.inside, count=3)
    show(f"ping -c 3 {B.inside}", ping.text.replace("\n\n", "\n"))
    on_the_wire(wire, hq, branch)
    step("The tunnel now")
    vpnctl(hq, PLAN.name, "status")


def on_the_wire(wire: Wire, hq: Vpnd, branch: Gateway) -> None:
    """Transfer, and look at the packets in between."""
    before = hq.cpu_seconds(), branch.cpu_seconds()
    moved = transfer_with_progress(wire)
    used = hq.cpu_seconds() - before[0], branch.cpu_seconds() - before[1]
    console.print(
        f"    {moved.size >> 20} MB in {moved.seconds:.1f} s: [bold]{moved.megabits:.0f} Mbit/s[/], "
        f"SHA-256 equal on both sides; CPU {used[0]:.1f} s (hq), {used[1]:.1f} s (branch)"
    )
    step("The same on the wire between the gateways: nothing but ESP")
    with Capture(wire.b.gateway) as path:
        require_ping(wire.a.host, A.inside, B.inside, count=1)
    read = wire.b.gateway.run("tcpdump", "-n", "-t", "-c", "2", "-r", str(path), "udp port 4500 or esp")
    show("tcpdump -n -i eth0", read.stdout)


def transfer_with_progress(wire: Wire) -> Transfer:
    """One TCP transfer from hq to branch, with a bar to watch."""
    columns = (
        TextColumn("   "),
        BarColumn(40),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("transfer", total=TRANSFER_SIZE)
        return transfer(
            wire.a.host,
            A.inside,
            wire.b.host,
            B.inside,
            TRANSFER_SIZE,
            lambda count: progress.update(task, completed=count),
        )


SCENARIOS: dict[str, Callable[[Lab, str], None]] = {"tunnel": tunnel, "failover": failover}


def require_nothing_left() -> None:
    """Look for what this run or an abandoned one left behind; exit code 1 if there is anything."""
    mine = own_prefix()
    names = [*owned_namespaces(), *(path.name for path in owned_directories())]
    left = [name for name in names if name.startswith(mine) or is_abandoned(name)]
    if left:
        sys.exit(f"left behind: {', '.join(left)}")


if __name__ == "__main__":
    main()
