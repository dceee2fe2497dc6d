"""`make demo SCENARIO=failover`: two tunnels to one site, a running stream, and the primary is cut."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.live import Live
from rich.text import Text

from tests.lab.lab import Lab
from tests.lab.telling import console, show, step, vpnctl
from tests.lab.two_paths import CHECKS, PRIORITIES, Stream, TwoPaths, two_paths

PICTURE = """
   host-a --- hq --- network --+-- primary   --+-- host-b
   10.1.0.2                    +-- secondary --+   10.2.0.2
   hq has a tunnel to each of the two gateways of the other site; both have the route 10.2.0.0/24.
"""
RATE = 100
REFRESH = 0.2
"""Seconds between two looks."""
LOOKS_A_PICTURE = 10
"""Where there is no terminal to draw on, a picture is printed only now and then."""
BARS = " ▁▂▃▄▅▆▇█"
KEPT = 60
"""Looks whose arrivals are drawn."""


def failover(lab: Lab, peer: str) -> None:
    """The primary is cut and mended; the stream goes on, and an operator moves it by hand and back."""
    if peer != "vpnd":
        sys.exit("The failover scenario is shown between vpnd gateways: leave PEER away.")
    console.print(Text(PICTURE))
    step("Making six namespaces and starting three gateways")
    paths = two_paths(lab)
    vpnctl(paths.ours, "primary", "status")
    check = CHECKS["primary"]
    bound = check.failures * check.interval_ms / 1000 + 1
    with Stream(paths, RATE) as stream:
        step(f"A stream of {RATE} datagrams a second from host-a to host-b; => is the tunnel that carries it")
        watch(paths, stream, lambda: False, 4)
        step("The wire to the primary is cut")
        cut_at = time.monotonic()
        with paths.cut("primary"):
            moved = watch(paths, stream, lambda: paths.carrier() == "secondary", 2 * bound)
            watch(paths, stream, lambda: False, 3)
            gap = stream.longest_gap(since=cut_at - 0.5)
            lost = stream.lost
        if moved is None or gap > bound:
            sys.exit(f"the traffic did not move within {bound:g} s:\n{paths.ours.log()[-3000:]}")
        console.print(
            f"    The stream stood still for [bold]{gap:.1f} s[/] (at most {check.failures} probes of "
            f"{check.interval_ms / 1000:g} s and 1 s), {lost} datagrams were lost.\n"
        )
        step("The wire is mended; the traffic returns when the primary has been healthy for a while")
        returned = watch(paths, stream, lambda: paths.carrier() == "primary", 60)
        if returned is None:
            sys.exit("the traffic did not return to the primary")
        watch(paths, stream, lambda: False, 1)
        more = stream.lost - lost
        console.print(f"    Back after {returned:.0f} s; {max(0, more)} datagrams were lost by that.\n")
        step("By hand: to the secondary and back")
        vpnctl(paths.ours, "secondary", "switch", "primary", "secondary")
        watch(paths, stream, lambda: False, 2)
        vpnctl(paths.ours, "primary", "switch", "primary")
        watch(paths, stream, lambda: False, 1)
    sent, lost = len(stream.sent), stream.lost
    console.print(f"    In all {sent} datagrams were sent and {lost} lost, all by the cut.\n")
    step("What the daemon says")
    show("vpnctl events", "\n".join(paths.ours.vpnctl("events").stdout.splitlines()[-9:]))
    vpnctl(paths.ours, "primary", "status")


def watch(paths: TwoPaths, stream: Stream, until: Callable[[], bool], seconds: float) -> float | None:
    """Show what happens until `until()` holds; returns after how many seconds, or None: it never did."""
    began = time.monotonic()
    looks: list[int] = []
    before = len(stream.arrived)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while (passed := time.monotonic() - began) < seconds:
            arrived = len(stream.arrived)
            looks.append(arrived - before)
            before = arrived
            found = until()
            picture = _picture(paths, stream, looks[-KEPT:])
            if console.is_terminal and not found:
                live.update(picture, refresh=True)
            elif found or len(looks) % LOOKS_A_PICTURE == 0:
                console.print(picture)
            if found:
                return passed
            time.sleep(REFRESH)
    return None


def _picture(paths: TwoPaths, stream: Stream, looks: list[int]) -> Text:
    """The stream's last seconds, and a line for each tunnel."""
    full = RATE * REFRESH
    drawn = "".join(BARS[min(len(BARS) - 1, round(count / full * (len(BARS) - 1)))] for count in looks)
    picture = Text(f"    arriving {drawn}|  lost {stream.lost}\n")
    for name in PRIORITIES:
        picture.append_text(_line(paths.ours.tunnel(name)))
    return picture


def _line(tunnel: dict[str, Any]) -> Text:
    health = tunnel["health"]
    rtt = f"rtt {health['rtt_ms']:.1f} ms" if health["rtt_ms"] is not None else ""
    style = {"up": "green", "unhealthy": "bold red"}.get(tunnel["state"], "yellow")
    line = Text("    ")
    line.append(f"{'=>' if tunnel['carries_traffic'] else '  '} {tunnel['name']:<10}", "bold")
    line.append(f" {tunnel['state']:<10}", style)
    line.append(f" priority {tunnel['priority']:<4} {health['sent']} pings, {health['lost']} lost  {rtt}\n")
    return line
