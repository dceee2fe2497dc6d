"""`make bench`: everything that is measured, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import control, crowd, datapath, starts
from bench.datapath import NATIVE, PYTHON
from bench.measure import LOADS
from tests.lab.lab import interruptible
from vpnd.datapath.engines import is_native_installed
from vpnd.model.policy import EngineChoice

PARTS = ("datapath", "setup", "starts", "tunnels")
BUSY = 0.5
DESCRIPTION = f"{__doc__} The whole takes up to 25 minutes on two processors that have nothing else to do."
console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)


def main() -> None:
    """Measure what is asked for; Ctrl-C leaves nothing behind."""
    parser = argparse.ArgumentParser(prog="make bench", description=DESCRIPTION)
    parser.add_argument("--short", action="store_true", help="2 rounds of 1 s each, a few minutes")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each measurement (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="length of a run (default 2)")
    parser.add_argument("--tunnels", type=int, default=crowd.TUNNELS, help="how many (default 1000)")
    parser.add_argument(
        "--engine",
        choices=[choice.value for choice in EngineChoice],
        help="of the many tunnels, this engine alone",
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be repeated")
    for option, choices, what in (
        ("suite", tuple(datapath.SUITES), "suite"),
        ("load", ("ping", *LOADS), "measurement"),
        ("stack", datapath.STACKS, "stack"),
    ):
        words = f"this {what} alone; may be repeated"
        parser.add_argument(f"--{option}", choices=choices, action="append", default=[], help=words)
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="where the figures go")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("The measurements make network namespaces: run `sudo make bench`.")
    if arguments.short:
        arguments.rounds, arguments.seconds = 2, 1
    interruptible()
    try:
        document = run(arguments)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; everything that was made is removed.")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    console.print(f"\nFigures: {arguments.json}")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each part in turn; its table is printed when it is done."""
    parts = arguments.only or PARTS
    if os.getloadavg()[0] > BUSY:
        console.print(
            f"Others use this machine (load {os.getloadavg()[0]:.1f}): the figures will be uneven.\n"
        )
    document: dict[str, Any] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "kernel": platform.release(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        },
        "load_before": os.getloadavg(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    if "datapath" in parts:
        chosen = (
            arguments.suite or datapath.SUITES,
            arguments.load or ("ping", *LOADS),
            arguments.stack or datapath.STACKS,
        )
        found = datapath.measure(console, arguments.rounds, arguments.seconds, *chosen)
        for shown in (*datapath.tables(found), datapath.ping_table(found), datapath.goal_table(found)):
            if shown.row_count:
                console.print()
                console.print(shown)
        document |= found.document()
    if "setup" in parts:
        setups = control.measure_setups(console, seconds=1 if arguments.short else 5)
        document["ikev2_setups"] = setups
    if "starts" in parts:
        console.print()
        document["starts"] = starts.measure(console, arguments.rounds)
    if "tunnels" in parts:
        idle = 15.0 if arguments.short else 30.0
        engines = [NATIVE, PYTHON] if is_native_installed() else [PYTHON]
        document["tunnels"] = {
            engine: crowd.measure(
                console, arguments.tunnels, engine, idle, arguments.rounds, arguments.seconds
            )
            for engine in ([arguments.engine] if arguments.engine else engines)
        }
    return document


if __name__ == "__main__":
    main()
