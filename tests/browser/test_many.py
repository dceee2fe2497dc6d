"""200 tunnels: what the console and the daemon do for one who looks; the figures are printed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Look, Served, visit_of
from tests.browser.test_real import console, ours, wire
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["console", "ours", "wire"]

pytestmark = [pytest.mark.root, pytest.mark.slow]

TUNNELS = 200
WATCHED = 30.0
"""Seconds."""

CLOCK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK


def resident_megabytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_two_hundred_tunnels(chromium: Browser, console: Served, ours: Vpnd, row: TellRow) -> None:
    for number in range(TUNNELS):
        table = {
            "customer_gateway": {"address": f"198.51.{100 + number // 100}.{number % 100 + 1}"},
            "pre_shared_key": "plain:pKz8wTq2mB5vX9cL4nR7jH3gpKz8wTq2",
            "negotiation": "passive",
            "routes": [f"10.{number}.0.0/16"],
            "description": f"office {number}",
        }
        ours.call("PUT", f"/v1/tunnels/office-{number:03}", table)
    context, visit = visit_of(chromium, console, Look(1280, "light", "en"))
    page, pid = visit.page, console.pid
    visit.sign_in()
    pages = []
    for _ in range(5):
        began = cpu_seconds(pid)
        page.goto(console.url)
        pages.append(cpu_seconds(pid) - began)
    assert page.locator("#rows tr").count() == TUNNELS
    visit.picture("many")
    page.goto("about:blank")
    alone = _used(ours, pid)
    page.goto(console.url)
    looking = _used(ours, pid)
    row(
        "console",
        what=f"{TUNNELS} tunnels",
        page=f"{max(pages):.2f} s of the server",
        console=f"{looking[0]:.1f} % of a core, {resident_megabytes(pid):.0f} MB",
        daemon=f"{looking[1]:.1f} %",
        without=f"console {alone[0]:.1f} %, daemon {alone[1]:.1f} %",
    )
    page.fill("[name=q]", "office-17")
    page.wait_for_selector("#rows tr:nth-child(11)", state="detached")
    assert page.locator("#rows tr").count() == 10
    visit.check()
    context.close()


def _used(daemon: Vpnd, pid: int) -> tuple[float, float]:
    """Percent of a core that the console and the daemon take meanwhile."""
    before = cpu_seconds(pid), daemon.cpu_seconds()
    time.sleep(WATCHED)
    after = cpu_seconds(pid), daemon.cpu_seconds()
    return 100 * (after[0] - before[0]) / WATCHED, 100 * (after[1] - before[1]) / WATCHED
