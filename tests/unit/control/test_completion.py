"""What a shell is offered for the name of a tunnel."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer._completion_classes import BashComplete

from vpnd.control.cli import app
from vpnd.sdk.transport import AsyncTransport

TUNNELS = {"tunnels": [{"name": "branch"}, {"name": "bridge"}, {"name": "hq"}]}
COMMANDS = typer.main.get_command(app.for_typer()).commands  # type: ignore[attr-defined]  # it is a group
NAMED = [
    (name, [parameter.metavar for parameter in command.params].index(parameter.metavar))
    for name, command in COMMANDS.items()
    for parameter in command.params
    if parameter.param_type_name == "argument" and parameter.metavar in ("NAME", "[NAME]", "GROUP")
]
"""Commands, and the place of each of their arguments that is a tunnel's name."""


CASES = [([command, *["hq"] * place], place + 2) for command, place in NAMED]


@pytest.mark.parametrize(("words", "current"), [*CASES, (["events", "--tunnel"], 3)])
def test_every_name_of_a_tunnel_is_completed(
    words: list[str], current: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(self: AsyncTransport, path: str) -> dict[str, Any]:
        return TUNNELS

    monkeypatch.setattr(AsyncTransport, "get", answer)
    monkeypatch.setenv("COMP_WORDS", " ".join(["vpnctl", *words, "br"]))
    monkeypatch.setenv("COMP_CWORD", str(current))
    shell = BashComplete(typer.main.get_command(app.for_typer()), {}, "vpnctl", "_VPNCTL_COMPLETE")
    assert shell.complete().split() == ["branch", "bridge"]


def test_these_commands_are_looked_at() -> None:
    assert {"up", "down", "reset", "rekey", "why", "trace", "switch", "remove"} <= {name for name, _ in NAMED}
