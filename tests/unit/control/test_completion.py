"""What a shell is offered for the name of a tunnel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import typer
from typer._completion_classes import BashComplete

from vpnd.config.paths import DEFAULT_SOCKET
from vpnd.control import completion
from vpnd.control.cli import app
from vpnd.sdk.errors import DaemonUnreachable
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


AWAY = DaemonUnreachable(DEFAULT_SOCKET, "nothing listens there", "systemctl status vpnd")
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


@pytest.mark.parametrize("error", [AWAY, TimeoutError()], ids=["away", "slow"])
def test_without_an_answer_nothing_is_offered(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: AsyncTransport, path: str) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(AsyncTransport, "get", fail)
    assert completed("vpnctl up br") == []


def test_nobody_waits_long_for_a_daemon_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(self: AsyncTransport, path: str) -> dict[str, Any]:
        await asyncio.sleep(60)
        return TUNNELS

    monkeypatch.setattr(AsyncTransport, "get", sleep)
    monkeypatch.setattr(completion, "PATIENCE", 0.01)
    assert completed("vpnctl up br") == []


def test_the_socket_that_is_named_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    class Noted(AsyncTransport):
        def __init__(self, socket: Path) -> None:
            asked.append(socket)

        async def get(self, path: str, *rest: Any, **more: Any) -> Any:
            return TUNNELS

    monkeypatch.setattr("vpnd.sdk.transport.AsyncTransport", Noted)
    assert completed("vpnctl --socket /run/other.sock up h") == ["hq"]
    assert completed("vpnctl up h") == ["hq"]
    assert asked == [Path("/run/other.sock"), DEFAULT_SOCKET]


def test_the_products_of_peer_config_are_completed() -> None:
    assert completed("vpnctl peer-config hq --for strong") == ["strongswan"]
    assert completion.peer_kinds("no such") == []


def completed(line: str) -> list[str]:
    """What a shell offers at the end of this line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMP_WORDS", line)
        patch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        return (
            BashComplete(typer.main.get_command(app.for_typer()), {}, "vpnctl", "_VPNCTL_COMPLETE")
            .complete()
            .split()
        )
