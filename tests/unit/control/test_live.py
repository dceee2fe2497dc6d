"""`vpnctl top` and `vpnctl nqa`: what they draw, and in a terminal of 80 x 24."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from tests.unit.control.conftest import ROOT, Remote, vpnctl
from tests.unit.control.fakes import tunnel_failed, tunnel_up
from tests.unit.control.terminal import Terminal, terminal
from vpnd.control import nqa, plots, top
from vpnd.control.schema import (
    GatewayStatus,
    HealthSample,
    HealthStatus,
    Status,
    TunnelDetail,
    TunnelStatus,
)

SCREENS = Path(__file__).parent / "screens"
"""What the screens look like. To write them again: remove them, and run this."""


@pytest.fixture(autouse=True)
def _utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def same(name: str, lines: list[Text]) -> None:
    """The screen is the one that is kept."""
    text = "".join(line.plain.rstrip() + "\n" for line in lines)
    kept = SCREENS / f"{name}.txt"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(text)
    assert text == kept.read_text()


def status(*tunnels: TunnelStatus) -> dict[str, Any]:
    gateway = GatewayStatus(name="hq", address="192.0.2.1", version="0.1.0", engine="python", uptime_s=3700)
    found: dict[str, Any] = json.loads(
        Status(gateway=gateway, tunnels=list(tunnels), total=len(tunnels)).model_dump_json(by_alias=True)
    )
    return found


def carried(tunnel: dict[str, Any], received: int, sent: int, loss: float = 0.0, rtt: float = 0.7) -> None:
    mapping = tunnel["mappings"][0]
    mapping["bytes_in"] += received
    mapping["bytes_out"] += sent
    if tunnel["health"]:
        tunnel["health"] |= {"loss_percent": loss, "rtt_ms": rtt}


def watched(document: dict[str, Any], seconds: int = 30) -> top.Watched:
    """Traffic that grows and falls, and a path that loses more and more."""
    found = top.Watched()
    for second in range(seconds):
        for number, tunnel in enumerate(document["tunnels"]):
            if tunnel["state"] == "up":
                carried(tunnel, 1000 * (second % 8) * (number + 1), 5_000_000, second, 0.5 + second / 10)
        found.look(float(second), document)
    return found


def test_a_screen_of_eighty_columns() -> None:
    without = tunnel_up("no-health-check", health=None)
    document = status(tunnel_up(), tunnel_failed(), without)
    lines = top.screen(watched(document), 80, 24)
    assert len(lines) == 24
    assert max(line.cell_len for line in lines) <= 80
    same("top", lines)


@pytest.mark.parametrize("first", [0, 10, 999])
def test_forty_tunnels_in_twenty_four_lines(first: int) -> None:
    document = status(*(tunnel_up(f"branch-{number:02}") for number in range(40)))
    lines = top.screen(watched(document), 80, 24, first)
    assert len(lines) == 24
    shown = [line.plain.split()[1] for line in lines[2:-1]]
    begin = min(first, 19)
    assert shown == [f"branch-{number:02}" for number in range(begin, begin + 21)]
    assert f"{begin + 1}-{begin + 21} of 40" in lines[-1].plain
    same(f"top-40-from-{first}", lines)


@pytest.mark.parametrize("width", [20, 40, 76, 81, 120, 300])
@pytest.mark.parametrize("height", [1, 5, 60])
def test_any_size_of_a_terminal(width: int, height: int) -> None:
    name = "\N{CJK UNIFIED IDEOGRAPH-9AA8}" * 60
    lines = top.screen(watched(status(tunnel_up(name), tunnel_failed("x\x1b[31m"))), width, height)
    assert all(line.plain.isprintable() or not line.plain for line in lines)
    assert max(line.cell_len for line in lines) <= width + 45
    if width >= 76:
        assert max(line.cell_len for line in lines) <= width


def test_a_new_sa_begins_to_count_and_no_rate_is_negative() -> None:
    document, found = status(tunnel_up()), top.Watched()
    found.look(0.0, document)
    (tunnel,) = document["tunnels"]
    tunnel["mappings"][0] |= {"spi_in": "00000001", "bytes_in": 4000, "bytes_out": 0}
    found.look(2.0, document)
    assert found.samples("branch-a")[-1].rate_in == 2000
    tunnel["mappings"][0] |= {"bytes_in": 0}
    found.look(3.0, document)
    assert found.samples("branch-a")[-1].rate_in == 0
    document["tunnels"] = []
    found.look(4.0, document)
    with pytest.raises(KeyError):
        found.samples("branch-a")


def test_sparklines() -> None:
    assert plots.sparkline([0, 1, 4, 8], 6) == "   ▁▄█"
    assert plots.sparkline([None, 0.001, 100], 3) == " ▁█"
    assert plots.sparkline([1, 2], 2, plain=True) == "=#"
    assert plots.sparkline([], 3) == "   "
    rows, most = plots.chart([0, 50, 100, None], 2)
    assert (rows, most) == ([" ▁█ ".replace("▁", " "), " ██?"], 100)
    assert [plots.scale(value) for value in (0, 0.7, 3, 100, 101)] == [0.001, 1, 5, 100, 200]


def detail(minutes: Sequence[tuple[int, int, int, float | None]]) -> dict[str, Any]:
    history = [
        {
            "at": f"2026-03-01T14:{minute:02}:00Z",
            "sent": sent,
            "lost": lost,
            "rtt_ms": rtt,
            "jitter_ms": None if rtt is None else rtt / 10,
        }
        for minute, sent, lost, rtt in minutes
    ]
    health = HealthStatus(state="healthy", sent=700, lost=9, local="169.254.128.1", remote="169.254.128.2")
    return {"name": "branch-a", "health": health.model_dump(), "health_history": history}


def test_the_plots_of_the_last_hour() -> None:
    minutes = [
        (minute, 12, 0 if minute < 40 else minute - 40, 10 + minute % 7 if minute != 20 else None)
        for minute in range(52)
        if minute not in (5, 6, 7)
    ]
    lines = nqa.lines(detail(minutes))
    assert len(lines) <= 24
    assert max(line.cell_len for line in lines) <= 80
    same("nqa", lines)


def test_plots_of_little() -> None:
    assert "no probe" in nqa.lines(detail([]))[1].plain
    assert "no health check" in nqa.lines({"name": "x", "health": None, "health_history": []})[0].plain
    assert [line.plain for line in nqa.lines(detail([(3, 12, 0, 4.0)]))][1] == "loss   0 % throughout"
    lost = [line.plain for line in nqa.lines(detail([(3, 12, 12, None)]))]
    assert "rtt     not known: no probe was answered" in lost
    assert any(line.startswith("loss   100 %") for line in lost)


def test_nqa_of_the_program(remote: Remote) -> None:
    at = ("--socket", str(remote.socket))
    assert vpnctl(*at, "nqa", "branch-a").out.startswith("branch-a  healthy")
    assert set(json.loads(vpnctl("--json", *at, "nqa", "branch-a").out)) == {"tunnel", "health", "history"}


def test_top_without_a_terminal_prints_once(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "EVERY", 0.01)
    at = ("--socket", str(remote.socket))
    lines = vpnctl(*at, "top").out.splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["branch-a", "branch-b"]
    document = json.loads(vpnctl("--json", *at, "top").out)
    assert document["tunnels"][0] | {"rtt_ms": 0.7, "rate_in": 0.0} == document["tunnels"][0]


TOP = "from vpnd.control import top; top.EVERY = 3600.0; from vpnd.control.cli import main; main()"
"""One look only: what the screen shows is the same each time."""
MAIN = "from vpnd.control.cli import main; main()"


def in_terminal(program: str, *arguments: object) -> AbstractContextManager[Terminal]:
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
    return terminal([sys.executable, "-c", program, *map(str, arguments)], ROOT, environment | {"TZ": "UTC"})


def kept(name: str, lines: list[str]) -> None:
    same(name, [Text(line) for line in lines])


def test_keys_that_come_together_count_each() -> None:
    assert top.keys_in(b"jj\x1b[B\x1b[6~q") == [b"j", b"j", b"\x1b[B", b"\x1b[6~", b"q"]
    assert top.keys_in(b"\x1b\nq") == [b"\x1b", b"\n", b"q"]


def test_top_in_a_terminal(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 42 tunnels two screens, each line of them whole, and the terminal as it was."""
    for number in range(40):
        name = f"north-{number:02}" if number else "north-of-the-river-and-the-hills"
        tunnel = tunnel_up(name, health=None) if number == 3 else tunnel_up(name)
        monkeypatch.setitem(remote.operations.tunnels, name, tunnel)
    with in_terminal(TOP, "--socket", remote.socket, "top") as shown:
        kept("terminal-top-1", shown.until("1-21 of 42"))
        shown.press(b"\x1b[B\x1b[B\x1b[6~")
        lines = shown.until("22-42 of 42")
        assert any(line.startswith("* north-39 ") for line in lines)
        kept("terminal-top-2", lines)
        shown.press(b"q")
        shown.to_its_end()
        assert shown.process.wait() == 0
        assert not shown.scrolled


