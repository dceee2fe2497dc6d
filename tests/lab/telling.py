"""What a demonstration says to the person who watches it."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

from tests.lab.vpnd import Vpnd

console = Console(highlight=False, width=min(Console().width, 100) if sys.stdout.isatty() else 100)


def step(title: str) -> None:
    """Say what comes next."""
    console.print(f"[bold cyan]==[/] [bold]{title}[/]")


def show(command: str, output: str) -> None:
    """A command and its output, indented."""
    console.print(Text(f"    $ {command}", style="bold"))
    for line in output.strip("\n").splitlines():
        console.print(Text(f"    {line.rstrip()}"), soft_wrap=True)
    console.print()


def vpnctl(gateway: Vpnd, tunnel: str, *arguments: str) -> None:
    """Run vpnctl and show what the operator would see; where it fails, also why this tunnel does."""
    done = gateway.vpnctl(*arguments, check=False)
    show(f"vpnctl {' '.join(arguments)}", done.stdout + done.stderr)
    if done.returncode != 0:
        show(f"vpnctl why {tunnel}", gateway.vpnctl("why", tunnel, check=False).stdout)
        sys.exit(f"vpnctl {arguments[0]} failed with exit code {done.returncode}")