@pytest.mark.parametrize("health", ["an hour", "nothing answered", "none yet", "none at all"])
def test_nqa_in_a_terminal(remote: Remote, monkeypatch: pytest.MonkeyPatch, health: str) -> None:
    """With the line of a shell after it, all of it is on one screen."""
    minutes = [
        (minute, 12, max(0, minute - 48), 10 + minute % 7 if minute != 20 else None)
        for minute in range(60)
        if minute not in (5, 6, 7)
    ]
    if health != "an hour":
        minutes = [(3, 12, 12, None)] if health == "nothing answered" else []
    found = detail(minutes)
    told = HealthStatus(**found["health"]) if health != "none at all" else None
    whole = remote.operations.tunnel

    def tunnel(name: str) -> TunnelDetail:
        history = [HealthSample(**one) for one in found["health_history"]]
        return whole(name).model_copy(update={"health": told, "health_history": history})

    monkeypatch.setattr(remote.operations, "tunnel", tunnel)
    with in_terminal(MAIN, "--socket", remote.socket, "nqa", "branch-a") as shown:
        lines = shown.to_its_end()
        assert shown.process.wait() == 0
    assert not shown.scrolled
    assert not lines[-1]
    kept(f"terminal-nqa-{health.replace(' ', '-')}", lines)


def test_nqa_of_one_of_forty_by_a_name_that_is_nearly_right(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        monkeypatch.setitem(remote.operations.tunnels, f"north-{number:02}", tunnel_up(f"north-{number:02}"))
    with in_terminal(MAIN, "--socket", remote.socket, "nqa", "nort-17") as shown:
        lines = shown.to_its_end()
        assert shown.process.wait() == 2
    assert any("north-17" in line for line in lines)
    kept("terminal-nqa-of-forty", lines)
